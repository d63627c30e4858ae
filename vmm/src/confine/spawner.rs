//! The thread that makes the devices' threads.
//!
//! A driver that is ready, or that wants other queue pairs, makes a vCPU's thread or a control queue's thread want
//! new ones. A thread begins with the filter of its maker and can only add to it: so those would have to be
//! allowed whatever a disk's thread does, and to make threads. This one is instead; all that it gets to see is the
//! name and the kind of a thread, nothing of the guest's.

use std::{
    io,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};

use devices::{placement::Placement, threads::NewThread};

use super::{ConfineError, Filters, ThreadKind};

const NAME: &str = "spawner";

struct Request {
    thread: NewThread,
    answer: mpsc::SyncSender<io::Result<JoinHandle<()>>>,
}

/// The thread; [`end`](Self::end) ends it.
#[derive(Debug)]
pub(super) struct Spawner {
    requests: Handle,
    thread: JoinHandle<()>,
}

/// Where threads are asked for. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Handle(mpsc::Sender<Request>);

impl Spawner {
    /// Starts it, confined.
    ///
    /// # Errors
    /// There is no thread to be had, or no filter for it.
    pub(super) fn start(filters: Arc<Filters>) -> Result<Self, ConfineError> {
        let (requests, todo) = mpsc::channel::<Request>();
        let own = Arc::clone(&filters);
        let serve = move || {
            for Request { thread, answer } in todo {
                let made = make_for_device(&filters, thread);
                // Whoever asked waits for it.
                let _ = answer.send(made);
            }
        };
        let thread = make(
            &own,
            ThreadKind::Spawner,
            NAME.to_owned(),
            Placement::default(),
            serve,
        );
        let thread = thread.map_err(ConfineError::Spawner)?;
        Ok(Self {
            requests: Handle(requests),
            thread,
        })
    }

    pub(super) fn handle(&self) -> Handle {
        self.requests.clone()
    }

    /// Ends it. The threads that it made go on.
    pub(super) fn end(self) {
        drop(self.requests);
        // A panic in it was reported by the hook.
        let _ = self.thread.join();
    }
}

impl Handle {
    /// Asks for a thread and waits for it.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn make(&self, thread: NewThread) -> io::Result<JoinHandle<()>> {
        let (answer, made) = mpsc::sync_channel(1);
        let request = Request { thread, answer };
        let gone = || io::Error::other("the thread that makes threads is gone");
        self.0.send(request).map_err(|_| gone())?;
        made.recv().unwrap_or_else(|_| Err(gone()))
    }
}

/// A device's thread.
fn make_for_device(filters: &Arc<Filters>, thread: NewThread) -> io::Result<JoinHandle<()>> {
    let NewThread {
        kind,
        name,
        placement,
        work,
    } = thread;
    make(filters, kind.into(), name, placement, work)
}

/// A thread that does nothing before it is confined. Returns when it is.
fn make(
    filters: &Arc<Filters>,
    kind: ThreadKind,
    name: String,
    placement: Placement,
    work: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let (ready, entered) = mpsc::sync_channel(1);
    let filters = Arc::clone(filters);
    let thread = thread::Builder::new().name(name.clone()).spawn(move || {
        // Its filter does not allow that.
        placement.enter(&name);
        let result = filters.enter(kind, &name);
        let confined = result.is_ok();
        // Whoever made it waits for it.
        let _ = ready.send(result);
        if confined {
            work();
        }
    })?;
    match entered.recv() {
        Ok(Ok(())) => Ok(thread),
        Ok(Err(error)) => {
            let _ = thread.join();
            Err(io::Error::other(error))
        }
        Err(_) => Err(io::Error::other("it ended before it began")),
    }
}
