#![expect(
    unsafe_code,
    reason = "libbpf-rs can't create an XDP link with flags, which choose the mode"
)]
//! The libbpf calls that libbpf-rs has no safe form of.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use libbpf_rs::libbpf_sys;

/// An XDP program on an interface: it stays until this is dropped or the process ends.
#[derive(Debug)]
pub(crate) struct XdpLink(OwnedFd);

impl XdpLink {
    /// Attaches the program. `flags`: `XDP_FLAGS_*` (linux/if_link.h).
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn create(program: BorrowedFd<'_>, ifindex: u32, flags: u32) -> io::Result<Self> {
        let ifindex = i32::try_from(ifindex).map_err(|_| io::ErrorKind::InvalidInput)?;
        let options = libbpf_sys::bpf_link_create_opts {
            sz: size_of::<libbpf_sys::bpf_link_create_opts>() as libbpf_sys::size_t,
            flags,
            ..Default::default()
        };
        // SAFETY: the program is open; the options are of the size that they say and outlive the
        // call.
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
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }
}

impl Drop for XdpLink {
    fn drop(&mut self) {
        // Closing it is not enough at once: a child that this process has forked just now has a
        // copy until its exec.
        // SAFETY: the link is open.
        let result = unsafe { libbpf_sys::bpf_link_detach(self.0.as_raw_fd()) };
        if result < 0 {
            tracing::debug!(
                error = %io::Error::from_raw_os_error(-result),
                "the XDP program goes when its link is closed"
            );
        }
    }
}
