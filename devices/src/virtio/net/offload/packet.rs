//! Where the headers of a frame are, found without trusting any of them.

use super::{
    Kind,
    checksum::Checksum,
    header::{ethernet, ipv4, ipv6, tcp, udp},
};

/// The network layer of a [`Packet`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The transport layer of a [`Packet`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A frame that carries a TCP segment or a UDP datagram that is no fragment: the places of its headers, all
/// of which are within the bytes that it was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// IPv4 or IPv6.
    pub network: Network,
    /// TCP or UDP.
    pub transport: Transport,
    /// Offset of the IP header: the length of the Ethernet header with its VLAN tags.
    pub network_start: usize,
    /// Offset of the TCP or UDP header.
    pub transport_start: usize,
    /// Offset of what follows the TCP or UDP header.
    pub payload_start: usize,
    /// Where the packet ends, as its IP header has it. What follows is padding. May be anything.
    pub end: usize,
    /// There are IPv4 options or IPv6 extension headers.
    pub has_options: bool,
    /// The pseudo-header can't be made from the IP header alone: an IPv6 routing header has the last
    /// destination.
    pub is_routed: bool,
}

/// Why a frame is no [`Packet`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// the headers go on past the end of the bytes
    #[error("the frame ends within its headers")]
    Truncated,
    /// neither IPv4 nor IPv6
    #[error("the EtherType {0:#06x} is neither IPv4 nor IPv6")]
    EtherType(u16),
    /// more VLAN tags or IPv6 extension headers than any network has
    #[error("the frame has more than 8 VLAN tags or IPv6 extension headers")]
    TooDeep,
    /// a header contradicts itself
    #[error("the {0} header has an impossible version or length")]
    Malformed(&'static str),
    /// a fragment: its bytes are a part of what was summed up
    #[error("the packet is a fragment")]
    Fragment,
    /// something else than TCP and UDP
    #[error("the IP protocol {0} is neither TCP nor UDP")]
    Protocol(u8),
}

/// What the network layer says.
pub(super) struct Inner {
    pub(super) protocol: u8,
    /// Where its headers end.
    pub(super) start: usize,
    /// Where the packet ends. May be anything.
    pub(super) end: usize,
    has_options: bool,
    is_routed: bool,
}

impl Packet {
    /// Finds the headers in the first bytes of a frame. Looks at no more than 8 VLAN tags and 8 IPv6
    /// extension headers. Checksums are not looked at.
    ///
    /// # Errors
    /// It is nothing that this module understands.
    pub fn parse(bytes: &[u8]) -> Result<Self, PacketError> {
        match plain(bytes) {
            Some((network, inner)) => Self::of(bytes, network, ethernet::LEN, &inner),
            None => Self::search(bytes),
        }
    }

    /// The same for whatever may come.
    fn search(bytes: &[u8]) -> Result<Self, PacketError> {
        Self::in_ethernet(bytes, 0)
    }

    /// The packet behind an Ethernet header that begins at `start`. All places are offsets in `bytes`.
    pub(super) fn in_ethernet(bytes: &[u8], start: usize) -> Result<Self, PacketError> {
        let (ether_type, start) = ether_type(bytes, start)?;
        Self::in_network(bytes, ether_type, start)
    }

    /// The packet whose IP header, of the kind that the EtherType says, begins at `start`.
    pub(super) fn in_network(
        bytes: &[u8],
        ether_type: u16,
        start: usize,
    ) -> Result<Self, PacketError> {
        let (network, inner) = network_at(bytes, ether_type, start)?;
        Self::of(bytes, network, start, &inner)
    }

    /// What is behind the IP header, which begins at `network_start`.
    fn of(
        bytes: &[u8],
        network: Network,
        network_start: usize,
        inner: &Inner,
    ) -> Result<Self, PacketError> {
        let start = inner.start;
        let (transport, len) = match inner.protocol {
            tcp::PROTOCOL => {
                let words = tcp::DATA_OFFSET.byte(bytes, start);
                let len = usize::from(words.ok_or(PacketError::Truncated)? >> 4) * 4;
                if len < tcp::MIN_LEN {
                    return Err(PacketError::Malformed("TCP"));
                }
                (Transport::Tcp, len)
            }
            udp::PROTOCOL => (Transport::Udp, udp::LEN),
            other => return Err(PacketError::Protocol(other)),
        };
        let payload_start = start + len;
        if payload_start > bytes.len() {
            return Err(PacketError::Truncated);
        }
        Ok(Self {
            network,
            transport,
            network_start,
            transport_start: start,
            payload_start,
            end: inner.end,
            has_options: inner.has_options,
            is_routed: inner.is_routed,
        })
    }

    /// What a frame of several such segments is called.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match (self.transport, self.network) {
            (Transport::Udp, _) => Kind::Udp,
            (Transport::Tcp, Network::V4) => Kind::Tcp4,
            (Transport::Tcp, Network::V6) => Kind::Tcp6,
        }
    }

    /// Whether every card that looks at headers finds the TCP or UDP header: at most one VLAN tag before the IP header,
    /// and nothing between the two.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        !self.has_options && self.network_start <= ethernet::LEN + ethernet::TAG_LEN
    }

    /// Offset of the checksum in the TCP or UDP header (`csum_offset` of virtio 1.2, 5.1.6).
    #[must_use]
    pub fn checksum_offset(&self) -> usize {
        match self.transport {
            Transport::Tcp => tcp::CHECKSUM.0,
            Transport::Udp => udp::CHECKSUM.0,
        }
    }

    /// Offset of the checksum in the frame.
    #[must_use]
    pub fn checksum_start(&self) -> usize {
        self.transport_start + self.checksum_offset()
    }

    /// The checksum field of this packet, of which `bytes` are the first.
    #[must_use]
    pub fn checksum(&self, bytes: &[u8]) -> Option<u16> {
        let field = match self.transport {
            Transport::Tcp => tcp::CHECKSUM,
            Transport::Udp => udp::CHECKSUM,
        };
        field.number(bytes, self.transport_start)
    }

    /// The sum over the pseudo-header (RFC 9293, section 3.1; RFC 8200, section 8.1) for `len` bytes from the
    /// TCP or UDP header on. Its length is taken modulo 2^16: no more was ever summed up. Wrong if
    /// [`is_routed`](Self::is_routed).
    #[must_use]
    pub fn pseudo_header(&self, bytes: &[u8], len: usize) -> Checksum {
        let mut sum = Checksum::new();
        match self.network {
            Network::V4 => {
                let addresses = ipv4::ADDRESSES.get(bytes, self.network_start);
                sum.add(&addresses.unwrap_or_default());
            }
            Network::V6 => {
                let addresses = ipv6::ADDRESSES.get(bytes, self.network_start);
                sum.add(&addresses.unwrap_or_default());
            }
        }
        sum.add_u16(u16::from(match self.transport {
            Transport::Tcp => tcp::PROTOCOL,
            Transport::Udp => udp::PROTOCOL,
        }));
        sum.add_u16(low_16(len));
        sum
    }
}

/// The low 16 bits of a length.
pub(super) fn low_16(len: usize) -> u16 {
    let [low, high, ..] = len.to_le_bytes();
    u16::from_le_bytes([low, high])
}

/// The network layer of nearly all packets: without VLAN tags, IPv4 options and IPv6 extension headers. All fields are
/// where they always are then, in bytes that are known to be there. `None`: look closer.
#[inline]
fn plain(bytes: &[u8]) -> Option<(Network, Inner)> {
    const V4: usize = ethernet::LEN + ipv4::MIN_LEN;
    const V6: usize = ethernet::LEN + ipv6::LEN;
    let inner = |protocol, start, end| Inner {
        protocol,
        start,
        end,
        has_options: false,
        is_routed: false,
    };
    let [.., high, low] = *bytes.first_chunk::<{ ethernet::LEN }>()?;
    match u16::from_be_bytes([high, low]) {
        ethernet::IPV4 => {
            let header: [u8; ipv4::MIN_LEN] = *bytes.get(ethernet::LEN..)?.first_chunk()?;
            let [0x45, _, high, low, _, _, fragment, offset, _, protocol, ..] = header else {
                return None;
            };
            if u16::from_be_bytes([fragment, offset]) & ipv4::IS_FRAGMENT != 0 {
                return None;
            }
            let total = usize::from(u16::from_be_bytes([high, low]));
            Some((Network::V4, inner(protocol, V4, ethernet::LEN + total)))
        }
        ethernet::IPV6 => {
            let header: [u8; ipv6::LEN] = *bytes.get(ethernet::LEN..)?.first_chunk()?;
            let [0x60..0x70, _, _, _, high, low, protocol, ..] = header else {
                return None;
            };
            // An extension header has a number of its own.
            if ![tcp::PROTOCOL, udp::PROTOCOL].contains(&protocol) {
                return None;
            }
            let len = usize::from(u16::from_be_bytes([high, low]));
            Some((Network::V6, inner(protocol, V6, V6 + len)))
        }
        _ => None,
    }
}

/// The network layer of a frame, whatever it carries.
pub(super) fn network_layer(bytes: &[u8]) -> Result<Inner, PacketError> {
    let (ether_type, start) = ether_type(bytes, 0)?;
    network_at(bytes, ether_type, start).map(|(_, inner)| inner)
}

fn network_at(
    bytes: &[u8],
    ether_type: u16,
    start: usize,
) -> Result<(Network, Inner), PacketError> {
    match ether_type {
        ethernet::IPV4 => Ok((Network::V4, parse_v4(bytes, start)?)),
        ethernet::IPV6 => Ok((Network::V6, parse_v6(bytes, start)?)),
        other => Err(PacketError::EtherType(other)),
    }
}

/// The EtherType after the Ethernet header at `start` and all VLAN tags, and what offset follows it.
fn ether_type(bytes: &[u8], mut start: usize) -> Result<(u16, usize), PacketError> {
    for _ in 0..=ethernet::MAX_TAGS {
        let ether_type = ethernet::TYPE.number(bytes, start);
        let ether_type = ether_type.ok_or(PacketError::Truncated)?;
        if !ethernet::TAGS.contains(&ether_type) {
            return Ok((ether_type, start + ethernet::LEN));
        }
        start += ethernet::TAG_LEN;
    }
    Err(PacketError::TooDeep)
}

fn parse_v4(bytes: &[u8], start: usize) -> Result<Inner, PacketError> {
    let get = |value: Option<u16>| value.ok_or(PacketError::Truncated);
    let first = get(ipv4::VERSION_IHL.byte(bytes, start).map(u16::from))?;
    let len = usize::from(first & 0xf) * 4;
    let total = usize::from(get(ipv4::TOTAL_LENGTH.number(bytes, start))?);
    if first >> 4 != 4 || len < ipv4::MIN_LEN {
        return Err(PacketError::Malformed("IPv4"));
    }
    if get(ipv4::FRAGMENT.number(bytes, start))? & ipv4::IS_FRAGMENT != 0 {
        return Err(PacketError::Fragment);
    }
    let protocol = ipv4::PROTOCOL.byte(bytes, start);
    if start + len > bytes.len() {
        return Err(PacketError::Truncated);
    }
    Ok(Inner {
        protocol: protocol.ok_or(PacketError::Truncated)?,
        start: start + len,
        end: start + total,
        has_options: len > ipv4::MIN_LEN,
        is_routed: false,
    })
}

fn parse_v6(bytes: &[u8], start: usize) -> Result<Inner, PacketError> {
    let get = |value: Option<u8>| value.ok_or(PacketError::Truncated);
    if get(ipv6::VERSION.byte(bytes, start))? >> 4 != 6 {
        return Err(PacketError::Malformed("IPv6"));
    }
    let len = ipv6::PAYLOAD_LENGTH.number(bytes, start);
    let len = usize::from(len.ok_or(PacketError::Truncated)?);
    let mut protocol = get(ipv6::NEXT_HEADER.byte(bytes, start))?;
    let mut at = start + ipv6::LEN;
    if at > bytes.len() {
        return Err(PacketError::Truncated);
    }
    let mut inner = Inner {
        protocol,
        start: at,
        end: at + len,
        has_options: false,
        is_routed: false,
    };
    for _ in 0..=ipv6::MAX_EXTENSIONS {
        match protocol {
            ipv6::HOP_BY_HOP | ipv6::DESTINATION => {}
            ipv6::ROUTING => inner.is_routed |= get(ipv6::SEGMENTS_LEFT.byte(bytes, at))? != 0,
            ipv6::FRAGMENT => return Err(PacketError::Fragment),
            _ => {
                inner.protocol = protocol;
                inner.start = at;
                return Ok(inner);
            }
        }
        inner.has_options = true;
        protocol = get(ipv6::EXTENSION_NEXT.byte(bytes, at))?;
        at += (usize::from(get(ipv6::EXTENSION_LENGTH.byte(bytes, at))?) + 1) * 8;
        if at > bytes.len() {
            return Err(PacketError::Truncated);
        }
    }
    Err(PacketError::TooDeep)
}

#[cfg(test)]
#[path = "packet_tests.rs"]
pub(super) mod tests;
