//! The guest's console: lines that come out of a pipe, with a time limit on waiting for them.

use std::io::{BufRead, BufReader, Read};
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
}

impl Console {
    pub(crate) fn new(pipe: impl Read + Send + 'static) -> Self {
        let (sender, lines) = mpsc::channel();
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
        }
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
