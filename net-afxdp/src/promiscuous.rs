//! All frames of the wire, not only those to the card's own address.
//!
//! Who has an AF_XDP socket speaks for addresses of its own, such as a guest's, and a card drops
//! unicast frames to addresses that it does not know. So the interface is made promiscuous for as long
//! as the program is on it (packet(7), `PACKET_MR_PROMISC`): counted by the kernel, so that it does
//! not interfere with others who want the same, and ended with the process at the latest.
//!
//! What keeps it so is a packet socket, and whoever has one needs no right to bind it to any interface of the
//! network namespace, and to send there. So it is not for others. Nobody can receive by it: it has a filter that takes
//! nothing, and that can't be changed.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::{interface::Interface, sys};

/// Keeps an interface promiscuous until it is dropped.
#[derive(Debug)]
pub(crate) struct Promiscuous(OwnedFd);

impl Promiscuous {
    /// Makes the interface promiscuous. Where that is refused the log says so: frames to the card's
    /// own address and to groups still come.
    pub(crate) fn begin(interface: &Interface) -> Option<Self> {
        Self::try_begin(interface)
            .inspect_err(|error| {
                tracing::warn!(
                    interface = interface.name(),
                    %error,
                    "cannot make the interface promiscuous: the card may drop frames to other \
                     addresses than its own. Try `ip link set dev {} promisc on`",
                    interface.name()
                );
            })
            .ok()
    }

    fn try_begin(interface: &Interface) -> io::Result<Self> {
        // Protocol 0: it gets no frames itself.
        let flags = SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
        sys::receive_nothing(socket.as_fd())?;
        sys::make_promiscuous(socket.as_fd(), interface.index())?;
        Ok(Self(socket))
    }
}

/// What keeps it so while it is open.
impl From<Promiscuous> for OwnedFd {
    fn from(Promiscuous(socket): Promiscuous) -> Self {
        socket
    }
}
