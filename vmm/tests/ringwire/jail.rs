//! `ringwire jail`: what a VM in it sees, what passes through its walls, and that nothing is left. Needs root.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use vmm_sys_util::tempdir::TempDir;

use crate::{
    guest::Code,
    process::{Process, outcome, ringwire},
    wire::can_run,
};

mod cgroup;
mod descriptors;
mod first;
mod network;

/// A user who owns nothing, as `--user` has it.
const NOBODY: &str = "65534:65533";

/// A VM's files, gone when dropped.
struct Files(TempDir);

impl Files {
    fn new(code: &Code) -> Self {
        let directory = TempDir::new().unwrap();
        let files = Self(directory);
        fs::copy(code.kernel().as_path(), files.path("kernel")).unwrap();
        fs::write(files.path("disk"), vec![0; 1 << 20]).unwrap();
        fs::create_dir(files.path("home")).unwrap();
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.as_path().join(name)
    }

    /// Lets everybody read, and execute.
    fn open_to_all(&self, name: &str) {
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(self.path(name), mode).unwrap();
    }

    /// A copy for everybody. By another process: what this one has open for writing, a child of another test may
    /// have as well, and then it can't be executed.
    fn copy(&self, from: &Path, name: &str) -> String {
        let to = self.path(name);
        let copied = Command::new("cp").arg(from).arg(&to).status();
        assert!(copied.unwrap().success());
        self.open_to_all(name);
        to.to_str().unwrap().to_owned()
    }

    /// `ringwire jail JAIL -- run --kernel ../kernel RUN`, from a directory in which it is so.
    fn jail(&self, jail: &[&str], run: &[&str]) -> Command {
        let mut command = ringwire(&["jail"]);
        command.args(jail).args(["--", "run", "--memory", "64M"]);
        command.args(["--kernel", "../kernel"]).args(run);
        command.current_dir(self.path("home"));
        command
    }
}

fn status(process: u32) -> String {
    fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default()
}

fn field(process: u32, name: &str) -> String {
    let status = status(process);
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_default()
        .trim_start_matches(':')
        .trim()
        .to_owned()
}

/// The two processes inside: the first one of the namespace, and the VM. The one that removes a cgroup is not inside.
fn inside(jail: &Process) -> [u32; 2] {
    let outside = jail.id();
    let children = fs::read_to_string(format!("/proc/{outside}/task/{outside}/children")).unwrap();
    let mut children: Vec<u32> = children
        .split_whitespace()
        .map(|it| it.parse().unwrap())
        .collect();
    let number = |process: &u32| {
        let ids = field(*process, "NSpid");
        ids.rsplit_once('\t').map(|(_, inner)| inner.to_owned())
    };
    children.retain(|child| number(child).is_some());
    children.sort_by_key(number);
    let numbers: Vec<_> = children.iter().map(number).collect();
    assert_eq!(numbers, [Some("1".to_owned()), Some("2".to_owned())]);
    children.try_into().unwrap()
}

fn namespace(process: &str, kind: &str) -> PathBuf {
    fs::read_link(format!("/proc/{process}/ns/{kind}")).unwrap()
}

/// Everything below a directory but other directories.
fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files
}

/// Waits until these have ended, as those do whose maker was killed.
fn assert_gone(processes: [u32; 2]) {
    let started = Instant::now();
    for process in processes {
        // Whoever took a zombie over may take their time to reap it, and the namespace's first process waits for that.
        while !field(process, "VmSize").is_empty() {
            assert!(
                started.elapsed() < Duration::from_secs(60),
                "{process} is left"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The options of each mount of a process, by mount point.
fn mounts(process: u32) -> BTreeMap<PathBuf, String> {
    let text = fs::read_to_string(format!("/proc/{process}/mountinfo")).unwrap();
    let mounts = text.lines().map(|line| {
        let fields: Vec<_> = line.split(' ').collect();
        (PathBuf::from(fields[4]), fields[5].to_owned())
    });
    mounts.collect()
}

/// One that is ready, with a disk.
fn start(files: &Files, jail: &[&str], run: &[&str]) -> Process {
    let disks = ["--disk", "path=../disk,readonly=off"];
    let mut jail = Process::start(&mut files.jail(jail, &[&disks, run].concat()));
    jail.wait_for("ready");
    jail
}

fn waiting() -> Code {
    Code::new().print("ready").sleep()
}

#[test]
fn a_vm_sees_the_files_that_it_was_given_and_no_others() {
    if !can_run() {
        return;
    }
    let files = Files::new(&waiting());
    let jail = start(&files, &["--user", NOBODY], &["--serial", "stdio"]);
    let [_, vm] = inside(&jail);
    let root = PathBuf::from(format!("/proc/{vm}/root"));
    let mut expected = ["/dev/kvm", "disk", "kernel"].map(|name| {
        // An absolute one is itself.
        let path = files.path(name);
        root.join(path.strip_prefix("/").unwrap())
    });
    let mut found = files_below(&root);
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    let mounts = mounts(vm);
    assert_eq!(mounts.len(), 4, "{mounts:?}");
    let options = |path: &Path| mounts[path].split(',').collect::<Vec<_>>();
    for (path, expected) in [
        (Path::new("/"), &["ro", "nosuid", "nodev", "noexec"][..]),
        (&files.path("kernel"), &["ro", "nosuid", "nodev", "noexec"]),
        (&files.path("disk"), &["rw", "nosuid", "nodev", "noexec"]),
        (Path::new("/dev/kvm"), &["rw", "nosuid", "noexec"]),
    ] {
        assert!(options(path).starts_with(expected), "{path:?}: {mounts:?}");
    }
    assert_powerless(vm);
    let home = fs::read_link(format!("/proc/{vm}/cwd")).unwrap();
    assert_eq!(home, files.path("home"));
    jail.signal(libc::SIGTERM);
    assert_eq!(jail.finish().code(), 143);
}

fn assert_powerless(process: u32) {
    for (what, value) in [
        ("Uid", "65534\t65534\t65534\t65534"),
        ("Gid", "65533\t65533\t65533\t65533"),
        ("Groups", ""),
        ("NoNewPrivs", "1"),
        ("CapPrm", "0000000000000000"),
        ("CapEff", "0000000000000000"),
        ("CapBnd", "0000000000000000"),
    ] {
        assert_eq!(field(process, what), value, "{process}: {what}");
    }
}

#[test]
fn a_vm_has_namespaces_of_its_own_and_nothing_of_its_makers() {
    if !can_run() {
        return;
    }
    let files = Files::new(&waiting());
    // With a file and a secret that are none of its business.
    let mut command = Command::new("sh");
    command.args(["-c", "exec 9</etc/passwd; exec \"$@\"", "sh"]);
    let plain = files.jail(&["--user", NOBODY], &[]);
    command.arg(plain.get_program()).args(plain.get_args());
    command
        .current_dir(files.path("home"))
        .env("SECRET", "of mine");
    let mut jail = Process::start(&mut command);
    jail.wait_for("ready");
    let [first, vm] = inside(&jail);
    for kind in ["mnt", "pid", "ipc", "uts", "cgroup", "net"] {
        assert_ne!(
            namespace(&vm.to_string(), kind),
            namespace("self", kind),
            "{kind}"
        );
    }
    assert_eq!(
        namespace(&vm.to_string(), "user"),
        namespace("self", "user")
    );
    for process in [first, vm] {
        let environment = fs::read(format!("/proc/{process}/environ")).unwrap();
        assert!(environment.iter().all(|byte| *byte == 0), "{process}");
        let open = fs::read_dir(format!("/proc/{process}/fd")).unwrap();
        let open = open.map(|it| fs::read_link(it.unwrap().path()).unwrap());
        assert!(!open.into_iter().any(|it| it == Path::new("/etc/passwd")));
    }
    // Outside there is the right to send signals: CAP_KILL, number 5.
    assert_eq!(field(jail.id(), "CapEff"), "0000000000000020");
    assert_eq!(field(vm, "Seccomp"), "2");
    jail.signal(libc::SIGTERM);
    assert_eq!(jail.finish().code(), 143);
}

#[test]
fn signals_and_statuses_pass_through() {
    if !can_run() {
        return;
    }
    for (code, status) in [
        (Code::new().print("ready").power_off(), 0),
        (Code::new().print("ready").out(0x505, 1).sleep(), 3),
    ] {
        let files = Files::new(&code);
        let end = outcome(&mut files.jail(&["--user", NOBODY], &[]));
        assert_eq!(
            (end.code(), end.stdout.as_str()),
            (status, "ready"),
            "{end:?}"
        );
    }
    let files = Files::new(&waiting());
    for signal in [libc::SIGINT, libc::SIGHUP, libc::SIGTERM] {
        let jail = start(&files, &["--user", NOBODY], &[]);
        jail.signal(signal);
        let words = format!("ended by signal {signal}");
        jail.finish().assert_fails(128 + signal, &words);
    }
    // What the guest says goes to a file that is made for it.
    let log = ["--serial", "file=../log"];
    let files = Files::new(&Code::new().print("ready").power_off());
    let end = outcome(&mut files.jail(&["--user", NOBODY], &log));
    assert_eq!((end.code(), end.stderr.as_str()), (0, ""));
    assert_eq!(fs::read(files.path("log")).unwrap(), b"ready");
}

#[test]
fn nothing_is_left_however_it_ends() {
    if !can_run() {
        return;
    }
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let files = Files::new(&waiting());
    let user = ["--user", NOBODY];
    // The VM's process.
    let jail = start(&files, &user, &[]);
    let processes = inside(&jail);
    let vm = rustix::process::Pid::from_raw(processes[1].try_into().unwrap()).unwrap();
    rustix::process::kill_process(vm, rustix::process::Signal::KILL).unwrap();
    jail.finish()
        .assert_fails(137, "the VM in the jail was killed by signal 9");
    assert_gone(processes);
    // The one outside.
    let mut jail = start(&files, &user, &[]);
    let processes = inside(&jail);
    jail.signal(libc::SIGKILL);
    assert_eq!(jail.wait().code(), None);
    assert_gone(processes);
    // A start that fails, inside and outside.
    fs::remove_file(files.path("kernel")).unwrap();
    outcome(&mut files.jail(&user, &[])).assert_fails(1, "../kernel");
    fs::create_dir(files.path("kernel")).unwrap();
    outcome(&mut files.jail(&user, &[])).assert_fails(1, "../kernel");
    let absent = ["--user", NOBODY, "--netns", "rw-not-there"];
    outcome(&mut files.jail(&absent, &[])).assert_fails(
        1,
        "could not open the network namespace '/run/netns/rw-not-there'",
    );
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
}

/// Those whose command line has this in it.
fn processes_of(words: &str) -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let processes = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is = |process: &u32| {
        let line = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(words)
    };
    processes.filter(is).collect()
}

/// Also before its processes know that they are to end with it.
#[test]
fn nothing_is_left_if_the_process_outside_is_killed_while_it_makes_the_jail() {
    if !can_run() {
        return;
    }
    let files = Files::new(&waiting());
    let disk = format!("path={}", files.path("disk").display());
    let mut begun = 0;
    for round in 0..30 {
        let mut jail = files.jail(&["--user", NOBODY], &["--disk", &disk]);
        let mut jail = Process::start(&mut jail);
        std::thread::sleep(Duration::from_millis(round));
        jail.signal(libc::SIGKILL);
        assert_eq!(jail.wait().code(), None);
        begun += u32::from(!processes_of(&disk).is_empty());
        let started = Instant::now();
        while !processes_of(&disk).is_empty() {
            let left = processes_of(&disk);
            assert!(started.elapsed() < Duration::from_secs(60), "{left:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    println!("in {begun} of 30 rounds there was something to end");
}

#[test]
fn what_would_be_no_jail_is_refused() {
    if !can_run() {
        return;
    }
    let files = Files::new(&waiting());
    let refused = |jail: &[&str], run: &[&str], words: &str| {
        outcome(&mut files.jail(jail, run)).assert_fails(1, words);
    };
    refused(
        &[],
        &[],
        "a jail of root's needs a user to run the guest as",
    );
    let user = ["--user", NOBODY];
    refused(&user, &["--confine", "off"], "leave the option out");
    refused(&user, &["--user", NOBODY], "give it once");
    let end = outcome(&mut ringwire(&["jail", "--", "check", "kvm"]));
    assert_eq!(end.code(), 2, "{end:?}");
}

/// A wrapper after which anybody may use /dev/kvm, in a mount namespace of its own.
pub(crate) const KVM_FOR_ALL: [&str; 6] = [
    "unshare",
    "--mount",
    "sh",
    "-c",
    "mount -t tmpfs -o mode=755 none /dev && mknod -m 666 /dev/kvm c 10 232 && \
     chmod 666 /dev/kvm && exec \"$@\"",
    "sh",
];

#[test]
fn without_roots_rights_it_is_the_users_own() {
    if !can_run() {
        return;
    }
    let files = Files::new(&waiting());
    files.open_to_all("");
    files.open_to_all("kernel");
    let binary = files.copy(env!("CARGO_BIN_EXE_ringwire").as_ref(), "ringwire");
    let plain = files.jail(&[], &[]);
    let mut command = Command::new(KVM_FOR_ALL[0]);
    command.args(&KVM_FOR_ALL[1..]);
    command.args([
        "setpriv",
        "--reuid",
        "65534",
        "--regid",
        "65533",
        "--clear-groups",
    ]);
    command.arg(binary).args(plain.get_args());
    command.current_dir(files.path("home"));
    let mut jail = Process::start(&mut command);
    jail.wait_for("ready");
    let [first, vm] = inside(&jail);
    assert_ne!(
        namespace(&vm.to_string(), "user"),
        namespace("self", "user")
    );
    for process in [first, vm] {
        assert_powerless(process);
    }
    jail.signal(libc::SIGTERM);
    assert_eq!(jail.finish().code(), 143);
    let mut other = Command::new("setpriv");
    other.args(["--reuid", "65534", "--regid", "65533", "--clear-groups"]);
    other.arg(files.path("ringwire"));
    other.args(files.jail(&["--user", "1:1"], &[]).get_args());
    outcome(&mut other).assert_fails(1, "--user takes root's rights");
}
