//! The serial console's two ends on the host, a thread for each: `console` feeds the port with input, and
//! `console.out` takes its output to where it goes.
//!
//! No vCPU waits for a host that hangs: see [`buffer`].

use std::{
    fs::File,
    io::{self, PipeReader, PipeWriter},
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
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

mod buffer;
mod escape;
mod output;
mod place;

use escape::Escape;
pub(crate) use output::{Output, OutputConfig};
pub(crate) use place::Place;

/// The input thread's name.
const NAME: &str = "console";

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

/// What the console's threads are made of.
#[derive(Debug)]
pub(crate) struct ConsoleConfig {
    /// There is input.
    pub(crate) input: Option<InputConfig>,
    /// There is output, of this port.
    pub(crate) output: Option<(OutputConfig, Arc<Mutex<SerialPort>>)>,
}

/// The thread `console`: standard input to the serial port, as fast as the guest takes it.
///
/// A thread of its own, because the port's lock may be held by a vCPU that waits for a slow
/// output, a bounded time, and the main loop must never wait.
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
