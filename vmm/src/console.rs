//! The serial console's two ends on the host: where output goes, and the thread that feeds input.

use std::{
    fs::File,
    io::{self, PipeReader, PipeWriter, Write},
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{
    confine::{Confinement, ThreadKind},
    exit::{ExitReason, ExitRequest},
};
use devices::{placement::Placement, serial::SerialPort};
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    io::Errno,
};

mod escape;

use escape::Escape;

/// The input thread's name.
const NAME: &str = "console";

/// How long to wait for an output that takes nothing before looking whether the VM stops.
const OUTPUT_WAIT: Duration = Duration::from_millis(20);

/// Writes what the guest sends to a file descriptor, on the vCPU's thread.
///
/// An output that takes nothing holds the guest up, as a serial line does, and loses nothing; but
/// it does not hold up the end of the VM.
#[derive(Debug)]
pub(crate) struct Output {
    fd: OwnedFd,
    stop: Arc<AtomicBool>,
    failed: bool,
}

impl Output {
    /// Writes to `fd` until `stop` is set.
    pub(crate) fn new(fd: OwnedFd, stop: Arc<AtomicBool>) -> Self {
        let failed = false;
        Self { fd, stop, failed }
    }

    /// Waits for room, a bounded time.
    fn wait(&self) {
        let mut fds = [PollFd::new(&self.fd, PollFlags::OUT)];
        let _ = poll(&mut fds, Some(&timespec(OUTPUT_WAIT)));
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

impl Write for Output {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        // A blocking descriptor would block in write(2), where a kick ends it with EINTR; either
        // way `stop` is looked at.
        while !self.stop.load(Ordering::Acquire) {
            match rustix::io::write(&self.fd, data) {
                Err(Errno::AGAIN) => self.wait(),
                Err(Errno::INTR) => {}
                Err(e) => {
                    if !self.failed {
                        self.failed = true;
                        let e = io::Error::from(e);
                        tracing::warn!(
                            "could not write the guest's serial output, it is lost: {e}"
                        );
                    }
                    return Err(e.into());
                }
                Ok(n) => return Ok(n),
            }
        }
        // The VM stops: nothing more is wanted.
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The thread `console`: standard input to the serial port, as fast as the guest takes it.
///
/// A thread of its own, because the port's lock may be held by a vCPU that waits for a slow
/// output, and the main loop must never wait.
#[derive(Debug)]
pub(crate) struct Input {
    /// Closing it ends the thread.
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

/// Tells the thread that the guest may take input. Cheap to clone, never blocks.
#[derive(Debug, Clone)]
pub(crate) struct Room(Arc<OwnedFd>);

impl Room {
    /// No room known yet.
    ///
    /// # Errors
    /// The system has no eventfd left.
    pub(crate) fn new() -> io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Self(Arc::new(fd)))
    }

    /// There may be room.
    pub(crate) fn signal(&self) {
        // Fails only when the counter is full, and then the event is pending.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }

    fn clear(&self) {
        // Fails when there was nothing to clear.
        let _ = rustix::io::read(&*self.0, &mut [0; 8]);
    }
}

/// What the input thread works with.
#[derive(Debug)]
pub(crate) struct InputConfig {
    /// Where input comes from.
    pub(crate) source: OwnedFd,
    /// The port to feed.
    pub(crate) port: Arc<Mutex<SerialPort>>,
    /// Signalled by the port.
    pub(crate) room: Room,
    /// A person types: Ctrl-A x leaves.
    pub(crate) escape: bool,
    /// Told when the user leaves.
    pub(crate) exit: ExitRequest,
}

impl Input {
    /// Starts the thread, confined.
    ///
    /// # Errors
    /// The system has no eventfd or thread left.
    pub(crate) fn start(
        config: InputConfig,
        placement: &Placement,
        confinement: &Arc<Confinement>,
    ) -> io::Result<Self> {
        let (stopped, stop) = io::pipe()?;
        let feeder = Feeder {
            stopped,
            escape: config.escape.then(Escape::default),
            source: Some(File::from(config.source)),
            port: config.port,
            room: config.room,
            exit: config.exit,
            pending: Vec::new(),
        };
        let (placement, confinement) = (placement.clone(), Arc::clone(confinement));
        let thread = thread::Builder::new()
            .name(NAME.to_owned())
            .spawn(move || {
                placement.enter(NAME);
                match confinement.enter(ThreadKind::Console, NAME) {
                    Ok(()) => feeder.run(),
                    Err(error) => feeder.exit.request(ExitReason::not_confined(&error)),
                }
            })?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic in it was reported by the hook and ended the VM.
            let _ = thread.join();
        }
    }
}

struct Feeder {
    source: Option<File>,
    port: Arc<Mutex<SerialPort>>,
    room: Room,
    stopped: PipeReader,
    escape: Option<Escape>,
    exit: ExitRequest,
    /// Read, and not yet taken by the guest.
    pending: Vec<u8>,
}

impl Drop for Feeder {
    fn drop(&mut self) {
        // A console that takes no input any more is half of a VM.
        if thread::panicking() {
            let sentence = "the console's thread panicked, a bug in ringwire";
            self.exit.request(ExitReason::Host(sentence.to_owned()));
        }
    }
}

/// What the feeder was woken for.
struct Woken {
    stop: bool,
    readable: bool,
}

impl Feeder {
    fn run(mut self) {
        loop {
            // Panics, if a test wants it.
            #[cfg(debug_assertions)]
            let _ = devices::sabotage::turn();
            let woken = match self.wait() {
                Ok(woken) => woken,
                Err(Errno::INTR) => continue,
                Err(e) => return self.give_up(e),
            };
            if woken.stop {
                return;
            }
            if woken.readable {
                self.read();
            }
            self.feed();
        }
    }

    /// Waits for input, but only when what came before is gone: a pipe is not drained into memory.
    fn wait(&self) -> Result<Woken, Errno> {
        let source = self.source.as_ref().filter(|_| self.pending.is_empty());
        let mut fds = vec![
            PollFd::new(&self.stopped, PollFlags::IN),
            PollFd::new(&*self.room.0, PollFlags::IN),
        ];
        if let Some(source) = source {
            fds.push(PollFd::new(source, PollFlags::IN));
        }
        poll(&mut fds, None)?;
        let ready = |i: usize| fds.get(i).is_some_and(|fd| !fd.revents().is_empty());
        Ok(Woken {
            stop: ready(0),
            readable: ready(2),
        })
    }

    fn read(&mut self) {
        let Some(source) = &self.source else { return };
        let mut buffer = [0; 256];
        match rustix::io::read(source.as_fd(), &mut buffer) {
            Ok(0) => self.source = None, // the end of input is not the end of the guest
            Ok(n) => self.take(buffer.get(..n).unwrap_or_default()),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(e) => {
                let e = io::Error::from(e);
                tracing::warn!("could not read the console's input, it is at its end: {e}");
                self.source = None;
            }
        }
    }

    fn take(&mut self, input: &[u8]) {
        let Some(escape) = &mut self.escape else {
            self.pending.extend_from_slice(input);
            return;
        };
        for byte in input {
            match escape.key(*byte) {
                escape::Key::Send(byte) => self.pending.push(byte),
                escape::Key::Swallow => {}
                escape::Key::Leave => self.exit.request(ExitReason::Escape),
            }
        }
    }

    fn feed(&mut self) {
        // Before looking for room: what is read after this is signalled again.
        self.room.clear();
        if self.pending.is_empty() {
            return;
        }
        let mut port = self.port.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = port.feed(&self.pending);
        self.pending.drain(..taken.min(self.pending.len()));
    }

    fn give_up(&self, error: Errno) {
        let error = io::Error::from(error);
        let sentence = format!("could not wait for the console's input: {error}");
        self.exit.request(ExitReason::Host(sentence));
    }
}

#[cfg(test)]
mod tests;
