//! The serial console on pipes and on a terminal.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::fd::OwnedFd,
    process::Stdio,
};

use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, tcgetattr},
};

use crate::{
    guest::Code,
    process::{Process, have_kvm, ringwire, run},
    wire::can_run,
};

#[test]
fn piped_input_reaches_the_guest_whole() {
    if !have_kvm() {
        return;
    }
    let kernel = Code::new().echo().power_off().kernel();
    let mut process = Process::start(&mut run(kernel.as_path(), &[]));
    // Far more than the FIFO holds; Ctrl-A x is ordinary input on a pipe.
    let mut input = "0123456789abcdef".repeat(100);
    input.push_str("\x01x end q");
    process.send(input.as_bytes());
    let end = process.finish();
    assert_eq!(end.code(), 0, "{end:?}");
    assert_eq!(end.stdout, input);
}

#[test]
fn the_end_of_input_is_not_the_end_of_the_guest() {
    if !have_kvm() {
        return;
    }
    let kernel = Code::new().print("ready").spin().kernel();
    let mut command = run(kernel.as_path(), &[]);
    let mut process = Process::start_as_is(
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped()),
    );
    process.wait_for("ready");
    std::thread::sleep(std::time::Duration::from_millis(100));
    process.signal(libc::SIGTERM);
    assert_eq!(process.finish().code(), 143);
}

/// A terminal: the side of the person, and the side of the program.
pub(crate) struct Terminal {
    pub(crate) person: File,
    pub(crate) program: File,
}

impl Terminal {
    pub(crate) fn open() -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
        let person: OwnedFd = openpt(flags).unwrap();
        grantpt(&person).unwrap();
        unlockpt(&person).unwrap();
        let name = ptsname(&person, Vec::new()).unwrap();
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true);
        let program = options.open(name.to_str().unwrap()).unwrap();
        let person = person.into();
        Self { person, program }
    }

    pub(crate) fn stdio(&self) -> Stdio {
        self.program.try_clone().unwrap().into()
    }

    /// Whether keys are echoed and lines are edited, as a shell needs it.
    fn is_cooked(&self) -> bool {
        let modes = tcgetattr(&self.program).unwrap().local_modes;
        modes.contains(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG)
    }

    pub(crate) fn read_until(&mut self, marker: &str) {
        let (mut seen, mut byte) = (String::new(), [0]);
        while !seen.ends_with(marker) {
            self.person.read_exact(&mut byte).unwrap();
            seen.push(char::from(byte[0]));
        }
    }
}

fn start_on(terminal: &Terminal, code: &Code) -> (Process, vmm_sys_util::tempfile::TempFile) {
    let kernel = code.kernel();
    let mut command = run(kernel.as_path(), &[]);
    let command = command.stdin(terminal.stdio()).stdout(terminal.stdio());
    (
        Process::start_as_is(command.stderr(terminal.stdio())),
        kernel,
    )
}

#[test]
fn the_terminal_is_raw_while_the_guest_runs_and_the_escape_leaves() {
    if !have_kvm() {
        return;
    }
    let mut terminal = Terminal::open();
    assert!(terminal.is_cooked());
    let (mut process, _kernel) =
        start_on(&terminal, &Code::new().print("ready").echo().power_off());
    terminal.read_until("ready");
    assert!(!terminal.is_cooked());
    // Ctrl-C is the guest's; a doubled Ctrl-A is one.
    terminal.person.write_all(b"ab\x03\x01\x01c").unwrap();
    terminal.read_until("ab\x03\x01c");
    terminal.person.write_all(b"\x01x").unwrap();
    assert_eq!(process.wait().code(), Some(0));
    assert!(terminal.is_cooked());
}

#[test]
fn the_terminal_is_restored_however_it_ends() {
    if !have_kvm() {
        return;
    }
    let ends: [(Code, Option<i32>, i32); 3] = [
        (Code::new().print("ready").spin(), Some(libc::SIGTERM), 143),
        (Code::new().print("ready").power_off(), None, 0),
        (Code::new().print("ready").out(0x505, 1).sleep(), None, 3),
    ];
    for (code, signal, status) in ends {
        let mut terminal = Terminal::open();
        let (mut process, _kernel) = start_on(&terminal, &code);
        terminal.read_until("ready");
        if let Some(signal) = signal {
            process.signal(signal);
        }
        assert_eq!(process.wait().code(), Some(status));
        assert!(terminal.is_cooked());
    }
}

#[test]
fn a_jail_leaves_the_terminal_to_the_guest_and_restores_it() {
    if !can_run() {
        return;
    }
    let kernel = Code::new().print("ready").echo().power_off().kernel();
    let mut terminal = Terminal::open();
    let jail = ["jail", "--user", "65534:65533", "run", "--memory", "64M"];
    let mut command = ringwire(&jail);
    command.arg("--kernel").arg(kernel.as_path());
    let command = command.stdin(terminal.stdio()).stdout(terminal.stdio());
    let mut process = Process::start_as_is(command.stderr(terminal.stdio()));
    terminal.read_until("ready");
    assert!(!terminal.is_cooked());
    terminal.person.write_all(b"ab\x03c").unwrap();
    terminal.read_until("ab\x03c");
    terminal.person.write_all(b"\x01x").unwrap();
    assert_eq!(process.wait().code(), Some(0));
    assert!(terminal.is_cooked());
}
