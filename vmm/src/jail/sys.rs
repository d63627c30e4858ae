//! System calls about whole processes.
#![expect(
    unsafe_code,
    reason = "fork, unshare, closing descriptors by number and erasing the environment have no safe wrapper"
)]

use std::{io, os::fd::RawFd};

use rustix::{
    process::Pid,
    thread::{UnshareFlags, unshare_unsafe},
};

/// A second process like this one, which must have one thread: in the child, `None`.
pub(super) fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: with one thread there is no lock that another thread would hold for ever in the child.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Pid::from_raw(pid))
}

/// Parts with these namespaces; never with the file descriptors.
pub(super) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    debug_assert!(!flags.contains(UnshareFlags::FILES));
    // SAFETY: descriptors stay shared, which is what this is about; and there is one thread.
    unsafe { unshare_unsafe(flags) }.map_err(io::Error::from)
}

/// Closes all file descriptors but these. Who owns one of the others must have forgotten it.
pub(super) fn close_others(kept: &[RawFd]) {
    let mut kept: Vec<u32> = kept
        .iter()
        .filter_map(|fd| u32::try_from(*fd).ok())
        .collect();
    kept.sort_unstable();
    let mut first = 0;
    for fd in kept {
        if first < fd {
            close_range(first, fd - 1);
        }
        first = first.max(fd + 1);
    }
    close_range(first, u32::MAX);
}

fn close_range(first: u32, last: u32) {
    // SAFETY: by this module's word nobody uses them any more. It fails for kernels before 5.9 only, which lack
    // more than this.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, 0u32) };
}

/// Overwrites the environment, so that also /proc/PID/environ has nothing of it, and forgets it.
pub(super) fn erase_environment() {
    // SAFETY: a pointer is read; there is one thread, so nobody changes it.
    let mut entry = unsafe { libc::environ };
    while !entry.is_null() {
        // SAFETY: the list ends with a null pointer, which has not been seen yet.
        let text = unsafe { *entry };
        if text.is_null() {
            break;
        }
        // SAFETY: an entry is a string that ends with a zero, in memory of this process that may be written.
        let length = unsafe { libc::strlen(text) };
        // SAFETY: as above.
        unsafe { text.write_bytes(0, length) };
        // SAFETY: it was not the list's last one.
        entry = unsafe { entry.add(1) };
    }
    // SAFETY: there is one thread.
    unsafe { libc::clearenv() };
}

/// Children that end, such as those that others left, leave nothing to be waited for.
pub(super) fn ignore_children() {
    // SAFETY: no handler is installed.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}
