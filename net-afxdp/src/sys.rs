#![expect(
    unsafe_code,
    reason = "the few system calls that neither std nor rustix wraps"
)]
//! System calls without a safe wrapper elsewhere.

use std::{
    ffi::CString,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

/// `XDP_MAX_TX_SKB_BUDGET` (linux/if_xdp.h, since Linux 6.17).
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;

/// `ETHTOOL_GCHANNELS` (linux/ethtool.h).
const ETHTOOL_GCHANNELS: u32 = 0x3c;

/// Number of channels of an interface (`struct ethtool_channels`, linux/ethtool.h).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Channels {
    command: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

impl Channels {
    /// Number of queues that can be bound now: the kernel takes a queue id below the larger of the
    /// numbers of receive and transmit queues (`xp_assign_dev`).
    pub(crate) fn queues(&self) -> u32 {
        self.combined.saturating_add(self.rx.max(self.tx))
    }

    /// Number of queues that `ethtool -L` can set at most.
    pub(crate) fn max_queues(&self) -> u32 {
        self.max_combined.max(self.max_rx).max(self.max_tx)
    }
}

/// Asks the driver for the interface's channels. `None`: the driver does not say.
///
/// # Errors
/// The system's, when the interface is gone.
pub(crate) fn channels(interface: &str) -> io::Result<Option<Channels>> {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    )
    .or_else(|_| {
        // A kernel without IPv4 still has these.
        rustix::net::socket(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::DGRAM,
            None,
        )
    })?;
    let mut channels = Channels {
        command: ETHTOOL_GCHANNELS,
        ..Channels::default()
    };
    let mut request = libc::ifreq {
        ifr_name: interface_name(interface)?,
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_data: (&raw mut channels).cast(),
        },
    };
    // SAFETY: the request has a terminated name and points to a struct of the size that this
    // command writes; both outlive the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if result == 0 {
        return Ok(Some(channels));
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP | libc::EINVAL | libc::EPERM) => Ok(None),
        _ => Err(error),
    }
}

fn interface_name(name: &str) -> io::Result<[libc::c_char; libc::IFNAMSIZ]> {
    let name = CString::new(name)?;
    let mut field: [libc::c_char; libc::IFNAMSIZ] = [0; libc::IFNAMSIZ];
    // The last byte stays 0.
    if name.count_bytes() >= field.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in field.iter_mut().zip(name.as_bytes()) {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    Ok(field)
}

/// Lets one `sendto` transmit up to `frames` in copy mode, instead of 32.
///
/// # Errors
/// The system's; kernels before 6.17 don't have this option.
pub(crate) fn set_tx_budget(socket: BorrowedFd<'_>, frames: u32) -> io::Result<()> {
    let size = libc::socklen_t::try_from(size_of::<u32>()).unwrap_or_default();
    // SAFETY: the option's value is an int, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_XDP,
            XDP_MAX_TX_SKB_BUDGET,
            (&raw const frames).cast(),
            size,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Duplicates a file descriptor that is named by its number only; both are closed on exec.
///
/// # Errors
/// The system's: `EBADF` when it is not open.
pub(crate) fn duplicate(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: has no memory as an argument; a number that is not open is an error.
    let fd = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just created, owned by nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: as above; whoever owns it only loses it in children that it would not have told.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(fd)
}

/// Index of the interface that a socket is restricted to (`SO_BINDTOIFINDEX`); 0: none.
///
/// # Errors
/// The system's.
pub(crate) fn bound_device(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut index: libc::c_int = 0;
    let mut size = libc::socklen_t::try_from(size_of_val(&index)).unwrap_or_default();
    // SAFETY: the option's value is an int of the size given; both outlive the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_BINDTOIFINDEX,
            (&raw mut index).cast(),
            &raw mut size,
        )
    };
    if result == 0 {
        Ok(u32::try_from(index).unwrap_or_default())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Restricts a socket to an interface (`SO_BINDTOIFINDEX`). From Linux 6.6 on an AF_XDP socket then
/// binds to no other, and only CAP_NET_RAW can lift that.
///
/// # Errors
/// The system's.
pub(crate) fn restrict_to_device(socket: BorrowedFd<'_>, index: u32) -> io::Result<()> {
    let index = libc::c_int::try_from(index).map_err(|_| io::ErrorKind::InvalidInput)?;
    let size = libc::socklen_t::try_from(size_of_val(&index)).unwrap_or_default();
    // SAFETY: the option's value is an int, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_BINDTOIFINDEX,
            (&raw const index).cast(),
            size,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
