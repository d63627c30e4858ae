//! Where an interface's sockets and its XDP program come from.

use std::{
    io,
    os::fd::{OwnedFd, RawFd},
    path::PathBuf,
};

/// Who provides the XDP program, the map from its queues to sockets, and the sockets.
///
/// | source | needs | who made the program |
/// |---|---|---|
/// | [`OwnProgram`](Self::OwnProgram) | CAP_NET_ADMIN, CAP_BPF, CAP_NET_RAW | we do |
/// | [`Sockets`](Self::Sockets) | nothing | whoever hands the sockets over |
/// | [`SocketsForMap`](Self::SocketsForMap) | nothing | whoever hands both over |
/// | [`Map`](Self::Map) | CAP_NET_RAW | whoever hands the map over |
/// | [`PinnedMap`](Self::PinnedMap) | CAP_NET_RAW, and write permission for the file | whoever pinned the map |
/// | [`Plugin`](Self::Plugin) | CAP_NET_RAW, and permission to connect | the Kubernetes device plugin |
///
/// All of them lock memory: RLIMIT_MEMLOCK or CAP_IPC_LOCK. Where "unprivileged_bpf_disabled" is
/// set (it is by default), a kernel before 5.19 also wants CAP_BPF for the sources with a map.
#[derive(Debug, Default)]
pub enum Source {
    /// Load our own program, attach it, open sockets.
    #[default]
    OwnProgram,
    /// AF_XDP sockets, created but not set up and not bound, one for each queue, the first queue's
    /// first. They are in the map of a program that is on the interface already.
    Sockets(Vec<OwnedFd>),
    /// The same, but not in the map yet: they are put into it when they are bound, that of queue Q into slot Q. Some kernels
    /// take no others (Linux 7.3); see [`Prepared::map`](crate::Prepared::map).
    SocketsForMap {
        /// The sockets.
        sockets: Vec<OwnedFd>,
        /// The map.
        map: OwnedFd,
    },
    /// The map (BPF_MAP_TYPE_XSKMAP) of a program that is on the interface already. The socket of
    /// queue Q goes to its slot Q.
    Map(OwnedFd),
    /// The same, pinned to a file in a bpffs.
    PinnedMap {
        /// The file.
        path: PathBuf,
        /// The first queue's slot; the others follow.
        start_index: u32,
    },
    /// The socket of the AF_XDP device plugin for Kubernetes, which hands out the map of the
    /// program that it has put on the interface. The socket of queue Q goes to its slot Q.
    Plugin(PathBuf),
}

/// Takes an inherited file descriptor by its number, as given on a command line.
///
/// The result is a duplicate: the original stays open, closed on exec from now on, until the process
/// ends, since other parts of the process may rely on it. So a queue of such a socket is
/// free again when the process ends, not when the [`Queue`](crate::Queue) is dropped.
///
/// # Errors
/// The system's: `EBADF` when that file descriptor is not open.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    crate::sys::duplicate(number)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_descriptor_that_is_not_open_is_an_error() {
        for number in [-1, 1_000_000] {
            let error = inherited(number).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EBADF), "{number}");
        }
    }

    #[test]
    fn an_inherited_descriptor_is_not_inherited_on() {
        let (reader, _writer) = io::pipe().unwrap();
        rustix::io::fcntl_setfd(&reader, rustix::io::FdFlags::empty()).unwrap();
        let taken = inherited(reader.as_raw_fd()).unwrap();
        for flags in [
            rustix::io::fcntl_getfd(&reader).unwrap(),
            rustix::io::fcntl_getfd(&taken).unwrap(),
        ] {
            assert_eq!(flags, rustix::io::FdFlags::CLOEXEC);
        }
    }
}
