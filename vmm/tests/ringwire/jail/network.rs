//! A jail's interfaces.

use std::{fs, process::Command};

use super::{KVM_FOR_ALL, NOBODY, inside, namespace};
use crate::{
    bare::traffic,
    process::{Process, ringwire},
    wire::{Wire, can_run, ip},
};

/// A network namespace with a name, gone when dropped.
struct Netns(String);

impl Netns {
    fn new() -> Self {
        let name = format!("rwj{}", std::process::id());
        ip(&["netns", "add", &name]).unwrap();
        Self(name)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = ip(&["netns", "delete", &self.0]);
    }
}

/// The bare guest that waits for frames.
fn run(netdev: &str) -> Vec<String> {
    let kernel = traffic().to_str().unwrap().to_owned();
    let arguments = ["run", "-v", "--memory", "64M", "--kernel", &kernel];
    let more = ["--cmdline", "acpi=off mode=rx", "--netdev", netdev];
    arguments
        .iter()
        .chain(&more)
        .map(|it| (*it).to_owned())
        .collect()
}

#[test]
fn interfaces_are_those_of_the_network_namespace_that_was_named() {
    if !can_run() {
        return;
    }
    let wire = Wire::new();
    let netns = Netns::new();
    ip(&["link", "set", &wire.name, "netns", &netns.0]).unwrap();
    ip(&["-n", &netns.0, "link", "set", &wire.name, "up"]).unwrap();
    let mut command = ringwire(&["jail", "--user", NOBODY, "--netns", &netns.0, "--"]);
    let mut jail = Process::start(command.args(run(&wire.netdev())));
    jail.wait_for("ready\n");
    let [_, vm] = inside(&jail);
    let named = format!("/run/netns/{}", netns.0);
    let number = |path: &str| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
    assert_eq!(number(&format!("/proc/{vm}/ns/net")), number(&named));
    let link = ["-n", &netns.0, "-details", "link", "show", &wire.name];
    assert!(ip(&link).unwrap().contains("xdp"));
    jail.wait_for_message("jailed: ");
    // A link that comes and goes is seen in the jail, too.
    ip(&["link", "set", &wire.peer, "down"]).unwrap();
    jail.wait_for_message("link down");
    jail.signal(libc::SIGTERM);
    assert_eq!(jail.finish().code(), 143);
    assert!(!ip(&link).unwrap().contains("xdp"));
}

/// `ringwire open` has the privileges and the interface; the jail has neither, but the sockets.
#[test]
fn sockets_that_were_opened_outside_work_in_it() {
    if !can_run() {
        return;
    }
    let wire = Wire::new();
    let public = super::Files::new(&super::waiting());
    public.open_to_all("");
    let binary = public.copy(env!("CARGO_BIN_EXE_ringwire").as_ref(), "ringwire");
    let kernel = public.copy(&traffic(), "traffic");
    let mut command = Command::new(KVM_FOR_ALL[0]);
    command.args(&KVM_FOR_ALL[1..]);
    // Locked memory is counted by user, and this one is the test's own.
    let user = (3_000_000 + std::process::id()).to_string();
    let ids = format!("{user}:{user}");
    let netdev = wire.netdev();
    command.args([&binary, "open", "--netdev", &netdev, "--user", &ids, "--"]);
    command.args([&binary, "jail", "--", "run", "--memory", "64M"]);
    command.args(["--kernel", &kernel, "--cmdline", "acpi=off mode=rx"]);
    let mut jail = Process::start(command.args(["--netdev", "{netdev}"]));
    jail.wait_for("ready\n");
    let [_, vm] = inside(&jail);
    assert_ne!(namespace(&vm.to_string(), "mnt"), namespace("self", "mnt"));
    assert!(wire.has_program());
    // Of the network namespace's packet sockets it has none; one keeps the interface promiscuous elsewhere.
    let table = fs::read_to_string("/proc/thread-self/net/packet").unwrap();
    let sockets = table.lines().skip(1).map(|line| line.rsplit(' ').next());
    let sockets: Vec<_> = sockets
        .map(|it| format!("socket:[{}]", it.unwrap()))
        .collect();
    assert_eq!(sockets.len(), 1);
    for process in [vm, jail.id()] {
        let open = super::descriptors::of(process);
        assert!(!open.values().any(|it| sockets.contains(it)), "{open:?}");
        // But what keeps the other process there.
        assert!(
            open.values().any(|it| it == "anon_inode:bpf_link"),
            "{open:?}"
        );
        let pipes = open
            .iter()
            .filter(|(number, what)| **number > 2 && what.starts_with("pipe:"));
        assert!(pipes.count() > 0, "{open:?}");
    }
    jail.signal(libc::SIGUSR1);
    jail.wait_for_message("netdev 'net0': guest");
    jail.signal(libc::SIGTERM);
    assert_eq!(jail.finish().code(), 143);
    wire.assert_clean();
}
