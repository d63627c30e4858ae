//! Wrong input: a sentence, a status, nothing left behind.

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use vmm_sys_util::{tempdir::TempDir, tempfile::TempFile};

use crate::{
    guest::Code,
    process::{have_kvm, outcome, ringwire, run},
};

/// Status of a VM that could not be started, and of arguments that were not understood.
const STARTUP: i32 = 1;
const USAGE: i32 = 2;

fn fails(kernel: &Path, arguments: &[&str], code: i32, words: &str) {
    outcome(&mut run(kernel, arguments)).assert_fails(code, words);
}

fn file(content: &[u8]) -> TempFile {
    let file = TempFile::new().unwrap();
    file.as_file().write_all(content).unwrap();
    file
}

#[test]
fn arguments_that_are_none() {
    let kernel = Path::new("kernel");
    for (arguments, words) in [
        (["--netdev", "tap,ifname=tap0"], "there is no netdev 'tap'"),
        (
            ["--netdev", "af-xdp,ifname=a,speed=1"],
            "there is no option 'speed'",
        ),
        (
            ["--netdev", "af-xdp,ifname=a,ifname=b"],
            "'ifname' is given twice",
        ),
        (["--netdev", "af-xdp,queues=1"], "'ifname' is missing"),
        (
            ["--netdev", "af-xdp,ifname=a,queues=many"],
            "a whole number",
        ),
        (
            ["--netdev", "af-xdp,ifname=a,inhibit=on"],
            "inhibit=on needs one of sock-fds",
        ),
        (
            ["--netdev", "af-xdp,ifname=a,map-path=/x"],
            "map-path needs inhibit=on",
        ),
        (["--disk", "readonly=on"], "'path' is missing"),
        (["--device", "virtio-net-mmio,netdev=x"], "no netdev 'x'"),
        (
            ["--device", "e1000,netdev=net0"],
            "there are virtio-net-pci and virtio-net-mmio",
        ),
    ] {
        fails(kernel, &arguments, USAGE, words);
    }
    // These sentences are clap's.
    for arguments in [
        ["--memory", "lots"],
        ["--cpus", "two"],
        ["--serial", "pty"],
        ["--transport", "isa"],
    ] {
        assert_eq!(outcome(&mut run(kernel, &arguments)).code(), USAGE);
    }
    let nothing = outcome(&mut ringwire(&["run"]));
    assert_eq!(nothing.code(), USAGE);
    assert!(nothing.stderr.contains("--kernel"), "{nothing:?}");
}

#[test]
fn impossible_machines() {
    let kernel = Code::new().sleep().kernel();
    let kernel = kernel.as_path();
    for (arguments, words) in [
        (["--cpus", "0"], "at least one vCPU"),
        (
            ["--cpus", "1000000"],
            "vCPUs are more than this host can run",
        ),
        (
            ["--netdev", "af-xdp,ifname=a,queues=0"],
            "0 queues are not possible",
        ),
        (
            ["--netdev", "af-xdp,ifname=a,queues=2,inhibit=on,sock-fds=3"],
            "1 in sock-fds, but queues=2",
        ),
        (
            ["--netdev", "af-xdp,ifname=a,require=zerocopy,force-copy=on"],
            "can't be reached with force-copy=on",
        ),
    ] {
        fails(kernel, &arguments, STARTUP, words);
    }
    fails(
        kernel,
        &["--cmdline", "acpi=off", "--transport", "pci"],
        STARTUP,
        "--transport pci is asked for, but the kernel command line has acpi=off",
    );
    for (memory, words) in [
        (
            "0",
            "guest memory of 0 bytes is too small: give at least 64 MiB",
        ),
        ("63M", "too small"),
        ("1000T", "times what this host has"),
    ] {
        let mut command = ringwire(&["run", "--memory", memory, "--kernel"]);
        outcome(command.arg(kernel)).assert_fails(STARTUP, words);
    }
}

#[test]
fn kernels_that_are_none() {
    if !have_kvm() {
        return;
    }
    let missing = Path::new("/nonexistent/vmlinuz");
    fails(
        missing,
        &[],
        STARTUP,
        "could not open the kernel '/nonexistent/vmlinuz': No such file",
    );
    fails(Path::new("/"), &[], STARTUP, "is not a regular file");
    fails(
        file(b"#!/bin/sh\n").as_path(),
        &[],
        STARTUP,
        "is not a kernel",
    );
    fails(file(b"").as_path(), &[], STARTUP, "is not a kernel");
    let whole = fs::read(Code::new().print("hello").sleep().kernel().as_path()).unwrap();
    let truncated = file(&whole[..whole.len() - 1]);
    fails(truncated.as_path(), &[], STARTUP, "is truncated");
}

#[test]
fn files_that_do_not_do() {
    if !have_kvm() {
        return;
    }
    let kernel = Code::new().sleep().kernel();
    let kernel = kernel.as_path();
    fails(
        kernel,
        &["--initrd", "/nonexistent"],
        STARTUP,
        "could not open the initrd",
    );
    let large = TempFile::new().unwrap();
    large.as_file().set_len(65 << 20).unwrap();
    let large = large.as_path().to_str().unwrap().to_owned();
    fails(
        kernel,
        &["--initrd", &large],
        STARTUP,
        "of 65 MiB does not fit",
    );
    fails(
        kernel,
        &["--disk", "path=/nonexistent"],
        STARTUP,
        "disk /nonexistent: there is no such file",
    );
    fails(
        kernel,
        &["--serial", "file=/nonexistent/log"],
        STARTUP,
        "could not open '/nonexistent/log' for the serial console",
    );
    fails(
        kernel,
        &["--cmdline", &"x".repeat(3000)],
        STARTUP,
        "the kernel reads 2047",
    );
}

#[test]
fn a_read_only_disk_is_not_opened_for_writing() {
    if !have_kvm() {
        return;
    }
    let kernel = Code::new().power_off().kernel();
    let disk = file(&[0; 4096]);
    let path = disk.as_path().to_str().unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(0o444)).unwrap();
    let writable = format!("path={path}");
    fails(
        kernel.as_path(),
        &["--disk", &writable],
        STARTUP,
        "add readonly=on",
    );
    let readonly = format!("path={path},readonly=on");
    let fine = outcome(&mut run(kernel.as_path(), &["--disk", &readonly]));
    assert_eq!(fine.code(), 0, "{fine:?}");
}

#[test]
fn an_interface_that_is_not_there() {
    if !have_kvm() {
        return;
    }
    let kernel = Code::new().sleep().kernel();
    let netdev = ["--netdev", "af-xdp,ifname=nosuchif0"];
    let words = "netdev 'net0': there is no network interface \"nosuchif0\"";
    fails(kernel.as_path(), &netdev, STARTUP, words);
}

#[test]
fn nothing_is_left_behind() {
    if !have_kvm() {
        return;
    }
    let directory = TempDir::new_with_prefix("/tmp/ringwire-test-").unwrap();
    let log = PathBuf::from(directory.as_path()).join("log");
    let serial = format!("file={}", log.display());
    let missing = Path::new("/nonexistent/vmlinuz");
    fails(
        missing,
        &["--serial", &serial],
        STARTUP,
        "could not open the kernel",
    );
    assert!(
        !log.exists(),
        "the serial console's file was made for nothing"
    );
}

#[test]
fn one_image_as_two_disks() {
    if !have_kvm() {
        return;
    }
    let kernel = Code::new().power_off().kernel();
    let disk = file(&[0; 4096]);
    let path = disk.as_path().display();
    let other_path = format!("/proc/self/root{path}");
    let words = format!("--disk path={path} and --disk path={other_path} are the same file");
    for (one, other) in [("off", "off"), ("on", "off"), ("off", "on")] {
        let disks = [
            "--disk",
            &format!("path={path},readonly={one}"),
            "--disk",
            &format!("path={other_path},readonly={other}"),
        ];
        fails(kernel.as_path(), &disks, STARTUP, &words);
    }
    let readers = format!("path={path},readonly=on");
    let readers = ["--disk", &readers, "--disk", &readers];
    let fine = outcome(&mut run(kernel.as_path(), &readers));
    assert_eq!(fine.code(), 0, "{fine:?}");
}

#[test]
fn disks_that_are_not_what_they_seem_are_used_and_warned_of() {
    if !have_kvm() {
        return;
    }
    let kernel = Code::new().power_off().kernel();
    let said = |content: &[u8], options: &str| {
        let disk = file(content);
        let path = disk.as_path().display().to_string();
        let argument = format!("path={path}{options}");
        let outcome = outcome(&mut run(kernel.as_path(), &["--disk", &argument]));
        assert_eq!(outcome.code(), 0, "{outcome:?}");
        let start = format!("disk {path}: ");
        let lines = outcome.stderr.lines();
        let ours = lines.filter_map(|line| Some(line.split_once(&start)?.1.to_owned()));
        ours.collect::<Vec<_>>()
    };
    assert_eq!(said(&[0; 1024], ""), [""; 0]);
    let odd = said(&[0; 300], "");
    assert_eq!(odd.len(), 1, "{odd:?}");
    let words = "300 bytes are no whole sectors of 512: the guest sees 512, of which the last 212 read as zeros, and";
    assert!(odd[0].starts_with(words), "{odd:?}");
    let odd = said(&[0; 1025], ",readonly=on");
    assert!(
        odd[0].contains("sees 1536, of which the last 511 read as zeros. "),
        "{odd:?}"
    );
    let mut image = [0; 4096];
    image[..4].copy_from_slice(b"QFI\xfb");
    let qcow2 = said(&image, ",serial=x");
    assert_eq!(qcow2.len(), 1, "{qcow2:?}");
    assert!(
        qcow2[0].starts_with("this looks like a qcow2 file"),
        "{qcow2:?}"
    );
    assert!(
        qcow2[0].contains("`qemu-img convert -O raw FILE NEW`"),
        "{qcow2:?}"
    );
}
