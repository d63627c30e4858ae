//! Traffic: every byte arrives, in every shape that buffers can have.

use devices::testing::{Buffer, SEAM, Used, wait_for};

use crate::guest::*;

#[test]
fn frames_go_both_ways_under_every_feature_set() {
    let optional = [MRG_RXBUF, EVENT_IDX, INDIRECT_DESC];
    for set in 0..8usize {
        let mut guest = NetGuest::plug("tfs");
        let chosen = optional
            .iter()
            .enumerate()
            .filter(|(i, _)| set >> i & 1 == 1);
        guest.features = VERSION_1 | chosen.map(|(_, feature)| feature).sum::<u64>();
        guest.boot();
        guest.check_traffic();
        guest.check_traffic();
        let counters = guest.control.counters();
        assert_eq!(
            (counters.tx_frames, counters.rx_frames),
            (8, 8),
            "set {set}"
        );
        let bytes = 2 * (14 + 60 + 1514 + MAX_FRAME as u64);
        assert_eq!((counters.tx_bytes, counters.rx_bytes), (bytes, bytes));
        guest.assert_sound();
    }
}

/// Indices wrap at 65536 in both directions, and no kick or interrupt is lost on the way (14).
#[test]
fn seventy_thousand_frames_across_the_index_wrap() {
    let mut guest = NetGuest::start("twrap");
    let mut seed = 0usize;
    while seed < 70_000 {
        let burst = 8;
        for i in 0..burst {
            guest.queue_bytes(&with_header(&pattern(64, seed + i)));
        }
        for i in 0..burst {
            assert_eq!(guest.sent(), pattern(64, seed + i));
            guest.tx.wait_used();
        }
        seed += burst;
    }
    let rounds = 66_000;
    for seed in 0..rounds {
        if guest.rx.room() > 32 {
            // The same memory again and again, or the test would need hundreds of megabytes.
            let address = guest.driver.allocate(0, 1);
            while guest.rx.room() > 0 {
                guest.rx.add(&[Buffer::writable(address, 2048)]);
            }
            guest.driver.kick_if_wanted(&mut guest.rx);
        }
        guest.inject(&pattern(64, seed));
        if seed % 16 == 15 {
            for _ in 0..16 {
                assert_eq!(guest.rx.wait_used().len, 76);
            }
        }
    }
    assert_eq!(guest.control.counters().rx_frames, rounds as u64);
    guest.assert_sound();
}

/// 14: with EVENT_IDX the driver sleeps until its wish is met; it never sleeps for ever.
#[test]
fn no_interrupt_is_lost() {
    let mut guest = NetGuest::start("tirq");
    for seed in 0..300 {
        guest.tx.set_used_event(guest.tx.used_idx());
        guest.queue_bytes(&with_header(&pattern(64, seed)));
        // May be a late one of the entry before.
        while guest.tx.take_used().is_none() {
            assert_eq!(guest.driver.wait_interrupt() & !1, 0);
        }
        guest.sent();
    }
    assert!(guest.control.counters().interrupts <= 300);
}

/// 16: the header may be cut anywhere, also away from the frame.
#[test]
fn transmit_header_and_frame_split_at_every_byte() {
    let mut guest = NetGuest::start("tsplit");
    let frame = pattern(40, 3);
    let bytes = with_header(&frame);
    for cut in 1..bytes.len() {
        let [one, two] = [guest.driver.allocate(cut, 1), guest.driver.allocate(64, 64)];
        let (head, tail) = bytes.split_at(cut);
        guest.driver.write_memory(one, head);
        guest.driver.write_memory(two, tail);
        let len = |part: &[u8]| u32::try_from(part.len()).unwrap();
        guest.tx.add(&[
            Buffer::readable(one, len(head)),
            Buffer::readable(two, len(tail)),
        ]);
        guest.driver.kick_if_wanted(&mut guest.tx);
        guest.tx.wait_used();
        assert_eq!(guest.sent(), frame, "cut at {cut}");
    }
    // One byte a buffer.
    let address = guest.driver.allocate(bytes.len(), 1);
    guest.driver.write_memory(address, &bytes);
    let buffers: Vec<_> = (0..bytes.len() as u64)
        .map(|i| Buffer::readable(address + i, 1))
        .collect();
    guest.tx.add(&buffers);
    guest.driver.kick_if_wanted(&mut guest.tx);
    guest.tx.wait_used();
    assert_eq!(guest.sent(), frame);
}

/// The same for what the guest receives: the buffers of one chain may be cut anywhere.
#[test]
fn receive_chains_split_at_every_byte() {
    let mut guest = NetGuest::start("trsplit");
    let frame = pattern(40, 4);
    for cut in 1..52u32 {
        let address = guest.driver.allocate(52, 1);
        let other = guest.driver.allocate(52, 1);
        guest.rx.add(&[
            Buffer::writable(address, cut),
            Buffer::writable(other, 52 - cut),
        ]);
        guest.driver.kick_if_wanted(&mut guest.rx);
        guest.inject(&frame);
        assert_eq!(guest.rx.wait_used().len, 52);
        let mut bytes = guest.driver.read_memory(address, cut as usize);
        bytes.extend(guest.driver.read_memory(other, 52 - cut as usize));
        assert_eq!(bytes[12..], frame, "cut at {cut}");
        assert_eq!(bytes[..12], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    }
}

/// 7: a buffer that validly crosses regions works, both ways.
#[test]
fn buffers_may_cross_regions() {
    let mut guest = NetGuest::start("tseam");
    let frame = pattern(1000, 5);
    let start = SEAM - 500;
    guest.driver.write_memory(start, &with_header(&frame));
    guest.tx.add(&[Buffer::readable(start, 1012)]);
    guest.driver.kick_if_wanted(&mut guest.tx);
    assert_eq!(guest.sent(), frame);
    guest.rx.add(&[Buffer::writable(start, 1012)]);
    guest.driver.kick_if_wanted(&mut guest.rx);
    let frame = pattern(1000, 6);
    guest.inject(&frame);
    assert_eq!(guest.rx.wait_used().len, 1012);
    assert_eq!(guest.driver.read_memory(start + 12, 1000), frame);
}

/// A frame over many small buffers, and back ends that hand it over in fragments.
#[test]
fn received_frames_are_spread_over_buffers() {
    use devices::virtio::net::loopback::Loopback;
    for fragment in [50, 64, 999, MAX_FRAME] {
        let (near, wire) = Loopback::pair(MAX_FRAME).unwrap();
        let (near, wire) = (near.with_fragments(fragment), wire.with_fragments(fragment));
        let mut guest = NetGuest::plug_on("tmrg", near, wire);
        guest.boot();
        for (seed, len) in [14, 88, 89, 100, 188, 189, 1514, MAX_FRAME]
            .into_iter()
            .enumerate()
        {
            let frame = pattern(len, seed);
            for _ in 0..(len + HEADER).div_ceil(100) {
                guest.post(100);
            }
            guest.inject(&frame);
            assert_eq!(
                guest.received(),
                frame,
                "{len} bytes in fragments of {fragment}"
            );
            assert_eq!(
                guest.rx.room(),
                usize::from(QUEUE_SIZE),
                "no buffer too many"
            );
            guest.transmit(&frame);
            assert_eq!(guest.sent(), frame);
        }
    }
}

/// 24: too few buffers: nothing is published, and the frame is not lost.
#[test]
fn a_frame_waits_until_there_are_enough_buffers() {
    for (name, without) in [("t24", 0), ("t24flags", EVENT_IDX)] {
        let mut guest = NetGuest::plug(name);
        guest.features &= !without;
        guest.boot();
        let frame = pattern(1000, 7);
        guest.inject(&frame);
        for posted in 0..10 {
            wait_for("the worker to stop", || {
                (guest.control.counters().rx_starved > 0).then_some(())
            });
            assert_eq!(guest.rx.used_idx(), 0, "{posted} of 11 buffers");
            guest.post(100);
        }
        assert_idle(name);
        assert_eq!(guest.rx.used_idx(), 0);
        guest.post(100);
        assert_eq!(guest.received(), frame);
        assert_eq!(guest.control.counters().rx_frames, 1);
        guest.check_traffic();
    }
}

/// 16, 17 (what is not offered), 28: dropped, counted, and the queue goes on.
#[test]
fn frames_that_cannot_be_sent_are_dropped() {
    let mut guest = NetGuest::start("tdrop");
    let frame = pattern(100, 8);
    for len in [1, HEADER - 1, HEADER, HEADER + 13] {
        guest.queue_bytes(&with_header(&frame)[..len]);
        guest.tx.wait_used();
    }
    assert_eq!(guest.control.counters().tx_too_short, 4);
    guest.features &= VERSION_1 | MRG_RXBUF | EVENT_IDX;
    guest.boot();
    let mut asked = with_header(&frame);
    for (at, value) in [(0, 1), (1, 1), (1, 3), (1, 4), (1, 5), (1, 0x81), (1, 0xff)] {
        asked[..2].fill(0);
        asked[at] = value;
        guest.queue_bytes(&asked);
        guest.tx.wait_used();
    }
    assert_eq!(guest.control.counters().tx_bad_offload, 7);
    let address = guest.driver.allocate(MAX_FRAME + 1 + HEADER, 1);
    guest.tx.add(&[Buffer::readable(
        address,
        u32::try_from(MAX_FRAME + 1 + HEADER).unwrap(),
    )]);
    guest.driver.kick_if_wanted(&mut guest.tx);
    guest.tx.wait_used();
    assert_eq!(guest.control.counters().tx_too_long, 1);
    assert!(guest.wire_is_empty());
    assert_eq!(guest.control.counters().tx_frames, 0);
    guest.check_traffic();
}

/// 23, 28: buffers that are too small for the header, and frames that are too long for any.
#[test]
fn frames_that_cannot_be_received_are_dropped() {
    let mut guest = NetGuest::start("t23");
    for len in [1, 5, 11] {
        guest.post(len);
        guest.inject(&pattern(64, 9));
        assert_eq!(guest.rx.wait_used().len, 0);
    }
    assert_eq!(guest.control.counters().rx_bad_buffer, 3);

    // All buffers that the ring can hold are not enough for it.
    for _ in 0..QUEUE_SIZE {
        guest.post(13);
    }
    guest.inject(&pattern(1000, 9));
    wait_for("the drop", || {
        (guest.control.counters().rx_too_long == 1).then_some(())
    });
    assert_eq!(guest.rx.used_idx(), 3, "the buffers stay posted");
    guest.inject(&pattern(20, 10));
    assert_eq!(guest.received(), pattern(20, 10));

    guest.features &= !MRG_RXBUF;
    guest.boot();
    guest.post(1000);
    guest.inject(&pattern(989, 11));
    guest.inject(&pattern(988, 12));
    assert_eq!(guest.rx.wait_used(), Used { head: 0, len: 1000 });
    assert_eq!(guest.control.counters().rx_too_long, 2);
    guest.check_traffic();
}

/// 22: a header that changes all the time is judged once: a frame is sent or dropped, never both.
#[test]
fn a_changing_header_is_read_once() {
    let mut guest = NetGuest::start("t22");
    let frame = with_header(&pattern(60, 13));
    let address = guest.driver.allocate(frame.len(), 1);
    guest.driver.write_memory(address, &frame);
    let ram = guest.driver.ram().clone();
    let ender = Ender::default();
    std::thread::scope(|scope| {
        let _guard = ender.guard();
        scope.spawn(|| {
            use vm_memory::{Bytes, GuestAddress};
            let mut flags = 0u8;
            while ender.goes_on() {
                flags ^= 1;
                ram.write_obj(flags, GuestAddress(address)).unwrap();
            }
        });
        for _ in 0..2000 {
            guest.tx.add(&[Buffer::readable(address, 72)]);
            guest.driver.kick_if_wanted(&mut guest.tx);
            guest.tx.wait_used();
            while take(&mut guest.wire).is_some() {}
        }
    });
    let counters = guest.control.counters();
    assert_eq!(counters.tx_frames + counters.tx_bad_offload, 2000);
    assert_eq!(counters.guest_faults, 0);
}
