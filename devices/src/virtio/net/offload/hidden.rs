//! Checksums that a sender on this host left undone deeper in a frame than in the TCP or UDP header behind the first IP
//! header. The guest can't be asked for them (`NEEDS_CSUM` has one place, and an Internet checksum), so they are completed for it.
//!
//! | which | recognised by | |
//! |---|---|---|
//! | TCP and UDP in a tunnel: VXLAN and geneve on their usual ports, GRE, IP in IP | the sum over their pseudo-header | the tunnel's own checksum, which is over them as well, is made anew |
//! | GRE, carrying what has no such checksum | 0, which right ones are once in 2^16 | |
//! | SCTP | 0, which right ones are once in 2^32 | a CRC32c |
//!
//! Linux computes the checksum of a tunnel's header as if the one within were complete ("local checksum offload",
//! Documentation/networking/checksum-offloads.rst), except in a frame that it left whole to be cut later.

use super::{
    checksum::Checksum,
    crc32c::Crc32c,
    header::{sctp, udp},
    packet::{Packet, PacketError, Transport, network_layer},
    tunnel::{self, Cover, Tunnel},
    verify::{self, Verdict, sum_of},
};

/// Two bytes of a frame that are to be others: their offset, and what, as a number in network order.
pub type Patch = (usize, u16);

/// A checksum that is to be completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hidden(Place);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Of TCP or UDP in a tunnel, and so of the tunnel's header.
    Inner(Packet, Option<Cover>),
    /// Of the tunnel's header alone.
    Tunnel(Cover),
    /// Of an SCTP packet from here to there.
    Sctp(usize, usize),
}

impl Hidden {
    /// Looks for it in the frame whose fragments are `frame`; `parsed` is what [`Packet::parse`] said of the first. Costs next
    /// to nothing where there is none.
    #[inline]
    #[must_use]
    pub fn find(frame: &[&[u8]], parsed: &Result<Packet, PacketError>) -> Option<Self> {
        let may_be = match parsed {
            Ok(packet) if packet.transport == Transport::Udp => {
                let start = frame.first().copied().unwrap_or_default();
                let port = udp::DESTINATION.number(start, packet.transport_start);
                port.is_some_and(tunnel::is_port)
            }
            Ok(_) => false,
            Err(PacketError::Protocol(protocol)) => {
                *protocol == sctp::PROTOCOL || tunnel::is_protocol(*protocol)
            }
            Err(_) => false,
        };
        if may_be {
            Self::search(frame, parsed.as_ref().ok())
        } else {
            None
        }
    }

    #[cold]
    fn search(frame: &[&[u8]], packet: Option<&Packet>) -> Option<Self> {
        let start = frame.first().copied().unwrap_or_default();
        let frame_len = frame.iter().map(|fragment| fragment.len()).sum();
        let tunnel = match packet {
            Some(packet) => Tunnel::in_udp(start, packet, frame_len),
            None => Tunnel::in_ip(start, frame_len),
        };
        let place = match tunnel {
            Some(Tunnel {
                packet: inner,
                cover,
            }) => match (inner, cover) {
                (Some(inner), cover) if is_partial(frame, &inner) => Place::Inner(inner, cover),
                // Of GRE: in UDP, that is no checksum, and one that is left undone is where the guest is asked for it.
                (_, Some(cover)) if cover.value == 0 => Place::Tunnel(cover),
                _ => return None,
            },
            None if packet.is_none() => sctp(start, frame_len)?,
            None => return None,
        };
        Some(Self(place))
    }

    /// What is to be changed, lower offsets first. Reads all that is summed up.
    #[must_use]
    pub fn complete(&self, frame: &[&[u8]]) -> [Option<Patch>; 2] {
        match self.0 {
            Place::Inner(inner, cover) => {
                let checksum = verify::complete(frame, &inner);
                let start = frame.first().copied().unwrap_or_default();
                let change = [!inner.checksum(start).unwrap_or_default(), checksum];
                let outer = cover.map(|cover| (cover.field, cover.sum(frame, change)));
                let inner = Some((inner.checksum_start(), checksum));
                match outer {
                    Some(outer) => [Some(outer), inner],
                    None => [inner, None],
                }
            }
            Place::Tunnel(cover) => [Some((cover.field, cover.sum(frame, [0; 2]))), None],
            Place::Sctp(start, end) => {
                let mut crc = Crc32c::new();
                verify::each(frame, start, end, |piece| crc.add(piece));
                let [a, b, c, d] = crc.finish().to_le_bytes();
                let field = start + sctp::CHECKSUM.0;
                [
                    Some((field, u16::from_be_bytes([a, b]))),
                    Some((field + 2, u16::from_be_bytes([c, d]))),
                ]
            }
        }
    }
}

impl Cover {
    /// What the checksum is to be when these words are added to what is there: all before it have even lengths.
    fn sum(&self, frame: &[&[u8]], change: [u16; 2]) -> u16 {
        let mut sum = Checksum::new();
        if let Some(packet) = &self.packet {
            let start = frame.first().copied().unwrap_or_default();
            sum.add_sum(packet.pseudo_header(start, self.end - self.start));
        }
        // Its own field counts as 0.
        for word in change.into_iter().chain([!self.value]) {
            sum.add_u16(word);
        }
        sum.add_sum(sum_of(frame, self.start, self.end));
        match self.packet {
            Some(_) => sum.finish_nonzero(),
            None => sum.finish(),
        }
    }
}

fn is_partial(frame: &[&[u8]], packet: &Packet) -> bool {
    verify::judge(frame, packet, false) == Verdict::Partial
}

/// An SCTP packet without a checksum.
fn sctp(start: &[u8], frame_len: usize) -> Option<Place> {
    let network = network_layer(start).ok()?;
    if network.protocol != sctp::PROTOCOL {
        return None;
    }
    let whole = (network.start + sctp::LEN..=frame_len).contains(&network.end);
    let checksum = sctp::CHECKSUM.get(start, network.start)?;
    (whole && checksum == [0; 4]).then_some(Place::Sctp(network.start, network.end))
}

#[cfg(test)]
#[path = "hidden_tests.rs"]
mod tests;
