//! The jail's first process, which does nothing, and which nobody gets hold of.

use std::{fs, path::Path, process::Command};

use super::{
    Files, KVM_FOR_ALL, NOBODY, assert_powerless, field, inside, namespace, start, waiting,
};
use crate::{
    process::{Process, outcome},
    wire::can_run,
};

/// What must hold of it, whoever started the jail.
fn assert_shut_in(first: u32, outside: u32) {
    assert_powerless(first);
    assert_eq!(field(first, "Seccomp"), "2");
    // A root of its own with nothing in it.
    let process = first.to_string();
    assert_ne!(namespace(&process, "mnt"), namespace("self", "mnt"));
    assert_ne!(
        namespace(&process, "mnt"),
        namespace(&outside.to_string(), "mnt")
    );
    let root = format!("/proc/{first}/root/");
    let entries: Vec<_> = fs::read_dir(&root).unwrap().flatten().collect();
    assert!(entries.is_empty(), "{entries:?}");
    assert_eq!(
        fs::read_link(format!("/proc/{first}/cwd")).unwrap(),
        Path::new("/")
    );
    let mounts = fs::read_to_string(format!("/proc/{first}/mountinfo")).unwrap();
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
    assert!(mounts.contains(" / / ro,nosuid,nodev,noexec,"), "{mounts}");
    // No descriptor but the pipe that tells of the end.
    let open = fs::read_dir(format!("/proc/{first}/fd")).unwrap().flatten();
    let open: Vec<_> = open.map(|it| fs::read_link(it.path()).unwrap()).collect();
    assert_eq!(open.len(), 1, "{open:?}");
    assert!(open[0].to_str().unwrap().starts_with("pipe:"), "{open:?}");
    // Whoever is the VM's user, which is this one's too, and asks as ptrace(2) does.
    for file in ["root", "fd/0", "mem"] {
        let path = format!("/proc/{first}/{file}");
        let mut look = Command::new("setpriv");
        look.args(["--reuid", "65534", "--regid", "65533", "--clear-groups"]);
        let end = outcome(look.args(["sh", "-c", "exec 3<\"$1\"", "sh", &path]));
        assert!(end.stderr.contains("Permission denied"), "{file}: {end:?}");
    }
}

#[test]
fn the_first_process_has_nothing_and_nobody_looks_into_it() {
    if !can_run() {
        return;
    }
    let files = Files::new(&waiting());
    let jail = start(&files, &["--user", NOBODY], &[]);
    let [first, _] = inside(&jail);
    assert_shut_in(first, jail.id());
    jail.signal(libc::SIGTERM);
    assert_eq!(jail.finish().code(), 143);
}

/// Where ptrace(2) would be for the asking: the VM is the same user, in the same user namespace.
#[test]
fn so_is_that_of_a_jail_of_ones_own() {
    if !can_run() {
        return;
    }
    let files = Files::new(&waiting());
    files.open_to_all("");
    files.open_to_all("kernel");
    let binary = files.copy(env!("CARGO_BIN_EXE_ringwire").as_ref(), "ringwire");
    let plain = files.jail(&[], &[]);
    let mut command = Command::new(KVM_FOR_ALL[0]);
    command.args(&KVM_FOR_ALL[1..]).arg("setpriv");
    command.args(["--reuid", "65534", "--regid", "65533", "--clear-groups"]);
    command.arg(binary).args(plain.get_args());
    let mut jail = Process::start(command.current_dir(files.path("home")));
    jail.wait_for("ready");
    let [first, _] = inside(&jail);
    assert_shut_in(first, jail.id());
    jail.signal(libc::SIGTERM);
    assert_eq!(jail.finish().code(), 143);
}
