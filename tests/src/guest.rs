//! A guest under `ringwire run`, driven through its console (see `tests/guest/init`).

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::console::{Console, NoLine};
use crate::{Setup, TempDir, Wire};

/// A guest in an emulated host may be slow; this bounds each wait, and is never what a test measures.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// What to run. Each method sets one thing.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    wire: Option<&'a Wire>,
    kernel: PathBuf,
    initrd: PathBuf,
    cpus: u32,
    memory: String,
    cmdline: String,
    jail: Vec<String>,
    args: Vec<String>,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> Options<'a> {
    /// The ELF kernel, 2 vCPUs, 256 MiB, no network. It does not test its ciphers, which nobody uses here: in an emulated
    /// host that takes a fifth of its start.
    #[must_use]
    pub fn new() -> Self {
        Self {
            wire: None,
            kernel: Setup::vmlinux(),
            initrd: Setup::initrd(),
            cpus: 2,
            memory: "256M".into(),
            cmdline: "quiet cryptomgr.notests ringwire.driven".into(),
            jail: Vec::new(),
            args: Vec::new(),
        }
    }

    /// Another kernel file.
    #[must_use]
    pub fn kernel(mut self, kernel: PathBuf) -> Self {
        self.kernel = kernel;
        self
    }

    /// Another initial RAM disk, for a kernel with other modules.
    #[must_use]
    pub fn initrd(mut self, initrd: PathBuf) -> Self {
        self.initrd = initrd;
        self
    }

    /// Number of vCPUs.
    #[must_use]
    pub fn cpus(mut self, cpus: u32) -> Self {
        self.cpus = cpus;
        self
    }

    /// Size of memory, as the command line takes it.
    #[must_use]
    pub fn memory(mut self, memory: &str) -> Self {
        self.memory = memory.into();
        self
    }

    /// More words on the guest kernel's command line.
    #[must_use]
    pub fn cmdline(mut self, words: &str) -> Self {
        self.cmdline = format!("{} {words}", self.cmdline);
        self
    }

    /// One more argument of `ringwire run`.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// In `ringwire jail`, with these arguments.
    #[must_use]
    pub fn jail(mut self, args: &[&str]) -> Self {
        let words = ["jail"].iter().chain(args).chain(&["--"]);
        self.jail = words.map(|word| (*word).to_owned()).collect();
        self
    }

    /// Virtio over MMIO instead of PCI.
    #[must_use]
    pub fn mmio(self) -> Self {
        self.arg("--transport").arg("mmio")
    }

    /// Gives the guest an AF_XDP network card on `wire`, with the address [`Wire::GUEST`].
    #[must_use]
    pub fn on(self, wire: &'a Wire) -> Self {
        self.on_with(wire, "")
    }

    /// The same, with more `,key=value` for `--netdev af-xdp`.
    #[must_use]
    pub fn on_with(self, wire: &'a Wire, keys: &str) -> Self {
        self.on_interface(wire, &format!("{}{keys}", Wire::IFNAME))
    }

    /// The same on another interface of the VMM's namespace; more `,key=value` may follow its name.
    #[must_use]
    pub fn on_interface(mut self, wire: &'a Wire, ifname: &str) -> Self {
        self.wire = Some(wire);
        self.arg("--netdev")
            .arg(format!("af-xdp,ifname={ifname}"))
            .cmdline(&format!("ringwire.ip={}/24", Wire::GUEST))
    }

    fn command(&self) -> Command {
        let program = Setup::ringwire();
        let mut command = match self.wire {
            Some(wire) => wire.vmm_command(&program),
            None => Command::new(program),
        };
        command
            .arg("-v")
            .args(&self.jail)
            .arg("run")
            .arg("--kernel")
            .arg(&self.kernel)
            .arg("--initrd")
            .arg(&self.initrd);
        command.args([
            "--cpus",
            &self.cpus.to_string(),
            "--memory",
            &self.memory,
            "--cmdline",
            &self.cmdline,
        ]);
        command.args(&self.args);
        command
    }
}

/// What a command in the guest did.
#[derive(Clone, Debug)]
pub struct Output {
    /// Its exit status.
    pub status: u32,
    /// What it printed, both on stdout and stderr.
    pub text: String,
}

/// A running `ringwire`. Dropping it kills it.
#[derive(Debug)]
pub struct Guest {
    child: Child,
    input: ChildStdin,
    console: Console,
    log: PathBuf,
    _directory: TempDir,
}

impl Guest {
    /// Starts `ringwire` and returns at once.
    ///
    /// # Panics
    /// When the program can't be started.
    #[must_use]
    pub fn start(options: &Options<'_>) -> Self {
        Self::of(options.command())
    }

    /// Starts another VMM with its console on stdin and stdout, and returns at once: to compare with.
    ///
    /// # Panics
    /// When the program can't be started.
    #[must_use]
    pub fn of(mut command: Command) -> Self {
        let directory = TempDir::new();
        let log = directory.path().join("stderr");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).expect("a file in our own directory"))
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let input = child.stdin.take().expect("stdin is piped");
        let console = Console::new(child.stdout.take().expect("stdout is piped"));
        Self {
            child,
            input,
            console,
            log,
            _directory: directory,
        }
    }

    /// Starts `ringwire` and waits until the guest takes commands.
    ///
    /// # Panics
    /// When the guest does not get there, with what was on the console.
    #[must_use]
    pub fn boot(options: Options<'_>) -> Self {
        let mut guest = Self::start(&options);
        guest.wait_for("ringwire-guest: ready");
        guest
    }

    /// Waits for a line on the console that contains `text`, and returns it.
    ///
    /// # Panics
    /// When it does not come.
    pub fn wait_for(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.console.line(deadline) {
                Ok(line) if line.contains(text) => return line,
                Ok(_) => {}
                Err(why) => self.fail(&format!("'{text}' did not appear on the console ({why:?})")),
            }
        }
    }

    /// Runs one line of shell in the guest.
    ///
    /// # Panics
    /// When no answer comes within a minute.
    pub fn run(&mut self, command: &str) -> Output {
        self.send(command);
        self.answer(PATIENCE)
    }

    /// Runs one line of shell in the guest, which must succeed, and returns what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub fn ok(&mut self, command: &str) -> String {
        let output = self.run(command);
        if output.status != 0 {
            self.fail(&format!(
                "'{command}' failed in the guest (status {})",
                output.status
            ));
        }
        output.text
    }

    /// Sends one line of shell to the guest; [`answer`](Self::answer) gets what it did.
    ///
    /// # Panics
    /// When the console is closed.
    pub fn send(&mut self, command: &str) {
        if writeln!(self.input, "{command}")
            .and_then(|()| self.input.flush())
            .is_err()
        {
            self.fail("the console takes no input");
        }
    }

    /// Waits for the end of the command that was sent.
    ///
    /// # Panics
    /// When it does not come within `limit`.
    pub fn answer(&mut self, limit: Duration) -> Output {
        let deadline = Instant::now() + limit;
        let mut text = String::new();
        loop {
            match self.console.line(deadline) {
                Ok(line) => match line.strip_prefix("ringwire-guest: status ").map(str::parse) {
                    Some(Ok(status)) => return Output { status, text },
                    _ => text = text + &line + "\n",
                },
                Err(why) => self.fail(&format!(
                    "the command in the guest gave no status ({why:?})"
                )),
            }
        }
    }

    /// From now on waits so long after each 8 KiB of the console's output.
    pub fn read_slowly(&self, pause: Duration) {
        self.console.read_slowly(pause);
    }

    /// Reads the console no more, or goes on with it.
    pub fn stop_reading(&self, stop: bool) {
        self.console.stop_reading(stop);
    }

    /// The process id of `ringwire`.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether `ringwire` has not ended.
    ///
    /// # Panics
    /// When the system does not tell.
    pub fn is_running(&mut self) -> bool {
        let ended = self.child.try_wait();
        ended.expect("it is our child").is_none()
    }

    /// Sends a signal to `ringwire`.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .expect("a child has a process id");
        rustix::process::kill_process(id, signal).expect("the child was not waited for");
    }

    /// Waits for the end of `ringwire`.
    ///
    /// # Panics
    /// When it does not come within a minute.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                self.console.drain(Duration::from_secs(1));
                return status;
            }
            if Instant::now() >= deadline {
                self.fail("ringwire does not end");
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Switches the guest off and waits for the end of `ringwire`.
    ///
    /// # Panics
    /// When it does not end.
    pub fn power_off(&mut self) -> ExitStatus {
        self.send("poweroff -f");
        self.wait()
    }

    /// What `ringwire` has said on stderr so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What was on the console so far.
    #[must_use]
    pub fn transcript(&self) -> String {
        self.console.transcript.join("\n")
    }

    fn fail(&mut self, what: &str) -> ! {
        let state = match self.child.try_wait() {
            Ok(Some(status)) => format!("ringwire has ended with {status}"),
            _ => "ringwire is running".into(),
        };
        // What is still in the pipe helps most.
        while !matches!(
            self.console.line(Instant::now()),
            Err(NoLine::Late | NoLine::Closed)
        ) {}
        panic!(
            "{what}; {state}\n--- console:\n{}\n--- log:\n{}\n---",
            self.console.tail(),
            self.log()
        );
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Each queue pair's counter `name`, from the log of a `ringwire` that has ended.
#[must_use]
pub fn by_pair(log: &str, name: &str) -> Vec<u64> {
    let pairs = log.lines().filter(|line| line.contains(", pair "));
    let counters = pairs.filter_map(|line| {
        let word = line
            .split_whitespace()
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))?;
        word.parse().ok()
    });
    counters.collect()
}
