//! What a tunnel carries: TCP or UDP behind a second IP header, one tunnel deep.
//!
//! A tunnel over UDP is known by its port alone, so others than the usual ones are datagrams like any other.

use super::{
    header::{ethernet, geneve, gre, tunnel, udp, vxlan},
    packet::{Packet, Transport, network_layer},
    verify::is_whole,
};

/// The checksum of a tunnel's own header, which is over what it carries as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cover {
    /// Where it is in the frame.
    pub(super) field: usize,
    /// What is there.
    pub(super) value: u16,
    /// From where on is summed up.
    pub(super) start: usize,
    /// Up to where: within the frame.
    pub(super) end: usize,
    /// It is one of UDP: the pseudo-header is summed up too.
    pub(super) packet: Option<Packet>,
}

/// What a frame is that is a tunnel's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tunnel {
    /// What it carries, if that is TCP or UDP.
    pub(super) packet: Option<Packet>,
    /// If its header has one.
    pub(super) cover: Option<Cover>,
}

/// Whether datagrams to this port are a tunnel's.
pub(super) fn is_port(port: u16) -> bool {
    port == geneve::PORT || vxlan::PORTS.contains(&port)
}

/// Whether this protocol of IP is a tunnel.
pub(super) fn is_protocol(protocol: u8) -> bool {
    [tunnel::IPV4, tunnel::IPV6, gre::PROTOCOL].contains(&protocol)
}

impl Tunnel {
    /// The tunnel of a datagram in a frame of `frame_len` bytes that begins with `bytes`. `None`: it is none.
    pub(super) fn in_udp(bytes: &[u8], outer: &Packet, frame_len: usize) -> Option<Self> {
        if outer.transport != Transport::Udp || !is_whole(bytes, outer, frame_len) {
            return None;
        }
        let start = outer.payload_start;
        let end = outer.end;
        let packet = match udp::DESTINATION.number(bytes, outer.transport_start)? {
            geneve::PORT => {
                let first = geneve::VERSION_LENGTH.byte(bytes, start)?;
                let len = geneve::MIN_LEN + usize::from(first & 0x3f) * 4;
                let ether_type = geneve::TYPE.number(bytes, start)?;
                (first >> 6 == 0).then(|| inside(bytes, ether_type, start + len, end))?
            }
            port if vxlan::PORTS.contains(&port) => {
                let flags = vxlan::FLAGS.number(bytes, start)?;
                let known = flags & vxlan::HAS_ID != 0 && flags & vxlan::UNKNOWN == 0;
                known.then(|| inside(bytes, tunnel::ETHERNET, start + vxlan::LEN, end))?
            }
            _ => return None,
        };
        let value = outer.checksum(bytes)?;
        let cover = Cover {
            field: outer.checksum_start(),
            value,
            start: outer.transport_start,
            end,
            packet: Some(*outer),
        };
        // RFC 768: 0 is none.
        let cover = Some(cover).filter(|_| value != 0);
        Some(Self { packet, cover })
    }

    /// The tunnel directly behind the IP header of a frame of `frame_len` bytes that begins with `bytes`. `None`: it
    /// is none.
    pub(super) fn in_ip(bytes: &[u8], frame_len: usize) -> Option<Self> {
        let outer = network_layer(bytes).ok()?;
        if outer.end > frame_len || outer.end < outer.start {
            return None;
        }
        let plain = |ether_type| Self {
            packet: inside(bytes, ether_type, outer.start, outer.end),
            cover: None,
        };
        match outer.protocol {
            tunnel::IPV4 => Some(plain(ethernet::IPV4)),
            tunnel::IPV6 => Some(plain(ethernet::IPV6)),
            gre::PROTOCOL => Self::in_gre(bytes, outer.start, outer.end),
            _ => None,
        }
    }

    fn in_gre(bytes: &[u8], start: usize, end: usize) -> Option<Self> {
        let flags = gre::FLAGS.number(bytes, start)?;
        if flags & gre::UNKNOWN != 0 {
            return None;
        }
        let fields = [gre::HAS_CHECKSUM, gre::HAS_KEY, gre::HAS_SEQUENCE];
        let count = fields.iter().filter(|&&bit| flags & bit != 0).count();
        let len = gre::MIN_LEN + count * gre::FIELD_LEN;
        let ether_type = gre::TYPE.number(bytes, start)?;
        let packet = inside(bytes, ether_type, start + len, end);
        let mut cover = None;
        if flags & gre::HAS_CHECKSUM != 0 && start + len <= end {
            cover = Some(Cover {
                field: start + gre::CHECKSUM.0,
                value: gre::CHECKSUM.number(bytes, start)?,
                start,
                end,
                packet: None,
            });
        }
        Some(Self { packet, cover })
    }
}

/// TCP or UDP in what goes from `start` to `end`: a frame, or a packet.
fn inside(bytes: &[u8], ether_type: u16, start: usize, end: usize) -> Option<Packet> {
    let packet = match ether_type {
        tunnel::ETHERNET => Packet::in_ethernet(bytes, start),
        ip => Packet::in_network(bytes, ip, start),
    };
    packet.ok().filter(|packet| packet.end <= end)
}
