//! The thread of a queue of requests, which can rest: it ends then, and its work waits for the next one.

use std::{
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use event_manager::{EventManager, SubscriberId, SubscriberOps};

use super::{RequestHandler, Turns};
use crate::{
    placement::Placement,
    virtio::{
        ActivateError,
        worker::{OnFault, START_PAUSE, START_TRIES, StopSignal, WorkerThread},
    },
};

/// A queue's work with its event loop.
pub(super) struct Work<H: RequestHandler> {
    pub(super) events: EventManager<Turns<H>>,
    pub(super) id: SubscriberId,
}

impl<H: RequestHandler> Work<H> {
    /// Turn after turn, until the thread is to end.
    fn run(&mut self, stop: &StopSignal) -> io::Result<()> {
        while !stop.is_raised() {
            #[cfg(debug_assertions)]
            crate::sabotage::turn()?;
            let turns = self.events.subscriber_mut(self.id);
            let more = turns.map_err(io::Error::other)?.turn()?;
            let timeout = if more { 0 } else { -1 };
            self.events
                .run_with_timeout(timeout)
                .map_err(io::Error::other)?;
        }
        Ok(())
    }
}

/// How to start a thread for it.
#[derive(Clone)]
pub(super) struct Start {
    pub(super) name: String,
    pub(super) placement: Placement,
    pub(super) stop: Arc<StopSignal>,
    pub(super) on_fault: OnFault,
}

/// Works on a queue, or rests. Dropping it stops the thread and gives the queue up.
pub(in crate::virtio) struct RequestThread<H: RequestHandler> {
    start: Start,
    /// Where the work lies while no thread has it. A thread that dies does not put it back.
    desk: Arc<Mutex<Option<Work<H>>>>,
    thread: Option<WorkerThread>,
}

impl<H: RequestHandler> RequestThread<H> {
    /// Sets a thread to work.
    ///
    /// # Errors
    /// The system can't start one more.
    pub(super) fn new(start: Start, work: Work<H>) -> io::Result<Self> {
        let mut thread = Self {
            start,
            desk: Arc::new(Mutex::new(Some(work))),
            thread: None,
        };
        thread.spawn()?;
        Ok(thread)
    }

    fn spawn(&mut self) -> io::Result<()> {
        let Start {
            name,
            placement,
            stop,
            on_fault,
        } = self.start.clone();
        stop.lower();
        let desk = Arc::clone(&self.desk);
        let work = move |stop: &StopSignal| {
            let Some(mut work) = lock(&desk).take() else {
                return Ok(());
            };
            work.run(stop)?;
            *lock(&desk) = Some(work);
            Ok(())
        };
        let thread = WorkerThread::spawn(H::KIND, &name, &placement, stop, on_fault, work)?;
        self.thread = Some(thread);
        Ok(())
    }

    /// Ends the thread. When it returns nothing touches the queue and its buffers any more, until
    /// [`resume`](Self::resume). A request that was under way is finished, or will be done from the start.
    pub(in crate::virtio) fn pause(&mut self) {
        // Stops and joins.
        self.thread = None;
    }

    /// Goes on where it was.
    ///
    /// # Errors
    /// The thread had died, or the system refuses one.
    pub(in crate::virtio) fn resume(&mut self) -> Result<(), ActivateError> {
        if self.thread.is_some() {
            return Ok(());
        }
        let mut tries = 1;
        // A thread that was refused has not touched the desk.
        while lock(&self.desk).is_some() {
            match self.spawn() {
                Ok(()) => return Ok(()),
                Err(_) if tries < START_TRIES => thread::sleep(START_PAUSE),
                Err(source) => {
                    let what = "start a device's thread again";
                    return Err(ActivateError::System { what, source });
                }
            }
            tries += 1;
        }
        Err(ActivateError::Dead)
    }
}

impl<H: RequestHandler> fmt::Debug for RequestThread<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestThread")
            .field("name", &self.start.name)
            .field("thread", &self.thread)
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
