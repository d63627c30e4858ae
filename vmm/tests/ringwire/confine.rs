//! What a running VM can't do any more.

use std::{collections::BTreeMap, fs};

use crate::{
    bare::traffic,
    guest::Code,
    process::{Process, have_kvm, outcome, run},
    wire::{Wire, can_run, ip},
};

/// Each thread's name, and what /proc says of it.
fn threads(process: &Process) -> BTreeMap<String, String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", process.id())).unwrap();
    let status = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("status")).unwrap());
    let named = status.map(|status| {
        let name = status.lines().next().unwrap();
        (name.replace("Name:\t", ""), status)
    });
    // The kernel's own, of KVM (kvm-nx-lpage-recovery): never in user space.
    named
        .filter(|(name, _)| !name.starts_with("kvm-"))
        .collect()
}

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_default().trim_start_matches(':').trim()
}

/// A guest with one card and a disk, until it receives, which nobody sends it.
fn start(wire: &Wire, arguments: &[&str]) -> Process {
    let netdev = wire.netdev();
    let always = ["-v", "--netdev", &netdev, "--cmdline", "acpi=off mode=rx"];
    let mut guest = Process::start(&mut run(&traffic(), &[&always, arguments].concat()));
    guest.wait_for("ready\n");
    guest
}

#[test]
fn every_thread_is_confined() {
    if !can_run() {
        return;
    }
    let wire = Wire::new();
    let mut guest = start(&wire, &["--cpus", "1"]);
    let line = guest.wait_for_message("confined: ");
    assert!(
        line.contains("no capabilities, no_new_privs, not dumpable, "),
        "{line}"
    );
    let threads = threads(&guest);
    let names: Vec<_> = threads.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "console",
            "console.out",
            "net0",
            "ringwire",
            "spawner",
            "vcpu0"
        ]
    );
    for (name, status) in &threads {
        for (what, value) in [
            ("Seccomp", "2"),
            ("NoNewPrivs", "1"),
            ("CapInh", "0000000000000000"),
            ("CapPrm", "0000000000000000"),
            ("CapEff", "0000000000000000"),
            ("CapBnd", "0000000000000000"),
            ("CapAmb", "0000000000000000"),
            ("Groups", ""),
        ] {
            assert_eq!(field(status, what), value, "{name}: {what}");
        }
        // One that refuses, and one's own; the spawner's two; a device's thread has those of its maker, too.
        let filters = match name.as_str() {
            "spawner" => "3",
            "net0" => "4",
            _ => "2",
        };
        assert_eq!(field(status, "Seccomp_filters"), filters, "{name}");
    }
    guest.signal(libc::SIGTERM);
    let end = guest.finish();
    assert_eq!(end.code(), 143, "{end:?}");
    wire.assert_clean();
}

#[test]
fn confinement_can_be_left_out_and_that_is_said() {
    if !can_run() {
        return;
    }
    let wire = Wire::new();
    let guest = start(&wire, &["--confine", "off"]);
    let threads = threads(&guest);
    assert!(!threads.contains_key("spawner"));
    for status in threads.values() {
        assert_eq!(field(status, "Seccomp"), "0");
        assert_eq!(field(status, "NoNewPrivs"), "0");
        assert_ne!(field(status, "CapEff"), "0000000000000000");
    }
    guest.signal(libc::SIGTERM);
    let end = guest.finish();
    assert_eq!(end.code(), 143, "{end:?}");
    assert!(end.stderr.contains("--confine off: "), "{end:?}");
}

#[test]
fn the_guest_can_be_somebody_elses() {
    if !can_run() {
        return;
    }
    let wire = Wire::new();
    let guest = start(&wire, &["--user", "65534:65533"]);
    for (name, status) in threads(&guest) {
        assert_eq!(
            field(&status, "Uid"),
            "65534\t65534\t65534\t65534",
            "{name}"
        );
        assert_eq!(
            field(&status, "Gid"),
            "65533\t65533\t65533\t65533",
            "{name}"
        );
        assert_eq!(field(&status, "Groups"), "", "{name}");
    }
    guest.signal(libc::SIGTERM);
    assert_eq!(guest.finish().code(), 143);
    wire.assert_clean();
    let refused = ["--confine", "off", "--user", "1:1"];
    let kernel = Code::new().sleep().kernel();
    outcome(&mut run(kernel.as_path(), &refused))
        .assert_fails(2, "becoming another user is part of the confinement");
}

/// A debug build has a thread make a system call that it may not make, when it is asked to.
#[test]
fn a_thread_that_trespasses_ends_the_vm() {
    if !cfg!(debug_assertions) || !can_run() {
        println!("SKIPPED: needs root, /dev/kvm and a debug build");
        return;
    }
    for thread in ["main", "vcpu0", "console", "console.out", "spawner", "net0"] {
        let wire = Wire::new();
        let netdev = wire.netdev();
        let always = ["--netdev", &netdev, "--cmdline", "acpi=off mode=rx"];
        let mut command = run(&traffic(), &always);
        command.env("RINGWIRE_TEST_TRESPASS", thread);
        let end = Process::start(&mut command).finish_with_open_input();
        end.assert_fails(
            7,
            &format!("the thread {thread} made the system call getppid (110)"),
        );
        // The program goes with the process.
        wire.assert_clean();
    }
}

/// What the control loop does about its interface: it asks for the speed of a link that is up again, and takes
/// the program off an interface that has moved away.
#[test]
fn faults_of_the_interface_need_nothing_more() {
    if !can_run() {
        return;
    }
    let wire = Wire::new();
    let mut guest = start(&wire, &[]);
    for _ in 0..3 {
        ip(&["link", "set", &wire.peer, "down"]).unwrap();
        guest.wait_for_message("link down");
        ip(&["link", "set", &wire.peer, "up"]).unwrap();
        guest.wait_for_message("link up");
    }
    guest.signal(libc::SIGUSR1);
    guest.wait_for_message("pair 0:");
    ip(&["link", "delete", &wire.name]).unwrap();
    guest.wait_for_message("its interface is gone");
    guest.signal(libc::SIGTERM);
    assert_eq!(guest.finish().code(), 143);
}

#[test]
fn a_stop_and_a_continue_go_unnoticed() {
    if !have_kvm() {
        return;
    }
    // Sleeps that a stop interrupts are taken up by a system call of their own (restart_syscall).
    let kernel = Code::new().print("ready").echo().power_off().kernel();
    let mut guest = Process::start(&mut run(kernel.as_path(), &["--cpus", "2"]));
    guest.wait_for("ready");
    for _ in 0..3 {
        guest.signal(libc::SIGSTOP);
        std::thread::sleep(std::time::Duration::from_millis(20));
        guest.signal(libc::SIGCONT);
        guest.send(b"x");
        guest.wait_for("x");
    }
    guest.send(b"q");
    let end = guest.finish();
    assert_eq!((end.code(), end.stderr.as_str()), (0, ""));
}

/// docs/confinement.md has a systemd unit: whatever systemd does not understand in it, it says.
#[test]
fn the_documented_unit_is_one() {
    let docs = include_str!("../../../docs/confinement.md");
    let unit = docs
        .split_once("```ini\n")
        .and_then(|(_, rest)| rest.split_once("```"));
    let unit = unit
        .unwrap()
        .0
        .replace("/usr/bin/ringwire", env!("CARGO_BIN_EXE_ringwire"));
    let directory = vmm_sys_util::tempdir::TempDir::new().unwrap();
    let path = directory.as_path().join("ringwire@.service");
    fs::write(&path, unit).unwrap();
    let instance = directory.as_path().join("ringwire@eth1.service");
    let mut command = std::process::Command::new("systemd-analyze");
    if command.arg("--version").output().is_err() {
        println!("SKIPPED: there is no systemd-analyze");
        return;
    }
    let mut command = std::process::Command::new("systemd-analyze");
    let end = outcome(command.arg("verify").arg(instance));
    assert_eq!((end.code(), end.stderr.as_str()), (0, ""));
}
