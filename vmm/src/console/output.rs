//! The thread `console.out`: what the guest has sent, to its place on the host.
//!
//! A thread of its own, because whoever reads there may be slow, hang or be stopped, and the vCPU must go on.

use std::{
    io,
    sync::{Arc, Mutex, TryLockError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use devices::{
    log::LogLimit,
    placement::Placement,
    serial::{SerialOutput, SerialPort},
};
use vmm_sys_util::signal::{Killable, block_signal};

use super::{
    buffer::{Buffer, Next, Sender},
    place::Place,
};
use crate::{
    confine::{Confinement, ThreadKind},
    exit::{ExitReason, ExitRequest},
    vcpu::kick_signal,
};

/// The thread's name. It is placed (`--pin`) with the one for the input.
const NAME: &str = "console.out";

/// How long a reader may take nothing before the guest does not wait for it any more.
const PATIENCE: Duration = Duration::from_secs(1);

/// The same at the end, when there is nothing else to do but to end.
const LAST_PATIENCE: Duration = Duration::from_millis(500);

/// How long the thread may take to end. It can't be in the middle of something that does not end on a
/// signal, but for a file system that hangs.
const END_PATIENCE: Duration = Duration::from_millis(300);

/// How long to wait between two kicks of a thread that is to end.
const KICK_INTERVAL: Duration = Duration::from_millis(2);

/// An output that nobody writes yet.
#[derive(Debug)]
pub(crate) struct OutputConfig {
    buffer: Arc<Buffer>,
    place: Place,
}

impl OutputConfig {
    /// Output to `place`.
    pub(crate) fn new(place: Place) -> Self {
        let buffer = Arc::new(Buffer::new(PATIENCE));
        Self { buffer, place }
    }

    /// What the port gets.
    pub(crate) fn sender(&self) -> Box<dyn SerialOutput> {
        Box::new(Sender(Arc::clone(&self.buffer)))
    }

    /// Starts the thread, confined. `port`: who sends.
    ///
    /// # Errors
    /// The system has no thread left.
    pub(crate) fn start(
        self,
        port: Arc<Mutex<SerialPort>>,
        exit: ExitRequest,
        placement: &Placement,
        confinement: &Arc<Confinement>,
    ) -> io::Result<Output> {
        let Self { buffer, place } = self;
        let writer = Writer {
            buffer: Arc::clone(&buffer),
            place,
            port,
            exit,
            told: false,
            dropped: 0,
            stalls: LogLimit::default(),
            errors: LogLimit::default(),
        };
        let (placement, confinement) = (placement.clone(), Arc::clone(confinement));
        let thread = thread::Builder::new()
            .name(NAME.to_owned())
            .spawn(move || {
                placement.enter(super::NAME);
                // An error of the write (EFBIG), and not the end of the process. Fails only if it is so already.
                let _ = block_signal(libc::SIGXFSZ);
                match confinement.enter(ThreadKind::ConsoleOutput, NAME) {
                    Ok(()) => writer.run(),
                    Err(error) => writer.exit.request(ExitReason::not_confined(&error)),
                }
            })?;
        Ok(Output { buffer, thread })
    }
}

/// The thread that writes.
#[derive(Debug)]
pub(crate) struct Output {
    buffer: Arc<Buffer>,
    thread: JoinHandle<()>,
}

impl Output {
    /// The VM ends: from now on no vCPU waits for the reader.
    pub(crate) fn hurry(&self) {
        self.buffer.hurry();
    }

    /// Waits for the reader while it takes something and `go_on` says so, and ends the thread. What was not taken
    /// then is dropped.
    pub(crate) fn finish(self, go_on: impl FnMut() -> bool) {
        self.buffer.drain(LAST_PATIENCE, go_on);
        self.buffer.close();
        let started = Instant::now();
        while !self.thread.is_finished() && started.elapsed() < END_PATIENCE {
            // Fails only if it has just gone.
            let _ = self.thread.kill(kick_signal());
            thread::sleep(KICK_INTERVAL);
        }
        if self.thread.is_finished() {
            // A panic in it was reported by the hook and ended the VM.
            let _ = self.thread.join();
        }
    }
}

struct Writer {
    buffer: Arc<Buffer>,
    place: Place,
    port: Arc<Mutex<SerialPort>>,
    exit: ExitRequest,
    /// Whether the log knows of the stall that is on.
    told: bool,
    /// How many bytes had been dropped when the last stall was over.
    dropped: u64,
    stalls: LogLimit,
    errors: LogLimit,
}

impl Drop for Writer {
    fn drop(&mut self) {
        // A console that shows nothing any more is half of a VM.
        if thread::panicking() {
            let sentence = "the thread of the console's output panicked, a bug in ringwire";
            self.exit.request(ExitReason::Host(sentence.to_owned()));
        }
    }
}

impl Writer {
    fn run(mut self) {
        let mut chunk = Vec::new();
        loop {
            // Panics, if a test wants it.
            #[cfg(debug_assertions)]
            let _ = devices::sabotage::turn();
            match self.buffer.next(&mut chunk) {
                Next::Write => self.write(&chunk),
                Next::Tell => {}
                Next::End => return self.tell_of_the_end(),
            }
            self.tell_driver();
        }
    }

    /// Writes all of it, or says that it is lost.
    fn write(&mut self, chunk: &[u8]) {
        let mut left = chunk;
        let mut unread = None;
        while !left.is_empty() && !self.buffer.is_closed() {
            match self.place.write(left) {
                Ok(count) => {
                    left = left.get(count..).unwrap_or_default();
                    self.buffer.taken(count);
                    self.end_stall();
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // It has waited a little.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    let now = self.place.unread();
                    if now < unread {
                        self.buffer.goes_on();
                        self.end_stall();
                    }
                    unread = now;
                    self.look_for_a_stall();
                }
                Err(e) => {
                    self.buffer.lost(left.len());
                    if let Some(left_out) = self.errors.pass() {
                        tracing::warn!(
                            "could not write the guest's serial output, it is lost: {e}{left_out}"
                        );
                    }
                    return;
                }
            }
        }
    }

    fn look_for_a_stall(&mut self) {
        // The driver has waited for long enough.
        self.tell_driver();
        let drops = |dropped| dropped > self.dropped;
        if self.told || !self.buffer.stalled().is_some_and(drops) {
            return;
        }
        self.told = true;
        if let Some(left_out) = self.stalls.pass() {
            tracing::warn!(
                "nobody takes the guest's serial output: it is dropped until somebody does{left_out}"
            );
        }
    }

    fn end_stall(&mut self) {
        let dropped = self.buffer.dropped();
        if std::mem::take(&mut self.told)
            && let Some(left_out) = self.stalls.pass()
        {
            tracing::info!(
                "somebody takes the guest's serial output again; {} bytes of it were dropped{left_out}",
                dropped - self.dropped
            );
        }
        self.dropped = dropped;
    }

    /// Gives the driver its interrupt, if it waits for it. Never waits for the port: its vCPU may wait for us.
    fn tell_driver(&self) {
        if !self.buffer.is_awaited() {
            return;
        }
        match self.port.try_lock() {
            Ok(mut port) => port.output_is_ready(),
            Err(TryLockError::Poisoned(port)) => port.into_inner().output_is_ready(),
            // It is tried again soon.
            Err(TryLockError::WouldBlock) => {}
        }
    }

    fn tell_of_the_end(&self) {
        let dropped = self.buffer.dropped();
        if dropped > 0 {
            tracing::warn!("{dropped} bytes of the guest's serial output were dropped");
        }
    }
}
