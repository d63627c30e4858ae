//! Starting an io-thread and getting its back end back.

use std::{
    any::Any,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc},
    thread::{Builder, JoinHandle},
};

use event_manager::{EventManager, SubscriberId, SubscriberOps};

use super::{
    NetBackend,
    shared::{Shared, lock},
    worker::{Pause, Stop, Worker, WorkerParts},
};
use crate::virtio::ActivateError;

/// A running io-thread. Dropped without [`stop`](Self::stop), it is stopped all the same.
#[derive(Debug)]
pub(super) struct NetThread<B> {
    stop: Arc<Stop>,
    /// Ends with the back end, or without it if the worker was lost in a panic.
    thread: Option<JoinHandle<Option<B>>>,
}

/// A worker in its event loop.
struct Running<B> {
    manager: EventManager<Worker<B>>,
    id: SubscriberId,
}

impl<B: NetBackend> NetThread<B> {
    /// Starts the thread of one queue pair.
    ///
    /// # Errors
    /// The system refused a thread, an eventfd or an epoll; the back end comes back with it.
    pub(super) fn start(parts: WorkerParts<B>) -> Result<Self, (B, ActivateError)> {
        let failed = |what| move |source| ActivateError::System { what, source };
        let prepared = Stop::new()
            .map_err(failed("make an eventfd for a network thread"))
            .and_then(|stop| {
                let other = |error: event_manager::Error| io::Error::other(error.to_string());
                let manager = EventManager::new_with_capacity(8).map_err(other);
                Ok((
                    Arc::new(stop),
                    manager.map_err(failed("make an epoll for a network thread"))?,
                ))
            });
        let (stop, mut manager) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return Err((parts.backend, error)),
        };
        let (shared, pair) = (Arc::clone(&parts.shared), parts.pair);
        let name = thread_name(&shared, pair);
        let id = manager.add_subscriber(Worker::new(parts, Arc::clone(&stop)));
        let running = Running { manager, id };

        // Handed over after the thread is there, so that it is not lost if there is none.
        let (give, take) = mpsc::sync_channel::<Running<B>>(1);
        let body = move || {
            take.recv()
                .ok()
                .and_then(|running| running.live(&shared, pair))
        };
        match Builder::new().name(name).spawn(body) {
            Ok(thread) => {
                let given = give.send(running);
                debug_assert!(given.is_ok(), "the thread waits for its worker");
                Ok(Self {
                    stop,
                    thread: Some(thread),
                })
            }
            Err(error) => match running.into_backend() {
                Some(backend) => Err((backend, failed("start a network thread")(error))),
                None => unreachable!("the worker was added above"),
            },
        }
    }

    /// Ends the thread. When this returns it touches no guest memory, and the back end is ours.
    pub(super) fn stop(mut self) -> Option<B> {
        self.end()
    }

    fn end(&mut self) -> Option<B> {
        self.stop.request();
        // A panic was caught and reported inside; an error here would be a second one.
        self.thread.take()?.join().ok().flatten()
    }
}

impl<B> Drop for NetThread<B> {
    fn drop(&mut self) {
        self.stop.request();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl<B: NetBackend> Running<B> {
    /// The whole life of the thread.
    fn live(mut self, shared: &Shared, pair: usize) -> Option<B> {
        let end = catch_unwind(AssertUnwindSafe(|| self.serve()));
        let trouble = match end {
            Ok(Ok(())) => None,
            Ok(Err(reason)) => Some(reason),
            Err(panic) => Some(format!("it panicked: {}", panic_text(panic.as_ref()))),
        };
        if let Some(reason) = trouble {
            (shared.on_fault)(&format!(
                "{}: the network thread ended: {reason}",
                shared.name
            ));
        }
        let mut backend = self.into_backend()?;
        if let Some(report) = lock(&shared.reports).get_mut(pair) {
            *report = backend.report();
        }
        Some(backend)
    }

    fn serve(&mut self) -> Result<(), String> {
        let text = |error: event_manager::Error| error.to_string();
        let mut wait = 0;
        loop {
            self.manager.run_with_timeout(wait).map_err(text)?;
            let worker = self.manager.subscriber_mut(self.id).map_err(text)?;
            if worker.stop.requested() {
                return Ok(());
            }
            if let Some(reason) = worker.failure.take() {
                return Err(reason);
            }
            wait = match worker.turn() {
                Pause::None => 0,
                Pause::Short(milliseconds) => milliseconds,
                Pause::Long => -1,
            };
            if let Some(events) = worker.update_interest() {
                let ops = self.manager.event_ops(self.id).map_err(text)?;
                ops.modify(events).map_err(text)?;
            }
        }
    }

    fn into_backend(mut self) -> Option<B> {
        let worker = self.manager.remove_subscriber(self.id).ok()?;
        Some(worker.backend)
    }
}

/// `net0`, or `net0.1` for further pairs. Linux cuts thread names at 15 bytes.
fn thread_name(shared: &Shared, pair: usize) -> String {
    let name: String = shared.name.chars().filter(|&c| c != '\0').collect();
    match pair {
        0 => name,
        _ => format!("{name}.{pair}"),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}
