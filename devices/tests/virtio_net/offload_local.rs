//! What the kernel leaves undone over a veth besides the checksums of plain TCP and UDP, and what the guest gets of it: the
//! kernel is the sender, so nothing here says how it does that.

use std::{
    fs,
    net::{SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use devices::{
    testing::frames::{assert_right, ones_sum, pseudo_header},
    virtio::net::loopback::Loopback,
};
use net_afxdp::{AttachMode, Port};

use crate::{
    afxdp::{ip, open, veth},
    guest::{NetGuest, VERSION_1},
    offload_guest::{NEEDS_CSUM, NetHeader},
};

/// Addresses of the far end and of the guest.
const FAR: &str = "10.78.1.1";
const GUEST: &str = "10.78.1.2";
const FAR6: &str = "fd78:1::1";
const GUEST6: &str = "fd78:1::2";
/// The guest's Ethernet address.
const MAC: &str = "52:54:00:00:00:02";

struct Local {
    guest: NetGuest,
    far: String,
    _port: Port,
}

impl Local {
    /// A guest, and the kernel at the far end, which knows its addresses.
    fn new(name: &str, mode: AttachMode) -> Option<Self> {
        let (near, far) = veth()?;
        let (port, near) = open(near, mode);
        fs::write(format!("/proc/sys/net/ipv6/conf/{far}/disable_ipv6"), "0").unwrap();
        for words in [
            format!("address add {FAR}/24 dev {far}"),
            format!("-6 address add {FAR6}/64 dev {far} nodad"),
            format!("neighbour add {GUEST} lladdr {MAC} dev {far}"),
            format!("neighbour add {GUEST6} lladdr {MAC} dev {far}"),
        ] {
            ip(&words);
        }
        let (_, unused) = Loopback::pair(100).unwrap();
        let mut guest = NetGuest::plug_on(name, near, unused);
        guest.boot();
        Some(Self {
            guest,
            far,
            _port: port,
        })
    }

    /// The next frame for which `wanted` says so: the kernel has things of its own to say.
    fn receive(&mut self, wanted: impl Fn(&[u8]) -> bool) -> (NetHeader, Vec<u8>) {
        for _ in 0..100 {
            self.guest.post(2048);
            let (header, frame) = self.guest.received_with_header();
            if wanted(&frame) {
                return (header, frame);
            }
        }
        panic!("it does not come");
    }

    fn send(&self, from: &str, to: &str) {
        let socket = UdpSocket::bind(from).unwrap_or_else(|error| panic!("{from}: {error}"));
        socket.send_to(&[0x5a; 301], to).unwrap();
    }
}

fn number(frame: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([frame[at], frame[at + 1]])
}

/// Asserts that the checksum of the datagram at `transport` is undone, as the kernel leaves it.
fn assert_undone(frame: &[u8], network: usize, transport: usize) {
    let pseudo = ones_sum(&pseudo_header(frame, network, transport));
    assert_eq!(number(frame, transport + 6), pseudo);
}

#[test]
fn datagrams_of_dhcp_servers_have_their_checksum_whatever_the_guest_takes() {
    for mode in [AttachMode::Native, AttachMode::Skb] {
        let Some(mut local) = Local::new("olocdhcp", mode) else {
            return;
        };
        for (server, client, other) in [
            (
                format!("{FAR}:67"),
                format!("{GUEST}:68"),
                format!("{FAR}:1067"),
            ),
            (
                format!("[{FAR6}]:547"),
                format!("[{GUEST6}]:546"),
                format!("[{FAR6}]:1067"),
            ),
        ] {
            let transport = if server.starts_with('[') { 54 } else { 34 };
            let is_to = |port: u16| {
                move |frame: &[u8]| {
                    frame.len() == transport + 309 && number(frame, transport + 2) == port
                }
            };
            let client: SocketAddr = client.parse().unwrap();
            let mut elsewhere = client;
            elsewhere.set_port(1068);
            for (from, to, whole) in [
                (&server, client, true),
                (&server, elsewhere, true),
                (&other, client, true),
                (&other, elsewhere, false),
            ] {
                local.send(from, &to.to_string());
                let (header, frame) = local.receive(is_to(to.port()));
                assert_eq!(
                    header.flags,
                    if whole { 0 } else { NEEDS_CSUM },
                    "{from} {to}"
                );
                if whole {
                    assert_right(&frame, 14, transport);
                } else {
                    assert_undone(&frame, 14, transport);
                }
            }
        }
        assert_eq!(local.guest.control.counters().rx_checksums, 6);
    }
}

/// Offsets of the headers in a frame that a VXLAN carries over IPv4 or IPv6.
fn assert_both_right(frame: &[u8], outer: usize, v6: bool, checksum: bool) {
    if checksum {
        assert_right(frame, 14, outer);
    } else {
        assert_eq!(number(frame, outer + 6), 0);
    }
    let inner = outer + 8 + 8 + 14;
    assert_right(frame, inner, inner + if v6 { 40 } else { 20 });
}

#[test]
fn checksums_in_a_vxlan_are_those_of_a_guest_that_takes_partial_ones_or_none() {
    for (number, (outer6, checksum)) in [(false, false), (false, true), (true, false), (true, true)]
        .into_iter()
        .enumerate()
    {
        let Some(mut local) = Local::new("olocvx", AttachMode::Native) else {
            return;
        };
        if number % 2 == 1 {
            local.guest.features &= VERSION_1 | crate::guest::MRG_RXBUF;
            local.guest.boot();
        }
        let (from, to) = if outer6 { (FAR6, GUEST6) } else { (FAR, GUEST) };
        let far = &local.far;
        let option = match (outer6, checksum) {
            (false, true) => "udpcsum",
            (false, false) => "noudpcsum",
            (true, false) => "udp6zerocsumtx",
            (true, true) => "noudp6zerocsumtx",
        };
        ip(&format!(
            "link add vx type vxlan id 42 local {from} remote {to} dev {far} dstport 4789 {option}"
        ));
        fs::write("/proc/sys/net/ipv6/conf/vx/disable_ipv6", "0").unwrap();
        for words in [
            "link set vx up",
            "address add 10.78.2.1/24 dev vx",
            "-6 address add fd78:2::1/64 dev vx nodad",
            "neighbour add 10.78.2.2 lladdr 02:00:00:00:00:02 dev vx",
            "neighbour add fd78:2::2 lladdr 02:00:00:00:00:02 dev vx",
        ] {
            ip(words);
        }
        let outer = if outer6 { 54 } else { 34 };
        let inner = outer + 8 + 8 + 14;
        for (v6, host) in [(false, "10.78.2.2"), (true, "[fd78:2::2]")] {
            let transport = inner + if v6 { 40 } else { 20 };
            let any = if v6 { "[::]:0" } else { "0.0.0.0:0" };
            local.send(any, &format!("{host}:4000"));
            let is_it = |port: u16| {
                move |frame: &[u8]| {
                    frame.len() > transport + 8
                        && frame[inner] >> 4 == if v6 { 6 } else { 4 }
                        && crate::offload_local::number(frame, transport + 2) == port
                }
            };
            let (header, frame) = local.receive(is_it(4000));
            assert_eq!(header.flags, 0);
            assert_both_right(&frame, outer, v6, checksum);
            // It is never answered.
            let address = format!("{host}:4001").parse().unwrap();
            let _ = TcpStream::connect_timeout(&address, Duration::from_millis(1));
            let (header, frame) = local.receive(is_it(4001));
            assert_eq!(header.flags, 0);
            assert_both_right(&frame, outer, v6, checksum);
        }
        let completed = local.guest.control.counters().rx_checksums;
        assert!(completed >= 4, "{completed}");
        local.guest.assert_sound();
    }
}
