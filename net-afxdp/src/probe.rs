//! What an interface and this kernel can do, found out without changing anything.

use std::os::fd::{AsFd, BorrowedFd};

use libbpf_rs::{Xdp, XdpFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::{
    interface::{Interface, InterfaceError},
    memlock::MemoryLimit,
};

/// `NETDEV_XDP_ACT_*` (linux/netdev.h).
mod act {
    pub(super) const BASIC: u64 = 1;
    pub(super) const REDIRECT: u64 = 1 << 1;
    pub(super) const XSK_ZEROCOPY: u64 = 1 << 3;
    pub(super) const RX_SG: u64 = 1 << 5;
}

/// What a driver says that it can do with XDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XdpFeatures {
    /// Run a program in the driver, and send its frames to sockets from there.
    pub native: bool,
    /// Receive into and send from frame memory in place.
    pub zero_copy: bool,
    /// Receive frames of several fragments.
    pub multi_buffer: bool,
    /// Most fragments of a frame in zero-copy mode; 0 if it can't.
    pub zero_copy_fragments: u32,
}

/// What was found out.
#[derive(Debug, Clone)]
pub struct Probe {
    /// The interface, with the XDP program that is on it.
    pub interface: Interface,
    /// What its driver can do. `None`: the kernel (before 6.3) does not say.
    pub features: Option<XdpFeatures>,
    /// Whether this process may create AF_XDP sockets, which takes CAP_NET_RAW and a kernel that
    /// has them.
    pub can_create_sockets: bool,
    /// How much memory the process may lock without CAP_IPC_LOCK.
    pub memory_limit: MemoryLimit,
}

impl Probe {
    /// Looks at the interface of that name in the calling thread's network namespace.
    ///
    /// # Errors
    /// [`InterfaceError`].
    pub fn interface(name: &str) -> Result<Self, InterfaceError> {
        let interface = Interface::by_name(name)?;
        let socket = socket_with(
            AddressFamily::XDP,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None,
        );
        Ok(Self {
            features: features(interface.index()),
            interface,
            can_create_sockets: socket.is_ok(),
            memory_limit: MemoryLimit::now(),
        })
    }
}

/// What the driver of an interface says. `None`: the kernel does not ask it, before 6.3.
pub(crate) fn features(ifindex: u32) -> Option<XdpFeatures> {
    let ifindex = i32::try_from(ifindex).ok()?;
    // The query itself uses no program.
    let stand_in = std::io::stderr();
    let unused: BorrowedFd<'_> = stand_in.as_fd();
    let answer = Xdp::new(unused).query(ifindex, XdpFlags::NONE).ok()?;
    let can = |flag| answer.feature_flags & flag == flag;
    (answer.feature_flags != 0).then(|| XdpFeatures {
        native: can(act::BASIC | act::REDIRECT),
        zero_copy: can(act::XSK_ZEROCOPY),
        multi_buffer: can(act::RX_SG),
        zero_copy_fragments: answer.xdp_zc_max_segs,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_can_be_probed() {
        let probe = Probe::interface("lo").unwrap();
        assert_eq!(probe.interface.name(), "lo");
        assert!(probe.features.is_none_or(|features| !features.zero_copy));
        assert!(Probe::interface("rw-not-there").is_err());
    }
}
