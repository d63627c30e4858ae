//! Systems that refuse a call.
#![expect(unsafe_code, reason = "what a process does before it executes")]

use std::{collections::BTreeMap, os::unix::process::CommandExt, process::Command};

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

/// Has the command's process, and all that it starts, get this error for that system call, as under a container's
/// seccomp profile that does not know it.
pub(crate) fn refuse(command: &mut Command, call: i64, errno: i32) {
    let calls = BTreeMap::from([(call, Vec::new())]);
    let error = SeccompAction::Errno(errno.unsigned_abs());
    let filter = SeccompFilter::new(calls, SeccompAction::Allow, error, TargetArch::x86_64);
    let filter = filter.and_then(BpfProgram::try_from).expect("a filter");
    let apply = move || seccompiler::apply_filter(&filter).map_err(std::io::Error::other);
    // SAFETY: it makes two system calls, and neither allocates nor takes a lock unless they fail.
    unsafe { command.pre_exec(apply) };
}
