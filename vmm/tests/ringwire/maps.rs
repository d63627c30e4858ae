//! Guests whose sockets go into a map of others. Needs root.

use std::{
    env, fs,
    os::fd::{AsFd, AsRawFd},
    path::PathBuf,
    process::Command,
};

use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType, libbpf_sys::bpf_map_create_opts};
use rustix::{
    io::{FdFlags, fcntl_setfd},
    net::{AddressFamily, SocketFlags, SocketType, socket_with},
};
use vmm_sys_util::tempdir::TempDir;

use crate::{
    guest::Code,
    process::{Process, outcome, run},
    wire::{Wire, can_run},
};

/// Set in the child, which has a mount namespace of its own: where it can mount a bpffs.
const VARIABLE: &str = "RINGWIRE_TEST_BPFFS";

/// As many slots as that, for sockets.
const SLOTS: u32 = 4;

fn xskmap() -> MapHandle {
    let options = bpf_map_create_opts {
        sz: size_of::<bpf_map_create_opts>().try_into().unwrap(),
        ..bpf_map_create_opts::default()
    };
    MapHandle::create(MapType::Xskmap, Some("others"), 4, 4, SLOTS, &options).unwrap()
}

/// The slots that have a socket. User space can't read them, but try to fill them.
fn taken(map: &MapHandle) -> Vec<u32> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::XDP, SocketType::RAW, flags, None).unwrap();
    let value = socket.as_raw_fd().to_ne_bytes();
    let is_taken = |slot: &u32| {
        let key = slot.to_ne_bytes();
        let free = map.update(&key, &value, MapFlags::NO_EXIST).is_ok();
        if free {
            map.delete(&key).unwrap();
        }
        !free
    };
    (0..SLOTS).filter(is_taken).collect()
}

/// Runs a guest on queues 1 and 2 of `wire`, and looks at the map meanwhile and afterwards.
fn fills(map: &MapHandle, wire: &Wire, options: &str, slots: &[u32]) {
    let kernel = Code::new().print("ready").echo().power_off().kernel();
    let netdev = format!(
        "{},queues=2,start-queue=1,inhibit=on,{options}",
        wire.netdev()
    );
    let mut running = Process::start(&mut run(kernel.as_path(), &["--netdev", &netdev]));
    running.wait_for("ready");
    assert_eq!(taken(map), slots);
    running.send(b"q");
    assert_eq!(running.finish().code(), 0);
    assert_eq!(taken(map), [0; 0]);
}

/// The refusal for such options names what is wrong.
fn refused(wire: &Wire, options: &str, words: &str) {
    let kernel = Code::new().sleep().kernel();
    let netdev = format!("{},inhibit=on,{options}", wire.netdev());
    outcome(&mut run(kernel.as_path(), &["--netdev", &netdev])).assert_fails(1, words);
}

#[test]
fn a_map_that_is_handed_over_has_the_sockets_while_the_guest_runs() {
    if !can_run() {
        return;
    }
    let wire = Wire::with_queues(3);
    let map = xskmap();
    fcntl_setfd(map.as_fd(), FdFlags::empty()).unwrap();
    let fd = map.as_fd().as_raw_fd();
    fills(&map, &wire, &format!("xsks-map-fd={fd}"), &[1, 2]);
    refused(&wire, "xsks-map-fd=0", "not a BPF map");
}

#[test]
fn a_pinned_map_has_the_sockets_while_the_guest_runs() {
    if !can_run() {
        return;
    }
    let directory = TempDir::new().unwrap();
    let mut child = Command::new("unshare");
    child.arg("--mount").arg(env::current_exe().unwrap());
    child.args(["--exact", "maps::child", "--nocapture", "--test-threads=1"]);
    let end = outcome(child.env(VARIABLE, directory.as_path()));
    assert_eq!(end.code(), 0, "{end:?}");
}

/// Runs in a child only.
#[test]
fn child() {
    let Some(bpffs) = env::var_os(VARIABLE).map(PathBuf::from) else {
        return;
    };
    let mut mount = Command::new("mount");
    let mount = mount.args(["-t", "bpf", "bpf"]).arg(&bpffs);
    assert!(mount.status().unwrap().success());
    let wire = Wire::with_queues(3);
    let mut map = xskmap();
    let path = bpffs.join("xsks");
    map.pin(&path).unwrap();
    let path = format!("map-path={}", path.display());
    fills(&map, &wire, &path, &[0, 1]);
    fills(&map, &wire, &format!("{path},map-start-index=2"), &[2, 3]);
    refused(&wire, &format!("{path},map-start-index=4"), "has 4 slots");
    refused(&wire, &format!("{path}x"), "cannot open the pinned map");
    fs::remove_file(bpffs.join("xsks")).unwrap();
}
