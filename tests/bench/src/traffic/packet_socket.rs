#![expect(
    unsafe_code,
    reason = "rustix has neither the options of packet sockets nor their addresses"
)]
//! A packet socket of one interface: packet(7), Documentation/networking/packet_mmap.rst.

use std::{
    io,
    mem::size_of,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType};

/// Not bound to a protocol: receives nothing until [`PacketSocket::bind`].
#[derive(Debug)]
pub(super) struct PacketSocket(OwnedFd);

impl PacketSocket {
    pub(super) fn new() -> io::Result<Self> {
        const NO_PROTOCOL: Option<Protocol> = None;
        let flags = SocketFlags::CLOEXEC;
        rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, flags, NO_PROTOCOL)
            .map(Self)
            .map_err(Into::into)
    }

    /// Sets an option of the level `SOL_PACKET`. `T` is the type that the kernel has for it.
    fn set<T: Copy>(&self, option: libc::c_int, value: &T) -> io::Result<()> {
        let length = libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0);
        // SAFETY: the kernel reads `length` bytes of `value`, which lives.
        let result = unsafe {
            libc::setsockopt(
                self.0.as_raw_fd(),
                libc::SOL_PACKET,
                option,
                std::ptr::from_ref(value).cast(),
                length,
            )
        };
        checked(result)
    }

    /// An option that is a number.
    pub(super) fn set_number(&self, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
        self.set(option, &value)
    }

    /// A ring of TPACKET_V3, or of V2 where the last three fields of the request are zero and not looked at.
    pub(super) fn set_ring(
        &self,
        option: libc::c_int,
        version: libc::tpacket_versions,
        request: &libc::tpacket_req3,
    ) -> io::Result<()> {
        if version as libc::c_int == libc::tpacket_versions::TPACKET_V3 as libc::c_int {
            return self.set(option, request);
        }
        let short = libc::tpacket_req {
            tp_block_size: request.tp_block_size,
            tp_block_nr: request.tp_block_nr,
            tp_frame_size: request.tp_frame_size,
            tp_frame_nr: request.tp_frame_nr,
        };
        self.set(option, &short)
    }

    /// Binds to an interface; receives all protocols, or nothing at all.
    pub(super) fn bind(&self, ifindex: u32, receive: bool) -> io::Result<()> {
        let all = u16::try_from(libc::ETH_P_ALL).unwrap_or(0).to_be();
        let address = libc::sockaddr_ll {
            sll_family: u16::try_from(libc::AF_PACKET).unwrap_or(0),
            sll_protocol: if receive { all } else { 0 },
            sll_ifindex: libc::c_int::try_from(ifindex).unwrap_or(0),
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).unwrap_or(0);
        // SAFETY: the kernel reads `length` bytes of the address, which lives.
        let result = unsafe {
            libc::bind(
                self.0.as_raw_fd(),
                std::ptr::from_ref(&address).cast(),
                length,
            )
        };
        checked(result)
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn checked(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error())
}
