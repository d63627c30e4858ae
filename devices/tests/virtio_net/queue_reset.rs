//! Single queues are reset, and enabled again, while the card works (VIRTIO_F_RING_RESET; virtio 1.2, 2.6.1).

use std::{thread, time::Duration};

use devices::{
    testing::{Buffer, HOLE, register, status, wait_for},
    virtio::net::NetBackend,
};

use crate::{guest::*, pairs_guest::*};

/// Long enough for what should not come to come.
const A_WHILE: Duration = Duration::from_millis(50);

/// The queues of a pair, behind twice its number.
pub(crate) const SIDES: [u16; 2] = [RX, TX];

pub(crate) fn index(pair: usize, side: u16) -> u16 {
    2 * u16::try_from(pair).unwrap() + side
}

/// Gives the card a queue of that size, which it does not have; the buffers of a receive queue are posted again.
pub(crate) fn enable<W: NetBackend>(guest: &mut PairsGuest<W>, pair: usize, side: u16, size: u16) {
    let mut rings = guest.driver.queue(index(pair, side), size);
    let its = &mut guest.pairs[pair];
    if side == TX {
        its.tx = rings;
        return;
    }
    let post = |address| {
        (
            rings.add(&[Buffer::writable(address, BUFFER)]).into(),
            address,
        )
    };
    its.buffers = std::mem::take(&mut its.buffers)
        .into_values()
        .map(post)
        .collect();
    its.rx = rings;
    guest.driver.kick_if_wanted(&mut guest.pairs[pair].rx);
}

pub(crate) fn renew<W: NetBackend>(guest: &mut PairsGuest<W>, pair: usize, side: u16, size: u16) {
    guest.driver.reset_queue(index(pair, side));
    enable(guest, pair, side, size);
}

/// What `ethtool -G` does.
#[test]
fn a_queue_comes_back_with_another_size() {
    for count in [1, 2] {
        let mut guest = PairsGuest::start("tqrsize", count);
        assert_eq!(guest.set_pairs(count), if count > 1 { OK } else { ERR });
        for size in [32, 256, 1024, QUEUE_SIZE] {
            for pair in 0..count {
                for side in SIDES {
                    renew(&mut guest, pair, side, size);
                    guest.check_traffic(count);
                }
            }
        }
        // The control queue too.
        guest.driver.reset_queue(index(count, 0));
        guest.check_traffic(count);
        guest.ctrl = guest.driver.queue(index(count, 0), 32);
        assert_eq!(guest.command(&[0, 1, 1]), OK, "all groups");
        assert_eq!(guest.driver.status(), 15, "all is well");
        guest.assert_sound();
    }
}

/// A queue's registers are as after a reset of the device.
#[test]
fn the_registers_are_as_at_first() {
    let mut guest = PairsGuest::start("tqrregs", 1);
    guest.driver.reset_queue(TX);
    assert_eq!(guest.driver.read(register::QUEUE_NUM_MAX), 1024);
    // It goes on where a fresh driver's begins, not where the old one was.
    enable(&mut guest, 0, TX, 32);
    guest.check_traffic(1);
    assert_eq!(guest.pairs[0].tx.used_idx(), 2);
    // As long as it is enabled its registers can't be changed.
    guest.driver.write(register::QUEUE_SEL, TX.into());
    guest.driver.write(register::QUEUE_NUM, 256);
    guest.driver.write(register::QUEUE_DESC, 0x10);
    guest.check_traffic(1);
    guest.assert_sound();
}

/// The pair's other queue and the other pair work meanwhile; what arrives for the queue waits for it.
#[test]
fn the_other_queues_go_on_and_nothing_is_lost() {
    let mut guest = PairsGuest::start("tqrgo", 2);
    assert_eq!(guest.set_pairs(2), OK);
    for round in 0..20 {
        guest.driver.reset_queue(index(0, RX));
        for seed in 0..20 {
            send(&mut guest.wires[0], &pattern(60, seed + round));
        }
        for pair in 0..2 {
            guest.check_sent(pair, &pattern(700, round));
        }
        guest.check_received(1, 1, &pattern(900, round));
        assert_eq!(guest.command(&[0, 1, 1]), OK, "a command");
        assert_idle_if(round == 0, "tqrgo");
        enable(&mut guest, 0, RX, QUEUE_SIZE);
        for seed in 0..20 {
            let frame = wait_for("what waited", || guest.take_received(0));
            assert_eq!(frame, pattern(60, seed + round));
        }
        guest.driver.reset_queue(index(1, TX));
        guest.check_sent(0, &pattern(700, round));
        for pair in 0..2 {
            guest.check_received(pair, pair, &pattern(900, round));
        }
        assert_idle_if(round == 0, "tqrgo.1");
        enable(&mut guest, 1, TX, QUEUE_SIZE);
        guest.check_traffic(2);
    }
    let counters = guest.control.counters();
    assert_eq!((counters.tx_inactive, counters.guest_faults), (0, 0));
    guest.assert_sound();
}

fn assert_idle_if(look: bool, thread: &str) {
    if look {
        assert_idle(thread);
    }
}

/// 35: the rings and the buffers of queues that were reset are the driver's: nothing is read there, nothing written,
/// and no interrupt comes.
#[test]
fn queues_that_were_reset_are_not_touched() {
    let mut guest = PairsGuest::start("tqrdead", 1);
    guest.check_traffic(1);
    for side in SIDES {
        guest.driver.reset_queue(side);
    }
    let garbage = [0xee; 1024];
    let places = [&guest.pairs[0].rx, &guest.pairs[0].tx].map(|queue| queue.addresses());
    let buffers: Vec<_> = guest.pairs[0].buffers.values().copied().collect();
    for &place in places.iter().flatten().chain(&buffers) {
        guest.driver.write_memory(place, &garbage[..128]);
    }
    while guest.driver.interrupted() {}
    for seed in 0..10 {
        send(&mut guest.wires[0], &pattern(60, seed));
        guest.driver.kick(RX);
        guest.driver.kick(TX);
    }
    thread::sleep(A_WHILE);
    for &place in places.iter().flatten().chain(&buffers) {
        assert_eq!(guest.driver.read_memory(place, 128), garbage[..128]);
    }
    assert!(!guest.driver.interrupted());
    assert_eq!(guest.driver.status(), 15);
    for side in SIDES {
        enable(&mut guest, 0, side, QUEUE_SIZE);
    }
    for seed in 0..10 {
        let frame = wait_for("what waited", || guest.take_received(0));
        assert_eq!(frame, pattern(60, seed));
    }
    guest.check_traffic(1);
    guest.assert_sound();
}

/// 30: of queues that are none, of queues that were never enabled, twice, by other values, before DRIVER_OK.
#[test]
fn resets_that_mean_nothing_are_ignored() {
    let mut guest = PairsGuest::start("tqr30", 2);
    for none in [5, 7, 100, 0xffff] {
        guest.driver.reset_queue(none);
        guest.driver.write(register::QUEUE_READY, 1);
        assert_eq!(guest.driver.read(register::QUEUE_READY), 0);
    }
    guest.driver.write(register::QUEUE_SEL, 0);
    for value in [0, 2, 3, 0xffff, 0x1_0001] {
        guest.driver.write(register::QUEUE_RESET, value);
        assert_eq!(guest.driver.read(register::QUEUE_READY), 1, "{value:#x}");
    }
    guest.check_traffic(1);
    for _ in 0..3 {
        guest.driver.reset_queue(RX);
    }
    enable(&mut guest, 0, RX, 32);
    guest.check_traffic(1);

    // Before DRIVER_OK it is as if the queue had not been configured.
    assert!(guest.driver.negotiate(guest.features));
    guest.driver.queue(RX, 16);
    guest.driver.reset_queue(RX);
    guest.boot();
    guest.check_traffic(1);

    // Nor without having been asked for.
    guest.features &= !RING_RESET;
    guest.boot();
    guest.driver.write(register::QUEUE_SEL, 0);
    guest.driver.write(register::QUEUE_RESET, 1);
    assert_eq!(guest.driver.read(register::QUEUE_READY), 1);
    assert_eq!(guest.driver.read(register::QUEUE_RESET), 0);
    guest.check_traffic(1);
    guest.assert_sound();
}

/// Pairs that the driver left out at first can be used once both their queues are there, and those that it takes apart
/// can't.
#[test]
fn a_pair_is_used_when_both_its_queues_are_there() {
    let mut guest = PairsGuest::start("tqrpair", 2);
    guest.boot_with(1);
    assert_eq!(guest.set_pairs(2), ERR);
    guest.driver.reset_queue(index(1, RX));
    let pair = guest.new_pair(1);
    guest.pairs.push(pair);
    assert_eq!(guest.set_pairs(2), OK);
    guest.check_traffic(2);
    assert_eq!(guest.set_pairs(1), OK);
    guest.check_traffic(1);
    guest.driver.reset_queue(index(1, TX));
    assert_eq!(guest.set_pairs(2), ERR);
    guest.check_traffic(1);
    renew(&mut guest, 0, RX, 32);
    guest.check_traffic(1);
    enable(&mut guest, 1, TX, 32);
    assert_eq!(guest.set_pairs(2), OK);
    guest.check_traffic(2);
    guest.assert_sound();
}

/// 9: rings that can't be, the second time; and rings that are nowhere.
#[test]
fn misplaced_rings_are_refused_the_second_time_too() {
    let mut guest = PairsGuest::start("tqr9", 2);
    assert_eq!(guest.set_pairs(2), OK);
    guest.driver.reset_queue(index(1, TX));
    guest.driver.write(register::QUEUE_READY, 1);
    assert_eq!(guest.driver.status(), 15, "as if it were not enabled");
    guest.driver.reset_queue(index(1, TX));
    let mut rings = guest.driver.rings(index(1, TX), 32);
    rings.relocate(1, HOLE);
    guest.driver.enable(&rings);
    guest.driver.wait_needs_reset();
    guest.check_sent(0, &pattern(60, 1));
    for wire in 0..2 {
        guest.check_received(wire, wire, &pattern(60, 2));
    }
    guest.boot();
    guest.check_traffic(1);
    guest.assert_sound();
}

/// A queue that was stopped by a broken rule works again; the device is to be reset all the same.
#[test]
fn a_reset_starts_a_stopped_queue_again() {
    let mut guest = PairsGuest::start("tqrstop", 1);
    guest.pairs[0].tx.offer(0xffff);
    guest.driver.kick(TX);
    guest.driver.wait_needs_reset();
    renew(&mut guest, 0, TX, 32);
    guest.check_traffic(1);
    assert_eq!(guest.driver.status(), 15 | status::NEEDS_RESET);
    guest.driver.reset_queue(RX);
    guest.boot();
    guest.check_traffic(1);
    guest.assert_sound();
}

/// A queue's own setting goes with it, that of all stays.
#[test]
fn coalescing_is_as_for_all_queues_again() {
    const GET: u8 = 3;
    let mut guest = PairsGuest::start("tqrcoal", 1);
    let get = |guest: &mut PairsGuest, queue: u8| {
        let written = guest.command_with_room(&[6, GET, queue, 0, 0, 0], 9);
        (written[0], written[1..].to_vec())
    };
    let words = |packets: u32, usecs: u32| [packets.to_le_bytes(), usecs.to_le_bytes()].concat();
    for (side, queue) in SIDES.into_iter().zip([0, 1]) {
        let own = [&[6, 2, queue, 0, 0, 0][..], &words(9, 99)].concat();
        assert_eq!(guest.command(&own), OK);
        renew(&mut guest, 0, side, 32);
        assert_eq!(get(&mut guest, queue), (OK, words(0, 0)));
        // Number 0 is of transmit queues, 1 of receive queues.
        assert_eq!(
            guest.command(&[&[6, 1 - queue][..], &words(5, 55)].concat()),
            OK
        );
        assert_eq!(guest.command(&own), OK);
        renew(&mut guest, 0, side, 32);
        assert_eq!(get(&mut guest, queue), (OK, words(5, 55)));
    }
    guest.boot();
    renew(&mut guest, 0, RX, 32);
    assert_eq!(
        get(&mut guest, 0),
        (OK, words(0, 0)),
        "forgotten by a reset"
    );
    guest.assert_sound();
}
