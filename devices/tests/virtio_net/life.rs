//! Starting, stopping, and what arrives meanwhile.

use std::{collections::HashSet, thread};

use devices::{
    testing::{register, status, wait_for},
    virtio::net::{NetBackend, loopback::Loopback},
};

use crate::{guest::*, rings::flood};

/// 55: frames of the time before the driver was ready are not for it.
#[test]
fn early_frames_are_discarded() {
    let mut guest = NetGuest::plug("t55");
    let sent = flood(&mut guest);
    guest.boot();
    guest.post(2048);
    wait_for("the discarding", || {
        (guest.control.counters().rx_early > 0).then_some(())
    });
    // What the far end still had queued comes afterwards, and is no early frame any more.
    assert!(guest.control.counters().rx_early >= sent as u64 - 1);
    let mut guest = NetGuest::start("t55b");
    guest.check_traffic();
}

/// 55: a flood from the wire all the time, and resets all the same.
#[test]
fn a_flood_does_not_hold_resets_up() {
    let (near, far) = Loopback::pair(MAX_FRAME).unwrap();
    let (_, unused) = Loopback::pair(MAX_FRAME).unwrap();
    let mut guest = NetGuest::plug_on("t55c", near, unused);
    let ender = Ender::default();
    thread::scope(|scope| {
        let guard = ender.guard();
        let flooder = scope.spawn(|| {
            let mut far = far;
            while ender.goes_on() {
                let _ = far.send(64, |buffer| buffer.fill(0x55));
                let _ = far.flush();
            }
        });
        for _ in 0..50 {
            guest.boot();
            for _ in 0..8 {
                guest.post(2048);
            }
            guest.received();
            guest.driver.write(register::STATUS, 0);
            assert_eq!(guest.driver.status(), 0);
        }
        drop(guard);
        flooder.join().unwrap();
    });
    guest.assert_sound();
}

/// 35: a thousand resets in the middle of traffic: nothing stale, no frame twice, none wrong.
#[test]
fn a_thousand_resets_under_traffic() {
    let mut guest = NetGuest::plug("t35");
    let mut seen = HashSet::new();
    let frame = |seed: usize| [&seed.to_le_bytes()[..], &pattern(60, seed)].concat();
    for round in 0..1000usize {
        guest.boot();
        assert_eq!(
            (guest.tx.used_idx(), guest.rx.used_idx()),
            (0, 0),
            "fresh rings"
        );
        for i in 0..4 {
            guest.post(256);
            guest.queue_bytes(&with_header(&frame(round * 4 + i)));
        }
        guest.inject(&pattern(64, round));
        if round % 3 == 0 {
            guest.tx.wait_used();
        }
        guest.driver.write(register::STATUS, 0);
        let used = (guest.tx.used_idx(), guest.rx.used_idx());
        let count = guest.control.counters();
        while let Some(bytes) = take(&mut guest.wire) {
            let seed = usize::from_le_bytes(bytes[..8].try_into().unwrap());
            assert_eq!(bytes, frame(seed));
            assert!(seen.insert(seed), "frame {seed} twice");
        }
        assert_eq!(
            used,
            (guest.tx.used_idx(), guest.rx.used_idx()),
            "nothing after reset"
        );
        assert_eq!(count, guest.control.counters());
    }
    guest.boot();
    wait_for("the rest", || {
        while let Some(bytes) = take(&mut guest.wire) {
            assert!(seen.insert(usize::from_le_bytes(bytes[..8].try_into().unwrap())));
        }
        (seen.len() as u64 == guest.control.counters().tx_frames).then_some(())
    });
    guest.check_traffic();
    guest.assert_sound();
    let threads = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = threads.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    assert_eq!(
        names.filter(|name| name.trim() == "t35").count(),
        1,
        "one thread is left"
    );
}

/// 30, 32: the status register takes no nonsense.
#[test]
fn status_steps_must_come_in_order() {
    let mut guest = NetGuest::plug("t32");
    let driver = &mut guest.driver;
    for nonsense in [2, 4, 8, 14, 64, 0x100, 0x8000_0000, 0x30] {
        driver.write(register::STATUS, nonsense);
        assert_eq!(driver.status(), 0, "{nonsense:#x}");
    }
    driver.write(register::STATUS, status::ACKNOWLEDGE);
    driver.write(register::STATUS, status::ACKNOWLEDGE | status::DRIVER_OK);
    assert_eq!(driver.status(), status::ACKNOWLEDGE, "skipped steps");
    driver.write(register::STATUS, 3);
    driver.write(register::STATUS, 1);
    driver.write(register::STATUS, 2);
    assert_eq!(driver.status(), 3, "steps taken back");
    driver.write(register::STATUS, 3 | status::FAILED);
    driver.write(register::STATUS, 11 | status::FAILED);
    assert_eq!(
        driver.status(),
        3 | status::FAILED,
        "only a reset leads out"
    );
    driver.write(register::STATUS, 0);
    assert_eq!(driver.status(), 0);

    guest.boot();
    guest.driver.write(register::STATUS, 15);
    guest.driver.write(register::STATUS, 0xffff_ff0f);
    guest.driver.accept(0);
    guest.check_traffic();
}

/// 30: no such queue.
#[test]
fn queues_that_do_not_exist_read_as_zero() {
    let mut guest = NetGuest::plug("t30");
    guest.set_up();
    for select in [3, 0xffff, 0x1_0000, u32::MAX] {
        guest.driver.write(register::QUEUE_SEL, select);
        assert_eq!(guest.driver.read(register::QUEUE_NUM_MAX), 0);
        guest.driver.write(register::QUEUE_NUM, 8);
        guest.driver.write(register::QUEUE_DESC, 0x1000);
        guest.driver.write(register::QUEUE_READY, 1);
        assert_eq!(guest.driver.read(register::QUEUE_READY), 0);
    }
    guest.boot();
    guest.check_traffic();
}
