//! System calls about whole processes.
#![expect(
    unsafe_code,
    reason = "fork, unshare, closing descriptors by number, erasing the environment and the like have no safe wrapper"
)]

use std::{io, mem::MaybeUninit, os::fd::RawFd, ptr};

use rustix::{
    process::Pid,
    thread::{UnshareFlags, unshare_unsafe},
};

/// A second process like this one, which must have one thread: in the child, `None`.
pub(crate) fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: with one thread there is no lock that another thread would hold for ever in the child.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Pid::from_raw(pid))
}

/// Parts with these namespaces; never with the file descriptors.
pub(crate) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    debug_assert!(!flags.contains(UnshareFlags::FILES));
    // SAFETY: descriptors stay shared, which is what this is about; and there is one thread.
    unsafe { unshare_unsafe(flags) }.map_err(io::Error::from)
}

/// What [`close_others`] tries, for its error.
pub(crate) const CLOSE_OTHERS: &str = "close the file descriptors of others (close_range, Linux 5.9, which an old seccomp profile refuses)";

/// Closes all file descriptors but these. Who owns one of the others must have forgotten it.
///
/// # Errors
/// The system's: all or some of them are still open.
pub(crate) fn close_others(kept: &[RawFd]) -> io::Result<()> {
    let mut kept: Vec<u32> = kept
        .iter()
        .filter_map(|fd| u32::try_from(*fd).ok())
        .collect();
    kept.sort_unstable();
    let mut first = 0;
    for fd in kept {
        if first < fd {
            close_range(first, fd - 1)?;
        }
        first = first.max(fd + 1);
    }
    close_range(first, u32::MAX)
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: by this module's word nobody uses them any more.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0u32) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Overwrites the environment, so that also /proc/PID/environ has nothing of it, and forgets it.
pub(crate) fn erase_environment() {
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
pub(crate) fn ignore_children() {
    // SAFETY: no handler is installed.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// No signal ends the calling thread any more, but SIGKILL.
///
/// # Errors
/// The system's.
pub(crate) fn block_signals() -> io::Result<()> {
    let mut all = MaybeUninit::uninit();
    // SAFETY: the set may be written.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: the set was filled by the call before; where the old one goes may be null.
    let result = unsafe { libc::sigprocmask(libc::SIG_SETMASK, all.as_ptr(), ptr::null_mut()) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Ends the calling process at once: a copy of another one, whose destructors and output are not its business.
pub(crate) fn exit_now(status: u8) -> ! {
    // SAFETY: ends the process; nothing of it runs any more.
    unsafe { libc::_exit(i32::from(status)) }
}

/// Closes standard output.
pub(crate) fn close_stdout() {
    // SAFETY: nobody owns it; a later use is an error of the system's.
    unsafe { libc::close(libc::STDOUT_FILENO) };
}
