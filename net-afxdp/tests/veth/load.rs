//! Traffic both ways for as long as a test wants it.

use std::{
    collections::BTreeSet,
    ops::ControlFlow,
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use net_afxdp::Queue;
use rustix::event::PollFlags;

use crate::{
    packet::{PATIENCE, Packet, frame, wait},
    traffic::send,
};

/// Frames that have passed so far.
#[derive(Debug, Default)]
struct Passed {
    to_queue: AtomicU64,
    to_far: AtomicU64,
    /// The number of the last flush's error; 0 after one that went well.
    error: AtomicI32,
    stop: AtomicBool,
}

/// What the thread that served a queue saw.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) queue: Queue,
    /// The errors of its flushes.
    pub(crate) errors: BTreeSet<i32>,
}

/// A queue and a packet socket at the far end, each served by a thread, sending to each other.
pub(crate) struct Traffic {
    passed: Arc<Passed>,
    near: JoinHandle<Served>,
    far: JoinHandle<()>,
}

impl Traffic {
    pub(crate) fn start(queue: Queue, far: Packet) -> Self {
        let passed = Arc::new(Passed::default());
        let (near_passed, far_passed) = (passed.clone(), passed.clone());
        let traffic = Self {
            near: thread::spawn(move || serve_queue(queue, &near_passed)),
            far: thread::spawn(move || serve_far_end(&far, &far_passed)),
            passed,
        };
        traffic.assert_passes();
        traffic
    }

    /// Waits until frames pass both ways, counted from now.
    pub(crate) fn assert_passes(&self) {
        let counters = [&self.passed.to_queue, &self.passed.to_far];
        for counter in counters {
            let goal = counter.load(Ordering::Relaxed) + 200;
            let deadline = Instant::now() + PATIENCE;
            while counter.load(Ordering::Relaxed) < goal {
                assert!(Instant::now() < deadline, "stuck: {:?}", self.passed);
                thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Waits until the queue's flushes fail with one of these errors.
    pub(crate) fn assert_fails_with(&self, errors: &[i32]) {
        let deadline = Instant::now() + PATIENCE;
        while !errors.contains(&self.passed.error.load(Ordering::Relaxed)) {
            assert!(Instant::now() < deadline, "no error: {:?}", self.passed);
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends it, and checks what must hold whatever happened.
    pub(crate) fn stop(self) -> Served {
        self.passed.stop.store(true, Ordering::Relaxed);
        self.far.join().unwrap();
        let served = self.near.join().unwrap();
        let accounting = served.queue.accounting();
        assert!(accounting.is_balanced(), "{accounting:?}");
        assert_eq!(served.queue.counters().invalid_descriptors, 0);
        if let Ok(statistics) = served.queue.statistics() {
            let invalid = statistics.tx_invalid_descs + statistics.rx_invalid_descs;
            assert_eq!(invalid, 0, "{statistics:?}");
        }
        served
    }
}

fn serve_queue(mut queue: Queue, passed: &Passed) -> Served {
    let mut errors = BTreeSet::new();
    let mut number = 0;
    let mut failed_before = false;
    while !passed.stop.load(Ordering::Relaxed) {
        for _ in 0..queue.room().min(16) {
            send(&mut queue, &frame(number % 100, 100)).unwrap();
            number += 1;
        }
        let wakeups = queue.counters().tx_wakeups;
        let flushed = queue.flush();
        if let Err(error) = &flushed {
            errors.insert(error.raw_os_error().unwrap());
        }
        if failed_before && flushed.is_err() {
            // The first call tells: no use in more of them. (Where it begins, some frames may have gone.)
            assert_eq!(queue.counters().tx_wakeups - wakeups, 1, "{flushed:?}");
        }
        failed_before = flushed.is_err();
        let error = flushed.err().and_then(|error| error.raw_os_error());
        passed.error.store(error.unwrap_or(0), Ordering::Relaxed);
        let taken = queue.receive(64, |fragments| {
            let bytes = fragments.concat();
            let number = u32::from(bytes[17]);
            assert!(bytes == frame(number, 100), "frame {number} is torn");
            ControlFlow::Continue(())
        });
        passed.to_queue.fetch_add(taken as u64, Ordering::Relaxed);
        if taken == 0 {
            wait(queue.as_fd(), PollFlags::IN);
        }
    }
    Served { queue, errors }
}

fn serve_far_end(far: &Packet, passed: &Passed) {
    while !passed.stop.load(Ordering::Relaxed) {
        for number in 0..16 {
            // Refused while a link is down.
            let _ = far.send(&frame(number, 100));
        }
        while let Some(bytes) = far.try_receive() {
            let number = u32::from(bytes[17]);
            assert!(bytes == frame(number, 100), "frame {number} is torn");
            passed.to_far.fetch_add(1, Ordering::Relaxed);
        }
        thread::sleep(Duration::from_micros(200));
    }
}
