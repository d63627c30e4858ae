#![expect(
    unsafe_code,
    reason = "libbpf-rs can't create an XDP link with flags, which choose the mode"
)]
//! The one libbpf call that libbpf-rs has no safe form of.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use libbpf_rs::libbpf_sys;

/// Attaches an XDP program to an interface; it stays for as long as the returned link is open, in
/// this process or in one that has a copy. `flags`: `XDP_FLAGS_*` (linux/if_link.h).
///
/// # Errors
/// The system's.
pub(crate) fn create_xdp_link(
    program: BorrowedFd<'_>,
    ifindex: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    let ifindex = i32::try_from(ifindex).map_err(|_| io::ErrorKind::InvalidInput)?;
    let options = libbpf_sys::bpf_link_create_opts {
        sz: size_of::<libbpf_sys::bpf_link_create_opts>() as libbpf_sys::size_t,
        flags,
        ..Default::default()
    };
    // SAFETY: the program is open; the options are of the size that they say and outlive the call.
    let fd = unsafe {
        libbpf_sys::bpf_link_create(
            program.as_raw_fd(),
            ifindex,
            libbpf_sys::BPF_XDP,
            &raw const options,
        )
    };
    if fd < 0 {
        // libbpf 1.x returns the negated errno.
        return Err(io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: just created, owned by nobody else; libbpf sets CLOEXEC.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
