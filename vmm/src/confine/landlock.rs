//! No file can be opened any more (landlock(7), Documentation/userspace-api/landlock.rst).
//!
//! All files that a VM uses are open before its guest runs, so there is nothing to make an exception for. What is
//! open stays usable.
#![expect(unsafe_code, reason = "Landlock's system calls have no safe wrapper")]

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    ptr,
};

/// `LANDLOCK_CREATE_RULESET_VERSION`.
const ASK_VERSION: u32 = 1;
/// The rights on files that each version of the interface has, from 1 on: so many bits.
const FILE_RIGHTS: [u32; 5] = [13, 14, 15, 15, 16];
/// `LANDLOCK_ACCESS_NET_BIND_TCP` and `..._CONNECT_TCP`, since version 4.
const NET_RIGHTS: (i64, u64) = (4, 0b11);
/// `LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET` and `..._SIGNAL`, since version 6.
const SCOPES: (i64, u64) = (6, 0b11);

/// `struct landlock_ruleset_attr`. Kernels that know less of it accept zeros in the rest.
#[repr(C)]
struct Ruleset {
    files: u64,
    net: u64,
    scoped: u64,
}

/// Takes from the calling thread, and from those that it starts later, the right to open any file, to bind or
/// connect TCP sockets, and to reach sockets and signal processes outside. Returns the version of the interface;
/// `None`: this kernel has no Landlock, or it is switched off.
///
/// # Errors
/// The system's; it wants no_new_privs first.
pub(super) fn restrict() -> io::Result<Option<i64>> {
    let none = ptr::null::<Ruleset>();
    // SAFETY: no memory is handed over; the answer is a number.
    let version =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0usize, ASK_VERSION) };
    if version < 1 {
        return Ok(None);
    }
    let ruleset = ruleset(version);
    let size = size_of::<Ruleset>();
    // SAFETY: the ruleset outlives the call, and is as long as told.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            &raw const ruleset,
            size,
            0u32,
        )
    };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0);
    let fd = fd.ok_or_else(io::Error::last_os_error)?;
    // SAFETY: just opened, owned by nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: no memory is handed over.
    let result = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, fd.as_raw_fd(), 0u32) };
    if result == 0 {
        Ok(Some(version))
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Everything that a kernel with that version can take away.
fn ruleset(version: i64) -> Ruleset {
    let index = usize::try_from(version - 1).unwrap_or(0);
    let bits = FILE_RIGHTS.get(index).or(FILE_RIGHTS.last());
    let since = |(first, rights): (i64, u64)| if version < first { 0 } else { rights };
    Ruleset {
        files: (1 << bits.copied().unwrap_or(0)) - 1,
        net: since(NET_RIGHTS),
        scoped: since(SCOPES),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_gets_what_it_knows() {
        for (version, files, net, scoped) in [
            (1, 0x1fff, 0, 0),
            (2, 0x3fff, 0, 0),
            (3, 0x7fff, 0, 0),
            (4, 0x7fff, 3, 0),
            (5, 0xffff, 3, 0),
            (6, 0xffff, 3, 3),
            (99, 0xffff, 3, 3),
        ] {
            let it = ruleset(version);
            assert_eq!(
                (it.files, it.net, it.scoped),
                (files, net, scoped),
                "{version}"
            );
        }
    }

    #[test]
    fn nothing_can_be_opened_and_what_is_open_can_be_used() {
        use std::{fs::File, io::Read};
        // Of this thread alone.
        let thread = std::thread::spawn(|| {
            let mut open = File::open("/proc/thread-self/status").unwrap();
            rustix::thread::set_no_new_privs(true).unwrap();
            let Some(version) = restrict().unwrap() else {
                println!("SKIPPED: this kernel has no Landlock");
                return;
            };
            println!("Landlock {version}");
            let refused = File::open("/proc/self/status").unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(libc::EACCES));
            let refused = std::fs::write("/tmp/ringwire-landlock-test", "").unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(libc::EACCES));
            let mut text = String::new();
            open.read_to_string(&mut text).unwrap();
            assert!(text.contains("NoNewPrivs:\t1"), "{text}");
        });
        thread.join().unwrap();
    }
}
