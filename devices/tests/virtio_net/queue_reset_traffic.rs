//! Single queues are reset while frames go both ways, and so is the device.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use devices::{
    testing::{register, wait_for},
    virtio::net::{NetBackend, loopback::Loopback},
};

use crate::{guest::*, pairs_guest::*, queue_reset::*, random::Numbers};

fn numbered(number: usize) -> Vec<u8> {
    [
        &number.to_le_bytes()[..],
        &pattern(60 + number % 700, number),
    ]
    .concat()
}

fn number_of(frame: &[u8]) -> usize {
    let number = usize::from_le_bytes(frame[..8].try_into().unwrap());
    assert_eq!(frame, numbered(number), "a frame that was sent");
    number
}

/// Sends that many numbered frames, and takes what comes, until the test ends; the numbers of what came.
fn far_end(mut far: Loopback, frames: usize, came: &AtomicUsize, ender: &Ender) -> Vec<usize> {
    let (mut next, mut seen) = (0, Vec::new());
    while ender.goes_on() {
        if next < frames && far.room() > 0 {
            let bytes = numbered(next);
            let fill = |buffer: &mut [u8]| buffer.copy_from_slice(&bytes);
            far.send(bytes.len(), fill).unwrap();
            next += 1;
        }
        let _ = far.flush();
        seen.extend(take(&mut far).map(|frame| number_of(&frame)));
        came.store(seen.len(), Ordering::Release);
    }
    seen
}

/// One pair's traffic, from the driver's side.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    received: usize,
    /// Frames that were queued, and of them those that came back.
    queued: usize,
    back: usize,
}

impl Tally {
    fn take_received(&mut self, guest: &mut PairsGuest, pair: usize) {
        while let Some(frame) = guest.take_received(pair) {
            assert_eq!(number_of(&frame), self.received, "in order, once");
            self.received += 1;
        }
    }

    fn take_back(&mut self, guest: &mut PairsGuest, pair: usize) {
        while guest.pairs[pair].tx.take_used().is_some() {
            self.back += 1;
        }
    }

    fn turn(&mut self, guest: &mut PairsGuest, pair: usize, most: u64) {
        self.take_back(guest, pair);
        for _ in 0..most {
            if guest.pairs[pair].tx.room() > 0 {
                guest.queue_frame(pair, &numbered(self.queued));
                self.queued += 1;
            }
        }
        self.take_received(guest, pair);
    }
}

/// 35: any queue, at any time, in traffic both ways. What is received comes once, in order, and none is missing; what was
/// given back to the driver was sent, once, and in order.
#[test]
fn resets_of_queues_under_traffic() {
    const FRAMES: usize = 2000;
    let (near, far): (Vec<_>, Vec<_>) = (0..2).map(|_| Loopback::pair(MAX_FRAME).unwrap()).unzip();
    let unused = (0..2).map(|_| Loopback::pair(MAX_FRAME).unwrap().0);
    let mut guest = PairsGuest::plug_on("tqrflux", near, unused.collect());
    guest.boot();
    assert_eq!(guest.set_pairs(2), OK);
    let (ender, came) = (Ender::default(), [AtomicUsize::new(0), AtomicUsize::new(0)]);
    let mut tally = [Tally::default(); 2];
    let mut numbers = Numbers(0x35);
    let mut resets = 0;
    let seen = thread::scope(|scope| {
        let guard = ender.guard();
        let ends: Vec<_> = far
            .into_iter()
            .zip(&came)
            .map(|(far, came)| scope.spawn(|| far_end(far, FRAMES, came, &ender)))
            .collect();
        while tally.iter().any(|it| it.received < FRAMES) || resets < 100 {
            for (pair, tally) in tally.iter_mut().enumerate() {
                tally.turn(&mut guest, pair, numbers.next() % 8);
            }
            if numbers.next().is_multiple_of(4) {
                let pair = usize::from(numbers.next().is_multiple_of(2));
                let side = numbers.pick(&SIDES);
                guest.driver.reset_queue(index(pair, side));
                resets += 1;
                // What was done before is in the rings still.
                tally[pair].take_back(&mut guest, pair);
                tally[pair].take_received(&mut guest, pair);
                let size = numbers.pick(&[32, 64, 64]);
                enable(&mut guest, pair, side, size);
            }
        }
        for (pair, tally) in tally.iter_mut().enumerate() {
            wait_for("the rest", || {
                tally.take_back(&mut guest, pair);
                let queue = &guest.pairs[pair].tx;
                let all = came[pair].load(Ordering::Acquire) >= tally.back;
                (all && queue.room() == usize::from(queue.size())).then_some(())
            });
        }
        drop(guard);
        ends.into_iter()
            .map(|end| end.join().unwrap())
            .collect::<Vec<_>>()
    });
    for (seen, tally) in seen.into_iter().zip(tally) {
        assert!(seen.is_sorted_by(|a, b| a < b), "in order, once");
        assert!(seen.len() >= tally.back, "{} of {tally:?}", seen.len());
    }
    assert_eq!(guest.control.counters().rx_frames, 2 * FRAMES as u64);
    assert_eq!(guest.driver.status(), 15);
    guest.assert_sound();
}

/// 35: a reset of the device while queues wait to be enabled again, and the other way round.
#[test]
fn resets_of_queues_and_of_the_device() {
    let mut guest = PairsGuest::start("tqr35", 2);
    let mut numbers = Numbers(7);
    for round in 0..100 {
        guest.boot();
        let used = 1 + round % 2;
        assert_eq!(guest.set_pairs(used), OK);
        for pair in 0..used {
            guest.queue_frame(pair, &pattern(64, round));
            send(&mut guest.wires[pair], &pattern(64, round));
        }
        for _ in 0..numbers.next() % 4 {
            let queue = u16::try_from(numbers.next() % 5).unwrap();
            guest.driver.reset_queue(queue);
            if numbers.next().is_multiple_of(2) && queue < 4 {
                enable(&mut guest, usize::from(queue / 2), queue % 2, 64);
            }
        }
        guest.driver.write(register::STATUS, 0);
        let counters = guest.control.counters();
        for wire in &mut guest.wires {
            while let Some(bytes) = take(wire) {
                assert_eq!(bytes.len(), 64);
            }
        }
        assert_eq!(guest.control.counters(), counters, "nothing after reset");
    }
    guest.boot();
    guest.check_traffic(1);
    guest.assert_sound();
}
