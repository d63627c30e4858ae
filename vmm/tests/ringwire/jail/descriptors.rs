//! Which descriptors get into a jail.

use std::{collections::BTreeMap, fs, process::Command};

use super::{Files, NOBODY, inside, waiting};
use crate::{
    process::{Process, outcome},
    refusing::refuse,
    wire::can_run,
};

/// A process's, by their numbers, and what they are.
pub(super) fn of(process: u32) -> BTreeMap<u32, String> {
    let open = fs::read_dir(format!("/proc/{process}/fd"))
        .unwrap()
        .flatten();
    let open = open.map(|it| {
        let what = fs::read_link(it.path())
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        (it.file_name().to_str().unwrap().parse().unwrap(), what)
    });
    open.collect()
}

/// The environment's word is not taken for it: it outlives what it tells of.
#[test]
fn what_open_has_not_made_is_closed_whatever_the_environment_says() {
    if !can_run() {
        return;
    }
    let files = Files::new(&waiting());
    let mut command = Command::new("sh");
    // A file, a device, a pipe to read from, what is everybody's, and numbers of nothing.
    let script = "exec 9</etc/passwd 8</dev/null 7<&0; export RINGWIRE_OPEN_FDS=9:8:7:0:6:1000000:-1:x::; exec \"$@\"";
    let plain = files.jail(&["--user", NOBODY], &[]);
    command.args(["-c", script, "sh"]);
    command.arg(plain.get_program()).args(plain.get_args());
    let mut jail = Process::start(command.current_dir(files.path("home")));
    for (number, what) in [(9, "/etc/passwd"), (8, "/dev/null"), (7, "pipe:")] {
        let words =
            format!("RINGWIRE_OPEN_FDS names the descriptor {number}, which `ringwire open`");
        let line = jail.wait_for_message(&words);
        assert!(line.contains(what), "{line}");
    }
    jail.wait_for("ready");
    let [_, vm] = inside(&jail);
    let open = of(vm);
    let left = open
        .values()
        .any(|it| it == "/etc/passwd" || it == "/dev/null");
    assert!(!left, "{open:?}");
    jail.signal(libc::SIGTERM);
    let end = jail.finish();
    assert_eq!(end.code(), 143);
    assert!(!end.stderr.contains("RINGWIRE_OPEN_FDS"), "{end:?}");
}

#[test]
fn descriptors_that_can_not_be_closed_end_it_before_it_begins() {
    if !can_run() {
        return;
    }
    let files = Files::new(&waiting());
    for errno in [libc::EPERM, libc::ENOSYS] {
        let mut jail = files.jail(&["--user", NOBODY], &[]);
        refuse(&mut jail, libc::SYS_close_range, errno);
        outcome(&mut jail).assert_fails(1, "could not close the file descriptors of others");
    }
}
