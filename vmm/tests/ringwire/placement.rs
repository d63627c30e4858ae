//! Where threads run (`--pin`) and where memory comes from (`--memory size=..,hugepages=on`).

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::Command,
    sync::Mutex,
    time::{Duration, Instant},
};

use crate::{
    bare::traffic,
    guest::Code,
    process::{Process, have_kvm, outcome, ringwire, run},
    wire::{Wire, can_run, is_root},
};

/// Longer than a thread takes to name and to move itself.
const PATIENCE: Duration = Duration::from_secs(30);

fn field(status: &str, name: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_default().trim().to_owned()
}

/// The CPUs of each thread of a process, by its name, as taskset writes them.
fn cpus(process: u32) -> BTreeMap<String, String> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    tasks
        .filter_map(|task| fs::read_to_string(task.unwrap().path().join("status")).ok())
        .map(|status| {
            (
                field(&status, "Name:"),
                field(&status, "Cpus_allowed_list:"),
            )
        })
        .collect()
}

/// The numbers of a list such as `0-2,5`.
fn numbers(list: &str) -> Vec<usize> {
    let run = |run: &str| {
        let (first, last) = run.split_once('-').unwrap_or((run, run));
        first.parse().unwrap()..=last.parse().unwrap()
    };
    list.split(',').flat_map(run).collect()
}

fn own_cpus() -> String {
    field(
        &fs::read_to_string("/proc/self/status").unwrap(),
        "Cpus_allowed_list:",
    )
}

/// The io-thread is made by the vCPU's thread, and must not be where that one is.
#[test]
fn threads_are_pinned_by_their_names() {
    if !can_run() {
        return;
    }
    let all = own_cpus();
    let (first, last) = (numbers(&all)[0], *numbers(&all).last().unwrap());
    let wire = Wire::new();
    let netdev = format!("af-xdp,ifname={},id=lan", wire.name);
    let [vcpu, net] = [format!("vcpu0={first}"), format!("lan={last}")];
    for (pins, expected) in [
        (vec![&vcpu, &net], [first.to_string(), last.to_string()]),
        (vec![&vcpu], [first.to_string(), all.clone()]),
        (vec![], [all.clone(), all.clone()]),
    ] {
        let mut arguments = vec!["--netdev", &netdev, "--cmdline", "acpi=off mode=rx"];
        for pin in pins {
            arguments.extend(["--pin", pin]);
        }
        let mut guest = Process::start(&mut run(&traffic(), &arguments));
        guest.wait_for("ready\n");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let cpus = cpus(guest.id());
            let found = ["vcpu0", "lan"].map(|name| cpus.get(name).cloned().unwrap_or_default());
            let others = cpus.values().filter(|cpus| **cpus == all).count();
            if found == expected && others > 0 {
                break;
            }
            assert!(Instant::now() < deadline, "{expected:?}: {cpus:?}");
        }
        guest.signal(libc::SIGTERM);
        assert_eq!(guest.finish().code(), 128 + libc::SIGTERM);
    }
}

#[test]
fn impossible_pins_are_refused() {
    let kernel = Code::new().power_off().kernel();
    for (pin, code, words) in [
        (
            "vcpu1=0",
            1,
            "there is no thread 'vcpu1' to pin; this guest has: main, console, vcpu0",
        ),
        ("net0=0", 1, "there is no thread 'net0' to pin"),
        (
            "vcpu0=4000",
            1,
            "'vcpu0' can't run on CPU 4000: ringwire may use the CPUs",
        ),
        ("vcpu0", 2, "'vcpu0' is not an option"),
        (
            "vcpu0=all",
            2,
            "'all' is no value for vcpu0: the number of a CPU",
        ),
    ] {
        let end = outcome(&mut run(kernel.as_path(), &["--pin", pin]));
        end.assert_fails(code, words);
    }
}

fn meminfo(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let value = field(&text, name);
    let number = value.split_whitespace().next();
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// The number of huge pages of the host, set back when dropped.
struct SetAside(u64);

impl SetAside {
    const SYSCTL: &str = "/proc/sys/vm/nr_hugepages";

    fn more(count: u64) -> Option<Self> {
        let before = meminfo("HugePages_Total:");
        let guard = Self(before);
        fs::write(Self::SYSCTL, (before + count).to_string()).ok()?;
        (meminfo("HugePages_Total:") >= before + count).then_some(guard)
    }
}

impl Drop for SetAside {
    fn drop(&mut self) {
        let _ = fs::write(Self::SYSCTL, self.0.to_string());
    }
}

fn with_memory(kernel: &Path, memory: &str) -> Command {
    let mut command = ringwire(&["run", "--memory", memory]);
    command.arg("--kernel").arg(kernel);
    command
}

/// One test at a time: huge pages are the host's.
static HUGE: Mutex<()> = Mutex::new(());

#[test]
fn huge_pages_are_reserved_and_given_back() {
    let _one = HUGE.lock();
    if !have_kvm() {
        return;
    }
    let page = meminfo("Hugepagesize:") * 1024;
    if page != 2 << 20 {
        eprintln!("skipped: huge pages of {page} bytes");
        return;
    }
    let Some(_pages) = SetAside::more(32) else {
        eprintln!("skipped: no more huge pages to be had");
        return;
    };
    let unused = || meminfo("HugePages_Free:") - meminfo("HugePages_Rsvd:");
    let before = unused();
    let kernel = Code::new().print("ready").echo().power_off().kernel();
    let mut commands = vec![with_memory(kernel.as_path(), "size=64M,hugepages=on")];
    if is_root() {
        // A jail has no /proc.
        let mut jail = ringwire(&["jail", "--user", "65534:65533"]);
        jail.args(commands[0].get_args());
        commands.push(jail);
    }
    for mut command in commands {
        let mut guest = Process::start(&mut command);
        guest.wait_for("ready");
        assert_eq!(unused(), before - 32, "64 MiB are the guest's");
        guest.send(b"q");
        assert_eq!(guest.finish().code(), 0);
        assert_eq!(unused(), before);
    }
}

#[test]
fn missing_huge_pages_are_counted() {
    let _one = HUGE.lock();
    if !have_kvm() {
        return;
    }
    let kernel = Code::new().power_off().kernel();
    let refused = |memory: &str, words: &str| {
        let end = outcome(&mut with_memory(kernel.as_path(), memory));
        end.assert_fails(1, words);
    };
    let page = meminfo("Hugepagesize:");
    match meminfo("MemTotal:").checked_div(page) {
        None => refused("size=64M,hugepages=on", "CONFIG_HUGETLBFS"),
        Some(all) => {
            // More than can have been set aside.
            let needed = (all + 1) * 2;
            let size = format!("size={}K,hugepages=on", needed * page);
            refused(&size, &format!("needs {needed} huge pages of"));
            refused(&size, "`sysctl vm.nr_hugepages=");
        }
    }
    for (memory, words) in [
        ("size=64M,hugepages=1", "'1' is no value for hugepages"),
        ("size=64M,hugepages=on,share=on", "no option 'share'"),
        ("hugepages=on", "the option 'size' is missing"),
    ] {
        let end = outcome(&mut with_memory(kernel.as_path(), memory));
        assert_eq!(end.code(), 2, "{end:?}");
        assert!(end.stderr.contains(words), "{end:?}");
    }
}
