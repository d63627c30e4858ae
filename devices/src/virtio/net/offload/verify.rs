//! The checksum of a received frame: right, wrong, or left to be done.
//!
//! A program on this host that sends over a veth pair leaves the checksum to hardware: the frame carries the
//! sum over the pseudo-header only (`CHECKSUM_PARTIAL`), and AF_XDP does not tell. That sum is recognised by its value.
//! A frame of the wire has that value by chance once in 2^16, which is as often as the checksum itself
//! fails to notice an error.

use super::{
    checksum::Checksum,
    header::udp,
    packet::{Packet, Transport},
};

/// What a frame's TCP or UDP checksum is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Over the pseudo-header only.
    Partial,
    /// Over all of it, and right.
    Right,
    /// Over all of it, and wrong.
    Wrong,
    /// There is none, or the headers contradict each other: the receiver judges.
    Unknown,
}

/// Whether the lengths in the headers agree, so that it is known what the checksum is over.
pub(super) fn is_whole(start: &[u8], packet: &Packet, frame_len: usize) -> bool {
    let len = packet.end.saturating_sub(packet.transport_start);
    let own = match packet.transport {
        Transport::Tcp => true,
        Transport::Udp => {
            let stated = udp::LENGTH.number(start, packet.transport_start);
            stated.map(usize::from) == Some(len)
        }
    };
    own && !packet.is_routed && (packet.payload_start..=frame_len).contains(&packet.end)
}

/// Judges the frame whose fragments are `frame`; the headers of `packet` are in the first. The payload is read
/// only if `thorough`: without that, what is not partial is unknown.
#[must_use]
pub fn judge(frame: &[&[u8]], packet: &Packet, thorough: bool) -> Verdict {
    let start = frame.first().copied().unwrap_or_default();
    let frame_len = frame.iter().map(|fragment| fragment.len()).sum();
    let Some(checksum) = packet.checksum(start) else {
        return Verdict::Unknown;
    };
    if !is_whole(start, packet, frame_len) {
        return Verdict::Unknown;
    }
    let pseudo = packet.pseudo_header(start, packet.end - packet.transport_start);
    if checksum == pseudo.sum() {
        return Verdict::Partial;
    }
    // RFC 768: no checksum.
    let none = packet.transport == Transport::Udp && checksum == 0;
    if none || !thorough {
        return Verdict::Unknown;
    }
    let mut sum = pseudo;
    sum.add_sum(sum_of(frame, packet.transport_start, packet.end));
    if sum.finish() == 0 {
        Verdict::Right
    } else {
        Verdict::Wrong
    }
}

/// The checksum that a frame with a partial one is to have.
#[must_use]
pub fn complete(frame: &[&[u8]], packet: &Packet) -> u16 {
    // The partial one is among what is summed up.
    sum_of(frame, packet.transport_start, packet.end).finish_nonzero()
}

/// The sum of the bytes from `start` to `end` of a frame in fragments.
#[must_use]
pub fn sum_of(frame: &[&[u8]], start: usize, end: usize) -> Checksum {
    let mut sum = Checksum::new();
    each(frame, start, end, |piece| sum.add(piece));
    sum
}

/// Hands out the bytes from `start` to `end` of a frame in fragments, piece by piece.
pub(super) fn each(frame: &[&[u8]], start: usize, end: usize, mut piece: impl FnMut(&[u8])) {
    let mut offset = 0usize;
    for fragment in frame {
        let from = start.saturating_sub(offset).min(fragment.len());
        let to = end.saturating_sub(offset).clamp(from, fragment.len());
        piece(fragment.get(from..to).unwrap_or_default());
        offset += fragment.len();
    }
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
