//! The programs that are measured: how each is started on its end of the wire, and how it tells what it receives.

mod bare;
mod own;
mod testpmd;

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use ringwire_tests::Wire;
use rustix::process::{Pid, Signal, kill_process};

pub(crate) use bare::{Bare, More, Vmm, reported};
pub(crate) use own::{Offered, Own};
pub(crate) use testpmd::Testpmd;

use crate::{case::Case, cpu::Cpus, error::BenchError};

/// How long a program may take to end when it is asked to.
const PATIENCE: Duration = Duration::from_secs(5);

/// A program that can be measured.
pub(crate) trait Contestant {
    /// As in the tables.
    fn name(&self) -> &'static str;
    /// The command that does the work of `case` at the near end ([`Wire::IFNAME`]), for at least `seconds` once traffic
    /// flows.
    fn command(&self, case: Case, wire: &Wire, cpus: Cpus, seconds: f64) -> Command;
    /// Frames received a second, from what it printed between `from` and `to`; `None` if that does not tell yet.
    fn received(&self, lines: &[Line], from: Instant, to: Instant) -> Option<f64>;
    /// Whether it has received traffic, from what it has printed.
    fn flows(&self, lines: &[Line]) -> bool;
    /// Whether a thread of that name moves frames; all do, unless the program has others.
    fn moves_frames(&self, _thread: &str) -> bool {
        true
    }
    /// Whether what it received is known only once it has ended, by itself, after its time.
    fn reports_at_its_end(&self) -> bool {
        false
    }
}

/// A line of a program's output, and when it came.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    /// When it was read.
    pub(crate) at: Instant,
    /// Without its end.
    pub(crate) text: String,
}

/// A program that runs; it is stopped when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    who: String,
    case: String,
    lines: Arc<Mutex<Vec<Line>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Running {
    /// Starts it; its output is collected.
    pub(crate) fn start(
        who: &str,
        case: impl ToString,
        mut command: Command,
    ) -> Result<Self, BenchError> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(BenchError::system(format!("starting {who}")))?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        let mut readers = Vec::new();
        if let Some(output) = child.stdout.take() {
            readers.push(collect(output, Arc::clone(&lines)));
        }
        if let Some(output) = child.stderr.take() {
            readers.push(collect(output, Arc::clone(&lines)));
        }
        Ok(Self {
            child,
            who: who.to_owned(),
            case: case.to_string(),
            lines,
            readers,
        })
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far.
    pub(crate) fn lines(&self) -> Vec<Line> {
        self.lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// An error if it has ended.
    pub(crate) fn check(&mut self) -> Result<(), BenchError> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.failure(&format!("ended too early ({status})"))),
            Err(error) => Err(self.failure(&error.to_string())),
        }
    }

    /// Looks at it until something is the case, while it runs.
    pub(crate) fn wait_until(
        &mut self,
        limit: Duration,
        otherwise: &str,
        mut is: impl FnMut(&Self) -> Result<bool, BenchError>,
    ) -> Result<(), BenchError> {
        let deadline = Instant::now() + limit;
        while !is(self)? {
            self.check()?;
            if Instant::now() > deadline {
                let otherwise = format!("{otherwise} in {} s", limit.as_secs());
                return Err(self.failure(&otherwise));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Waits until it has ended and all of its output is here.
    pub(crate) fn wait(&mut self, limit: Duration) -> Result<(), BenchError> {
        let deadline = Instant::now() + limit;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                return Err(self.failure("did not end"));
            }
            thread::sleep(Duration::from_millis(10));
        }
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        Ok(())
    }

    /// An error that says what it did last.
    pub(crate) fn failure(&self, what: &str) -> BenchError {
        // Its last words may still be on their way.
        thread::sleep(Duration::from_millis(50));
        let lines = self.lines();
        let last: Vec<&str> = lines
            .iter()
            .rev()
            .take(3)
            .map(|it| it.text.as_str())
            .collect();
        BenchError::Contestant {
            who: self.who.clone(),
            case: self.case.clone(),
            what: format!("{what}; its last lines, latest first: {}", last.join(" | ")),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(id) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(id, Signal::INT);
        }
        let deadline = Instant::now() + PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads lines on a thread of its own until the other end is closed.
fn collect(output: impl Read + Send + 'static, lines: Arc<Mutex<Vec<Line>>>) -> JoinHandle<()> {
    thread::spawn(move || {
        for text in BufReader::new(output).lines().map_while(Result::ok) {
            let line = Line {
                at: Instant::now(),
                text,
            };
            lines
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(line);
        }
    })
}
