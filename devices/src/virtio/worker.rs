//! A device's own thread: started at DRIVER_OK, ended and joined at reset.

use std::{
    any::Any,
    fmt, io,
    os::fd::{AsRawFd, RawFd},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// Told, in a sentence, why a device's thread ended although nobody asked it to. Called on that
/// thread, at most once. A VMM ends the VM: it is never half alive.
pub type OnFault = Arc<dyn Fn(&str) + Send + Sync>;

/// What [`OnFault`] is where the embedder gave none: an error in the log.
pub fn log_fault() -> OnFault {
    Arc::new(|reason: &str| tracing::error!("{reason}"))
}

/// Asks a thread to end: a flag for the code that runs, an eventfd for the event loop that sleeps.
#[derive(Debug)]
pub struct StopSignal {
    raised: AtomicBool,
    event: EventFd,
}

impl StopSignal {
    /// A signal that is not raised.
    ///
    /// # Errors
    /// The system has no more eventfds.
    pub fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            raised: AtomicBool::new(false),
            event: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
        }))
    }

    /// Whether the thread is to end. Cheap enough to ask between any two pieces of work.
    pub fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    /// Raises the signal, for good.
    pub fn raise(&self) {
        self.raised.store(true, Ordering::Release);
        // Fails only when the counter is at its maximum, and then the loop wakes up anyway.
        let _ = self.event.write(1);
    }
}

/// Readable as soon as the signal is raised; nobody reads it, so it stays so.
impl AsRawFd for StopSignal {
    fn as_raw_fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }
}

/// A running thread. Dropping it stops and joins it as [`stop`](Self::stop) does.
#[must_use = "dropping it stops the thread"]
pub struct WorkerThread<T> {
    name: String,
    stop: Arc<StopSignal>,
    thread: Option<JoinHandle<Option<T>>>,
}

impl<T: Send + 'static> WorkerThread<T> {
    /// Starts `work` on a thread called `name` (Linux shows the first 15 bytes). It is to return
    /// soon after `stop` was raised. If it returns an error, or panics, `on_fault` hears of it.
    ///
    /// # Errors
    /// The system can't start one more thread. `work` is gone then, with what it owned.
    pub fn spawn<W>(
        name: &str,
        stop: Arc<StopSignal>,
        on_fault: OnFault,
        work: W,
    ) -> io::Result<Self>
    where
        W: FnOnce(&StopSignal) -> io::Result<T> + Send + 'static,
    {
        let thread = {
            let (name, stop) = (name.to_owned(), Arc::clone(&stop));
            thread::Builder::new()
                .name(name.clone())
                .spawn(move || guarded(&name, &stop, &on_fault, work))?
        };
        Ok(Self {
            name: name.to_owned(),
            stop,
            thread: Some(thread),
        })
    }

    /// Stops and joins the thread and returns what its work left; `None` if it had died.
    pub fn stop(mut self) -> Option<T> {
        self.join()
    }

    fn join(&mut self) -> Option<T> {
        self.stop.raise();
        // A panic in the work was caught and reported; one in `on_fault` ends as `None` here.
        self.thread.take()?.join().ok().flatten()
    }
}

impl<T> Drop for WorkerThread<T> {
    fn drop(&mut self) {
        self.stop.raise();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl<T> fmt::Debug for WorkerThread<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerThread")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

fn guarded<T>(
    name: &str,
    stop: &StopSignal,
    on_fault: &OnFault,
    work: impl FnOnce(&StopSignal) -> io::Result<T>,
) -> Option<T> {
    // Unwind safety: what the work owned is dropped by the unwinding, nothing of it is used again.
    let reason = match catch_unwind(AssertUnwindSafe(|| work(stop))) {
        Ok(Ok(left)) => return Some(left),
        Ok(Err(error)) => format!("the io-thread {name} can't go on: {error}"),
        Err(panic) => format!("the io-thread {name} panicked: {}", message(&*panic)),
    };
    on_fault(&reason);
    None
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use std::{sync::Mutex, time::Duration};

    use super::*;

    fn recorder() -> (OnFault, Arc<Mutex<Vec<String>>>) {
        let said = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&said);
        let hook: OnFault = Arc::new(move |reason| log.lock().unwrap().push(reason.to_owned()));
        (hook, said)
    }

    fn spawn<T: Send + 'static>(
        on_fault: OnFault,
        work: impl FnOnce(&StopSignal) -> io::Result<T> + Send + 'static,
    ) -> WorkerThread<T> {
        WorkerThread::spawn("test0", StopSignal::new().unwrap(), on_fault, work).unwrap()
    }

    #[test]
    fn what_the_work_leaves_comes_back_at_stop() {
        let (on_fault, said) = recorder();
        let worker = spawn(on_fault, |stop| {
            assert_eq!(thread::current().name(), Some("test0"));
            while !stop.is_raised() {
                thread::sleep(Duration::from_millis(1));
            }
            Ok(String::from("left"))
        });
        assert_eq!(worker.stop().as_deref(), Some("left"));
        assert!(said.lock().unwrap().is_empty());
    }

    #[test]
    fn an_error_and_a_panic_are_reported_in_words() {
        let (on_fault, said) = recorder();
        let failing = spawn::<()>(Arc::clone(&on_fault), |_| {
            Err(io::Error::other("the disk is gone"))
        });
        assert_eq!(failing.stop(), None);
        let panicking = spawn::<()>(on_fault, |_| panic!("number {}", 7));
        assert_eq!(panicking.stop(), None);
        assert_eq!(
            *said.lock().unwrap(),
            [
                "the io-thread test0 can't go on: the disk is gone",
                "the io-thread test0 panicked: number 7"
            ]
        );
    }

    #[test]
    fn dropping_joins() {
        let ended = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&ended);
        drop(spawn(log_fault(), move |stop| {
            while !stop.is_raised() {
                thread::yield_now();
            }
            flag.store(true, Ordering::Release);
            Ok(())
        }));
        assert!(ended.load(Ordering::Acquire));
    }
}
