//! The queue pairs of a running card, and how many of them the driver uses (virtio 1.2, 5.1.6.5.5).
//!
//! The interface spreads what it receives over all of its queues and knows nothing of the driver's
//! choice. A pair that is not used therefore lends its back end to one that is, pair `k` to pair
//! `k % used`, whose io-thread then receives from both: no frame is lost, each flow keeps to one
//! receive queue, and a pair that is not used has no thread. So a guest that uses one pair, because
//! it has one vCPU or an old driver, gets all traffic there.
//!
//! A change stops the io-threads, hands the back ends round, and starts as many threads as are used now:
//! nothing is shared between threads at any time. It takes well under a millisecond, in which frames
//! wait in their rings.
//!
//! Where the driver resets one queue only that pair's thread stops and starts again ([`single`]).

mod single;

use std::{io, mem, sync::Arc, thread};

use super::{
    NetBackend,
    carrier::Carrier,
    shared::{Shared, lock},
    thread::NetThread,
    worker::{Side, Worker, WorkerParts},
};
use crate::virtio::{
    ActivateError, ActiveQueue,
    worker::{START_PAUSE, START_TRIES},
};

/// All queue pairs of a card.
#[derive(Debug)]
pub(super) struct Pairs<B> {
    shared: Arc<Shared>,
    /// How many there are, used or not.
    count: usize,
    /// One for each pair that the driver may use; none between reset and DRIVER_OK.
    seats: Vec<Seat<B>>,
    /// The back ends that no worker has, in the order of their pairs.
    idle: Vec<Carrier<B>>,
    /// Pairs that the driver uses: the first so many.
    used: usize,
}

/// One pair.
#[derive(Debug)]
struct Seat<B> {
    /// Whether the driver has the receive queue and the transmit queue enabled.
    enabled: [bool; 2],
    place: Place<B>,
}

impl<B> Seat<B> {
    /// Whether the driver can use the pair.
    fn is_usable(&self) -> bool {
        self.enabled == [true; 2] && !matches!(self.place, Place::Lost)
    }
}

/// Where a pair's worker is.
#[derive(Debug)]
enum Place<B> {
    /// It was lost with its thread.
    Lost,
    Resting(Box<Worker<B>>),
    Running(NetThread<B>),
}

/// The queues of a pair that the driver has enabled, and what their worker needs besides.
pub(super) struct PairParts {
    pub(super) rx: Option<ActiveQueue>,
    pub(super) tx: Option<ActiveQueue>,
    pub(super) worker: WorkerParts,
}

/// Why the number of pairs was not changed.
#[derive(Debug, thiserror::Error)]
pub(super) enum UseError {
    /// Not a number of pairs that the driver can use.
    #[error("{asked} queue pairs can't be used: the driver set up {usable}")]
    Count { asked: usize, usable: usize },
    /// An io-thread ended by a fault of the host before.
    #[error("one of the device's threads died before")]
    Dead,
    /// The system refused a thread; the pairs are used as before.
    #[error("could not start a network thread: {0}")]
    Thread(io::Error),
    /// The same, and it refuses those that there were before, too: no pair is used any more.
    #[error("could not start a network thread, nor those that ran before: {0}")]
    Lost(io::Error),
}

impl From<UseError> for ActivateError {
    fn from(error: UseError) -> Self {
        match error {
            // Counts are the control queue's; at DRIVER_OK it is pair 0 that is used.
            UseError::Count { .. } => Self::QueueMissing(0),
            UseError::Dead => Self::Dead,
            UseError::Thread(source) | UseError::Lost(source) => Self::System {
                what: "start a network thread",
                source,
            },
        }
    }
}

impl<B: NetBackend> Pairs<B> {
    /// The pairs of `backends`, none of them used.
    pub(super) fn new(shared: Arc<Shared>, backends: Vec<B>) -> Self {
        let carriers = (0..).zip(backends);
        let idle: Vec<_> = carriers.map(|(home, b)| Carrier::new(home, b)).collect();
        Self {
            shared,
            count: idle.len(),
            seats: Vec::new(),
            idle,
            used: 0,
        }
    }

    /// DRIVER_OK: takes the pairs' queues in. The first pair is used, until [`use_pairs`](Self::use_pairs) says otherwise.
    ///
    /// # Errors
    /// A back end was lost before, or there is no thread to be had.
    pub(super) fn begin(&mut self, pairs: Vec<PairParts>) -> Result<(), ActivateError> {
        self.end();
        if self.idle.len() != self.count {
            return Err(ActivateError::Dead);
        }
        for carrier in &mut self.idle {
            // Frames that came before the driver was ready are not for it. Here rather than in the
            // thread, so that the first frame after DRIVER_OK is not among them.
            if let Some(counters) = self.shared.counters.get(carrier.home) {
                counters.rx_early.add(carrier.backend.discard() as u64);
            }
        }
        let seat = |PairParts { rx, tx, worker }| {
            let mut worker = Box::new(Worker::new(worker));
            let enabled = [rx.is_some(), tx.is_some()];
            for (side, queue) in [(Side::Rx, rx), (Side::Tx, tx)] {
                if let Some(queue) = queue {
                    worker.attach(side, queue);
                }
            }
            let place = Place::Resting(worker);
            Seat { enabled, place }
        };
        self.seats = pairs.into_iter().map(seat).collect();
        Ok(self.use_pairs(1)?)
    }

    /// Uses the first `count` pairs from now on. When it returns, nothing comes to the receive queues
    /// of the others any more, and their transmit queues are empty.
    ///
    /// # Errors
    /// `Count` changes nothing. After `Thread` the pairs are used as before. After `Lost` and `Dead` none
    /// is: in the latter case whoever was to hear of a thread's death has heard of it.
    pub(super) fn use_pairs(&mut self, count: usize) -> Result<(), UseError> {
        let usable = |seat: &&Seat<B>| seat.is_usable();
        let usable = self.seats.iter().take_while(usable).count();
        if count == 0 || count > usable {
            let asked = count;
            return Err(UseError::Count { asked, usable });
        }
        if count == self.used {
            return Ok(());
        }
        let before = mem::replace(&mut self.used, 0);
        self.stop_threads();
        for seat in self.seats.iter_mut().skip(count) {
            if let Place::Resting(worker) = &mut seat.place {
                worker.drain();
            }
        }
        self.collect();
        let started = self.start_threads(count);
        if let Err(UseError::Thread(_)) = started
            && before > 0
        {
            self.go_back_to(before)?;
        }
        started
    }

    /// Uses the first `count` pairs again, after the threads for another number were refused.
    fn go_back_to(&mut self, count: usize) -> Result<(), UseError> {
        let mut tries = 1;
        loop {
            self.stop_threads();
            self.collect();
            match self.start_threads(count) {
                Err(UseError::Thread(_)) if tries < START_TRIES => thread::sleep(START_PAUSE),
                Err(UseError::Thread(error)) => return Err(UseError::Lost(error)),
                end => return end,
            }
            tries += 1;
        }
    }

    /// Reset: ends all threads and takes the back ends back. The queues are gone.
    pub(super) fn end(&mut self) {
        if self.seats.is_empty() {
            return;
        }
        self.stop_threads();
        for seat in &mut self.seats {
            if let Place::Resting(worker) = &mut seat.place {
                worker.settle();
            }
        }
        self.collect();
        self.seats.clear();
        self.used = 0;
        let mut reports = lock(&self.shared.reports);
        for carrier in &mut self.idle {
            if let Some(report) = reports.get_mut(carrier.home) {
                *report = carrier.backend.report();
            }
        }
    }

    /// Ends all threads, and keeps queues and back ends where they are. When it returns nothing touches the
    /// driver's memory, until [`resume`](Self::resume).
    pub(super) fn pause(&mut self) {
        self.stop_threads();
        for seat in &mut self.seats {
            if let Place::Resting(worker) = &mut seat.place {
                // What is in flight is read from the driver's memory.
                worker.rest();
            }
        }
    }

    /// Starts the threads of the pairs that are used.
    ///
    /// # Errors
    /// One was lost before, or the system refuses one.
    pub(super) fn resume(&mut self) -> Result<(), UseError> {
        (0..self.used).try_for_each(|pair| self.set_to_work(pair))
    }

    fn stop_threads(&mut self) {
        for seat in &mut self.seats {
            seat.place = match mem::replace(&mut seat.place, Place::Lost) {
                Place::Running(thread) => thread.stop().map_or(Place::Lost, Place::Resting),
                other => other,
            };
        }
    }

    /// Takes the back ends from the workers.
    fn collect(&mut self) {
        for seat in &mut self.seats {
            if let Place::Resting(worker) = &mut seat.place {
                self.idle.append(&mut worker.carriers);
            }
        }
        self.idle.sort_by_key(|carrier| carrier.home);
    }

    /// Hands the back ends out to the first `count` workers and sets these to work.
    fn start_threads(&mut self, count: usize) -> Result<(), UseError> {
        if self.idle.len() != self.count {
            return Err(UseError::Dead);
        }
        // In order, so each of the workers gets its own first.
        for carrier in mem::take(&mut self.idle) {
            let seat = self.seats.get_mut(carrier.home % count);
            match seat.map(|seat| &mut seat.place) {
                Some(Place::Resting(worker)) => worker.carriers.push(carrier),
                _ => self.idle.push(carrier),
            }
        }
        if !self.idle.is_empty() {
            return Err(UseError::Dead);
        }
        for seat in self.seats.iter_mut().take(count) {
            let worker = match mem::replace(&mut seat.place, Place::Lost) {
                Place::Resting(worker) => worker,
                other => {
                    seat.place = other;
                    continue;
                }
            };
            match NetThread::start(worker, &self.shared) {
                Ok(thread) => seat.place = Place::Running(thread),
                Err((Some(worker), error)) => {
                    seat.place = Place::Resting(worker);
                    return Err(UseError::Thread(error));
                }
                Err((None, error)) => return Err(UseError::Lost(error)),
            }
        }
        self.used = count;
        Ok(())
    }
}
