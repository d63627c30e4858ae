//! The control queue, by drivers good and bad (catalogue 27).

use devices::testing::{Buffer, Descriptor, register};

use crate::{guest::*, pairs_guest::*};

/// 25, 26: several pairs are offered with all that belongs to them, and not to be had without.
#[test]
fn several_pairs_need_a_control_queue() {
    let mut guest = PairsGuest::start("tmqf", 4);
    assert_eq!(guest.features & (MQ | CTRL_VQ), MQ | CTRL_VQ);
    assert_eq!(guest.driver.config::<2>(8), [4, 0], "max_virtqueue_pairs");
    // On PCI the largest size is what a queue has after reset.
    guest.driver.write(register::STATUS, 0);
    for (queue, size) in [(0, 1024), (7, 1024), (8, 64), (9, 0)] {
        guest.driver.write(register::QUEUE_SEL, queue);
        assert_eq!(guest.driver.read(register::QUEUE_NUM_MAX), size, "{queue}");
    }
    assert!(!guest.driver.negotiate(VERSION_1 | MQ), "no control queue");
    for features in [CTRL_VQ, CTRL_VQ | MQ, 0] {
        assert!(guest.driver.negotiate(VERSION_1 | features));
    }
    let mut single = NetGuest::plug("tmq1");
    assert_eq!(single.driver.offered() & (MQ | CTRL_VQ), CTRL_VQ);
}

/// 27: whatever is no command, or asks for a number of pairs that is not possible, is refused and
/// changes nothing. (Other bad commands: `control`.)
#[test]
fn impossible_commands_are_refused() {
    let mut guest = PairsGuest::start("tmq27", 2);
    assert_eq!(guest.set_pairs(2), OK);
    let mut refused = 0;
    for count in [0, 3, 4, 0x100, 0x200, 0x8000, 0xffff] {
        assert_eq!(guest.set_pairs(count), ERR, "{count} pairs");
        refused += 1;
    }
    let long = [&[4, 0, 1, 0][..], &[0; 4000]].concat();
    for command in [&[4][..], &[4, 0], &[4, 0, 1], &[4, 0, 1, 0, 0], &long] {
        assert_eq!(guest.command(command), ERR, "{} bytes", command.len());
        refused += 1;
    }
    for class in 0..=255 {
        for command in [0, 1, 2, 3, 0xff] {
            // Not the number of pairs, and not VLAN 1.
            if ![(4, 0), (2, 0), (2, 1)].contains(&(class, command)) {
                assert_eq!(guest.command(&[class, command, 1, 0]), ERR);
                refused += 1;
            }
        }
    }
    assert_eq!(guest.command(&[]), ERR, "nothing at all");
    assert_eq!(guest.command_with_room(&[4, 0, 1, 0], 0), [], "no answer");
    refused += 2;
    let counters = guest.control.counters();
    assert_eq!(counters.control_refused, refused);
    assert_eq!(counters.control_commands, refused + 1);
    assert_eq!(counters.guest_faults, 0);
    guest.check_traffic(2);
    guest.assert_sound();
}

/// 2.7.4.2: no command may count on how the driver cut it into buffers.
#[test]
fn commands_may_be_split_anywhere() {
    let mut guest = PairsGuest::start("tmqsplit", 2);
    let memory = guest.driver.allocate(64, 16);
    for (cut, count) in [(1, 2), (2, 1), (3, 2)] {
        guest
            .driver
            .write_memory(memory, &[4, 0, count, 0, 0xee, 0xee]);
        guest.ctrl.add(&[
            Buffer::readable(memory, cut),
            Buffer::readable(memory + u64::from(cut), 4 - cut),
            // More room than there is an answer.
            Buffer::writable(memory + 4, 1),
            Buffer::writable(memory + 5, 1),
        ]);
        guest.driver.kick_if_wanted(&mut guest.ctrl);
        assert_eq!(guest.ctrl.wait_used().len, 1);
        assert_eq!(guest.driver.read_memory(memory + 4, 2), [OK, 0xee]);
        guest.check_traffic(usize::from(count));
    }
    assert_eq!(guest.command_with_room(&[4, 0, 2, 0], 9), [OK]);
}

/// 1: broken rules stop the control queue alone, until the reset.
#[test]
fn a_broken_control_queue_stops_alone() {
    let mut guest = PairsGuest::start("tmqloop", 2);
    assert_eq!(guest.set_pairs(2), OK);
    let itself = Descriptor {
        address: 0x1000,
        len: 1,
        flags: Descriptor::NEXT,
        next: 3,
    };
    guest.ctrl.set_descriptor(3, itself);
    guest.ctrl.offer(3);
    guest.driver.kick(guest.ctrl.index());
    guest.driver.wait_needs_reset();
    guest.check_traffic(2);
    guest.boot();
    guest.check_traffic(1);
    assert_eq!(guest.set_pairs(2), OK);
    guest.check_traffic(2);
    guest.assert_sound();
}

/// A driver without MQ has its control queue at index 2 (5.1.2), and nothing to ask of it.
#[test]
fn a_driver_without_mq_gets_the_traffic_of_all_queues() {
    // The second one: the control queue, and all that needs it.
    for without in [MQ, 0x7f << 17 | 0b1101 << 50 | CTRL_GUEST_OFFLOADS] {
        let mut guest = PairsGuest::start("tmqno", 4);
        guest.features &= !without;
        guest.boot();
        guest.check_traffic(1);
        if without == MQ {
            for count in [0, 1, 2] {
                assert_eq!(guest.set_pairs(count), ERR, "not negotiated");
            }
            guest.check_traffic(1);
        }
        assert!(guest.control.counters().rx_steered > 0);
        guest.assert_sound();
    }
}

/// 5.1.5: a driver may leave pairs out, and use those that it set up.
#[test]
fn pairs_without_queues_cannot_be_used() {
    let mut guest = PairsGuest::start("tmqpart", 4);
    guest.boot_with(2);
    assert_eq!(guest.set_pairs(3), ERR);
    assert_eq!(guest.set_pairs(4), ERR);
    guest.check_traffic(1);
    assert_eq!(guest.set_pairs(2), OK);
    guest.check_traffic(2);
    guest.assert_sound();
}
