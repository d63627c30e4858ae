//! A `ringwire` with the hostile guest.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use ringwire_tests::{Wire, by_pair};
use rustix::process::{Pid, Signal, kill_process};

use crate::problem::{Outcome, Problem, wrong};

/// Longer than anything takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The programs.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    pub(crate) ringwire: PathBuf,
    pub(crate) guest: PathBuf,
}

/// What a process costs at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cost {
    /// Memory of its own (RssAnon), in KiB: guest RAM is shared memory.
    pub(crate) memory: u64,
    /// File descriptors.
    pub(crate) descriptors: u64,
    /// Threads.
    pub(crate) threads: u64,
}

/// What it said.
#[derive(Debug, Default)]
struct Said {
    ready: bool,
    entries: u64,
    error: Option<String>,
    log: String,
}

/// The process.
#[derive(Debug)]
pub(crate) struct Vm {
    child: Child,
    said: Arc<Mutex<Said>>,
    readers: Vec<JoinHandle<()>>,
}

impl Vm {
    /// Starts it on the near end of `wire` with these options of the netdev, and waits until its guest exchanges frames.
    pub(crate) fn start(
        programs: &Programs,
        wire: &Wire,
        options: &str,
        seed: u64,
    ) -> Outcome<Self> {
        let netdev = format!("af-xdp,id=net0,ifname={}{options}", Wire::IFNAME);
        let words = format!("acpi=off seed={seed} retry=200 patience=100");
        let mut command = wire.vmm_command(&programs.ringwire);
        command
            .args(["-v", "run", "--memory", "64M", "--netdev", &netdev])
            .args(["--cmdline", &words, "--kernel"])
            .arg(&programs.guest);
        let mut vm = Self::spawn(&mut command)?;
        let deadline = Instant::now() + PATIENCE;
        while !vm.said().ready {
            vm.check()?;
            if Instant::now() > deadline {
                return wrong(format!("a guest does not start: {}", vm.said().log));
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(vm)
    }

    fn spawn(command: &mut Command) -> Outcome<Self> {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command
            .stderr(Stdio::piped())
            .spawn()
            .map_err(Problem::system("start ringwire"))?;
        let said = Arc::new(Mutex::new(Said::default()));
        let mut readers = Vec::new();
        if let Some(output) = child.stdout.take() {
            let said = Arc::clone(&said);
            readers.push(thread::spawn(move || {
                read_lines(output, &said, Said::hear_guest);
            }));
        }
        if let Some(log) = child.stderr.take() {
            let said = Arc::clone(&said);
            readers.push(thread::spawn(move || {
                read_lines(log, &said, Said::hear_log)
            }));
        }
        Ok(Self {
            child,
            said,
            readers,
        })
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        lock(&self.said)
    }

    /// Entries that the guest has done.
    pub(crate) fn entries(&self) -> u64 {
        self.said().entries
    }

    /// How long the log is, in bytes.
    pub(crate) fn log_len(&self) -> usize {
        self.said().log.len()
    }

    /// Whether the log has these words from there on.
    pub(crate) fn has_logged(&self, from: usize, words: &str) -> bool {
        let said = self.said();
        said.log.get(from..).is_some_and(|log| log.contains(words))
    }

    /// It must run, and its guest must be content.
    pub(crate) fn check(&mut self) -> Outcome {
        let ended = self.child.try_wait();
        let ended = ended.map_err(Problem::system("look after ringwire"))?;
        let said = self.said();
        if let Some(error) = &said.error {
            return wrong(format!("a guest says: {error}\n{}", said.log));
        }
        match ended {
            Some(status) => wrong(format!("ringwire ended ({status}):\n{}", said.log)),
            None => Ok(()),
        }
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) -> Outcome {
        kill_process(Pid::from_child(&self.child), signal)
            .map_err(|error| Problem::system("send a signal")(error.into()))
    }

    /// What it costs now; `None` if it has just ended.
    pub(crate) fn cost(&self) -> Option<Cost> {
        let process = PathBuf::from(format!("/proc/{}", self.child.id()));
        let status = fs::read_to_string(process.join("status")).ok()?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        Some(Cost {
            memory: field("RssAnon:")?,
            threads: field("Threads:")?,
            descriptors: fs::read_dir(process.join("fd")).ok()?.count() as u64,
        })
    }

    /// Waits for its end by SIGTERM, after which every frame of its queue pairs must be somewhere, or by another signal.
    pub(crate) fn check_end(&mut self, signal: Signal) -> Outcome {
        let status = self.wait()?;
        let said = self.said();
        let log = &said.log;
        if let Some(error) = &said.error {
            return wrong(format!("a guest says: {error}\n{log}"));
        }
        if signal != Signal::TERM {
            return Ok(());
        }
        if status.code() != Some(128 + Signal::TERM.as_raw()) {
            return wrong(format!("ringwire ended by SIGTERM with {status}:\n{log}"));
        }
        let total = by_pair(log, "frames_total");
        let mut sums = vec![0; total.len()];
        for place in ["frames_free", "frames_fill", "frames_rx", "frames_tx"] {
            for (sum, count) in sums.iter_mut().zip(by_pair(log, place)) {
                *sum += count;
            }
        }
        let invalid = by_pair(log, "xdp_tx_invalid_descs");
        if total.is_empty() || sums != total || invalid.iter().any(|&count| count > 0) {
            return wrong(format!("frames are missing, or descriptors wrong:\n{log}"));
        }
        for words in ["panicked", "don't add up", "astray", "a bug in"] {
            if log.contains(words) {
                return wrong(format!("ringwire says '{words}':\n{log}"));
            }
        }
        Ok(())
    }

    fn wait(&mut self) -> Outcome<ExitStatus> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ended = self.child.try_wait();
            if let Some(status) = ended.map_err(Problem::system("wait for ringwire"))? {
                for reader in self.readers.drain(..) {
                    let _ = reader.join();
                }
                return Ok(status);
            }
            if Instant::now() > deadline {
                return wrong(format!("ringwire does not end:\n{}", self.said().log));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        // Fails when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Said {
    fn hear_guest(&mut self, line: &str) {
        if line == "ready" {
            self.ready = true;
        } else if line.starts_with("entry ") {
            self.entries += 1;
        } else if !line.is_empty() {
            self.error.get_or_insert_with(|| line.to_owned());
        }
    }

    fn hear_log(&mut self, line: &str) {
        self.log.push_str(line);
        self.log.push('\n');
    }
}

fn lock(said: &Mutex<Said>) -> MutexGuard<'_, Said> {
    said.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads to the end. A line that the end of the process cut off counts for nothing.
fn read_lines(pipe: impl Read, said: &Mutex<Said>, hear: fn(&mut Said, &str)) {
    let mut pipe = BufReader::new(pipe);
    let mut line = String::new();
    while pipe.read_line(&mut line).is_ok_and(|len| len > 0) {
        if let Some(whole) = line.strip_suffix('\n') {
            hear(&mut lock(said), whole);
        }
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_guests_say_is_understood() {
        let heard = |text: &str| {
            let said = Mutex::default();
            read_lines(text.as_bytes(), &said, Said::hear_guest);
            said.into_inner().unwrap()
        };
        let said = heard("ready\nentry 1: x: survived; frames exact\nentry 2: y\nen");
        assert_eq!((said.ready, said.entries, said.error), (true, 2, None));
        let said = heard("{\"error\":\"z\"}\nready\n");
        assert_eq!(said.error.as_deref(), Some("{\"error\":\"z\"}"));
        let said = heard("done: 34 entries, 900 frames\n");
        assert!(said.error.is_some(), "it is to go on for ever");
    }
}
