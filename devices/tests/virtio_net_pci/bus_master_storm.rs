//! 59: Bus Master Enable is toggled while frames go both ways, by one vCPU and by another, in resets, and at any other
//! bad time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use devices::{
    testing::{bus_master, register, wait_for},
    virtio::net::{NetBackend, loopback::Loopback},
};

use crate::{guest::*, pairs_guest::*, random::Numbers};

fn numbered(number: usize) -> Vec<u8> {
    [
        &number.to_le_bytes()[..],
        &pattern(60 + number % 700, number),
    ]
    .concat()
}

/// Sends numbered frames, and takes what comes, until the test ends; how many came.
fn far_end(mut far: Loopback, came: &AtomicUsize, ender: &Ender) {
    let (mut next, mut seen) = (0, 0);
    while ender.goes_on() {
        if far.room() > 0 {
            let bytes = numbered(next);
            let fill = |buffer: &mut [u8]| buffer.copy_from_slice(&bytes);
            far.send(bytes.len(), fill).unwrap();
            next += 1;
        }
        let _ = far.flush();
        while let Some(frame) = take(&mut far) {
            assert_eq!(frame, numbered(seen), "in order, once");
            seen += 1;
        }
        came.store(seen, Ordering::Release);
    }
}

/// Each time it is cleared, memory stays as it is; and of the frames of either way none is missing and none comes twice.
#[test]
fn under_traffic_the_write_that_clears_it_is_the_end_of_all_accesses() {
    const TIMES: usize = 400;
    let (near, far) = Loopback::pair(MAX_FRAME).unwrap();
    let unused = Loopback::pair(MAX_FRAME).unwrap().0;
    let mut guest = PairsGuest::plug_on("tbmflux", vec![near], vec![unused]);
    guest.boot();
    let (ender, came) = (Ender::default(), AtomicUsize::new(0));
    let (mut queued, mut back, mut received) = (0, 0, 0);
    thread::scope(|scope| {
        let guard = ender.guard();
        scope.spawn(|| far_end(far, &came, &ender));
        let mut numbers = Numbers(0x59);
        for _ in 0..TIMES {
            for _ in 0..numbers.next() % 20 {
                while guest.pairs[0].tx.take_used().is_some() {
                    back += 1;
                }
                if guest.pairs[0].tx.room() > 0 {
                    guest.queue_frame(0, &numbered(queued));
                    queued += 1;
                }
                while let Some(frame) = guest.take_received(0) {
                    assert_eq!(frame, numbered(received), "in order, once");
                    received += 1;
                }
            }
            guest.driver.pci().set_bus_master(false);
            let memory = guest.driver.read_memory(0x1000, 1 << 18);
            for _ in 0..numbers.next() % 40 {
                thread::yield_now();
            }
            assert!(memory == guest.driver.read_memory(0x1000, 1 << 18));
            guest.driver.pci().set_bus_master(true);
        }
        wait_for("what was queued", || {
            while guest.pairs[0].tx.take_used().is_some() {
                back += 1;
            }
            (back == queued && came.load(Ordering::Acquire) == queued).then_some(())
        });
        drop(guard);
    });
    assert!(queued > TIMES && received > TIMES, "{queued}, {received}");
    assert_eq!(guest.driver.status(), 15);
    guest.assert_sound();
}

/// Two vCPUs toggle it while a third one resets the device, sets it up and resets its queues.
#[test]
fn at_any_time_from_several_vcpus() {
    let mut guest = PairsGuest::start("tbmstorm", 2);
    let bus = Arc::clone(guest.driver.pci().bus());
    let (ender, toggles) = (Ender::default(), AtomicUsize::new(0));
    let mut numbers = Numbers(3);
    thread::scope(|scope| {
        let guard = ender.guard();
        for _ in 0..2 {
            scope.spawn(|| {
                while ender.goes_on() {
                    bus_master(&bus, false);
                    bus_master(&bus, true);
                    toggles.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for round in 0..60 {
            guest.boot();
            for pair in 0..2 {
                guest.queue_frame(pair, &pattern(64, round));
                send(&mut guest.wires[pair], &pattern(64, round));
            }
            guest.give_command(&[4, 0, 2, 0], 1);
            for _ in 0..numbers.next() % 4 {
                let queue = u16::try_from(numbers.next() % 5).unwrap();
                guest.driver.reset_queue(queue);
                if queue < 4 {
                    let fresh = guest.new_pair(usize::from(queue / 2));
                    guest.pairs[usize::from(queue / 2)] = fresh;
                }
            }
            if numbers.next().is_multiple_of(2) {
                guest.driver.write(register::STATUS, 0);
            }
        }
        wait_for("many of them", || {
            (toggles.load(Ordering::Relaxed) > 200).then_some(())
        });
        drop(guard);
    });
    for wire in &mut guest.wires {
        while take(wire).is_some() {}
    }
    guest.boot();
    assert_eq!(guest.set_pairs(2), OK);
    guest.check_traffic(2);
    guest.assert_sound();
}
