#![expect(
    unsafe_code,
    reason = "the few system calls that neither std nor rustix wraps"
)]
//! System calls without a safe wrapper elsewhere.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

/// `XDP_MAX_TX_SKB_BUDGET` (linux/if_xdp.h, since Linux 6.17).
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;

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

/// Makes the socket's own system calls poll its queue (`SO_PREFER_BUSY_POLL`), for up to `micros`
/// microseconds and `budget` frames each, rather than that the card interrupts.
///
/// # Errors
/// The system's: `EPERM` without CAP_NET_ADMIN, `ENOPROTOOPT` before Linux 5.11.
pub(crate) fn set_busy_poll(socket: BorrowedFd<'_>, micros: u32, budget: u32) -> io::Result<()> {
    let options = [
        (libc::SO_PREFER_BUSY_POLL, 1),
        (libc::SO_BUSY_POLL, micros),
        (libc::SO_BUSY_POLL_BUDGET, budget),
    ];
    for (option, value) in options {
        let value = libc::c_int::try_from(value).map_err(|_| io::ErrorKind::InvalidInput)?;
        let size = libc::socklen_t::try_from(size_of_val(&value)).unwrap_or_default();
        // SAFETY: the option's value is an int, which outlives the call.
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                (&raw const value).cast(),
                size,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Makes the interface promiscuous for as long as the packet socket is open (packet(7)).
///
/// # Errors
/// The system's: `ENODEV` when there is no such interface.
pub(crate) fn make_promiscuous(socket: BorrowedFd<'_>, interface: u32) -> io::Result<()> {
    let invalid = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let request = libc::packet_mreq {
        mr_ifindex: libc::c_int::try_from(interface).map_err(invalid)?,
        mr_type: u16::try_from(libc::PACKET_MR_PROMISC).map_err(invalid)?,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    let size = libc::socklen_t::try_from(size_of_val(&request)).map_err(invalid)?;
    // SAFETY: the option's value is a packet_mreq, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_ADD_MEMBERSHIP,
            (&raw const request).cast(),
            size,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Has the socket receive nothing, for good: nobody can take that away again, or replace it (`SO_ATTACH_FILTER`,
/// `SO_LOCK_FILTER`; Documentation/networking/filter.rst).
///
/// # Errors
/// The system's.
pub(crate) fn receive_nothing(socket: BorrowedFd<'_>) -> io::Result<()> {
    let invalid = |_| io::Error::from(io::ErrorKind::InvalidInput);
    // BPF_RET | BPF_K with 0: so many bytes of a frame are taken.
    let mut nothing = libc::sock_filter {
        code: 0x06,
        jt: 0,
        jf: 0,
        k: 0,
    };
    let program = libc::sock_fprog {
        len: 1,
        filter: &raw mut nothing,
    };
    let size = libc::socklen_t::try_from(size_of_val(&program)).map_err(invalid)?;
    // SAFETY: the option's value is a sock_fprog; it and the one instruction that it tells of outlive the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let locked: libc::c_int = 1;
    let size = libc::socklen_t::try_from(size_of_val(&locked)).map_err(invalid)?;
    // SAFETY: the option's value is an int, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LOCK_FILTER,
            (&raw const locked).cast(),
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
