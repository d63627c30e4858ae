//! Segments that follow each other into one frame (GRO in software): the reverse of [`segment`](super::segment).
//!
//! A segment is added only if cutting the result gives the very segments back: same Ethernet, IP and TCP
//! headers but for lengths, IDs, sequence numbers, checksums and the flags that belong to the first or the last
//! one. Their checksums must have been found right, or partial, before.

use super::{
    Kind, MAX_HEADERS,
    header::{Field, ipv4, ipv6, tcp, udp},
    packet::{Network, Packet, Transport, low_16},
    segment::write_ipv4_checksum,
};

/// Longest IP packet: its length field has 16 bits.
const MAX_IP: usize = 0xffff;
/// Most datagrams in one frame: what Linux receives at once (`UDP_MAX_SEGMENTS` before 6.9).
const MAX_DATAGRAMS: usize = 64;

/// What the receiver takes as frames of several segments.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Allowed {
    /// TCP over IPv4.
    pub tcp4: bool,
    /// TCP over IPv6.
    pub tcp6: bool,
    /// TCP segments of which the first has CWR.
    pub ecn: bool,
    /// UDP over IPv4.
    pub udp4: bool,
    /// UDP over IPv6.
    pub udp6: bool,
}

impl Allowed {
    /// Whether `packet`, whose headers are in `start`, may be one of several segments, the first of them.
    #[must_use]
    pub fn allows(self, start: &[u8], packet: &Packet) -> bool {
        let is_congested = flags(start, packet) & tcp::CWR != 0;
        let kind = match (packet.transport, packet.network) {
            (Transport::Tcp, Network::V4) => self.tcp4,
            (Transport::Tcp, Network::V6) => self.tcp6,
            (Transport::Udp, Network::V4) => self.udp4,
            (Transport::Udp, Network::V6) => self.udp6,
        };
        kind && (self.ecn || !is_congested)
    }
}

/// How the IPv4 IDs of the segments follow each other. Other than by one only where nobody may look at them (RFC
/// 6864, section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ids {
    /// There is one segment, or no ID.
    Open,
    Next,
    Same,
}

/// A frame in the course of being put together: its headers. The payload is wherever the caller puts it.
#[derive(Debug, Clone)]
pub struct Coalescer {
    /// Those of the first segment.
    headers: [u8; MAX_HEADERS],
    packet: Packet,
    /// Bytes of payload in each segment but the last.
    size: usize,
    /// All bytes of payload.
    payload: usize,
    segments: usize,
    ids: Ids,
    last_flags: u8,
    closed: bool,
}

/// A segment that fits: what [`Coalescer::add`] wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Step {
    payload: usize,
    ids: Ids,
    flags: u8,
}

/// What became of the segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coalesced<'a> {
    /// The headers of the whole, with the sum over the pseudo-header in the checksum field.
    pub headers: &'a [u8],
    /// What it carries.
    pub kind: Kind,
    /// Bytes of payload in each segment but the last.
    pub size: usize,
    /// The first segment has CWR.
    pub ecn: bool,
    /// Where the TCP or UDP header begins, and where in it the checksum is.
    pub checksum: (usize, usize),
}

impl<'a> Coalesced<'a> {
    /// A whole that nobody cut: `start` has all of the headers of `packet`, with the sum over the pseudo-header. Its
    /// segments would have `size` bytes of payload.
    #[must_use]
    pub fn uncut(start: &'a [u8], packet: &Packet, size: usize) -> Self {
        Self {
            headers: start.get(..packet.payload_start).unwrap_or_default(),
            kind: packet.kind(),
            size,
            ecn: flags(start, packet) & tcp::CWR != 0,
            checksum: (packet.transport_start, packet.checksum_offset()),
        }
    }
}

impl Coalescer {
    /// With the first segment: `start` is the beginning of the frame of `frame_len` bytes, and has all of
    /// the headers of `packet`. `None` if nothing can follow it.
    #[must_use]
    pub fn begin(
        start: &[u8],
        packet: &Packet,
        frame_len: usize,
        allowed: Allowed,
    ) -> Option<Self> {
        if !allowed.allows(start, packet) {
            return None;
        }
        let payload = payload(start, packet, frame_len)?;
        let flags = flags(start, packet);
        if flags & (tcp::FIN | tcp::PSH) != 0 {
            return None;
        }
        let mut headers = [0; MAX_HEADERS];
        let own = headers.get_mut(..packet.payload_start)?;
        own.copy_from_slice(start.get(..packet.payload_start)?);
        Some(Self {
            headers,
            packet: *packet,
            size: payload,
            payload,
            segments: 1,
            ids: Ids::Open,
            last_flags: flags,
            closed: false,
        })
    }

    /// Whether this frame is the next segment. Nothing changes until it is [added](Self::add).
    #[must_use]
    pub fn fits(&self, start: &[u8], packet: &Packet, frame_len: usize) -> Option<Step> {
        let same = self.same_headers(start, packet);
        let payload = payload(start, packet, frame_len).filter(|_| same)?;
        let most = match packet.transport {
            Transport::Tcp => MAX_IP,
            Transport::Udp => MAX_DATAGRAMS,
        };
        let len = self.packet.payload_start - self.packet.network_start + self.payload + payload;
        if self.closed || payload > self.size || len > MAX_IP || self.segments >= most {
            return None;
        }
        let ids = match packet.network {
            Network::V4 => self.next_id(start, packet)?,
            Network::V6 => Ids::Open,
        };
        let flags = flags(start, packet);
        if packet.transport == Transport::Tcp {
            let [a, b, c, d, ..] = self.payload.to_le_bytes();
            let passed = u32::from_le_bytes([a, b, c, d]);
            let first = tcp::SEQUENCE.number(&self.headers, packet.transport_start)?;
            let next = tcp::SEQUENCE.number(start, packet.transport_start)?;
            let differ = (flags ^ self.first_flags()) & !(tcp::FIN | tcp::PSH | tcp::CWR) != 0;
            if next != first.wrapping_add(passed) || differ || flags & tcp::CWR != 0 {
                return None;
            }
        }
        Some(Step {
            payload,
            ids,
            flags,
        })
    }

    /// Adds the segment that was found to fit.
    pub fn add(&mut self, step: Step) {
        self.payload += step.payload;
        self.segments += 1;
        self.ids = step.ids;
        self.last_flags = step.flags;
        self.closed = step.payload < self.size || step.flags & (tcp::FIN | tcp::PSH) != 0;
    }

    /// How many segments there are.
    #[must_use]
    pub fn segments(&self) -> usize {
        self.segments
    }

    /// Where the headers of the segments end and their payload begins: the same in all of them.
    #[must_use]
    pub fn header_len(&self) -> usize {
        self.packet.payload_start
    }

    /// The whole, as far as it got.
    pub fn finish(&mut self) -> Coalesced<'_> {
        let Packet {
            network_start: network,
            transport_start: transport,
            payload_start: end,
            ..
        } = self.packet;
        let len = end + self.payload;
        let flags = self.first_flags() | self.last_flags & (tcp::FIN | tcp::PSH);
        let headers = &mut self.headers;
        match self.packet.network {
            Network::V4 => {
                ipv4::TOTAL_LENGTH.set_number(headers, network, low_16(len - network));
                write_ipv4_checksum(headers, network, transport);
            }
            Network::V6 => {
                let len = low_16(len - network - ipv6::LEN);
                ipv6::PAYLOAD_LENGTH.set_number(headers, network, len);
            }
        }
        let pseudo = self.packet.pseudo_header(headers, len - transport).sum();
        match self.packet.transport {
            Transport::Tcp => {
                tcp::FLAGS.set(headers, transport, [flags]);
                tcp::CHECKSUM.set_number(headers, transport, pseudo);
            }
            Transport::Udp => {
                udp::LENGTH.set_number(headers, transport, low_16(len - transport));
                udp::CHECKSUM.set_number(headers, transport, pseudo);
            }
        }
        Coalesced {
            kind: self.packet.kind(),
            size: self.size,
            ecn: self.packet.transport == Transport::Tcp && flags & tcp::CWR != 0,
            checksum: (transport, self.packet.checksum_offset()),
            headers: headers.get(..end).unwrap_or_default(),
        }
    }

    fn first_flags(&self) -> u8 {
        flags(&self.headers, &self.packet)
    }

    /// Whether the fields that must be the same in all segments are.
    fn same_headers(&self, start: &[u8], packet: &Packet) -> bool {
        let own = Packet {
            end: packet.end,
            ..self.packet
        };
        let same = |from: usize, to: usize| {
            let (one, other) = (self.headers.get(from..to), start.get(from..to));
            one.is_some() && one == other
        };
        let (network, transport) = (packet.network_start, packet.transport_start);
        let ip = match packet.network {
            // All but length, ID and checksum.
            Network::V4 => {
                same(network, network + ipv4::TOTAL_LENGTH.0)
                    && same(network + ipv4::FRAGMENT.0, network + ipv4::CHECKSUM.0)
                    && same(network + ipv4::ADDRESSES.0, transport)
            }
            // All but length.
            Network::V6 => {
                same(network, network + ipv6::PAYLOAD_LENGTH.0)
                    && same(network + ipv6::NEXT_HEADER.0, transport)
            }
        };
        let rest = match packet.transport {
            // All but sequence number, flags and checksum.
            Transport::Tcp => {
                same(transport, transport + tcp::SEQUENCE.0)
                    && same(transport + tcp::SEQUENCE.0 + 4, transport + tcp::FLAGS.0)
                    && same(transport + tcp::FLAGS.0 + 1, transport + tcp::CHECKSUM.0)
                    && same(transport + tcp::CHECKSUM.0 + 2, packet.payload_start)
            }
            Transport::Udp => same(transport, transport + udp::LENGTH.0),
        };
        own == *packet && ip && rest && same(0, network)
    }

    fn next_id(&self, start: &[u8], packet: &Packet) -> Option<Ids> {
        let network = packet.network_start;
        let first = ipv4::ID.number(&self.headers, network)?;
        let id = ipv4::ID.number(start, network)?;
        let unused = ipv4::FRAGMENT.number(start, network)? & ipv4::DONT_FRAGMENT != 0;
        let next = id == first.wrapping_add(low_16(self.segments));
        let same = id == first && unused;
        match self.ids {
            Ids::Open | Ids::Next if next => Some(Ids::Next),
            Ids::Open | Ids::Same if same => Some(Ids::Same),
            _ => None,
        }
    }
}

/// TCP's flags; UDP has none.
fn flags(start: &[u8], packet: &Packet) -> u8 {
    let flags: Field<1> = tcp::FLAGS;
    match packet.transport {
        Transport::Tcp => flags.byte(start, packet.transport_start).unwrap_or(0),
        Transport::Udp => 0,
    }
}

/// Bytes of payload, if the frame is a segment like any other: no padding, options or odd flags, and
/// whole. The IPv4 header is right.
fn payload(start: &[u8], packet: &Packet, frame_len: usize) -> Option<usize> {
    let plain = packet.end == frame_len && !packet.has_options && !packet.is_routed;
    let len = frame_len.checked_sub(packet.payload_start)?;
    let whole = match packet.transport {
        Transport::Tcp => {
            let data = tcp::ACK | tcp::PSH | tcp::FIN | tcp::ECE | tcp::CWR;
            let flags = flags(start, packet);
            flags & tcp::ACK != 0 && flags & !data == 0
        }
        Transport::Udp => {
            let stated = udp::LENGTH.number(start, packet.transport_start);
            stated.map(usize::from) == Some(frame_len - packet.transport_start)
        }
    };
    let network = match packet.network {
        Network::V4 => {
            let header = start.get(packet.network_start..packet.transport_start)?;
            let mut sum = super::checksum::Checksum::new();
            sum.add(header);
            sum.finish() == 0
        }
        Network::V6 => true,
    };
    (plain && whole && network && len > 0).then_some(len)
}

#[cfg(test)]
#[path = "coalesce_tests.rs"]
pub(super) mod tests;
