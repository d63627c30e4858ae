//! A process without any right that uses what a privileged one has prepared.

use std::{
    env,
    os::{fd::AsRawFd, unix::process::CommandExt},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use net_afxdp::{Port, PortConfig, Prepared, Probe, Source, inherited};
use rustix::{
    process::{Resource, Rlimit, setrlimit},
    thread::{CapabilitySet, capabilities},
};

use crate::{
    child::line,
    foreign::{Bpffs, Foreign, socket},
    net::{Net, ip},
    packet::{Packet, frame},
    traffic::{config, receive, send},
};

const VARIABLE: &str = "NET_AFXDP_TEST_UNPRIVILEGED";

/// Starts this binary as a user that owns nothing, in a place that the user can read.
///
/// A user of its own each time: locked memory is counted by user, and the kernel takes its time to
/// count it back.
fn start(task: &str) -> (Child, Copy) {
    static USERS: AtomicU32 = AtomicU32::new(0);
    let user = 1_000_000 + std::process::id() * 100 + USERS.fetch_add(1, Ordering::Relaxed);
    let copy = Copy::new();
    let child = Command::new(&copy.0)
        .args([
            "--exact",
            "unprivileged::child",
            "--nocapture",
            "--test-threads=1",
        ])
        .env_clear()
        .env(VARIABLE, task)
        .uid(user)
        .gid(user)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    (child, copy)
}

/// A copy of this binary, removed at the end.
struct Copy(std::path::PathBuf);

impl Copy {
    fn new() -> Self {
        let name = format!(
            "net-afxdp-test-{}-{}",
            std::process::id(),
            rustix::thread::gettid().as_raw_nonzero()
        );
        let path = env::temp_dir().join(name);
        // By another process: a file that this one has open for writing, or a child of another test
        // by inheritance, can't be executed.
        let copied = Command::new("cp")
            .arg(env::current_exe().unwrap())
            .arg(&path)
            .status();
        assert!(copied.unwrap().success());
        Self(path)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Runs in the child only: an interface, a number of frames to reflect, and file descriptors.
#[test]
fn child() {
    let Ok(task) = env::var(VARIABLE) else { return };
    let sets = capabilities(None).unwrap();
    assert_eq!(sets.effective | sets.permitted, CapabilitySet::empty());
    assert!(!rustix::process::geteuid().is_root());

    let mut words = task.split(' ');
    let frames: u32 = words.next().unwrap().parse().unwrap();
    let config = PortConfig {
        frames,
        ..config(words.next().unwrap())
    };
    // What the frames need, and not a page more.
    let limit = Some(config.locked_memory());
    let limit = Rlimit {
        current: limit,
        maximum: limit,
    };
    setrlimit(Resource::Memlock, limit).unwrap();

    let rest = words.next().unwrap();
    if rest == "probe" {
        let probe = Probe::of(&config).unwrap();
        let problems = probe.problems.iter().filter(|problem| problem.blocks);
        let all: Vec<_> = problems.map(|problem| problem.what.as_str()).collect();
        println!("\n> {} {}", probe.would_open(), all.join(" | "));
        return;
    }
    let take = |number: &str| inherited(number.parse().unwrap()).unwrap();
    let (source, queues) = match rest.strip_prefix("sock-fds=") {
        Some(numbers) => {
            let (numbers, map) = numbers.split_once(",map=").unwrap_or((numbers, ""));
            let sockets: Vec<_> = numbers.split(':').map(take).collect();
            let queues = u32::try_from(sockets.len()).unwrap();
            let source = if map.is_empty() {
                Source::Sockets(sockets)
            } else {
                let map = take(map);
                Source::SocketsForMap { sockets, map }
            };
            (source, queues)
        }
        None => {
            let path = rest.into();
            let start_index = 0;
            (Source::PinnedMap { path, start_index }, 1)
        }
    };
    let config = PortConfig { queues, ..config };
    match Port::open_from(&config, source) {
        Err(error) => println!("\n> {error}"),
        Ok(mut port) => {
            println!("\n> open in {} mode", port.mode());
            let mut queue = port.take_queues().remove(0);
            for _ in 0..50 {
                let frames = receive(&mut queue, 1);
                send(&mut queue, &frames[0]).unwrap();
                queue.flush().unwrap();
            }
        }
    }
}

#[test]
fn traffic_without_any_capability() {
    let Some(net) = Net::new() else { return };
    let wanted = PortConfig {
        frames: 1024,
        ..config(&net.near)
    };
    let mut prepared = Prepared::open(&wanted).unwrap();
    prepared.let_children_inherit().unwrap();
    let number = prepared.sockets()[0].as_raw_fd();
    let map = prepared
        .map()
        .map(|map| format!(",map={}", map.as_raw_fd()));
    let sockets = format!("sock-fds={number}{}", map.unwrap_or_default());
    let (mut child, _copy) = start(&format!("1024 {} {sockets}", net.near));
    drop(prepared.take_sockets());
    assert_eq!(line(&mut child), "open in native mode");
    assert_reflected(&net);
    assert!(child.wait().unwrap().success());
    // The queue is free again, the program still there.
    assert!(net.interface().xdp_program().is_some());
    drop(prepared);
    drop(Port::open(&wanted).unwrap());
}

/// The child sends back what it gets.
fn assert_reflected(net: &Net) {
    let far = Packet::open(&net.far);
    for number in 0..50 {
        far.send(&frame(number, 300)).unwrap();
        assert!(
            far.receive().as_deref() == Some(&frame(number, 300)),
            "frame {number}"
        );
    }
}

/// As kernels want it that take no socket into a map before it is set up.
#[test]
fn sockets_are_put_into_a_map_without_any_capability() {
    let Some(net) = Net::new() else { return };
    let foreign = Foreign::attach(net.interface().index(), 1, libbpf_rs::XdpFlags::DRV_MODE);
    let (map, socket) = (foreign.map_fd(), socket());
    for descriptor in [&map, &socket] {
        rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::empty()).unwrap();
    }
    let (number, its_map) = (socket.as_raw_fd(), map.as_raw_fd());
    let task = format!("1024 {} sock-fds={number},map={its_map}", net.near);
    let (mut child, _copy) = start(&task);
    drop((map, socket));
    assert_eq!(line(&mut child), "open in native mode");
    assert!(foreign.taken(0));
    assert_reflected(&net);
    assert!(child.wait().unwrap().success());
    ip(&format!("link set dev {} xdp off", net.near));
}

#[test]
fn too_little_memory_for_what_was_handed_over() {
    let Some(net) = Net::with_queues(2) else {
        return;
    };
    // The child allows itself the memory of one queue and opens two.
    let wanted = PortConfig {
        queues: 2,
        ..config(&net.near)
    };
    let prepared = Prepared::open(&wanted).unwrap();
    prepared.let_children_inherit().unwrap();
    let numbers: Vec<_> = prepared.sockets().iter().map(AsRawFd::as_raw_fd).collect();
    let task = format!("1024 {} sock-fds={}:{}", net.near, numbers[0], numbers[1]);
    let (mut child, _copy) = start(&task);
    let text = line(&mut child);
    let start = format!("queue 1 of {}: cannot lock 4096 KiB of memory", net.near);
    assert!(
        text.starts_with(&start) && text.contains("is 4096 KiB"),
        "{text}"
    );
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_pinned_map_that_may_not_be_opened() {
    let Some(net) = Net::new() else { return };
    let bpffs = Bpffs::mount();
    let mut foreign = Foreign::attach(net.interface().index(), 1, libbpf_rs::XdpFlags::DRV_MODE);
    let path = bpffs.path("xsks");
    foreign.map.pin(&path).unwrap();
    let (mut child, _copy) = start(&format!("64 {} {}", net.near, path.display()));
    let text = line(&mut child);
    assert!(
        text.contains("cannot open the pinned map") && text.contains("Permission denied"),
        "{text}"
    );
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_probe_without_any_right_names_them() {
    let Some(net) = Net::new() else { return };
    let (mut child, _copy) = start(&format!("64 {} probe", net.near));
    let text = line(&mut child);
    assert!(child.wait().unwrap().success());
    assert!(text.starts_with("false "), "{text}");
    for part in ["CAP_NET_RAW", "cannot load the XDP program", "CAP_BPF"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}
