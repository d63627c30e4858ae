//! 59: Bus Master Enable (PCI 3.0, 6.2.2): without it the function touches no memory and sends no message, and with it
//! again goes on as if nothing had been.

use std::{thread, time::Duration};

use devices::testing::{Buffer, register, status, wait_for};

use net_afxdp::AttachMode;

use crate::{
    afxdp::{ip, veth},
    guest::*,
    in_place,
    pairs_guest::*,
};

/// Long enough for what should not come to come.
const A_WHILE: Duration = Duration::from_millis(50);
/// Vectors: of configuration changes, and of the transmit queue.
const CONFIG_VECTOR: usize = 0;
const TX_VECTOR: usize = TX as usize + 1;

/// All of the memory that a device of a small test can reach.
fn memory(guest: &NetGuest) -> Vec<u8> {
    guest.driver.read_memory(0x1000, 1 << 20)
}

#[test]
fn without_it_nothing_moves_and_with_it_nothing_is_missing() {
    let mut guest = NetGuest::start("tbm");
    guest.check_traffic();
    for round in 0..20 {
        for _ in 0..4 {
            guest.post(2000);
        }
        guest.driver.pci().set_bus_master(false);
        // Some of what the driver and the wire have to do they do before, and some meanwhile.
        let frames: Vec<_> = (0..4).map(|n| pattern(60 + n, round)).collect();
        for frame in &frames {
            guest.queue_bytes(&with_header(frame));
            guest.inject(frame);
        }
        guest.driver.kick(TX);
        let before = memory(&guest);
        thread::sleep(A_WHILE / 20);
        assert!(before == memory(&guest), "memory is untouched");
        assert!(guest.wire_is_empty(), "nothing was read and sent");
        // Not one more kick: those of before count.
        guest.driver.pci().set_bus_master(true);
        for frame in &frames {
            guest.tx.wait_used();
            assert_eq!(guest.sent(), *frame);
            assert_eq!(guest.received(), *frame);
        }
    }
    assert_eq!(guest.driver.status(), 15);
    guest.check_traffic();
    guest.assert_sound();
}

#[test]
fn interrupts_of_the_time_without_it_come_once_with_it() {
    let mut guest = NetGuest::start("tbmmsi");
    let pci = guest.driver.pci();
    pci.set_bus_master(false);
    while pci.take_interrupt(CONFIG_VECTOR) || pci.take_interrupt(TX_VECTOR) {}
    guest.control.set_link(false);
    guest.tx.set_used_event(guest.tx.used_idx());
    guest.queue_bytes(&with_header(&pattern(60, 1)));
    thread::sleep(A_WHILE);
    let pci = guest.driver.pci();
    assert!(pci.is_pending(CONFIG_VECTOR as u64), "it waits");
    assert!(!pci.take_interrupt(CONFIG_VECTOR) && !pci.take_interrupt(TX_VECTOR));
    // That the driver masks and unmasks vectors meanwhile sends nothing.
    for vector in [CONFIG_VECTOR, TX_VECTOR] {
        pci.mask(vector as u64, true);
        pci.mask(vector as u64, false);
        assert!(!pci.take_interrupt(vector));
    }
    pci.enable_msix(true, true);
    pci.enable_msix(true, false);
    assert!(!pci.take_interrupt(CONFIG_VECTOR));
    pci.set_bus_master(true);
    for vector in [CONFIG_VECTOR, TX_VECTOR] {
        wait_for("the message", || pci.take_interrupt(vector).then_some(()));
        assert!(!pci.take_interrupt(vector), "once");
    }
    guest.sent();
    guest.tx.wait_used();
    guest.control.set_link(true);
    guest.check_traffic();
}

/// A driver that sets it late: the device starts when it may, with what is enabled by then.
#[test]
fn a_device_that_is_started_without_it_starts_with_it() {
    let mut guest = NetGuest::plug("tbmlate");
    for toggles in 0..3 {
        guest.driver.pci().set_bus_master(false);
        guest.boot();
        for frame in [pattern(60, 1), pattern(1514, 2)] {
            guest.queue_bytes(&with_header(&frame));
        }
        for _ in 0..toggles {
            guest.driver.pci().set_bus_master(false);
        }
        thread::sleep(A_WHILE);
        assert_eq!((guest.tx.used_idx(), guest.wire_is_empty()), (0, true));
        guest.driver.pci().set_bus_master(true);
        assert_eq!(guest.sent(), pattern(60, 1));
        assert_eq!(guest.sent(), pattern(1514, 2));
        for _ in 0..2 {
            guest.tx.wait_used();
        }
        guest.check_traffic();
    }
    // What is wrong with its rings is said then, once.
    guest.driver.pci().set_bus_master(false);
    guest.set_up();
    guest.rx.relocate(1, devices::testing::HOLE);
    guest.driver.enable(&guest.rx);
    guest.driver.enable(&guest.tx);
    guest.driver.start();
    assert_eq!(guest.driver.status(), 15);
    for _ in 0..3 {
        guest.driver.pci().set_bus_master(true);
        assert_ne!(guest.driver.status() & status::NEEDS_RESET, 0);
        guest.driver.pci().set_bus_master(false);
    }
    guest.driver.pci().set_bus_master(true);
    guest.boot();
    guest.check_traffic();
    guest.assert_sound();
}

#[test]
fn a_reset_without_it_is_a_reset() {
    let mut guest = NetGuest::start("tbmreset");
    for _ in 0..20 {
        guest.driver.pci().set_bus_master(false);
        guest.queue_bytes(&with_header(&pattern(60, 1)));
        guest.driver.write(register::STATUS, 0);
        let before = memory(&guest);
        guest.driver.pci().set_bus_master(true);
        thread::sleep(A_WHILE / 20);
        assert!(before == memory(&guest), "it forgot the rings");
        assert!(guest.wire_is_empty());
        guest.boot();
        guest.check_traffic();
    }
    guest.assert_sound();
}

/// VIRTIO_F_RING_RESET meanwhile: a queue that is taken back is not touched later, one that is enabled comes alive with
/// the others.
#[test]
fn queues_are_reset_and_enabled_without_it() {
    let mut guest = PairsGuest::start("tbmqr", 2);
    assert_eq!(guest.set_pairs(2), OK);
    for round in 0..8 {
        let pair = round % 2;
        guest.driver.pci().set_bus_master(false);
        let old = guest.pairs[pair].tx.addresses();
        guest.queue_frame(pair, &pattern(60, round));
        let queue = u16::try_from(2 * pair + 1).unwrap();
        guest.driver.reset_queue(queue);
        let before = old.map(|address| guest.driver.read_memory(address, 64));
        let size = 32 << (round / 4);
        // Enabled, taken back, and enabled again.
        for _ in 0..=round % 3 {
            guest.driver.reset_queue(queue);
            guest.pairs[pair].tx = guest.driver.queue(queue, size);
        }
        guest.queue_frame(pair, &pattern(64, round));
        guest.driver.pci().set_bus_master(true);
        guest.pairs[pair].tx.wait_used();
        let frame = wait_for("the frame", || take(&mut guest.wires[pair]));
        assert_eq!(
            frame,
            pattern(64, round),
            "and not the one of the queue before"
        );
        assert_eq!(old.map(|at| guest.driver.read_memory(at, 64)), before);
        guest.check_traffic(2);
    }
    // The control queue too.
    guest.driver.pci().set_bus_master(false);
    guest.driver.reset_queue(4);
    guest.ctrl = guest.driver.queue(4, 16);
    guest.driver.pci().set_bus_master(true);
    assert_eq!(guest.set_pairs(1), OK);
    guest.check_traffic(1);
    guest.assert_sound();
}

#[test]
fn commands_wait_for_it() {
    let mut guest = PairsGuest::start("tbmctrl", 2);
    for count in [2, 1, 2, 2, 1] {
        guest.driver.pci().set_bus_master(false);
        let answer = guest.give_command(&[4, 0, count, 0], 1);
        thread::sleep(A_WHILE);
        assert_eq!(guest.ctrl.take_used(), None);
        assert_eq!(guest.driver.read_memory(answer, 1), [0xee]);
        guest.driver.pci().set_bus_master(true);
        assert_eq!(guest.ctrl.wait_used().len, 1);
        assert_eq!(guest.driver.read_memory(answer, 1), [OK]);
        guest.check_traffic(count.into());
    }
    guest.assert_sound();
}

/// A queue that the driver broke stays so; the other one goes on.
#[test]
fn a_stopped_queue_stays_stopped() {
    let mut guest = NetGuest::start("tbmstop");
    guest
        .tx
        .add(&[Buffer::readable(devices::testing::HOLE, 64)]);
    guest.driver.kick(TX);
    guest.driver.wait_needs_reset();
    for seed in 0..5 {
        guest.driver.pci().set_bus_master(false);
        guest.driver.pci().set_bus_master(true);
        guest.post(2000);
        guest.inject(&pattern(60, seed));
        assert_eq!(guest.received(), pattern(60, seed));
    }
    assert_eq!(guest.control.counters().guest_faults, 1);
    guest.boot();
    guest.check_traffic();
    guest.assert_sound();
}

/// Frames that are sent from the driver's memory are not read there any more.
#[test]
fn what_was_in_flight_is_copied_before() {
    let Some((near, far)) = veth() else { return };
    let (mut guest, _ports) = in_place::plug("tbmplace", &near, &far, AttachMode::Native);
    guest.boot();
    guest.check_traffic();
    ip(&format!("link set dev {near} down"));
    let all = guest.control.counters().tx_frames + 8;
    let frames: Vec<_> = (0..8).map(|seed| pattern(1000, seed)).collect();
    for frame in &frames {
        guest.queue_bytes(&with_header(frame));
    }
    // The device has taken all of them, and the wire none.
    wait_for("the frames to be under way", || {
        let counters = guest.control.counters();
        (counters.tx_carrier_errors > 0 && counters.tx_frames == all).then_some(())
    });
    let before = guest.tx.used_idx();
    guest.driver.pci().set_bus_master(false);
    assert_eq!(guest.tx.used_idx(), before, "they were not given back");
    let slots = vec![0xff; 4096 * usize::from(QUEUE_SIZE)];
    guest.driver.write_memory(guest.tx_slots, &slots);
    ip(&format!("link set dev {near} up"));
    guest.driver.pci().set_bus_master(true);
    for frame in frames {
        assert_eq!(guest.sent(), frame);
        guest.tx.wait_used();
    }
    guest.check_traffic();
    in_place::assert_all_is_back(&mut guest);
}
