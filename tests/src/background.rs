//! Programs that run beside a test.

use std::io::{BufRead, BufReader, Read};
use std::process::{self, Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A program that runs beside the test, and is killed when dropped.
#[derive(Debug)]
pub struct Background {
    child: Child,
    what: String,
    output: Option<BufReader<process::ChildStdout>>,
}

impl Background {
    pub(crate) fn start(mut command: Command) -> Self {
        let what = format!("{command:?}");
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        let output = child.stdout.take().map(BufReader::new);
        Self {
            child,
            what,
            output,
        }
    }

    /// Waits until it has printed a line that contains `text`.
    ///
    /// # Panics
    /// When its output ends before.
    #[must_use]
    pub fn after_line(mut self, text: &str) -> Self {
        let output = self.output.as_mut().expect("output is piped");
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            let length = output.read_line(&mut line).unwrap_or(0);
            assert!(length > 0, "{} ended without saying '{text}'", self.what);
        }
        self
    }

    /// Everything that it prints, for a reader of its own; [`finish`](Self::finish) returns nothing then.
    ///
    /// # Panics
    /// When it was taken before.
    #[must_use]
    pub fn take_output(&mut self) -> impl Read + Send + use<> {
        self.output.take().expect("output is taken once")
    }

    /// Whether it has ended.
    ///
    /// # Panics
    /// When the system does not tell.
    pub fn has_ended(&mut self) -> bool {
        let ended = self.child.try_wait();
        ended.expect("it is our child").is_some()
    }

    /// Asks it to end, by SIGINT.
    ///
    /// # Panics
    /// When it has ended already.
    pub fn interrupt(&self) {
        let id = i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .expect("a child has a process id");
        kill_process(id, Signal::INT).expect("the child was not waited for");
    }

    /// Waits for its end and returns what it printed after that.
    ///
    /// # Panics
    /// When it fails, or lasts longer than `limit`.
    pub fn finish(self, limit: Duration) -> String {
        let what = self.what.clone();
        let (status, text) = self.end(limit);
        assert!(status.success(), "{what} failed ({status}): {text}");
        text
    }

    /// The same of a program that may fail: its status comes first.
    ///
    /// # Panics
    /// When it lasts longer than `limit`.
    #[must_use]
    pub fn end(mut self, limit: Duration) -> (ExitStatus, String) {
        let deadline = Instant::now() + limit;
        let output = self.output.take();
        let reader = thread::spawn(move || {
            let mut text = String::new();
            if let Some(mut output) = output {
                let _ = output.read_to_string(&mut text);
            }
            text
        });
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return (status, reader.join().unwrap_or_default());
            }
            assert!(
                Instant::now() < deadline,
                "{} did not end in {limit:?}",
                self.what
            );
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
