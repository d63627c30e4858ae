#![expect(
    unsafe_code,
    reason = "libbpf-rs can't create an XDP link with flags, nor make a map of a file descriptor"
)]
//! The libbpf calls that libbpf-rs has no safe form of.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
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
        check(fd)?;
        // SAFETY: just created, owned by nobody else; libbpf sets CLOEXEC.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }
}

impl AsFd for XdpLink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
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

/// Opens what is pinned at `path` in a bpffs.
///
/// # Errors
/// The system's.
pub(crate) fn open_pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path is terminated and outlives the call.
    let fd = unsafe { libbpf_sys::bpf_obj_get(path.as_ptr()) };
    check(fd)?;
    // SAFETY: just created, owned by nobody else; libbpf and the kernel set CLOEXEC.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What the kernel says about a map.
#[derive(Debug)]
pub(crate) struct MapInfo {
    pub(crate) id: u32,
    pub(crate) name: String,
    /// `enum bpf_map_type` (linux/bpf.h).
    pub(crate) kind: u32,
    pub(crate) max_entries: u32,
}

/// Asks about a map.
///
/// # Errors
/// The system's: `EINVAL` when this is no BPF object.
pub(crate) fn map_info(map: BorrowedFd<'_>) -> io::Result<MapInfo> {
    let mut info = libbpf_sys::bpf_map_info::default();
    let mut size = u32::try_from(size_of_val(&info)).unwrap_or_default();
    // SAFETY: the kernel writes at most `size` bytes, and both outlive the call.
    let result = unsafe {
        libbpf_sys::bpf_obj_get_info_by_fd(map.as_raw_fd(), (&raw mut info).cast(), &raw mut size)
    };
    check(result)?;
    let name = info.name.iter().map(|byte| byte.to_ne_bytes()[0]);
    let name: Vec<u8> = name.take_while(|byte| *byte != 0).collect();
    Ok(MapInfo {
        id: info.id,
        name: String::from_utf8_lossy(&name).into_owned(),
        kind: info.type_,
        max_entries: info.max_entries,
    })
}

/// Puts a socket into a slot of a map of sockets, unless there is one (`EEXIST`).
///
/// # Errors
/// The system's.
pub(crate) fn insert_new(map: BorrowedFd<'_>, slot: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
    update(map, slot, socket, libbpf_sys::BPF_NOEXIST)
}

/// Puts a socket into a slot of a map of sockets, whatever is in it.
///
/// # Errors
/// The system's.
pub(crate) fn insert(map: BorrowedFd<'_>, slot: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
    update(map, slot, socket, libbpf_sys::BPF_ANY)
}

fn update(map: BorrowedFd<'_>, slot: u32, socket: BorrowedFd<'_>, flags: u32) -> io::Result<()> {
    let value = socket.as_raw_fd();
    // SAFETY: keys and values of an XSKMAP have four bytes each; they outlive the call.
    check(unsafe {
        libbpf_sys::bpf_map_update_elem(
            map.as_raw_fd(),
            (&raw const slot).cast(),
            (&raw const value).cast(),
            u64::from(flags),
        )
    })
}

/// Empties a slot.
///
/// # Errors
/// The system's.
pub(crate) fn delete(map: BorrowedFd<'_>, slot: u32) -> io::Result<()> {
    // SAFETY: the keys of an XSKMAP have four bytes; it outlives the call.
    check(unsafe { libbpf_sys::bpf_map_delete_elem(map.as_raw_fd(), (&raw const slot).cast()) })
}

/// libbpf 1.x returns the negated errno.
fn check(result: i32) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    Ok(())
}
