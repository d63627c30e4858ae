//! Some seconds of the soak: the program itself, with everything in it. Needs root and /dev/kvm.

#![expect(
    clippy::unwrap_used,
    reason = "a panic is the failure report, in the helpers of the tests, too"
)]

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

/// Builds with cargo; where the program is.
fn build(arguments: &[&str], target: &Path, program: &str) -> PathBuf {
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--target-dir"])
        .arg(target)
        .args(arguments)
        .status()
        .unwrap();
    assert!(status.success(), "cargo could not build {program}");
    target.join(program)
}

/// The program with all that it needs; `None` where it can't run.
fn soak(arguments: &[&str]) -> Option<Command> {
    if !rustix::process::geteuid().is_root() || File::open("/dev/kvm").is_err() {
        println!("SKIPPED: needs root and /dev/kvm");
        return None;
    }
    let top = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let soak = Path::new(env!("CARGO_BIN_EXE_ringwire-soak"));
    // Where `cargo test --workspace` has put it before; by itself, this test builds it.
    let profile = soak.parent().unwrap();
    let mut ringwire = profile.join("ringwire");
    if !ringwire.exists() {
        let manifest = top.join("Cargo.toml");
        let manifest = ["--manifest-path", manifest.to_str().unwrap()];
        let arguments = [&["--package", "vmm"][..], &manifest].concat();
        ringwire = build(&arguments, profile.parent().unwrap(), "debug/ringwire");
    }
    let manifest = top.join("tests/guests/Cargo.toml");
    let release = ["--release", "--manifest-path", manifest.to_str().unwrap()];
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guests");
    let guest = build(&release, &target, "release/hostile");
    let mut command = Command::new(soak);
    command.args(["--verbose", "--seed", "58"]).args(arguments);
    command.arg("--ringwire").arg(ringwire);
    command.arg("--guest").arg(guest);
    Some(command)
}

#[test]
fn a_soak_of_seconds() {
    let Some(mut command) = soak(&["--seconds", "20", "--period", "5"]) else {
        return;
    };
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{complaint}");
    for vm in ["bare 0", "bare 1"] {
        let mut lines = text.lines().map(|it| it.split('|').map(str::trim));
        let line = lines.rfind(|it| it.clone().nth(2) == Some(vm)).unwrap();
        // Events, entries, frames.
        let counts = line.skip(3).take(3).map(|it| it.parse::<u64>().unwrap());
        assert!(counts.into_iter().all(|count| count > 0), "{vm}: {text}");
    }
    let last = text.lines().last().unwrap();
    assert!(last.starts_with("verdict: bare 0: memory"), "{text}");
    let frames = "UMEM frames 12288 at first, 12288 accounted for at the end: constant";
    assert!(last.ends_with(frames), "{text}");
}

#[test]
fn an_interrupted_soak_is_judged_and_leaves_nothing() {
    let Some(mut command) = soak(&["--seconds", "6000"]) else {
        return;
    };
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    // Something has happened.
    while !text.contains(", which took ") {
        text.clear();
        assert!(output.read_line(&mut text).unwrap() > 0, "it ended");
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    output.read_to_string(&mut text).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(130), "{text}");
    assert!(text.contains("verdict: bare 0: "), "{text}");
    assert!(text.ends_with("ended early, by signal 2\n"), "{text}");
    let ours = format!("rwt{}-", child.id());
    let mut left = fs::read_dir("/run/netns").unwrap().flatten();
    let left = left.find(|it| it.file_name().to_string_lossy().starts_with(&ours));
    assert!(left.is_none(), "{left:?}");
}
