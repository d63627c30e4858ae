//! A jail's cgroup.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use super::{Files, NOBODY, assert_gone, field, inside, start, waiting};
use crate::{
    process::{Process, outcome},
    wire::can_run,
};

/// A cgroup of version 2 for the test, gone when dropped.
struct Parent(PathBuf);

impl Parent {
    /// `None`, and that is said, if there is no version 2 here, or it may not be changed.
    fn new() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let mut mounts = mounts
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>());
        let version2 = mounts.find(|fields| fields[2] == "cgroup2");
        let parent = version2.and_then(|fields| {
            // One for each test, which run at the same time.
            static NUMBER: AtomicU32 = AtomicU32::new(0);
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let name = format!("rw-test-{}-{number}", std::process::id());
            let path = Path::new(fields[1]).join(name);
            fs::create_dir(&path).ok().map(|()| Self(path))
        });
        if parent.is_none() {
            println!("SKIPPED: there is no cgroup v2 that may be changed");
        }
        parent
    }

    fn children(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.0).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.filter(|path| path.is_dir()).collect()
    }

    fn option(&self, limits: &str) -> String {
        format!("{}{limits}", self.0.display())
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_vm_is_in_a_cgroup_that_goes_with_it() {
    if !can_run() {
        return;
    }
    let Some(parent) = Parent::new() else {
        return;
    };
    let files = Files::new(&waiting());
    let with = |limits: &str| {
        let option = parent.option(limits);
        files.jail(&["--user", NOBODY, "--cgroup", &option], &[])
    };
    let option = parent.option("");
    let jail = start(&files, &["--user", NOBODY, "--cgroup", &option], &[]);
    let [_, vm] = inside(&jail);
    let made = parent.0.join(format!("ringwire-{}", jail.id()));
    assert_eq!(parent.children(), [made.as_path()]);
    let members = fs::read_to_string(made.join("cgroup.procs")).unwrap();
    assert_eq!(members.trim(), vm.to_string());
    jail.signal(libc::SIGTERM);
    assert_eq!(jail.finish().code(), 143);
    assert!(parent.children().is_empty());
    // Also without a VM.
    fs::rename(files.path("kernel"), files.path("away")).unwrap();
    outcome(&mut with("")).assert_fails(1, "../kernel");
    outcome(&mut with(",nothing.max=1")).assert_fails(1, "does not hand on the controller nothing");
    outcome(&mut with(",cgroup.procs=1")).assert_fails(1, "'cgroup.procs' is no limit");
    assert!(parent.children().is_empty());
    let elsewhere = ["--user", NOBODY, "--cgroup", "/tmp"];
    outcome(&mut files.jail(&elsewhere, &[])).assert_fails(1, "no directory of cgroup v2");
}

#[test]
fn limits_are_set_before_the_vm_is_there() {
    if !can_run() {
        return;
    }
    let Some(parent) = Parent::new() else {
        return;
    };
    // From the top to the test's own, if the system hands them on.
    let top = parent.0.parent().unwrap();
    let handed_on = [top, &parent.0]
        .map(|cgroup| fs::write(cgroup.join("cgroup.subtree_control"), "+memory +pids").is_ok());
    if handed_on != [true; 2] {
        println!("SKIPPED: the controllers memory and pids are not to be had in cgroup v2");
        return;
    }
    let files = Files::new(&waiting());
    let option = parent.option(",memory.max=256M,pids.max=50");
    let jail = start(&files, &["--user", NOBODY, "--cgroup", &option], &[]);
    let made = parent.0.join(format!("ringwire-{}", jail.id()));
    let limit = |file: &str| fs::read_to_string(made.join(file)).unwrap();
    assert_eq!(limit("memory.max").trim(), (256 << 20).to_string());
    assert_eq!(limit("pids.max").trim(), "50");
    // It is the VM that is charged.
    assert_ne!(limit("memory.current").trim(), "0");
    jail.signal(libc::SIGTERM);
    assert_eq!(jail.finish().code(), 143);
    assert!(parent.children().is_empty());
    let wrong = parent.option(",memory.max=lots");
    outcome(&mut files.jail(&["--user", NOBODY, "--cgroup", &wrong], &[]))
        .assert_fails(1, "could not write 'lots' to");
    // Too little to be built in: the system ends it, and that is said.
    let tight = parent.option(",memory.max=256K");
    outcome(&mut files.jail(&["--user", NOBODY, "--cgroup", &tight], &[]))
        .assert_fails(137, "was killed by signal 9");
    assert!(parent.children().is_empty());
}

/// Nobody may write to the directory of the tree's root, root included.
#[test]
fn the_trees_root_gets_no_litter_either() {
    if !can_run() {
        return;
    }
    let Some(parent) = Parent::new() else {
        return;
    };
    let root = parent.0.parent().unwrap();
    let files = Files::new(&waiting());
    let with = ["--user", NOBODY, "--cgroup", root.to_str().unwrap()];
    let jail = start(&files, &with, &[]);
    let made = root.join(format!("ringwire-{}", jail.id()));
    assert!(made.exists());
    jail.signal(libc::SIGTERM);
    let end = jail.finish();
    assert_eq!(
        (end.code(), end.stderr.contains("stays")),
        (143, false),
        "{end:?}"
    );
    assert!(!made.exists());
}

#[test]
fn a_cgroup_goes_also_if_the_process_outside_is_killed() {
    if !can_run() {
        return;
    }
    let Some(parent) = Parent::new() else {
        return;
    };
    let files = Files::new(&waiting());
    let option = parent.option("");
    let mut jail = start(&files, &["--user", NOBODY, "--cgroup", &option], &[]);
    let processes = inside(&jail);
    let [remover] = removers(&jail);
    assert_eq!(field(remover, "Seccomp"), "2");
    assert_eq!(field(remover, "NoNewPrivs"), "1");
    // CAP_DAC_OVERRIDE, number 1.
    assert_eq!(field(remover, "CapEff"), "0000000000000002");
    // The pipe, and the directory.
    let open = super::descriptors::of(remover);
    assert_eq!(open.len(), 2, "{open:?}");
    assert_eq!(Path::new(&open[&2]), parent.0);
    jail.signal(libc::SIGKILL);
    assert_eq!(jail.wait().code(), None);
    assert_gone(processes);
    let started = Instant::now();
    while !parent.children().is_empty() {
        assert!(started.elapsed() < Duration::from_secs(60), "it is left");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_gone([remover, remover]);
}

/// The child that is not inside.
fn removers(jail: &Process) -> [u32; 1] {
    let path = format!("/proc/{}/task/{0}/children", jail.id());
    let children = fs::read_to_string(path).unwrap();
    let children = children.split_whitespace().map(|it| it.parse().unwrap());
    let inside = inside(jail);
    let others: Vec<_> = children.filter(|it| !inside.contains(it)).collect();
    others.try_into().unwrap()
}
