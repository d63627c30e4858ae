#![expect(unsafe_code, reason = "rustix has no socket option UDP_SEGMENT")]
//! Several datagrams in one call (udp(7), UDP_SEGMENT): the kernel, or the card, cuts them.

use std::{io, mem::size_of, net::UdpSocket, os::fd::AsRawFd};

/// From now on each send is one of datagrams of `size` bytes, and perhaps a shorter last one.
pub(super) fn cut_into(socket: &UdpSocket, size: u16) -> io::Result<()> {
    let value = libc::c_int::from(size);
    let length = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(0);
    // SAFETY: the kernel reads `length` bytes of the value, which lives.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            (&raw const value).cast(),
            length,
        )
    };
    if result == 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error())
}
