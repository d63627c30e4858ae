//! Starting an io-thread with a worker, and getting the worker back.

use std::{
    io,
    sync::{Arc, mpsc},
    time::Instant,
};

use event_manager::{EventManager, SubscriberId, SubscriberOps};

use super::{
    NetBackend,
    carrier::Interest,
    shared::Shared,
    worker::{Pause, Shift, Worker, host_error},
};
use crate::{
    threads::ThreadKind,
    virtio::worker::{OnFault, StopSignal, WorkerThread},
};

/// Why there is no io-thread, and its worker, if that is not lost.
pub(super) type NotStarted<B> = (Option<Box<Worker<B>>>, io::Error);

/// A running io-thread. Dropping it stops it, and the worker with it.
#[derive(Debug)]
pub(super) struct NetThread<B> {
    thread: WorkerThread,
    /// Where the thread puts the worker when it ends.
    back: mpsc::Receiver<Worker<B>>,
}

impl<B: NetBackend> NetThread<B> {
    /// Starts the thread of one queue pair.
    ///
    /// # Errors
    /// The system refused a thread, an eventfd or an epoll; the worker comes back with it. Without one it is lost, which
    /// the embedder has heard of.
    pub(super) fn start(
        mut worker: Box<Worker<B>>,
        shared: &Shared,
    ) -> Result<Self, NotStarted<B>> {
        let prepared = StopSignal::new().and_then(|stop| {
            worker.provide_alarm()?;
            let manager = EventManager::new_with_capacity(8).map_err(host_error)?;
            Ok((stop, manager))
        });
        let (stop, mut manager) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return Err((Some(worker), error)),
        };
        let name = thread_name(&shared.name, worker.pair);
        let (broken, embedder) = (worker.interrupt().clone(), Arc::clone(&shared.on_fault));
        // Of an error or of a panic the driver hears as well.
        let on_fault: OnFault = Arc::new(move |reason| {
            broken.needs_reset();
            embedder(reason);
        });
        let id = manager.add_subscriber(Shift {
            worker: *worker,
            stop: Arc::clone(&stop),
        });

        // Handed over when the thread is there, so that it is not lost if there is none.
        let (give, take) = mpsc::sync_channel::<Running<B>>(1);
        let (put, back) = mpsc::sync_channel(1);
        let work = move |stop: &StopSignal| match take.recv() {
            Ok(mut running) => running.serve(stop),
            Err(mpsc::RecvError) => Ok(()),
        };
        let mut running = Running {
            shift: Some((manager, id)),
            put,
        };
        let kind = ThreadKind::Net;
        match WorkerThread::spawn(kind, &name, &shared.placement, stop, on_fault, work) {
            Ok(thread) => {
                let given = give.send(running);
                debug_assert!(given.is_ok(), "the thread waits for its worker");
                Ok(Self { thread, back })
            }
            Err(error) => {
                let worker = running.take_worker().map(Box::new);
                if worker.is_none() {
                    // It was added above, so this is a bug of ours. A card without it must not go on half alive.
                    (shared.on_fault)(&format!(
                        "the io-thread {name} could not be started ({error}), and its queue pair is lost with it"
                    ));
                }
                Err((worker, error))
            }
        }
    }

    /// Ends the thread. When this returns it touches no guest memory, and the worker is ours, also
    /// if the thread had died. `None` if it was lost.
    pub(super) fn stop(self) -> Option<Box<Worker<B>>> {
        drop(self.thread);
        self.back.try_recv().ok().map(Box::new)
    }
}

/// A worker in its event loop. Dropped, also by a panic, it hands the worker back.
struct Running<B: NetBackend> {
    shift: Option<(EventManager<Shift<B>>, SubscriberId)>,
    put: mpsc::SyncSender<Worker<B>>,
}

impl<B: NetBackend> Running<B> {
    /// The life of the thread, until it is to stop.
    fn serve(&mut self, stop: &StopSignal) -> io::Result<()> {
        let Some((manager, id)) = &mut self.shift else {
            return Ok(());
        };
        let mut wait = 0;
        loop {
            #[cfg(debug_assertions)]
            crate::sabotage::turn()?;
            // The clock is for sleeps alone: a busy thread has none.
            let asleep = (wait < 0).then(Instant::now);
            manager.run_with_timeout(wait).map_err(host_error)?;
            let worker = &mut manager.subscriber_mut(*id).map_err(host_error)?.worker;
            if let Some(since) = asleep {
                worker.spin.slept(since.elapsed());
            }
            if stop.is_raised() {
                return Ok(());
            }
            if let Some(error) = worker.take_failure() {
                return Err(error);
            }
            wait = match worker.turn(stop) {
                Pause::None => 0,
                Pause::Short(milliseconds) => milliseconds,
                Pause::Long => -1,
            };
            loop {
                let worker = &mut manager.subscriber_mut(*id).map_err(host_error)?.worker;
                let Some(interest) = worker.next_interest() else {
                    break;
                };
                let mut ops = manager.event_ops(*id).map_err(host_error)?;
                match interest {
                    Interest::Add(events) => ops.add(events),
                    Interest::Change(events) => ops.modify(events),
                    Interest::Remove(events) => ops.remove(events),
                }
                .map_err(host_error)?;
            }
        }
    }

    fn take_worker(&mut self) -> Option<Worker<B>> {
        let (mut manager, id) = self.shift.take()?;
        let shift = manager.remove_subscriber(id).ok()?;
        Some(shift.worker)
    }
}

impl<B: NetBackend> Drop for Running<B> {
    fn drop(&mut self) {
        if let Some(worker) = self.take_worker() {
            // There is room for one, and nobody who misses it if the device is gone.
            let _ = self.put.try_send(worker);
        }
    }
}

/// `net0`, or `net0.1` for further pairs.
fn thread_name(name: &str, pair: usize) -> String {
    match pair {
        0 => name.to_owned(),
        _ => format!("{name}.{pair}"),
    }
}
