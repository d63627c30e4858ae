//! The guest's console: lines that come out of a pipe, with a time limit on waiting for them.

use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// Why no line came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoLine {
    /// The time is up.
    Late,
    /// The other end is closed.
    Closed,
}

/// Reads a pipe in a thread of its own, so that the writer never waits for the test.
#[derive(Debug)]
pub(crate) struct Console {
    lines: Receiver<String>,
    /// All lines so far, for the report of a failed test.
    pub(crate) transcript: Vec<String>,
    pace: Arc<Pace>,
}

/// How slowly the pipe is read.
#[derive(Debug, Default)]
struct Pace {
    /// Milliseconds before each read.
    pause: AtomicU64,
    /// Not at all.
    stopped: AtomicBool,
}

struct Paced<R>(R, Arc<Pace>);

impl<R: Read> Read for Paced<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.0.read(buffer)?;
        thread::sleep(Duration::from_millis(self.1.pause.load(Ordering::Relaxed)));
        while self.1.stopped.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(5));
        }
        Ok(count)
    }
}

impl Console {
    pub(crate) fn new(pipe: impl Read + Send + 'static) -> Self {
        let (sender, lines) = mpsc::channel();
        let pace = Arc::<Pace>::default();
        let pipe = Paced(pipe, Arc::clone(&pace));
        thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while pipe
                .read_until(b'\n', &mut line)
                .is_ok_and(|length| length > 0)
            {
                let text = String::from_utf8_lossy(&line)
                    .trim_end_matches(['\r', '\n'])
                    .to_owned();
                line.clear();
                if sender.send(text).is_err() {
                    break;
                }
            }
        });
        Self {
            lines,
            transcript: Vec::new(),
            pace,
        }
    }

    /// From now on waits so long after each read, of 8 KiB at most.
    pub(crate) fn read_slowly(&self, pause: Duration) {
        let pause = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        self.pace.pause.store(pause, Ordering::Relaxed);
    }

    /// Reads nothing any more, or goes on.
    pub(crate) fn stop_reading(&self, stop: bool) {
        self.pace.stopped.store(stop, Ordering::Relaxed);
    }

    /// The next line, without its end.
    pub(crate) fn line(&mut self, deadline: Instant) -> Result<String, NoLine> {
        let left = deadline.saturating_duration_since(Instant::now());
        let line = self.lines.recv_timeout(left).map_err(|error| match error {
            RecvTimeoutError::Timeout => NoLine::Late,
            RecvTimeoutError::Disconnected => NoLine::Closed,
        })?;
        self.transcript.push(line.clone());
        Ok(line)
    }

    /// All that comes until the other end is closed, at most for `limit`; into the transcript.
    pub(crate) fn drain(&mut self, limit: Duration) {
        let deadline = Instant::now() + limit;
        while self.line(deadline).is_ok() {}
    }

    /// The last lines, for a message.
    pub(crate) fn tail(&self) -> String {
        let from = self.transcript.len().saturating_sub(40);
        self.transcript[from..].join("\n")
    }
}
