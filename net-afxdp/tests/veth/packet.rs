#![expect(unsafe_code, reason = "packet(7) sockets have no safe wrapper")]
//! The far end of the wire: an AF_PACKET socket, and frames to recognize.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    time::{Duration, Instant},
};

use net_afxdp::Interface;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long to wait for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// EtherType for experiments in a local network (IEEE 802).
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];

/// Raw socket on an interface: sees what arrives, sends what it is given.
pub(crate) struct Packet(OwnedFd);

impl Packet {
    pub(crate) fn open(interface: &str) -> Self {
        let protocol = u16::from_ne_bytes(ETHERTYPE);
        let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: no pointers.
        let fd = unsafe { libc::socket(libc::AF_PACKET, kind, i32::from(protocol)) };
        assert!(fd >= 0, "socket: {}", io::Error::last_os_error());
        // SAFETY: just opened.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let packet = Self::take(socket, interface, protocol);
        rustix::net::sockopt::set_socket_recv_buffer_size_force(&packet.0, 16 << 20).unwrap();
        packet
    }

    /// A packet socket of others, which sees all frames of the interface from now on.
    pub(crate) fn take_for_all(socket: OwnedFd, interface: &str) -> Self {
        rustix::io::ioctl_fionbio(&socket, true).unwrap();
        let all = u16::try_from(libc::ETH_P_ALL).unwrap();
        Self::take(socket, interface, all.to_be())
    }

    fn take(socket: OwnedFd, interface: &str, protocol: u16) -> Self {
        let fd = socket.as_raw_fd();
        // SAFETY: all zeros is a valid address.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = 17;
        address.sll_protocol = protocol;
        address.sll_ifindex =
            i32::try_from(Interface::by_name(interface).unwrap().index()).unwrap();
        let size = u32::try_from(size_of::<libc::sockaddr_ll>()).unwrap();
        // SAFETY: the address is of the size that is said and outlives the call.
        let result = unsafe { libc::bind(fd, (&raw const address).cast(), size) };
        assert_eq!(result, 0, "bind: {}", io::Error::last_os_error());
        Self(socket)
    }

    /// Takes the socket's filter away.
    pub(crate) fn detach_filter(&self) -> io::Result<()> {
        let value: libc::c_int = 0;
        let size = u32::try_from(size_of_val(&value)).unwrap();
        // SAFETY: the value is of the size that is said and outlives the call.
        let result = unsafe {
            libc::setsockopt(
                self.0.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_DETACH_FILTER,
                (&raw const value).cast(),
                size,
            )
        };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    pub(crate) fn send(&self, frame: &[u8]) -> io::Result<()> {
        rustix::net::send(&self.0, frame, rustix::net::SendFlags::empty())?;
        Ok(())
    }

    /// The next frame that arrived (the socket sees its own, too: those are left out by the flag).
    pub(crate) fn receive(&self) -> Option<Vec<u8>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(frame) = self.try_receive() {
                return Some(frame);
            }
            if Instant::now() > deadline {
                return None;
            }
            wait(self.0.as_fd(), PollFlags::IN);
        }
    }

    pub(crate) fn try_receive(&self) -> Option<Vec<u8>> {
        loop {
            let mut frame = vec![0; 66_000];
            // SAFETY: all zeros is a valid address.
            let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
            let mut size = u32::try_from(size_of::<libc::sockaddr_ll>()).unwrap();
            // SAFETY: buffer and address are of the sizes that are said and outlive the call.
            let length = unsafe {
                libc::recvfrom(
                    self.0.as_raw_fd(),
                    frame.as_mut_ptr().cast(),
                    frame.len(),
                    0,
                    (&raw mut from).cast(),
                    &raw mut size,
                )
            };
            let length = usize::try_from(length).ok()?;
            if from.sll_pkttype == 4 {
                continue; // PACKET_OUTGOING
            }
            frame.truncate(length);
            return Some(frame);
        }
    }
}

/// Waits a moment for one of these events.
pub(crate) fn wait(fd: BorrowedFd<'_>, events: PollFlags) {
    let mut fds = [PollFd::from_borrowed_fd(fd, events)];
    let pause = Timespec {
        tv_sec: 0,
        tv_nsec: 20_000_000,
    };
    let _ = poll(&mut fds, Some(&pause));
}

/// An Ethernet frame of `length` bytes whose content follows from `number`.
pub(crate) fn frame(number: u32, length: usize) -> Vec<u8> {
    assert!(length >= 18, "room for the header and the number");
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 1]);
    frame.extend(ETHERTYPE);
    frame.extend(number.to_be_bytes());
    let mut random = Random::new(u64::from(number) + 1);
    frame.extend(std::iter::repeat_with(|| random.next().to_le_bytes()[3]).take(length - 18));
    frame
}

/// The frame as a queue sends it: with zeros behind it if it is short.
pub(crate) fn on_the_wire(mut frame: Vec<u8>) -> Vec<u8> {
    frame.resize(frame.len().max(60), 0);
    frame
}

/// A small generator of numbers that are the same in each run (xorshift64*).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap() % bound
    }
}
