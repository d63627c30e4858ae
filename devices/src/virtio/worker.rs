//! A device's own thread: started at DRIVER_OK, ended and joined at reset.

use std::{
    any::Any,
    io,
    os::fd::{AsRawFd, RawFd},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use super::quiet::Quiet;
use crate::{placement::Placement, threads::ThreadKind};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// Told, in a sentence, why a device's thread ended although nobody asked it to. Called on that
/// thread, at most once. A VMM ends the VM: it is never half alive.
pub type OnFault = Arc<dyn Fn(&str) + Send + Sync>;

/// How often a thread that has to run again is tried, where the system refuses it: for a moment after its end
/// the one before still counts towards the limits.
pub(super) const START_TRIES: u32 = 100;
/// How far apart these are.
pub(super) const START_PAUSE: Duration = Duration::from_millis(2);

/// What [`OnFault`] is where the embedder gave none: an error in the log.
pub(super) fn log_fault() -> OnFault {
    // A guest that resets the device gets a new thread, which may end in the same way.
    let faults = Quiet::default();
    Arc::new(move |reason: &str| {
        if let Some(number) = faults.count() {
            tracing::error!("{reason} (message {number})");
        }
    })
}

/// Asks a thread to end: a flag for the code that runs, an eventfd for the event loop that sleeps.
#[derive(Debug)]
pub(super) struct StopSignal {
    raised: AtomicBool,
    event: EventFd,
}

impl StopSignal {
    /// A signal that is not raised.
    ///
    /// # Errors
    /// The system has no more eventfds.
    pub(super) fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            raised: AtomicBool::new(false),
            event: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
        }))
    }

    /// Whether the thread is to end. Cheap enough to ask between any two pieces of work.
    pub(super) fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    /// Raises the signal. It stays raised until it is [lowered](Self::lower).
    pub(super) fn raise(&self) {
        self.raised.store(true, Ordering::Release);
        // Fails only when the counter is at its maximum, and then the loop wakes up anyway.
        let _ = self.event.write(1);
    }

    /// Takes the signal back, when the thread that it was for has ended and another one is to start.
    pub(super) fn lower(&self) {
        // An error is "it was not raised".
        let _ = self.event.read();
        self.raised.store(false, Ordering::Release);
    }
}

/// Readable for as long as the signal is raised: the thread that it is for does not read it.
impl AsRawFd for StopSignal {
    fn as_raw_fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }
}

/// A running thread. Dropping it stops and joins it.
#[derive(Debug)]
#[must_use = "dropping it stops the thread"]
pub(super) struct WorkerThread {
    stop: Arc<StopSignal>,
    thread: Option<JoinHandle<()>>,
}

impl WorkerThread {
    /// Starts `work` on a thread called `name`, on the CPUs that `placement` has for that name. It is to
    /// return soon after `stop` was raised. If it returns an error, or panics, `on_fault` hears of it.
    ///
    /// # Errors
    /// The system can't start one more thread. `work` is gone then, with what it owned.
    pub(super) fn spawn<W>(
        kind: ThreadKind,
        name: &str,
        placement: &Placement,
        stop: Arc<StopSignal>,
        on_fault: OnFault,
        work: W,
    ) -> io::Result<Self>
    where
        W: FnOnce(&StopSignal) -> io::Result<()> + Send + 'static,
    {
        let thread = {
            let (name, stop) = (name.to_owned(), Arc::clone(&stop));
            placement.spawn(kind, &name.clone(), move || {
                guarded(&name, &stop, &on_fault, work);
            })?
        };
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for WorkerThread {
    fn drop(&mut self) {
        self.stop.raise();
        if let Some(thread) = self.thread.take() {
            // A panic in the work was caught and reported; an error here is one in `on_fault`.
            let _ = thread.join();
        }
    }
}

fn guarded(
    name: &str,
    stop: &StopSignal,
    on_fault: &OnFault,
    work: impl FnOnce(&StopSignal) -> io::Result<()>,
) {
    // Unwind safety: what the work owned is dropped by the unwinding, nothing of it is used again.
    let reason = match catch_unwind(AssertUnwindSafe(|| work(stop))) {
        Ok(Ok(())) => return,
        Ok(Err(error)) => format!("the io-thread {name} can't go on: {error}"),
        Err(panic) => format!("the io-thread {name} panicked: {}", message(&*panic)),
    };
    on_fault(&reason);
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use std::{sync::Mutex, thread};

    use super::*;

    fn recorder() -> (OnFault, Arc<Mutex<Vec<String>>>) {
        let said = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&said);
        let hook: OnFault = Arc::new(move |reason| log.lock().unwrap().push(reason.to_owned()));
        (hook, said)
    }

    fn spawn(
        on_fault: OnFault,
        work: impl FnOnce(&StopSignal) -> io::Result<()> + Send + 'static,
    ) -> WorkerThread {
        WorkerThread::spawn(
            ThreadKind::Rng,
            "test0",
            &Placement::default(),
            StopSignal::new().unwrap(),
            on_fault,
            work,
        )
        .unwrap()
    }

    #[test]
    fn dropping_stops_and_joins() {
        let (on_fault, said) = recorder();
        let ended = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&ended);
        drop(spawn(on_fault, move |stop| {
            assert_eq!(thread::current().name(), Some("test0"));
            while !stop.is_raised() {
                thread::yield_now();
            }
            flag.store(true, Ordering::Release);
            Ok(())
        }));
        assert!(ended.load(Ordering::Acquire));
        assert!(said.lock().unwrap().is_empty());
    }

    #[test]
    fn an_error_and_a_panic_are_reported_in_words() {
        let (on_fault, said) = recorder();
        let error = || Err(io::Error::other("the disk is gone"));
        drop(spawn(Arc::clone(&on_fault), move |_| error()));
        drop(spawn(on_fault, |_| panic!("number {}", 7)));
        assert_eq!(
            *said.lock().unwrap(),
            [
                "the io-thread test0 can't go on: the disk is gone",
                "the io-thread test0 panicked: number 7"
            ]
        );
    }
}
