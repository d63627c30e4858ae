#![expect(
    unsafe_code,
    reason = "a file descriptor that is known by its number only has to be borrowed"
)]
//! The BPF links of this process, which keep XDP programs on interfaces.

use std::{
    fs, io,
    os::fd::{BorrowedFd, RawFd},
};

use rustix::io::{FdFlags, fcntl_setfd};

/// What the kernel calls them, by how the descriptor was made (kernel/bpf/syscall.c).
const NAMES: [&str; 2] = ["anon_inode:bpf_link", "anon_inode:bpf-link"];

/// Lets all of them stay open in the program that this process becomes. A program is attached as
/// long as its link is open anywhere.
///
/// For a process with one thread: nobody closes a descriptor meanwhile.
///
/// # Errors
/// The system's; there is none of them.
pub(super) fn let_children_inherit() -> io::Result<()> {
    let mut found = false;
    for entry in fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        let Ok(target) = fs::read_link(entry.path()) else {
            // The directory's own descriptor may be gone.
            continue;
        };
        let number = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        if let Some(number) = number
            && NAMES.iter().any(|name| target.as_os_str() == *name)
        {
            inherit(number)?;
            found = true;
        }
    }
    if found {
        Ok(())
    } else {
        Err(io::Error::other(
            "the links of the XDP programs are not in /proc/self/fd",
        ))
    }
}

fn inherit(number: RawFd) -> io::Result<()> {
    // SAFETY: it was in the list of open descriptors a moment ago, and no other thread is there to
    // close it; the borrow ends with this function.
    let link = unsafe { BorrowedFd::borrow_raw(number) };
    Ok(fcntl_setfd(link, FdFlags::empty())?)
}
