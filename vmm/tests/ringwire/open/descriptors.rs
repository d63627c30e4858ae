//! Which descriptors the command has, what keeps the interface promiscuous instead of one of them, and until when.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    os::fd::RawFd,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use net_afxdp::inherited;
use rustix::{
    net::sockopt::socket_domain,
    process::{Pid, Signal, kill_process},
};

use super::{Public, field, nobody, open, with_group};
use crate::{
    process::{Process, outcome},
    wire::{Wire, ip, is_root},
};

/// Says that the child is to tell of its descriptors.
const VARIABLE: &str = "RINGWIRE_TEST_DESCRIPTORS";
/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often the interface was asked to be promiscuous.
fn promiscuity(wire: &Wire) -> u32 {
    let text = ip(&["-details", "link", "show", "dev", &wire.name]).unwrap();
    let mut words = text.split_whitespace();
    words.find(|&word| word == "promiscuity").expect("a count");
    words.next().unwrap().parse().unwrap()
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A process's descriptors by their numbers, and what they are.
fn descriptors(process: &str) -> BTreeMap<RawFd, String> {
    let Ok(entries) = fs::read_dir(format!("/proc/{process}/fd")) else {
        return BTreeMap::new();
    };
    let open = entries.flatten().filter_map(|entry| {
        let number = entry.file_name().to_str()?.parse().ok()?;
        let what = fs::read_link(entry.path()).ok()?;
        Some((number, what.to_string_lossy().into_owned()))
    });
    open.collect()
}

/// The packet sockets of this network namespace, as descriptors are called.
fn packet_sockets() -> Vec<String> {
    let table = fs::read_to_string("/proc/thread-self/net/packet").unwrap();
    let inodes = table.lines().skip(1).map(|line| line.rsplit(' ').next());
    inodes
        .map(|it| format!("socket:[{}]", it.unwrap()))
        .collect()
}

/// The processes that have one of the packet sockets of this network namespace.
fn keepers() -> Vec<u32> {
    let sockets = packet_sockets();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let processes = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut processes: Vec<u32> = processes
        .filter(|process: &u32| {
            let open = descriptors(&process.to_string());
            open.values().any(|what| sockets.contains(what))
        })
        .collect();
    processes.sort_unstable();
    processes
}

/// The only one.
fn keeper() -> u32 {
    let keepers = keepers();
    assert_eq!(keepers.len(), 1, "{keepers:?}");
    keepers[0]
}

fn status(process: u32) -> String {
    fs::read_to_string(format!("/proc/{process}/status")).unwrap()
}

fn kill(process: i32) {
    kill_process(Pid::from_raw(process).unwrap(), Signal::KILL).unwrap();
}

/// Nothing is left of it.
fn assert_all_gone(wire: &Wire, keeper: u32) {
    let directory = format!("/proc/{keeper}");
    wait_until("the keeper is left", || !Path::new(&directory).exists());
    assert_eq!(promiscuity(wire), 0);
    assert!(packet_sockets().is_empty());
    wire.assert_clean();
}

/// A command that waits, and ends when its input does.
fn waiting(wire: &Wire, script: &str) -> Process {
    let user = with_group(nobody());
    let script = format!("{script} echo ready; read _; exit 0");
    // Not sh: dash takes descriptors of one digit only, and the test process may have some that are inherited.
    let arguments = ["--user", &user, "--", "bash", "-c", &script, "{netdev}"];
    let mut running = Process::start(&mut open(wire, &arguments));
    running.wait_for("ready\n");
    running
}

/// Runs in a child only: tells of all its descriptors but the standard ones.
#[test]
fn child() {
    if std::env::var_os(VARIABLE).is_none() {
        return;
    }
    let mut lines = vec![String::new()];
    for (number, what) in descriptors("self") {
        // One is the listing's own, and has gone.
        let Some(copy) = inherited(number).ok().filter(|_| number > 2) else {
            continue;
        };
        let family = socket_domain(&copy).map(|it| format!("family {} ", it.as_raw()));
        lines.push(format!("> {number} {}{what}", family.unwrap_or_default()));
    }
    println!("{}\n> that is all", lines.join("\n"));
    let _ = std::io::stdout().flush();
    let _ = std::io::stdin().read_line(&mut String::new());
}

#[test]
fn the_command_has_xdp_sockets_and_no_others_and_each_descriptor_is_named() {
    if !is_root() {
        return;
    }
    let wire = Wire::with_queues(2);
    let public = Public::new();
    let binary = public.copy(&std::env::current_exe().unwrap(), "tests");
    let script = format!(
        "echo \"> named $RINGWIRE_OPEN_FDS\"; {VARIABLE}=1 exec {binary} --exact \
         open::descriptors::child --nocapture --test-threads=1"
    );
    let netdev = format!("{},queues=2", wire.netdev());
    let user = with_group(nobody());
    let mut command = crate::process::ringwire(&["open", "--netdev", &netdev, "--user", &user]);
    let others = descriptors("self");
    let mut running = Process::start(command.args(["--", "sh", "-c", &script, "{netdev}"]));
    let said = running.read_until("> that is all\n");
    let mut lines = said.lines().filter_map(|line| line.strip_prefix("> "));
    let named = lines
        .next()
        .and_then(|it| it.strip_prefix("named "))
        .unwrap();
    let mut named: Vec<_> = named.split(':').map(str::to_owned).collect();
    named.sort();
    let found = lines.filter_map(|line| line.split_once(' '));
    let found = found.filter(|(number, what)| {
        // What the test itself has got from whoever runs it.
        number
            .parse()
            .is_ok_and(|it| others.get(&it).is_none_or(|other| other != what))
    });
    let found = found.map(|(number, what)| (number, what.split_once('[').map_or(what, |it| it.0)));
    let (mut numbers, mut kinds): (Vec<_>, Vec<_>) = found.unzip();
    numbers.sort_unstable();
    kinds.sort_unstable();
    assert_eq!(numbers, named, "{said}");
    let xdp = format!("family {} socket:", libc::AF_XDP);
    let mut expected = vec!["anon_inode:bpf_link", &xdp, &xdp, "pipe:"];
    if kinds.contains(&"anon_inode:bpf-map") {
        // A kernel that takes no sockets without rings into the map.
        expected.insert(0, "anon_inode:bpf-map");
    }
    assert_eq!(kinds, expected, "{said}");
    assert_eq!(promiscuity(&wire), 1);
    let keeper = keeper();
    running.send(b"\n");
    assert_eq!(running.finish().code(), 0);
    assert_all_gone(&wire, keeper);
}

#[test]
fn the_process_that_keeps_it_promiscuous_has_no_power_and_is_nobody_elses() {
    if !is_root() {
        return;
    }
    let wire = Wire::new();
    let running = waiting(&wire, "");
    let keeper = keeper();
    assert_ne!(keeper, running.id());
    let (of_keeper, of_command) = (status(keeper), status(running.id()));
    super::assert_powerless(&of_keeper);
    assert_eq!(field(&of_keeper, "Groups"), [""; 0]);
    assert_eq!(field(&of_keeper, "Seccomp"), ["2"]);
    // Of another user than the command, and not its child.
    assert_eq!(field(&of_keeper, "Uid"), ["0"; 4]);
    assert_ne!(field(&of_command, "Uid"), ["0"; 4]);
    assert_ne!(field(&of_keeper, "PPid"), [running.id().to_string()]);
    // All signals are blocked that can be.
    let blocked = u64::from_str_radix(field(&of_keeper, "SigBlk")[0], 16).unwrap();
    let unstoppable = 1 << (libc::SIGKILL - 1) | 1 << (libc::SIGSTOP - 1);
    let of_glibc = 0b11 << 31;
    assert_eq!(blocked | unstoppable | of_glibc, u64::MAX);
    let session = |process: u32| {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
        stat.rsplit(')')
            .next()
            .unwrap()
            .split(' ')
            .nth(4)
            .unwrap()
            .to_owned()
    };
    assert_ne!(session(keeper), session(running.id()));
    // The pipe and the socket, and nothing that anybody waits for the end of.
    let open = descriptors(&keeper.to_string());
    assert_eq!(open.len(), 2, "{open:?}");
    assert!(open[&0].starts_with("pipe:"), "{open:?}");
    assert!(open.values().any(|it| packet_sockets().contains(it)));
    let environment = fs::read(format!("/proc/{keeper}/environ")).unwrap();
    assert!(environment.iter().all(|byte| *byte == 0));
    // Neither the command's user nor its own looks into it or takes its descriptors: ptrace(2) asks the same.
    let user = field(&of_command, "Uid")[0].to_owned();
    for uid in [&user, "0"] {
        for file in ["fd/0", "root"] {
            let path = format!("/proc/{keeper}/{file}");
            let mut look = Command::new("setpriv");
            look.args(["--reuid", uid, "--clear-groups", "--bounding-set", "-all"]);
            let end = outcome(look.args(["--inh-caps=-all", "readlink", &path]));
            assert_ne!(end.code(), 0, "{uid}: {end:?}");
        }
    }
    let mut kill = Command::new("setpriv");
    kill.args(["--reuid", &user, "--clear-groups", "kill", "-KILL"]);
    let end = outcome(kill.arg(keeper.to_string()));
    assert!(end.stderr.contains("Operation not permitted"), "{end:?}");
    assert_eq!(promiscuity(&wire), 1);
    assert_eq!(running.finish().code(), 0);
    assert_all_gone(&wire, keeper);
}

#[test]
fn promiscuity_ends_with_the_command_however_that_ends() {
    if !is_root() {
        return;
    }
    let wire = Wire::new();
    // By itself.
    let running = waiting(&wire, "");
    let first = keeper();
    assert_eq!(promiscuity(&wire), 1);
    assert_eq!(running.finish().code(), 0);
    assert_all_gone(&wire, first);
    // By force.
    let mut running = waiting(&wire, "");
    let second = keeper();
    running.signal(libc::SIGKILL);
    running.wait();
    assert_all_gone(&wire, second);
    // It was never there.
    let absent = ["--", "/nonexistent/command", "{netdev}"];
    outcome(&mut open(&wire, &absent)).assert_fails(1, "could not run '/nonexistent/command'");
    wait_until("the keeper is left", || keepers().is_empty());
    wait_until("it is promiscuous", || promiscuity(&wire) == 0);
    wire.assert_clean();
    // A child that has inherited the program has also inherited this.
    let running = waiting(&wire, "sleep 600 <&- >&- 2>&- & echo \"child $!\" >&2;");
    let third = keeper();
    let end = running.finish();
    assert_eq!((end.code(), promiscuity(&wire)), (0, 1));
    assert!(wire.has_program());
    let child = end.stderr.trim().strip_prefix("child ").unwrap();
    kill(child.parse().unwrap());
    assert_all_gone(&wire, third);
}

/// Then only frames to other addresses are missed.
#[test]
fn without_the_keeper_the_command_goes_on() {
    if !is_root() {
        return;
    }
    let wire = Wire::new();
    let running = waiting(&wire, "");
    let keeper = keeper();
    kill(keeper.try_into().unwrap());
    wait_until("it is promiscuous", || promiscuity(&wire) == 0);
    assert!(wire.has_program());
    assert_eq!(running.finish().code(), 0);
    assert_all_gone(&wire, keeper);
}

#[test]
fn what_is_written_into_the_pipe_does_nothing() {
    if !is_root() {
        return;
    }
    let wire = Wire::new();
    // It is the last one, and blocks when it is full.
    let write = "head -c 1000000 /dev/zero >&\"${RINGWIRE_OPEN_FDS##*:}\" &";
    let running = waiting(&wire, write);
    let keeper = keeper();
    let writer = || {
        let path = format!("/proc/{}/task/{0}/children", running.id());
        let children = fs::read_to_string(path).unwrap();
        children.split_whitespace().next()?.parse().ok()
    };
    let is_full = || {
        let call = writer().map(|it: i32| fs::read_to_string(format!("/proc/{it}/syscall")));
        call.is_some_and(|it| it.is_ok_and(|it| it.starts_with("1 0x1 ")))
    };
    wait_until("nothing is written", is_full);
    let times = || {
        let path = format!("/proc/{keeper}/schedstat");
        fs::read_to_string(path)
            .unwrap()
            .split(' ')
            .nth(2)
            .unwrap()
            .to_owned()
    };
    // It had its time to fall asleep (in ppoll), and does not even wake up.
    wait_until("the keeper does not sleep", || {
        let call = fs::read_to_string(format!("/proc/{keeper}/syscall")).unwrap();
        call.starts_with("271 ")
    });
    let before = times();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(times(), before);
    assert_eq!(promiscuity(&wire), 1);
    assert_eq!(status(keeper).lines().nth(2), Some("State:\tS (sleeping)"));
    kill(writer().unwrap());
    assert_eq!(running.finish().code(), 0);
    assert_all_gone(&wire, keeper);
}
