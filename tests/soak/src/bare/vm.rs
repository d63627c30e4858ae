//! A `ringwire` with the hostile guest.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use ringwire_tests::Wire;

use crate::{
    problem::{Outcome, Problem, wrong},
    resident::Programs,
    setting::Setting,
    station::PATIENCE,
};

/// MiB of RAM.
const MEMORY: u64 = 64;

/// Where the first device on MMIO is: with PCI beside it ACPI says that, and the guest knows no ACPI.
const CARD: &str = "virtio_mmio.device=4K@0xd0000000:5";

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
    /// Starts it on the near end of `wire`, and waits until its guest exchanges frames.
    pub(crate) fn start(
        programs: &Programs,
        wire: &Wire,
        setting: &Setting,
        seed: u64,
    ) -> Outcome<Self> {
        let netdev = format!("af-xdp,id=net0,ifname={}{}", Wire::IFNAME, setting.netdev);
        let device = format!("virtio-net-mmio,netdev=net0{}", setting.device);
        let bus = if setting.pci { CARD } else { "acpi=off" };
        let words = format!("{bus} seed={seed} retry=200 patience=100");
        let mut command = wire.vmm_command(&programs.ringwire);
        command
            .args(["-v", "run", "--memory", &setting.memory(MEMORY)])
            .args(["--netdev", &netdev, "--device", &device])
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

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What ringwire said.
    pub(crate) fn log(&self) -> String {
        self.said().log.clone()
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

    /// Waits for its end; the status and the log.
    pub(crate) fn wait(&mut self) -> Outcome<(ExitStatus, String)> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ended = self.child.try_wait();
            if let Some(status) = ended.map_err(Problem::system("wait for ringwire"))? {
                for reader in self.readers.drain(..) {
                    let _ = reader.join();
                }
                let said = self.said();
                if let Some(error) = &said.error {
                    return wrong(format!("a guest says: {error}\n{}", said.log));
                }
                return Ok((status, said.log.clone()));
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
