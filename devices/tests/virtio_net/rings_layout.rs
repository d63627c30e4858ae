//! Rings that the device must not accept, and registers at the wrong time.

use devices::testing::{HOLE, RAM_END, SEAM, register, status};

use crate::guest::*;

/// A guest whose transmit rings are changed before the device hears of them.
fn started_with(change: impl Fn(&mut NetGuest)) -> NetGuest {
    let mut guest = NetGuest::plug("tlay");
    guest.set_up();
    change(&mut guest);
    guest.driver.enable(&guest.rx);
    guest.driver.enable(&guest.tx);
    guest.driver.start();
    guest
}

/// 9
#[test]
fn misplaced_rings_are_refused() {
    let places: [(usize, u64); 11] = [
        (0, 0x2_0008),
        (1, 0x2_0001),
        (2, 0x2_0002),
        (0, HOLE),
        (1, HOLE),
        (2, HOLE),
        (0, RAM_END - 16),
        (1, SEAM - 2),
        (2, u64::MAX - 3),
        (1, 0x2_0000),
        (2, 0x2_0000),
    ];
    for (part, address) in places {
        let mut guest = started_with(|guest| {
            // The last two lie on top of this one.
            guest.tx.relocate(0, 0x2_0000);
            guest.tx.relocate(part, address);
        });
        assert_ne!(
            guest.driver.status() & status::NEEDS_RESET,
            0,
            "{part} at {address:#x}"
        );
        assert_eq!(guest.driver.wait_interrupt(), 2);
        guest.driver.kick(TX);
        guest.boot();
        guest.check_traffic();
    }
}

/// 10
#[test]
fn impossible_queue_sizes_are_ignored() {
    let mut guest = NetGuest::plug("t10");
    guest.set_up();
    guest.driver.write(register::QUEUE_SEL, 1);
    let max = guest.driver.read(register::QUEUE_NUM_MAX);
    assert_eq!(max, 1024);
    guest.driver.enable(&guest.rx);
    guest.driver.enable(&guest.tx);
    // While enabled, and after DRIVER_OK, not even possible ones are taken.
    for size in [0, 3, max + 1, 2 * max, 0x1_0040, u32::MAX, 8] {
        guest.driver.write(register::QUEUE_NUM, size);
    }
    guest.driver.start();
    guest.driver.write(register::QUEUE_NUM, 8);
    guest.driver.write(register::QUEUE_READY, 0);
    guest.driver.write(register::QUEUE_DESC, 0xdead_0000);
    guest.check_traffic();
    for seed in 0..100 {
        guest.transmit(&pattern(64, seed));
        assert_eq!(guest.sent(), pattern(64, seed));
    }
    guest.set_up();
    for size in [0, 3, max + 1, u32::MAX] {
        guest.driver.write(register::QUEUE_SEL, 1);
        guest
            .driver
            .write(register::QUEUE_NUM, u32::from(QUEUE_SIZE));
        guest.driver.write(register::QUEUE_NUM, size);
    }
    guest.driver.enable(&guest.rx);
    guest.driver.enable(&guest.tx);
    guest.driver.start();
    guest.check_traffic();
}

/// 34: a queue that was enabled without its rings, or not enabled, is none.
#[test]
fn half_configured_queues_are_skipped() {
    let mut guest = NetGuest::plug("t34");
    for half in [false, true] {
        guest.set_up();
        guest.driver.enable(&guest.rx);
        if half {
            guest.driver.write(register::QUEUE_SEL, 1);
            guest.driver.write(register::QUEUE_DESC, 0x2_0000);
            guest.driver.write(register::QUEUE_READY, 1);
        }
        guest.driver.start();
        // virtio-net can't do without; the device says so rather than dying of it.
        assert_ne!(guest.driver.status() & status::NEEDS_RESET, 0);
        guest.driver.kick(TX);
        guest.driver.kick(RX);
    }
    guest.boot();
    guest.check_traffic();
}
