//! Who reads what comes out of it: slowly, not at all, no longer. The guest goes on, and the end comes.

use std::{
    fs::File,
    io::{PipeReader, PipeWriter, Read, Write, pipe},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    process::{Pid, Resource, Rlimit, prlimit},
};
use vmm_sys_util::{tempdir::TempDir, tempfile::TempFile};

use crate::{
    console::Terminal,
    guest::Code,
    process::{Process, have_kvm, outcome, ringwire, run},
    wire::can_run,
};

/// More than a pipe and the console's buffer hold.
const FLOOD: u32 = 300_000;

/// Sends that many bytes to the serial port, without a look at its transmitter.
fn flood(bytes: u32) -> Code {
    Code::new().print("ready").repeat(bytes, b'x')
}

/// A pipe that takes nothing more.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = pipe().unwrap();
    let before = fcntl_getfl(&writer).unwrap();
    fcntl_setfl(&writer, before | OFlags::NONBLOCK).unwrap();
    while rustix::io::write(&writer, &[b'.'; 4096]).is_ok() {}
    fcntl_setfl(&writer, before).unwrap();
    (reader, writer)
}

fn start(command: &mut Command, stdout: Stdio, stderr: Stdio) -> Process {
    let command = command.stdin(Stdio::null());
    Process::start_as_is(command.stdout(stdout).stderr(stderr))
}

/// The guest gets to its end, although nobody reads what it says on the way.
#[test]
fn a_reader_that_hangs_does_not_stop_the_guest() {
    if !have_kvm() {
        return;
    }
    let kernel = flood(FLOOD).power_off().kernel();
    let (mut reader, writer) = pipe().unwrap();
    let (mut log, stderr) = pipe().unwrap();
    let mut command = run(kernel.as_path(), &[]);
    let mut process = start(&mut command, writer.into(), stderr.into());
    drop(command);
    assert_eq!(process.wait().code(), Some(0));
    let (mut received, mut said) = (Vec::new(), String::new());
    reader.read_to_end(&mut received).unwrap();
    log.read_to_string(&mut said).unwrap();
    assert!(received.starts_with(b"readyxxx"));
    let dropped = FLOOD as usize + 5 - received.len();
    let told = format!("{dropped} bytes of the guest's serial output were dropped");
    assert!(said.contains(&told), "{told}: {said}");
    assert!(
        said.contains("nobody takes the guest's serial output"),
        "{said}"
    );
}

#[test]
fn a_reader_that_takes_again_gets_what_comes_then() {
    if !have_kvm() {
        return;
    }
    // It goes on for ever.
    let kernel = flood(FLOOD).print("much later ").forever(b'y').kernel();
    let mut process = Process::start(&mut run(kernel.as_path(), &["-v"]));
    process.wait_for_message("nobody takes the guest's serial output");
    process.wait_for("readyxxxx");
    process.wait_for("yyyy");
    process.wait_for_message("somebody takes the guest's serial output again");
    process.signal(libc::SIGTERM);
    assert_eq!(process.wait().code(), Some(143));
}

#[test]
fn a_reader_that_is_gone_does_not_stop_the_guest() {
    if !have_kvm() {
        return;
    }
    let kernel = flood(FLOOD).power_off().kernel();
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let (mut log, stderr) = pipe().unwrap();
    let mut command = run(kernel.as_path(), &[]);
    let mut process = start(&mut command, writer.into(), stderr.into());
    drop(command);
    assert_eq!(process.wait().code(), Some(0));
    let mut said = String::new();
    log.read_to_string(&mut said).unwrap();
    assert!(said.contains("Broken pipe"), "{said}");
    assert!(said.lines().count() < 25, "{said}");
}

/// More than a mebibyte, in order; the guest waits for the reader, who takes his time.
#[test]
fn a_slow_reader_loses_nothing() {
    if !have_kvm() {
        return;
    }
    const TURNS: u32 = 17;
    let kernel = Code::new().pattern_of_64k(TURNS).power_off().kernel();
    let (mut reader, writer) = pipe().unwrap();
    let mut command = run(kernel.as_path(), &[]);
    let mut process = start(&mut command, writer.into(), Stdio::inherit());
    drop(command);
    let mut received = Vec::new();
    let mut piece = vec![0; 40_000];
    loop {
        thread::sleep(Duration::from_millis(30));
        match reader.read(&mut piece).unwrap() {
            0 => break,
            count => received.extend_from_slice(&piece[..count]),
        }
    }
    assert_eq!(process.wait().code(), Some(0));
    assert_eq!(received.len(), TURNS as usize * 65_536);
    let turn: Vec<u8> = (0..65_536u32)
        .map(|at| (at.wrapping_mul(7) + (at >> 8)).to_le_bytes()[0])
        .collect();
    assert!(received.chunks(65_536).all(|it| it == turn), "out of order");
}

#[test]
fn a_stopped_terminal_stops_neither_the_guest_nor_the_end() {
    if !have_kvm() {
        return;
    }
    for (code, signal, status) in [
        (flood(FLOOD).power_off(), None, 0),
        (flood(0).forever(b'x'), Some(libc::SIGTERM), 143),
    ] {
        let kernel = code.kernel();
        let mut terminal = Terminal::open();
        // Standard input is elsewhere, so the terminal has its keys.
        let mut command = run(kernel.as_path(), &["-v"]);
        let mut process = start(&mut command, terminal.stdio(), terminal.stdio());
        terminal.read_until("ready");
        terminal.person.write_all(b"\x13").unwrap();
        if let Some(signal) = signal {
            thread::sleep(Duration::from_millis(300));
            process.signal(signal);
        }
        assert_eq!(process.wait().code(), Some(status));
        // What it writes to is its own; others' is as it was.
        let flags = fcntl_getfl(&terminal.program).unwrap();
        assert!(!flags.contains(OFlags::NONBLOCK));
    }
}

#[test]
fn a_log_that_nobody_reads_stops_neither_the_guest_nor_the_end() {
    if !have_kvm() {
        return;
    }
    let crashes = Code::new().print("ready").out_often(1000, 0x505, 2);
    for (code, signal, status) in [
        (crashes.clone().power_off(), None, 0),
        (crashes.spin(), Some(libc::SIGTERM), 143),
    ] {
        let kernel = code.kernel();
        let (mut log, stderr) = full_pipe();
        let mut command = run(kernel.as_path(), &["-vv"]);
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = Process::start_as_is(command.stderr(stderr));
        process.wait_for("ready");
        if let Some(signal) = signal {
            thread::sleep(Duration::from_millis(300));
            process.signal(signal);
        }
        assert_eq!(process.wait().code(), Some(status));
        // Nobody is left who could write.
        drop(process);
        let _ = command.stderr(Stdio::null());
        let mut said = String::new();
        log.read_to_string(&mut said).unwrap();
        assert!(said.chars().all(|it| it == '.'), "there was room");
    }
}

#[test]
fn lines_that_were_lost_are_counted_when_there_is_room_again() {
    if !have_kvm() {
        return;
    }
    let crash = Code::new().echo().out(0x505, 2).print("again");
    let kernel = crash.out(0x505, 2).power_off().kernel();
    let (mut log, stderr) = full_pipe();
    let mut command = run(kernel.as_path(), &["-v"]);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut process = Process::start_with_input(command.stderr(stderr));
    process.send(b"x");
    process.wait_for("x");
    let mut dots = vec![0; 8192];
    log.read_exact(&mut dots).unwrap();
    process.send(b"q");
    assert_eq!(process.wait().code(), 0.into());
    drop(process);
    let _ = command.stderr(Stdio::null());
    let mut said = String::new();
    log.read_to_string(&mut said).unwrap();
    let said = said.trim_start_matches('.');
    assert!(said.contains(" log lines were lost here"), "{said}");
    assert!(said.contains("the guest powered off"), "{said}");
}

/// `out 0x505, 2` says that a crash kernel runs now: once, or for ever.
#[test]
fn a_guest_can_not_flood_the_log() {
    if !have_kvm() {
        return;
    }
    let kernel = Code::new().out_often(20_000, 0x505, 2).power_off().kernel();
    let end = outcome(&mut run(kernel.as_path(), &["-v"]));
    assert_eq!(end.code(), 0, "{end:?}");
    let crashes = end.stderr.matches("runs its crash kernel").count();
    assert!((16..100).contains(&crashes), "{crashes}");
}

fn serial(path: &Path, options: &str) -> String {
    format!("file={}{options}", path.display())
}

/// The newest output, at least half of the limit; confined, so nothing can be opened or renamed.
#[test]
fn a_serial_file_has_a_limit() {
    if !have_kvm() {
        return;
    }
    let directory = TempDir::new().unwrap();
    let path = directory.as_path().join("console");
    let kernel = flood(FLOOD).print("\nthe last line\n").power_off().kernel();
    let run_with = |options: &str| {
        let serial = serial(&path, options);
        let end = outcome(&mut run(kernel.as_path(), &["--serial", &serial]));
        assert_eq!((end.code(), end.stderr.as_str()), (0, ""));
        std::fs::read_to_string(&path).unwrap()
    };
    let all = format!("ready{}\nthe last line\n", "x".repeat(FLOOD as usize));
    for options in [",limit=off", ""] {
        assert!(run_with(options) == all, "{options}");
    }
    let newest = run_with(",limit=64K");
    assert!(all.ends_with(&newest));
    assert!(
        (32 << 10..=64 << 10).contains(&newest.len()),
        "{}",
        newest.len()
    );
    let refused = outcome(&mut run(kernel.as_path(), &["--serial", "file=x,limit=1K"]));
    assert_eq!(refused.code(), 2);
}

#[test]
fn a_serial_file_has_a_limit_in_a_jail_too() {
    if !can_run() {
        return;
    }
    let directory = TempDir::new().unwrap();
    let path = directory.as_path().join("console");
    let kernel = flood(FLOOD).power_off().kernel();
    let jail = ["jail", "--user", "65534:65533", "run", "--memory", "64M"];
    let mut command = ringwire(&jail);
    let serial = serial(&path, ",limit=64K");
    command.args(["--serial", &serial, "--kernel"]);
    let end = outcome(command.arg(kernel.as_path()));
    assert_eq!((end.code(), end.stderr.as_str()), (0, ""));
    let length = std::fs::metadata(&path).unwrap().len();
    assert!((32 << 10..=64 << 10).contains(&length), "{length}");
}

/// RLIMIT_FSIZE: past it the kernel sends SIGXFSZ, whose default is the end of the process.
#[test]
fn a_serial_file_that_may_not_get_longer_is_a_warning_and_not_the_end() {
    if !have_kvm() {
        return;
    }
    let file = TempFile::new().unwrap();
    let serial = serial(file.as_path(), "");
    let kernel = Code::new().forever(b'x').kernel();
    let mut process = Process::start(&mut run(kernel.as_path(), &["--serial", &serial]));
    while std::fs::metadata(file.as_path()).unwrap().len() == 0 {
        thread::sleep(Duration::from_millis(5));
    }
    let limit = Rlimit {
        current: Some(8192),
        maximum: None,
    };
    let pid = Pid::from_raw(process.id().try_into().unwrap());
    prlimit(pid, Resource::Fsize, limit).unwrap();
    process
        .wait_for_message("could not write the guest's serial output, it is lost: File too large");
    process.signal(libc::SIGTERM);
    assert_eq!(process.wait().code(), Some(143));
    assert!(std::fs::metadata(file.as_path()).unwrap().len() >= 8192);
}

#[test]
fn guest_memory_that_is_larger_than_files_may_be_is_an_error_in_words() {
    if !have_kvm() {
        return;
    }
    let kernel = Code::new().power_off().kernel();
    let mut command = Command::new("prlimit");
    command.args(["--fsize=1000000", env!("CARGO_BIN_EXE_ringwire")]);
    command.args(["run", "--memory", "64M", "--kernel"]);
    outcome(command.arg(kernel.as_path())).assert_fails(1, "`ulimit -f` limits the size of files");
}

/// Whose default is the end of the process, in the middle of whatever it is at.
#[test]
fn deadly_signals_end_the_guest_in_order() {
    if !have_kvm() {
        return;
    }
    let kernel = Code::new().print("ready").spin().kernel();
    for (signal, status) in [
        (libc::SIGQUIT, 131),
        (libc::SIGALRM, 142),
        (libc::SIGXCPU, 152),
        (libc::SIGVTALRM, 154),
        (libc::SIGPROF, 155),
        (libc::SIGIO, 157),
        (libc::SIGPWR, 158),
    ] {
        let mut process = Process::start(&mut run(kernel.as_path(), &[]));
        process.wait_for("ready");
        process.signal(libc::SIGXFSZ);
        process.signal(libc::SIGPIPE);
        process.signal(signal);
        let end = process.finish_with_open_input();
        end.assert_fails(status, "ended by signal");
    }
}

fn fifo(directory: &TempDir) -> PathBuf {
    let path = directory.as_path().join("fifo");
    let made = Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    path
}

/// Opening one that has no other end waits for it, and no signal ends that while the VM is built.
#[test]
fn a_fifo_in_place_of_a_file_is_an_error_and_not_waited_for() {
    if !have_kvm() {
        return;
    }
    let directory = TempDir::new().unwrap();
    let path = fifo(&directory);
    let kernel = Code::new().power_off().kernel();
    let disk = format!("path={}", path.display());
    let path = path.to_str().unwrap();
    outcome(&mut run(Path::new(path), &[])).assert_fails(1, "not a regular file");
    for (option, value) in [("--initrd", path), ("--disk", &disk)] {
        let end = outcome(&mut run(kernel.as_path(), &[option, value]));
        end.assert_fails(1, "regular file");
    }
}

#[test]
fn a_fifo_that_nobody_reads_is_an_error_in_words() {
    if !have_kvm() {
        return;
    }
    let directory = TempDir::new().unwrap();
    let path = fifo(&directory);
    let kernel = Code::new().print("to the fifo").power_off().kernel();
    let serial = serial(&path, "");
    let run = || run(kernel.as_path(), &["--serial", &serial]);
    outcome(&mut run()).assert_fails(1, "It is a pipe that nobody reads");
    let reader = thread::spawn(move || {
        let mut text = String::new();
        File::open(path).unwrap().read_to_string(&mut text).unwrap();
        text
    });
    let mut end = outcome(&mut run());
    while end.code() != 0 {
        // The reader was not there yet.
        end.assert_fails(1, "It is a pipe that nobody reads");
        end = outcome(&mut run());
    }
    assert_eq!(reader.join().unwrap(), "to the fifo");
}
