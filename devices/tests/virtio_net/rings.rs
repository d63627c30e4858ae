//! A driver that breaks the rules of a live queue.

use std::thread;

use devices::{
    testing::{Buffer, Descriptor, HOLE, RAM_END, wait_for},
    virtio::net::NetBackend,
};

use crate::guest::*;

const NEXT: u16 = Descriptor::NEXT;
const WRITE: u16 = Descriptor::WRITE;
const INDIRECT: u16 = Descriptor::INDIRECT;

fn descriptor(address: u64, len: u32, flags: u16, next: u16) -> Descriptor {
    Descriptor {
        address,
        len,
        flags,
        next,
    }
}

/// Each must stop the transmit queue with DEVICE_NEEDS_RESET and a configuration interrupt, leave
/// the receive queue alone, and be forgotten after a reset.
fn stops_transmit(name: &str, misbehave: impl Fn(&mut NetGuest)) {
    let mut guest = NetGuest::start("tstop");
    misbehave(&mut guest);
    guest.driver.kick(TX);
    guest.driver.wait_needs_reset();
    assert_eq!(guest.driver.wait_interrupt() & 2, 2, "{name}");
    assert_eq!(guest.control.counters().guest_faults, 1, "{name}");
    assert!(guest.wire_is_empty(), "{name}");

    guest.post(2048);
    guest.inject(&pattern(64, 1));
    assert_eq!(
        guest.received(),
        pattern(64, 1),
        "{name}: the other queue lives"
    );
    // Kicks of the dead queue change nothing.
    for _ in 0..100 {
        guest.driver.kick(TX);
    }
    assert_eq!(guest.control.counters().guest_faults, 1, "{name}");

    guest.boot();
    guest.check_traffic();
    guest.assert_sound();
}

/// Offers descriptor 0 of the transmit queue as it is.
fn offer(guest: &mut NetGuest, first: Descriptor) {
    guest.tx.set_descriptor(0, first);
    guest.tx.offer(0);
}

/// Offers descriptor 0 as an indirect table with these contents.
fn offer_table(guest: &mut NetGuest, len: u32, flags: u16, table: &[Descriptor]) {
    let bytes: Vec<u8> = table.iter().flat_map(|d| d.to_bytes()).collect();
    let address = guest.driver.allocate(bytes.len(), 16);
    guest.driver.write_memory(address, &bytes);
    offer(guest, descriptor(address, len, INDIRECT | flags, 1));
}

/// 1
#[test]
fn loops_stop_the_queue() {
    stops_transmit("self-loop", |guest| {
        offer(guest, descriptor(0x1000, 1, NEXT, 0))
    });
    stops_transmit("loop of two", |guest| {
        guest.tx.set_descriptor(1, descriptor(0x1000, 0, NEXT, 0));
        offer(guest, descriptor(0x1000, 1, NEXT, 1));
    });
    stops_transmit("a table longer than the ring", |guest| {
        let next = |i: u16| descriptor(0x1000, 1, NEXT, i + 1);
        let table: Vec<_> = (0..=QUEUE_SIZE).map(next).collect();
        offer_table(guest, 16 * u32::from(QUEUE_SIZE + 1), 0, &table);
    });
}

/// 2, 12
#[test]
fn impossible_available_indices_stop_the_queue() {
    stops_transmit("one too far", |guest| {
        guest.tx.set_avail_idx(QUEUE_SIZE + 1)
    });
    stops_transmit("far too far", |guest| guest.tx.set_avail_idx(0x8000));
    stops_transmit("back", |guest| {
        guest.transmit(&pattern(64, 1));
        guest.sent();
        guest.tx.set_avail_idx(0);
    });
}

/// 3
#[test]
fn indices_outside_the_table_stop_the_queue() {
    stops_transmit("entry", |guest| guest.tx.offer(QUEUE_SIZE));
    stops_transmit("entry", |guest| guest.tx.offer(0xffff));
    stops_transmit("next", |guest| {
        offer(guest, descriptor(0x1000, 1, NEXT, QUEUE_SIZE))
    });
}

/// 4
#[test]
fn broken_indirect_tables_stop_the_queue() {
    let buffer = descriptor(0x1000, 64, 0, 0);
    stops_transmit("nested", |guest| {
        offer_table(guest, 16, 0, &[descriptor(0x1000, 16, INDIRECT, 0)]);
    });
    stops_transmit("empty", |guest| offer_table(guest, 0, 0, &[buffer]));
    stops_transmit("odd length", |guest| offer_table(guest, 17, 0, &[buffer]));
    stops_transmit("with NEXT", |guest| {
        guest.tx.set_descriptor(1, buffer);
        offer_table(guest, 16, NEXT, &[buffer]);
    });
    stops_transmit("next outside", |guest| {
        offer_table(guest, 16, 0, &[descriptor(0x1000, 64, NEXT, 1)]);
    });
    stops_transmit("outside RAM", |guest| {
        offer(guest, descriptor(HOLE, 16, INDIRECT, 0))
    });
    stops_transmit("at the end of the addresses", |guest| {
        offer(guest, descriptor(u64::MAX - 7, 32, INDIRECT, 0));
    });
}

/// 5: a table that changes while it is walked: each descriptor is read once, so a frame is as long as one of the
/// two lengths, and its bytes are its own.
#[test]
fn a_changing_indirect_table_is_read_once() {
    let mut guest = NetGuest::start("t5");
    let (short, long) = (40u32, 60u32);
    let frame = pattern(60, 5);
    let bytes = with_header(&frame);
    let address = guest.driver.allocate(bytes.len(), 1);
    guest.driver.write_memory(address, &bytes);
    let table = guest.driver.allocate(32, 16);
    let parts = [
        descriptor(address, 12, NEXT, 1),
        descriptor(address + 12, short, 0, 0),
    ];
    for (at, part) in (table..).step_by(16).zip(parts) {
        guest.driver.write_memory(at, &part.to_bytes());
    }
    let ram = guest.driver.ram().clone();
    let ender = Ender::default();
    let mut sent = [0; 2];
    thread::scope(|scope| {
        let _guard = ender.guard();
        scope.spawn(|| {
            use vm_memory::{Bytes, GuestAddress};
            let mut len = short;
            while ender.goes_on() {
                len ^= short ^ long;
                ram.write_obj(len, GuestAddress(table + 16 + 8)).unwrap();
            }
        });
        // Until both lengths were seen, so that the change was really met.
        wait_for("frames of both lengths", || {
            for _ in 0..500 {
                // Many at a time, so that the thread walks while the table changes.
                guest
                    .tx
                    .set_descriptor(0, descriptor(table, 32, INDIRECT, 0));
                (0..32).for_each(|_| guest.tx.offer(0));
                guest.driver.kick(TX);
                for _ in 0..32 {
                    let got = guest.sent();
                    assert!(got == frame || got == frame[..40], "{got:x?}");
                    sent[usize::from(got.len() == 60)] += 1;
                    guest.tx.wait_used();
                }
            }
            sent.iter().all(|&count| count > 100).then_some(())
        });
    });
    let counters = guest.control.counters();
    assert_eq!((counters.guest_faults, counters.tx_too_short), (0, 0));
    guest.boot();
    guest.check_traffic();
    guest.assert_sound();
}

/// 6: zero lengths are dropped like any frame without a header; sums over 2^32 stop the queue.
#[test]
fn lengths_are_checked() {
    stops_transmit("more than 4 GiB", |guest| {
        guest
            .tx
            .set_descriptor(1, descriptor(0x1000, u32::MAX, 0, 0));
        offer(guest, descriptor(0x1000, 16, NEXT, 1));
    });
    stops_transmit("4 GiB - 1", |guest| {
        offer(guest, descriptor(0x1000, u32::MAX, 0, 0))
    });
    let mut guest = NetGuest::start("t6");
    guest
        .tx
        .add(&[Buffer::readable(0x1000, 0), Buffer::readable(HOLE, 0)]);
    guest.driver.kick_if_wanted(&mut guest.tx);
    guest.tx.wait_used();
    assert_eq!(guest.control.counters().tx_too_short, 1);
    guest.check_traffic();
}

/// 7, 36
#[test]
fn buffers_outside_ram_stop_the_queue() {
    for (address, len) in [
        (HOLE, 64),
        (RAM_END, 1),
        (RAM_END - 32, 64),
        (u64::MAX - 63, 64),
        (u64::MAX, 64),
        // Where a VMM might have put the device's own registers.
        (0xd000_0000, 4),
    ] {
        stops_transmit("outside", |guest| {
            offer(guest, descriptor(address, len, 0, 0))
        });
    }
}

/// 8
#[test]
fn buffers_of_the_wrong_direction_stop_the_queue() {
    stops_transmit("writable", |guest| {
        offer(guest, descriptor(0x1000, 64, WRITE, 0))
    });
    stops_transmit("writable tail", |guest| {
        guest.tx.set_descriptor(1, descriptor(0x2000, 64, WRITE, 0));
        offer(guest, descriptor(0x1000, 64, NEXT, 1));
    });
    stops_transmit("wrong order", |guest| {
        guest.tx.set_descriptor(1, descriptor(0x2000, 64, 0, 0));
        offer(guest, descriptor(0x1000, 64, NEXT | WRITE, 1));
    });

    let mut guest = NetGuest::start("t8");
    let address = guest.driver.allocate(2048, 1);
    guest.driver.write_memory(address, &[0xaa; 2048]);
    guest.rx.add(&[Buffer::readable(address, 2048)]);
    guest.driver.kick_if_wanted(&mut guest.rx);
    guest.inject(&pattern(64, 2));
    guest.driver.wait_needs_reset();
    assert_eq!(
        guest.driver.read_memory(address, 2048),
        [0xaa; 2048],
        "not written"
    );
    guest.transmit(&pattern(64, 3));
    assert_eq!(guest.sent(), pattern(64, 3), "the other queue lives");
    // A frame that nobody will ever take keeps the socket readable.
    guest.inject(&pattern(64, 2));
    assert_idle("t8");
    guest.boot();
    guest.check_traffic();
    guest.assert_sound();
}

/// 11: a guest that never stops transmitting does not keep the others waiting.
#[test]
fn an_endless_queue_does_not_starve_the_rest() {
    let mut guest = NetGuest::start("t11");
    let ender = Ender::default();
    // One chain, offered for ever: bad header, so that the wire is no brake.
    let address = guest.driver.allocate(64, 1);
    let head = guest.tx.add(&[Buffer::readable(address, 4)]);
    let kick = guest.driver.kick_fd(TX);
    let mut rings = std::mem::replace(&mut guest.tx, guest.driver.rings(TX, QUEUE_SIZE));
    thread::scope(|scope| {
        let _guard = ender.guard();
        scope.spawn(|| {
            while ender.goes_on() {
                // As full as the ring can legally be.
                while rings.avail_idx().wrapping_sub(rings.used_idx()) < QUEUE_SIZE {
                    rings.offer(head);
                }
                kick.write(1).unwrap();
            }
        });
        for seed in 0..200 {
            guest.post(2048);
            guest.inject(&pattern(64, seed));
            assert_eq!(guest.received(), pattern(64, seed));
        }
        wait_for("the endless queue", || {
            (guest.control.counters().tx_too_short > 1000).then_some(())
        });
        // Reset returns, although there is always more.
        guest.driver.write(devices::testing::register::STATUS, 0);
        assert_eq!(guest.driver.status(), 0);
    });
    guest.boot();
    guest.check_traffic();
}

/// 15: kicks that mean nothing are ignored, and the thread sleeps.
#[test]
fn meaningless_kicks_are_ignored() {
    let mut guest = NetGuest::plug("t15");
    for queue in [0, 1, 2, 3, 0x100, 0xffff] {
        guest.driver.kick(queue);
    }
    guest.boot();
    for _ in 0..10_000 {
        guest.driver.kick(TX);
        guest.driver.kick(RX);
        guest
            .driver
            .write(devices::testing::register::QUEUE_NOTIFY, 0xffff_ffff);
    }
    assert_idle("t15");
    assert_eq!(guest.control.counters().guest_faults, 0);
    guest.check_traffic();
}

/// 54: no receive buffers: what arrives waits and is then lost in the kernel; transmit goes on.
#[test]
fn transmit_goes_on_without_receive_buffers() {
    let mut guest = NetGuest::start("t54");
    let sent = flood(&mut guest);
    for seed in 0..100 {
        guest.transmit(&pattern(64, seed));
        assert_eq!(guest.sent(), pattern(64, seed));
    }
    assert_idle("t54");
    assert_eq!(guest.control.counters().rx_starved, 1);
    assert_eq!(guest.rx.used_idx(), 0);
    for _ in 0..sent {
        // The last one waits at the far end for the others to be taken.
        let _ = guest.wire.flush();
        guest.post(2048);
        assert_eq!(guest.received(), pattern(64, 77));
    }
    guest.check_traffic();
}

/// The wire's far end takes nothing: the queue waits, without spinning, and loses nothing.
#[test]
fn transmit_waits_for_a_full_wire() {
    let mut guest = NetGuest::start("tfull");
    let mut sent = 0usize;
    // As long as chains come back there is room somewhere.
    while guest.control.counters().tx_blocked == 0 {
        if guest.tx.room() > 0 {
            guest.queue_bytes(&with_header(&pattern(100, sent)));
            sent += 1;
        }
        while guest.tx.take_used().is_some() {}
    }
    assert_idle("tfull");
    for seed in 0..sent {
        assert_eq!(guest.sent(), pattern(100, seed));
    }
    wait_for("the last buffers", || {
        while guest.tx.take_used().is_some() {}
        (guest.tx.room() == usize::from(QUEUE_SIZE)).then_some(())
    });
    assert_eq!(guest.control.counters().tx_frames, sent as u64);
    guest.check_traffic();
}

/// Sends as many frames as the wire holds; returns how many.
pub(crate) fn flood(guest: &mut NetGuest) -> usize {
    let mut sent = 0;
    loop {
        let frame = pattern(64, 77);
        guest
            .wire
            .send(64, |buffer| buffer.copy_from_slice(&frame))
            .unwrap();
        sent += 1;
        if guest.wire.flush().is_err() {
            // The last one is still queued at the far end and goes out later.
            return sent;
        }
    }
}
