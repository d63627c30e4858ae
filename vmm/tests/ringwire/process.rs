//! `ringwire` processes that never outlive their test.

use std::{
    io::{Read, Write},
    path::Path,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether tests can make VMs here; says so if not.
pub(crate) fn have_kvm() -> bool {
    let have = std::fs::File::open("/dev/kvm").is_ok();
    if !have {
        println!("SKIPPED: there is no usable /dev/kvm");
    }
    have
}

pub(crate) fn ringwire(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringwire"));
    command.args(arguments);
    command
}

/// `ringwire run --kernel KERNEL ...`
pub(crate) fn run(kernel: &Path, arguments: &[&str]) -> Command {
    let mut command = ringwire(&["run", "--memory", "64M", "--kernel"]);
    command.arg(kernel).args(arguments);
    command
}

/// What a process left.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    pub(crate) fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// The error is one sentence of ours, with these words in it.
    pub(crate) fn assert_fails(&self, code: i32, words: &str) {
        assert_eq!(self.code(), code, "{self:?}");
        let ours = self.stderr.strip_prefix("ringwire: ").unwrap_or_default();
        assert!(ours.contains(words), "'{words}' is not in {self:?}");
        assert_eq!(ours.trim_end().lines().count(), 1, "{self:?}");
    }
}

/// A running process; killed if the test fails.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    patience: Duration,
}

impl Process {
    /// Starts it with pipes where nothing else is set.
    pub(crate) fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::piped());
        Self::start_with_input(command.stdout(Stdio::piped()).stderr(Stdio::piped()))
    }

    /// Starts it as the command says, whose input is a pipe.
    pub(crate) fn start_with_input(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take();
        Self {
            child,
            stdin,
            patience: PATIENCE,
        }
    }

    /// For those that work for long: waits so much longer for its end.
    pub(crate) fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Starts it as the command says.
    pub(crate) fn start_as_is(command: &mut Command) -> Self {
        let child = command.spawn().unwrap();
        Self {
            child,
            stdin: None,
            patience: PATIENCE,
        }
    }

    pub(crate) fn send(&mut self, input: &[u8]) {
        self.stdin.as_mut().unwrap().write_all(input).unwrap();
    }

    /// Reads its output until it has `marker` at the end.
    pub(crate) fn wait_for(&mut self, marker: &str) {
        self.read_until(marker);
    }

    /// The same; returns what it read.
    pub(crate) fn read_until(&mut self, marker: &str) -> String {
        let stdout = self.child.stdout.as_mut().unwrap();
        let (mut seen, mut byte) = (String::new(), [0]);
        while !seen.ends_with(marker) {
            stdout.read_exact(&mut byte).unwrap();
            seen.push(char::from(byte[0]));
        }
        seen
    }

    /// Its process ID.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Reads what it says on standard error up to and with the next line that has `words` in it.
    pub(crate) fn wait_for_message(&mut self, words: &str) -> String {
        let stderr = self.child.stderr.as_mut().unwrap();
        let (mut line, mut byte) = (Vec::new(), [0]);
        loop {
            stderr.read_exact(&mut byte).unwrap();
            if byte != *b"\n" {
                line.extend(byte);
                continue;
            }
            let text = String::from_utf8_lossy(&line).into_owned();
            if text.contains(words) {
                return text;
            }
            line.clear();
        }
    }

    pub(crate) fn signal(&self, number: i32) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let signal = rustix::process::Signal::from_named_raw(number).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its end, without reading what it writes.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(started.elapsed() < self.patience, "it does not end");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Closes its input, and collects all that it writes until its end.
    pub(crate) fn finish(mut self) -> Outcome {
        drop(self.stdin.take());
        self.finish_with_open_input()
    }

    /// The same with its input left open until it ends.
    pub(crate) fn finish_with_open_input(mut self) -> Outcome {
        let mut stdout = self.child.stdout.take().unwrap();
        let mut stderr = self.child.stderr.take().unwrap();
        let out = thread::spawn(move || text(&mut stdout));
        let err = thread::spawn(move || text(&mut stderr));
        let status = self.wait();
        Outcome {
            status,
            stdout: out.join().unwrap(),
            stderr: err.join().unwrap(),
        }
    }
}

fn text(pipe: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    pipe.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails when it has ended, as it should.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs it to its end with an empty input.
pub(crate) fn outcome(command: &mut Command) -> Outcome {
    Process::start(command).finish()
}
