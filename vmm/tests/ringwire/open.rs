//! `ringwire open`: what the command gets, and what it has no more. Needs root.

use std::{
    fs,
    ops::ControlFlow,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use net_afxdp::{Port, PortConfig, Queue, Source, inherited};
use vmm::{cli::netdev::netdev, config::SourceConfig};
use vmm_sys_util::tempdir::TempDir;

use crate::{
    guest::Code,
    jail::KVM_FOR_ALL,
    process::{Process, outcome},
    wire::{Wire, can_run, is_root},
};

mod descriptors;

/// Where the child finds its `--netdev`.
const VARIABLE: &str = "RINGWIRE_TEST_NETDEV";

/// A user that owns nothing. One of its own each time: locked memory is counted by user, and the kernel
/// takes its time to count it back.
fn nobody() -> u32 {
    static USERS: AtomicU32 = AtomicU32::new(0);
    2_000_000 + std::process::id() * 100 + USERS.fetch_add(1, Ordering::Relaxed)
}

/// As `--user` wants it.
fn with_group(user: u32) -> String {
    format!("{user}:{user}")
}

/// `ringwire open` under `setpriv` or the like.
fn open_under(wrapper: &[&str], wire: &Wire, arguments: &[&str]) -> Command {
    let (first, rest) = wrapper.split_first().unwrap();
    let mut command = Command::new(first);
    let program = env!("CARGO_BIN_EXE_ringwire");
    command.args(rest).args([program, "open", "--netdev"]);
    command.arg(wire.netdev()).args(arguments);
    command
}

fn open(wire: &Wire, arguments: &[&str]) -> Command {
    open_under(&["env"], wire, arguments)
}

/// Files where any user can read them, gone when dropped.
struct Public(TempDir);

impl Public {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let public = Self(directory);
        public.set_mode("", 0o755);
        public
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.as_path().join(name)
    }

    fn set_mode(&self, name: &str, mode: u32) {
        let permissions = fs::Permissions::from_mode(mode);
        fs::set_permissions(self.path(name), permissions).unwrap();
    }

    /// A copy that everybody can read and execute; its path.
    fn copy(&self, file: &std::path::Path, name: &str) -> String {
        fs::copy(file, self.path(name)).unwrap();
        self.set_mode(name, 0o755);
        self.path(name).to_str().unwrap().to_owned()
    }
}

/// The values of a line of /proc/PID/status.
fn field<'a>(status: &'a str, name: &str) -> Vec<&'a str> {
    let mut lines = status.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.unwrap().split_whitespace().collect()
}

/// No capability in any set, and no way to one.
fn assert_powerless(status: &str) {
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(status, set), ["0000000000000000"], "{set}");
    }
    assert_eq!(field(status, "NoNewPrivs"), ["1"]);
}

#[test]
fn the_command_has_the_sockets_and_no_privileges() {
    if !is_root() {
        return;
    }
    let wire = Wire::with_queues(2);
    let script = "cat /proc/self/status; echo limit $(ulimit -l) $(ulimit -H -l); \
                  echo ready \"$1\"; read _; exit 42";
    let netdev = format!("{},queues=2,inhibit=off", wire.netdev());
    let user = nobody();
    let ids = [user; 4].map(|id| id.to_string());
    let mut command = Command::new("prlimit");
    command
        .args(["--memlock=65536:", env!("CARGO_BIN_EXE_ringwire"), "open"])
        .args(["--netdev", &netdev, "--user", &with_group(user), "--"])
        .args(["sh", "-c", script, "sh", "<{netdev}>"]);
    let mut running = Process::start(&mut command);
    let status = running.read_until("ready");
    assert_powerless(&status);
    assert_eq!(field(&status, "Uid"), ids);
    assert_eq!(field(&status, "Gid"), ids);
    assert!(field(&status, "Groups").is_empty());
    // 2 queues of 1024 frames of 4 KiB.
    assert!(status.contains("limit 8192 8192"), "{status}");
    let text = running.read_until(">");
    let options = text.trim().trim_matches(['<', '>']);
    let inner = vmm::cli::netdev::netdev(options, 7).unwrap();
    assert_eq!((inner.id.as_str(), inner.port.queues), ("net0", 2));
    // With the map, where the kernel takes no sockets into it that have no rings yet.
    assert!(matches!(
        &inner.source,
        SourceConfig::SockFds(sockets) | SourceConfig::SockFdsForMap { sockets, .. } if sockets.len() == 2
    ));
    assert!(wire.has_program());
    // It is the command itself, in place.
    running.send(b"\n");
    assert_eq!(running.finish().code(), 42);
    wire.assert_clean();
}

#[test]
fn root_without_capabilities_stays_so() {
    if !is_root() {
        return;
    }
    let wire = Wire::new();
    let script = ["--", "sh", "-c", "cat /proc/self/status", "{netdev}"];
    for wrapper in [&["env"][..], &["setpriv", "--bounding-set=-setpcap"]] {
        let end = outcome(&mut open_under(wrapper, &wire, &script));
        assert_eq!((end.code(), end.stderr.as_str()), (0, ""));
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(field(&end.stdout, set), ["0000000000000000"], "{set}");
        }
        assert_eq!(field(&end.stdout, "NoNewPrivs"), ["1"]);
        assert_eq!(field(&end.stdout, "Uid"), ["0"; 4]);
    }
    wire.assert_clean();
}

/// Runs in a child only, without privileges: sends what it receives back.
#[test]
fn child() {
    let Ok(text) = std::env::var(VARIABLE) else {
        return;
    };
    let config = netdev(&text, 0).unwrap();
    let taken = |fds: Vec<_>| fds.into_iter().map(|fd| inherited(fd).unwrap()).collect();
    let source = match config.source {
        SourceConfig::SockFds(fds) => Source::Sockets(taken(fds)),
        SourceConfig::SockFdsForMap { sockets, map } => Source::SocketsForMap {
            sockets: taken(sockets),
            map: inherited(map).unwrap(),
        },
        other => panic!("{text}: {other:?}"),
    };
    let mut port = Port::open_from(&config.port, source).unwrap();
    let mut queue = port.take_queues().remove(0);
    println!("\n> ready");
    // Until it is killed.
    loop {
        let frame = receive(&mut queue);
        queue
            .send(frame.len(), |bytes| bytes.copy_from_slice(&frame))
            .unwrap();
        queue.flush().unwrap();
    }
}

/// One frame, within a minute.
fn receive(queue: &mut Queue) -> Vec<u8> {
    let started = Instant::now();
    let mut received = Vec::new();
    while received.is_empty() {
        assert!(started.elapsed() < Duration::from_secs(60), "nothing came");
        let taken = queue.receive(1, |fragments| {
            received = fragments.concat();
            ControlFlow::Continue(())
        });
        if taken == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    received
}

#[test]
fn traffic_flows_without_privileges() {
    if !is_root() {
        return;
    }
    let wire = Wire::new();
    let public = Public::new();
    let binary = public.copy(&std::env::current_exe().unwrap(), "tests");
    let script =
        format!("{VARIABLE}=\"$1\" exec {binary} --exact open::child --nocapture --test-threads=1");
    let user = with_group(nobody());
    let arguments = ["--user", &user, "--", "sh", "-c", &script, "sh", "{netdev}"];
    let mut running = Process::start(&mut open(&wire, &arguments));
    running.wait_for("> ready");
    let mut peer = Port::open(&PortConfig {
        ifname: wire.peer.clone(),
        frames: 64,
        ..PortConfig::default()
    })
    .unwrap();
    let mut peer = peer.take_queues().remove(0);
    for number in 0..100 {
        // To everybody, of an experimental type, so that nothing on the host takes an interest.
        let mut frame = vec![0xff; 6];
        frame.extend([2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
        frame.resize(200, number);
        peer.send(frame.len(), |bytes| bytes.copy_from_slice(&frame))
            .unwrap();
        peer.flush().unwrap();
        // The host itself may have something to say on the wire, which comes back too.
        while receive(&mut peer) != frame {}
    }
    running.signal(libc::SIGKILL);
    assert_eq!(running.wait().code(), None);
    wire.assert_clean();
}

#[test]
fn a_vm_runs_without_privileges() {
    if !can_run() {
        return;
    }
    let wire = Wire::new();
    let public = Public::new();
    let ringwire = public.copy(env!("CARGO_BIN_EXE_ringwire").as_ref(), "ringwire");
    let kernel = Code::new().print("ready").spin().kernel();
    let kernel = public.copy(kernel.as_path(), "kernel");
    let user = nobody();
    let ids = with_group(user);
    let run = [
        "--user", &ids, "--", &ringwire, "run", "--memory", "64M", "--kernel", &kernel, "--netdev",
        "{netdev}",
    ];
    let mut running = Process::start(&mut open_under(&KVM_FOR_ALL, &wire, &run));
    running.wait_for("ready");
    let status = fs::read_to_string(format!("/proc/{}/status", running.id())).unwrap();
    assert_powerless(&status);
    assert_eq!(field(&status, "Uid"), [user.to_string().as_str(); 4]);
    assert!(wire.has_program());
    running.signal(libc::SIGUSR1);
    running.wait_for_message("netdev 'net0': guest");
    running.signal(libc::SIGKILL);
    assert_eq!(running.wait().code(), None);
    wire.assert_clean();
}

#[test]
fn three_capabilities_are_enough_for_it() {
    if !is_root() {
        return;
    }
    let wire = Wire::new();
    let public = Public::new();
    let ringwire = public.copy(env!("CARGO_BIN_EXE_ringwire").as_ref(), "ringwire");
    let user = nobody().to_string();
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", &user, "--clear-groups"])
        .args(["--inh-caps", "-all,+net_admin,+net_raw,+bpf"])
        .args(["--ambient-caps", "-all,+net_admin,+net_raw,+bpf"])
        .args([&ringwire, "open", "--netdev", &wire.netdev(), "--"])
        .args(["sh", "-c", "cat /proc/self/status", "{netdev}"]);
    let end = outcome(&mut command);
    assert_eq!((end.code(), end.stderr.as_str()), (0, ""), "{end:?}");
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(field(&end.stdout, set), ["0000000000000000"], "{set}");
    }
    assert_eq!(field(&end.stdout, "NoNewPrivs"), ["1"]);
    wire.assert_clean();
}

#[test]
fn what_is_missing_is_named_and_nothing_is_left() {
    if !is_root() {
        return;
    }
    let wire = Wire::new();
    let script = ["--user", "65534:65534", "--", "true", "{netdev}"];
    let without = |wrapper: &[&str], words: &str| {
        outcome(&mut open_under(wrapper, &wire, &script)).assert_fails(1, words);
        wire.assert_clean();
    };
    without(
        &["setpriv", "--bounding-set=-net_admin,-bpf,-sys_admin"],
        "CAP_NET_ADMIN",
    );
    without(&["setpriv", "--bounding-set=-net_raw"], "CAP_NET_RAW");
    let words = "could not become user 65534 of group 65534: Operation not permitted";
    without(&["setpriv", "--bounding-set=-setuid"], words);
    without(&["setpriv", "--bounding-set=-setgid"], words);
    without(
        &[
            "prlimit",
            "--memlock=65536",
            "setpriv",
            "--bounding-set=-sys_resource",
        ],
        "could not raise the limit of locked memory from 64 KiB to 4 MiB",
    );
    let absent = ["--", "/nonexistent/command", "{netdev}"];
    outcome(&mut open(&wire, &absent)).assert_fails(1, "could not run '/nonexistent/command'");
    wire.assert_clean();
}

#[test]
fn requests_that_make_no_sense() {
    let wire = ["open", "--netdev", "af-xdp,ifname=a"];
    let command = |arguments: &[&str]| {
        let mut command = crate::process::ringwire(&wire);
        outcome(command.args(arguments))
    };
    command(&["--", "true"]).assert_fails(1, "nothing in the command uses netdev 'net0'");
    command(&["--", "true", "{netdev}"]).assert_fails(1, "there is no network interface");
    assert_eq!(command(&["--user", "nobody", "--", "true"]).code(), 2);
    assert_eq!(command(&["true"]).code(), 2);
    let mut inhibited = crate::process::ringwire(&[
        "open",
        "--netdev",
        "af-xdp,ifname=a,inhibit=on,sock-fds=3",
        "--",
        "true",
        "{netdev}",
    ]);
    outcome(&mut inhibited).assert_fails(1, "`ringwire open` loads its own");
}
