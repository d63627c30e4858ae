//! Veth pairs for tests, in network namespaces of their own. Needs root.

#![expect(unsafe_code, reason = "unshare(2) has no safe wrapper")]

use std::{
    cell::Cell,
    process::{self, Command},
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::process::have_kvm;

/// Whether tests can make interfaces; says so if not.
pub(crate) fn can_run() -> bool {
    is_root() && have_kvm()
}

/// Whether tests can make interfaces, for those that make no VM.
pub(crate) fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("SKIPPED: needs root");
    }
    root
}

pub(crate) fn ip(arguments: &[&str]) -> Option<String> {
    let output = Command::new("ip").args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then_some(text)
}

/// Moves this thread, and what it starts from now on, to a network namespace without a name, which goes with the last of
/// them, also when they are killed. Wires of one test are in the same one.
fn enter_own_network() {
    thread_local!(static IS_IN: Cell<bool> = const { Cell::new(false) });
    if IS_IN.replace(true) {
        return;
    }
    // SAFETY: no descriptors are unshared, which is what could surprise others.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.expect("a network namespace needs root");
}

/// A veth pair, up, gone when dropped.
pub(crate) struct Wire {
    pub(crate) name: String,
    pub(crate) peer: String,
}

impl Wire {
    pub(crate) fn new() -> Self {
        Self::with_queues(1)
    }

    /// With that many queues at both ends.
    pub(crate) fn with_queues(queues: u32) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        enter_own_network();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("rw{}m{number}", process::id());
        let wire = Self {
            peer: format!("{name}p"),
            name,
        };
        let queues = queues.to_string();
        let queues = ["numrxqueues", &queues, "numtxqueues", &queues];
        let near = ["link", "add", "name", &wire.name];
        let far = ["type", "veth", "peer", "name", &wire.peer];
        ip(&[&near[..], &queues, &far, &queues].concat()).unwrap();
        ip(&["link", "set", &wire.name, "up"]).unwrap();
        ip(&["link", "set", &wire.peer, "up"]).unwrap();
        wire
    }

    pub(crate) fn netdev(&self) -> String {
        format!("af-xdp,ifname={},frames=1024", self.name)
    }

    /// Whether an XDP program is on the interface.
    pub(crate) fn has_program(&self) -> bool {
        ip(&["-details", "link", "show", &self.name])
            .unwrap()
            .contains("xdp")
    }

    /// Nothing of ours is on the interface.
    pub(crate) fn assert_clean(&self) {
        let link = ip(&["-details", "link", "show", &self.name]).unwrap();
        assert!(!link.contains("xdp"), "{link}");
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // A test may have deleted it.
        let _ = ip(&["link", "delete", &self.name]);
    }
}
