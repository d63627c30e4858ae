//! Some seconds of the soak: the program itself, with everything in it. Needs root and /dev/kvm.

#![expect(
    clippy::unwrap_used,
    reason = "a panic is the failure report, in the helpers of the tests, too"
)]

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
};

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

#[test]
fn a_soak_of_seconds() {
    if !rustix::process::geteuid().is_root() || File::open("/dev/kvm").is_err() {
        println!("SKIPPED: needs root and /dev/kvm");
        return;
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
    let arguments = ["--release", "--manifest-path", manifest.to_str().unwrap()];
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guests");
    let guest = build(&arguments, &target, "release/hostile");
    let output = Command::new(soak)
        .args([
            "--seconds",
            "20",
            "--period",
            "5",
            "--verbose",
            "--seed",
            "58",
        ])
        .arg("--ringwire")
        .arg(ringwire)
        .arg("--guest")
        .arg(guest)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{complaint}");
    let last = text.lines().last().unwrap();
    let cells: Vec<_> = last.split('|').map(str::trim).collect();
    // Events, entries, frames.
    for cell in &cells[2..5] {
        let count: u64 = cell.parse().unwrap();
        assert!(count > 0, "{last}");
    }
}
