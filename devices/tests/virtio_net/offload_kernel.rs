#![expect(
    unsafe_code,
    reason = "packet sockets with virtio-net headers, which no crate here has"
)]
//! Our segments and checksums beside Linux's: the same large frame is given to the kernel, through a packet
//! socket on a veth end whose offloads are off, so that it cuts the frame in software; what arrives at the other end
//! must be, byte for byte, what we make of it.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    process::Command,
    time::{Duration, Instant},
};

use devices::{
    testing::{frames::FrameSpec, wait_for},
    virtio::net::{
        loopback::Loopback,
        offload::{
            Kind,
            segment::{Request, cut},
        },
    },
};
use net_afxdp::AttachMode;

use crate::{
    afxdp::{ip, open, veth},
    guest::{NetGuest, pattern},
    offload_guest::NetHeader,
};

/// PACKET_VNET_HDR of linux/if_packet.h: each packet has a virtio-net header before it, of 10 bytes.
const PACKET_VNET_HDR: libc::c_int = 15;
const SHORT_HEADER: usize = 10;

/// A raw packet socket on an interface.
struct PacketSocket(OwnedFd);

impl PacketSocket {
    fn open(ifname: &str, headers: bool) -> Self {
        let all = libc::ETH_P_ALL.to_le_bytes();
        let protocol = u16::from_be_bytes([all[0], all[1]]);
        // SAFETY: no memory is involved.
        let fd = unsafe {
            libc::socket(
                libc::AF_PACKET,
                libc::SOCK_RAW | libc::SOCK_NONBLOCK,
                protocol.into(),
            )
        };
        assert!(fd >= 0, "{}", io::Error::last_os_error());
        // SAFETY: nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        if headers {
            set(&fd, libc::SOL_PACKET, PACKET_VNET_HDR, 1);
        } else {
            set(&fd, libc::SOL_SOCKET, libc::SO_RCVBUF, 4 << 20);
        }
        let name = std::ffi::CString::new(ifname).unwrap();
        // SAFETY: a string that ends with a zero.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        let address = libc::sockaddr_ll {
            sll_family: u16::try_from(libc::AF_PACKET).unwrap(),
            sll_protocol: protocol,
            sll_ifindex: i32::try_from(index).unwrap(),
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        let len = u32::try_from(size_of_val(&address)).unwrap();
        // SAFETY: the address is as long as is said.
        let bound = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len) };
        assert_eq!(bound, 0, "{}", io::Error::last_os_error());
        Self(fd)
    }

    fn send(&self, bytes: &[u8]) {
        // SAFETY: the bytes are there.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
        let error = io::Error::last_os_error();
        assert_eq!(usize::try_from(sent).ok(), Some(bytes.len()), "{error}");
    }

    fn receive(&self) -> Option<Vec<u8>> {
        let mut bytes = vec![0; 70_000];
        // SAFETY: there is as much room.
        let got = unsafe {
            libc::recv(
                self.0.as_raw_fd(),
                bytes.as_mut_ptr().cast(),
                bytes.len(),
                0,
            )
        };
        bytes.truncate(usize::try_from(got).ok()?);
        Some(bytes)
    }
}

fn set(fd: &OwnedFd, level: libc::c_int, option: libc::c_int, value: libc::c_int) {
    let len = u32::try_from(size_of_val(&value)).unwrap();
    // SAFETY: the value is as long as is said.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            len,
        )
    };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

pub(crate) fn ethtool(words: &str) {
    let output = Command::new("ethtool")
        .args(words.split(' '))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ethtool {words}: {said}");
}

/// All protocols, with options, tags, flags and lengths at the edges.
fn cases() -> Vec<(FrameSpec, u16)> {
    let mut cases = Vec::new();
    for (v6, udp) in [(false, false), (true, false), (false, true), (true, true)] {
        for (len, size) in [
            (3000, 1000),
            (2999, 1000),
            (1, 1000),
            (1000, 1000),
            (40_000, 1400),
            (1001, 99),
        ] {
            let mut spec = FrameSpec::tcp(v6, pattern(len, 11));
            spec.udp = udp;
            cases.push((spec, size));
        }
    }
    let tcp = FrameSpec::tcp(false, pattern(5000, 12));
    for flags in [0x10, 0x18, 0x19, 0x50] {
        for v6 in [false, true] {
            let mut spec = tcp.clone();
            (spec.v6, spec.flags, spec.id) = (v6, flags, 0xfffe);
            spec.tcp_options = vec![1; 12];
            cases.push((spec, 1400));
        }
    }
    let mut tagged = tcp.clone();
    tagged.tags = vec![(0x8100, 5)];
    let mut options = tcp.clone();
    options.ip_options = vec![1; 8];
    let mut fragmentable = tcp.clone();
    fragmentable.fragment = 0;
    let mut extended = FrameSpec::tcp(true, pattern(5000, 13));
    extended.extensions = vec![(60, vec![1, 4, 0, 0, 0, 0])];
    let mut longest = FrameSpec::tcp(false, Vec::new());
    longest.payload = pattern(65_535 - 40, 14);
    cases.extend([tagged, options, fragmentable, extended, longest].map(|spec| (spec, 1400)));
    // CWR, with and without the bit that says so.
    let mut congested = tcp;
    congested.flags = 0xd8;
    cases.push((congested, 1400));
    cases
}

fn ours(spec: &FrameSpec, size: u16) -> Vec<Vec<u8>> {
    let kind = match (spec.udp, spec.v6) {
        (true, _) => Kind::Udp,
        (false, false) => Kind::Tcp4,
        (false, true) => Kind::Tcp6,
    };
    let request = Request {
        kind,
        size,
        checksum_start: spec.transport_start(),
        checksum_offset: spec.checksum_offset(),
    };
    let mut all = Vec::new();
    cut(&spec.build_partial(), request, |head, payload| {
        all.push([head, payload].concat())
    })
    .unwrap();
    all
}

#[test]
fn segments_are_those_of_the_kernel() {
    let Some((near, far)) = veth() else { return };
    ip(&format!("link set dev {near} mtu 1500"));
    // One without the other is not enough: with either left on, the frame passes the veth in one piece.
    ethtool(&format!(
        "-K {near} tx off tso off gso off tx-udp-segmentation off"
    ));
    let sender = PacketSocket::open(&near, true);
    let receiver = PacketSocket::open(&far, false);
    for (spec, size) in cases() {
        let mut header = NetHeader::segments(&spec, size);
        if spec.flags & 0x80 != 0 {
            header.gso_type |= 0x80;
        }
        let frame = spec.build_partial();
        sender.send(&[&header.to_bytes()[..SHORT_HEADER], &frame].concat());
        let mut want = ours(&spec, size);
        if !spec.tags.is_empty() {
            // The receiving end takes the tag out, to tell it apart from the frame.
            for segment in &mut want {
                segment.drain(12..16);
            }
        }
        for (number, segment) in want.iter().enumerate() {
            let deadline = Instant::now() + Duration::from_secs(20);
            let got = loop {
                match receiver.receive() {
                    Some(frame) => break frame,
                    None => assert!(Instant::now() < deadline, "segment {number} of {spec:?}"),
                }
            };
            let what = format!("segment {number} of {}, {size} each, {spec:?}", want.len());
            assert_eq!(got.len(), segment.len(), "{what}");
            assert_eq!(&got, segment, "{what}");
        }
        assert_eq!(receiver.receive(), None, "{spec:?}");
    }
}

/// What the kernel leaves whole over a veth, as for its own sockets, reaches a guest on a program in the stack: TCP as it is,
/// to be cut by the MTU. UDP is dropped, as nobody can tell where.
#[test]
fn what_the_kernel_leaves_whole_arrives_in_skb_mode() {
    let Some((near, far)) = veth() else { return };
    let (_port, near) = open(near, AttachMode::Skb);
    if !near.0.multi_buffer() {
        eprintln!("SKIPPED: no frames of several chunks before Linux 6.6");
        return;
    }
    let sender = PacketSocket::open(&far, true);
    let (_, unused) = Loopback::pair(100).unwrap();
    let mut guest = NetGuest::plug_on("torveth", near, unused);
    guest.boot();
    let (mut whole, mut dropped) = (0, 0);
    for (number, (spec, size)) in cases().into_iter().enumerate() {
        let frame = spec.build_partial();
        let headers = spec.payload_start() - spec.network_start();
        // No interface takes 64 KiB or more in one piece (`gso_max_size`).
        if !spec.tags.is_empty() || !(1515..65_536).contains(&frame.len()) {
            continue;
        }
        let mut header = NetHeader::segments(&spec, size);
        header.gso_type |= spec.flags & 0x80;
        sender.send(&[&header.to_bytes()[..SHORT_HEADER], &frame].concat());
        if spec.udp {
            dropped += 1;
            wait_for("a frame to be dropped", || {
                (guest.control.counters().rx_uncut_dropped == dropped).then_some(())
            });
            continue;
        }
        whole += 1;
        for _ in 0..frame.len().div_ceil(4000) + 1 {
            guest.post(4096);
        }
        let (got, bytes) = guest.received_with_header();
        header.gso_size = u16::try_from(1500 - headers).unwrap();
        header.num_buffers = got.num_buffers;
        assert_eq!(got, header, "case {number}");
        assert!(bytes == frame, "case {number}");
        guest.boot();
    }
    assert_eq!(guest.control.counters().rx_uncut, whole);
    assert!(whole > 10 && dropped > 2, "{whole}, {dropped}");
}
