//! One pair's thread stops and starts again: for a queue that is reset and enabled again (virtio 1.2, section 2.6.1).
//!
//! The pair's thread ends, its worker gives the queue up or takes the new one, and the thread starts again. The pair's
//! other queue waits meanwhile, like at a change of the number of pairs; the other pairs do not notice.

use std::{mem, thread};

use super::{NetBackend, Pairs, Place, START_PAUSE, START_TRIES, UseError};
use crate::virtio::{
    ActiveQueue,
    net::{
        thread::NetThread,
        worker::{Side, Worker},
    },
};

impl<B: NetBackend> Pairs<B> {
    /// Takes a queue away from its pair. When it returns nobody touches the queue any more, whatever it returns.
    /// Frames that arrive for the pair meanwhile wait in the interface's ring, as far as it goes.
    ///
    /// # Errors
    /// The pair's other queue can't be worked on any more: its thread was lost before, or the system refuses one.
    pub(in crate::virtio::net) fn reset_queue(
        &mut self,
        pair: usize,
        side: Side,
    ) -> Result<(), UseError> {
        self.change(pair, side, false, |worker| worker.detach(side))
    }

    /// Gives a queue to its pair, in place of one that was reset or never enabled. It is worked on if the pair is in
    /// use.
    ///
    /// # Errors
    /// As [`reset_queue`](Self::reset_queue).
    pub(in crate::virtio::net) fn enable_queue(
        &mut self,
        pair: usize,
        side: Side,
        queue: ActiveQueue,
    ) -> Result<(), UseError> {
        self.change(pair, side, true, |worker| worker.attach(side, queue))
    }

    /// Does `change` to the worker of a pair, while it has no thread.
    fn change(
        &mut self,
        pair: usize,
        side: Side,
        enabled: bool,
        change: impl FnOnce(&mut Worker<B>),
    ) -> Result<(), UseError> {
        // Not one that the driver negotiated.
        let Some(seat) = self.seats.get_mut(pair) else {
            return Ok(());
        };
        let [rx, tx] = &mut seat.enabled;
        *match side {
            Side::Rx => rx,
            Side::Tx => tx,
        } = enabled;
        match mem::replace(&mut seat.place, Place::Lost) {
            Place::Lost => Err(UseError::Dead),
            Place::Resting(mut worker) => {
                change(&mut worker);
                seat.place = Place::Resting(worker);
                Ok(())
            }
            Place::Running(running) => {
                let mut worker = running.stop().ok_or(UseError::Dead)?;
                change(&mut worker);
                seat.place = Place::Resting(worker);
                self.set_to_work(pair)
            }
        }
    }

    /// Starts a pair's thread again.
    pub(super) fn set_to_work(&mut self, pair: usize) -> Result<(), UseError> {
        let Some(seat) = self.seats.get_mut(pair) else {
            return Ok(());
        };
        let mut worker = match mem::replace(&mut seat.place, Place::Lost) {
            Place::Resting(worker) => worker,
            Place::Lost => return Err(UseError::Dead),
            running @ Place::Running(_) => {
                seat.place = running;
                return Ok(());
            }
        };
        let mut tries = 1;
        loop {
            match NetThread::start(worker, &self.shared) {
                Ok(thread) => {
                    seat.place = Place::Running(thread);
                    return Ok(());
                }
                Err((Some(back), _)) if tries < START_TRIES => worker = back,
                Err((back, error)) => {
                    seat.place = back.map_or(Place::Lost, Place::Resting);
                    // So that the next number of pairs, whatever it is, starts all of their threads.
                    self.used = 0;
                    return Err(UseError::Lost(error));
                }
            }
            tries += 1;
            thread::sleep(START_PAUSE);
        }
    }
}
