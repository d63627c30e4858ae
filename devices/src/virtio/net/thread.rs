//! Starting an io-thread and getting its back end back.

use std::{
    io,
    sync::{Arc, mpsc},
};

use event_manager::{EventManager, SubscriberId, SubscriberOps};

use super::{
    NetBackend,
    shared::{Shared, lock},
    worker::{Pause, Worker, WorkerParts},
};
use crate::virtio::{
    ActivateError,
    worker::{OnFault, StopSignal, WorkerThread},
};

/// A running io-thread. Dropping it stops it, and the back end with it.
#[derive(Debug)]
pub(super) struct NetThread<B> {
    thread: WorkerThread,
    /// Where the thread puts the back end when it ends.
    back: mpsc::Receiver<B>,
}

impl<B: NetBackend> NetThread<B> {
    /// Starts the thread of one queue pair.
    ///
    /// # Errors
    /// The system refused a thread, an eventfd or an epoll; the back end comes back with it.
    pub(super) fn start(parts: WorkerParts<B>) -> Result<Self, (B, ActivateError)> {
        let prepared = StopSignal::new().and_then(|stop| {
            let manager = EventManager::new_with_capacity(8).map_err(host_error)?;
            Ok((stop, manager))
        });
        let failed = |source| {
            let what = "start a network thread";
            ActivateError::System { what, source }
        };
        let (stop, mut manager) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return Err((parts.backend, failed(error))),
        };
        let name = thread_name(&parts.shared.name, parts.pair);
        let (shared, pair) = (Arc::clone(&parts.shared), parts.pair);
        let (broken, embedder) = (parts.interrupt.clone(), Arc::clone(&shared.on_fault));
        // Of an error or of a panic the driver hears as well.
        let on_fault: OnFault = Arc::new(move |reason| {
            broken.needs_reset();
            embedder(reason);
        });
        let id = manager.add_subscriber(Worker::new(parts, Arc::clone(&stop)));

        // Handed over when the thread is there, so that it is not lost if there is none.
        let (give, take) = mpsc::sync_channel::<Running<B>>(1);
        let (put, back) = mpsc::sync_channel(1);
        let work = move |_: &StopSignal| match take.recv() {
            Ok(mut running) => running.serve(),
            Err(mpsc::RecvError) => Ok(()),
        };
        let mut running = Running {
            worker: Some((manager, id)),
            put,
            shared,
            pair,
        };
        match WorkerThread::spawn(&name, stop, on_fault, work) {
            Ok(thread) => {
                let given = give.send(running);
                debug_assert!(given.is_ok(), "the thread waits for its worker");
                Ok(Self { thread, back })
            }
            Err(error) => match running.take_backend() {
                Some(backend) => Err((backend, failed(error))),
                None => unreachable!("the worker was added above"),
            },
        }
    }

    /// Ends the thread. When this returns it touches no guest memory, and the back end is ours.
    /// `None` if it was lost.
    pub(super) fn stop(self) -> Option<B> {
        drop(self.thread);
        self.back.try_recv().ok()
    }
}

/// A worker in its event loop. Dropped, also by a panic, it hands the back end back.
struct Running<B: NetBackend> {
    worker: Option<(EventManager<Worker<B>>, SubscriberId)>,
    put: mpsc::SyncSender<B>,
    shared: Arc<Shared>,
    pair: usize,
}

impl<B: NetBackend> Running<B> {
    /// The life of the thread, until it is to stop.
    fn serve(&mut self) -> io::Result<()> {
        let Some((manager, id)) = &mut self.worker else {
            return Ok(());
        };
        let mut wait = 0;
        loop {
            manager.run_with_timeout(wait).map_err(host_error)?;
            let worker = manager.subscriber_mut(*id).map_err(host_error)?;
            if worker.stop.is_raised() {
                return Ok(());
            }
            if let Some(error) = worker.failure.take() {
                return Err(error);
            }
            wait = match worker.turn() {
                Pause::None => 0,
                Pause::Short(milliseconds) => milliseconds,
                Pause::Long => -1,
            };
            if let Some(events) = worker.update_interest() {
                let ops = manager.event_ops(*id).map_err(host_error)?;
                ops.modify(events).map_err(host_error)?;
            }
        }
    }

    fn take_backend(&mut self) -> Option<B> {
        let (mut manager, id) = self.worker.take()?;
        let worker = manager.remove_subscriber(id).ok()?;
        Some(worker.backend)
    }
}

impl<B: NetBackend> Drop for Running<B> {
    fn drop(&mut self) {
        let Some(mut backend) = self.take_backend() else {
            return;
        };
        if let Some(report) = lock(&self.shared.reports).get_mut(self.pair) {
            *report = backend.report();
        }
        // There is room for one, and nobody who misses it if the device is gone.
        let _ = self.put.try_send(backend);
    }
}

fn host_error(error: event_manager::Error) -> io::Error {
    match error {
        event_manager::Error::Epoll(errno) => errno.into(),
        other => io::Error::other(other.to_string()),
    }
}

/// `net0`, or `net0.1` for further pairs. A name from a user may hold anything but NUL.
fn thread_name(name: &str, pair: usize) -> String {
    let name: String = name.chars().filter(|&c| c != '\0').collect();
    match pair {
        0 => name,
        _ => format!("{name}.{pair}"),
    }
}
