//! One frame of up to 64 KiB into segments that fit the wire (TSO and USO in software).
//!
//! Done as Linux does it (`tcp_gso_segment`, `__udp_gso_segment`, `inet_gso_segment`): each segment has the headers of
//! the whole with its own lengths, IPv4 ID, TCP sequence number and checksums; FIN and PSH are on the last
//! one only, CWR on the first one only (RFC 3168, section 6.1.2).

use super::{
    super::backend::ChecksumRequest,
    Kind, MAX_HEADERS,
    checksum::Checksum,
    header::{ipv4, ipv6, tcp, udp},
    packet::{Network, Packet, PacketError, Transport, low_16},
};

/// Longest IP packet: its length field has 16 bits.
const MAX_IP: usize = 0xffff;
/// Fewest bytes of TCP payload in a segment: what Linux's smallest MSS (`tcp_min_snd_mss`, 48) leaves beside the
/// longest options. Less only makes many frames of few bytes.
const MIN_TCP_SIZE: u16 = 8;
/// Most datagrams of one frame: as Linux has it (`UDP_MAX_SEGMENTS`).
const MAX_DATAGRAMS: usize = 128;
/// Linux's internal mark for segments of different sizes (`GSO_BY_FRAGS`), which no driver may send.
const NOT_A_SIZE: u16 = 0xffff;

/// What the sender asks for (virtio 1.2, 5.1.6), as it says it. Nothing of it is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// What the segments are.
    pub kind: Kind,
    /// Bytes of payload in each segment but the last (`gso_size`).
    pub size: u16,
    /// Where the TCP or UDP header is said to begin (`csum_start`).
    pub checksum_start: usize,
    /// Where in it the checksum is said to be (`csum_offset`).
    pub checksum_offset: usize,
}

/// Why a frame can't be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// the headers are not understood
    #[error(transparent)]
    Packet(#[from] PacketError),
    /// the headers are others than was said
    #[error("the frame carries {found:?}, and is to be cut as {asked:?}")]
    Kind {
        /// What was asked for.
        asked: Kind,
        /// What is there.
        found: Kind,
    },
    /// a checksum elsewhere than in the TCP or UDP header
    #[error("the checksum is said to be elsewhere than in the header that was found")]
    ChecksumPlace,
    /// an impossible number of bytes for each segment
    #[error("segments of {0} bytes are impossible, or too small to be meant")]
    Size(u16),
    /// headers without payload
    #[error("there is nothing after the headers to be cut")]
    Empty,
    /// longer than an IP packet can be, or more datagrams than anybody sends
    #[error("the frame is longer than an IP packet can be, or has more than 128 datagrams")]
    TooLong,
}

/// A frame in the course of being cut: its headers, and how far it got. The payload stays where it is.
#[derive(Debug, Clone)]
pub struct Segmenter {
    /// Of the whole at first; fields that differ are written for each segment.
    headers: [u8; MAX_HEADERS],
    packet: Packet,
    /// Bytes of payload: all, in each segment but the last, and in the segments before the next one.
    payload: usize,
    size: usize,
    done: usize,
    /// Of the pseudo-header, of that and the TCP or UDP header, and of the IPv4 header, without the fields that
    /// differ.
    pseudo_sum: Checksum,
    transport_sum: Checksum,
    network_sum: Checksum,
    id: u16,
    sequence: u32,
    flags: u8,
}

impl Segmenter {
    /// For the frame of `frame_len` bytes that begins with `start`: all of it, or at least [`MAX_HEADERS`] bytes.
    ///
    /// # Errors
    /// The frame is not what the request says, or can't be cut so.
    pub fn new(start: &[u8], frame_len: usize, request: Request) -> Result<Self, SegmentError> {
        let start = start.get(..MAX_HEADERS).unwrap_or(start);
        let packet = Packet::parse(start)?;
        let payload = check(&packet, frame_len, request)?;
        let mut headers = [0; MAX_HEADERS];
        for (to, from) in headers.iter_mut().zip(start) {
            *to = *from;
        }
        let (network, transport) = (packet.network_start, packet.transport_start);
        let id = ipv4::ID.number(start, network).unwrap_or(0);
        let sequence = tcp::SEQUENCE.number(start, transport).unwrap_or(0);
        let flags = tcp::FLAGS.byte(start, transport).unwrap_or(0);
        clear(&mut headers, &packet);
        let sum_of = |from: usize, to: usize| {
            let mut sum = Checksum::new();
            sum.add(headers.get(from..to).unwrap_or_default());
            sum
        };
        let pseudo_sum = if packet.is_routed {
            // The driver knows the last destination, and has summed it up with the length of the whole.
            let mut sum = Checksum::new();
            sum.add_u16(packet.checksum(start).unwrap_or(0));
            sum.add_u16(!low_16(frame_len - transport));
            sum
        } else {
            packet.pseudo_header(start, 0)
        };
        let mut transport_sum = sum_of(transport, packet.payload_start);
        transport_sum.add_sum(pseudo_sum);
        Ok(Self {
            network_sum: sum_of(network, transport),
            pseudo_sum,
            transport_sum,
            headers,
            packet,
            payload,
            size: usize::from(request.size),
            done: 0,
            id,
            sequence,
            flags,
        })
    }

    /// Bytes of headers before the payload of each segment.
    #[must_use]
    pub fn header_len(&self) -> usize {
        self.packet.payload_start
    }

    /// Bytes of payload of the next segment; 0 after the last one.
    #[must_use]
    pub fn payload_len(&self) -> usize {
        self.size.min(self.payload - self.done)
    }

    /// Bytes of the longest segment with its headers.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.header_len() + self.size.min(self.payload)
    }

    /// Where in the whole frame the payload of the next segment begins.
    #[must_use]
    pub fn position(&self) -> usize {
        self.header_len() + self.done
    }

    /// Whether there is no further segment.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.done == self.payload
    }

    /// Passes over the next segment.
    pub fn advance(&mut self) {
        self.done += self.payload_len();
    }

    /// Where each segment's checksum is, if a card can be trusted to find the headers.
    #[must_use]
    pub fn checksum_request(&self) -> Option<ChecksumRequest> {
        let packet = self.packet;
        packet.is_plain().then(|| ChecksumRequest {
            start: low_16(packet.transport_start),
            offset: low_16(packet.checksum_offset()),
        })
    }

    /// The headers of the next segment, whose payload has the sum `payload`.
    pub fn header(&mut self, payload: Checksum) -> &[u8] {
        let mut sum = self.transport_sum;
        sum.add_sum(payload);
        let transport_len = self.write_fields(&mut sum);
        sum.add_u16(transport_len);
        let sum = match self.packet.transport {
            Transport::Tcp => sum.finish(),
            Transport::Udp => sum.finish_nonzero(),
        };
        self.with_checksum(sum)
    }

    /// The headers of the next segment, with the sum over the pseudo-header in place of the TCP or UDP checksum.
    pub fn partial_header(&mut self) -> &[u8] {
        let transport_len = self.write_fields(&mut Checksum::new());
        let mut sum = self.pseudo_sum;
        sum.add_u16(transport_len);
        self.with_checksum(sum.sum())
    }

    fn with_checksum(&mut self, checksum: u16) -> &[u8] {
        let (start, end) = (self.packet.transport_start, self.packet.payload_start);
        let field = match self.packet.transport {
            Transport::Tcp => tcp::CHECKSUM,
            Transport::Udp => udp::CHECKSUM,
        };
        field.set_number(&mut self.headers, start, checksum);
        self.headers.get(..end).unwrap_or_default()
    }

    /// Writes the next segment's fields other than the TCP or UDP checksum, and adds those of that header to `sum`.
    /// Returns the bytes from there on.
    fn write_fields(&mut self, sum: &mut Checksum) -> u16 {
        let len = self.header_len() + self.payload_len();
        self.write_network(len);
        let start = self.packet.transport_start;
        let transport_len = low_16(len - start);
        match self.packet.transport {
            Transport::Tcp => {
                let (sequence, flags) = self.sequence_and_flags();
                let [high, mid_high, mid_low, low] = sequence.to_be_bytes();
                sum.add_u16(u16::from_be_bytes([high, mid_high]));
                sum.add_u16(u16::from_be_bytes([mid_low, low]));
                sum.add_u16(flags.into());
                let headers = &mut self.headers;
                tcp::SEQUENCE.set_number(headers, start, sequence);
                tcp::FLAGS.set(headers, start, [flags]);
            }
            Transport::Udp => {
                sum.add_u16(transport_len);
                udp::LENGTH.set_number(&mut self.headers, start, transport_len);
            }
        }
        transport_len
    }

    fn sequence_and_flags(&self) -> (u32, u8) {
        let mut flags = self.flags;
        if self.done > 0 {
            flags &= !tcp::CWR;
        }
        if self.done + self.size < self.payload {
            flags &= !(tcp::FIN | tcp::PSH);
        }
        let [a, b, c, d, ..] = self.done.to_le_bytes();
        let passed = u32::from_le_bytes([a, b, c, d]);
        (self.sequence.wrapping_add(passed), flags)
    }

    /// The IP header's fields for a frame of `len` bytes.
    fn write_network(&mut self, len: usize) {
        let start = self.packet.network_start;
        let headers = &mut self.headers;
        match self.packet.network {
            Network::V4 => {
                let number = low_16(self.done.checked_div(self.size).unwrap_or(0));
                let (total, id) = (low_16(len - start), self.id.wrapping_add(number));
                let mut sum = self.network_sum;
                sum.add_u16(total);
                sum.add_u16(id);
                ipv4::TOTAL_LENGTH.set_number(headers, start, total);
                ipv4::ID.set_number(headers, start, id);
                ipv4::CHECKSUM.set_number(headers, start, sum.finish());
            }
            Network::V6 => {
                let len = low_16(len - start - ipv6::LEN);
                ipv6::PAYLOAD_LENGTH.set_number(headers, start, len);
            }
        }
    }
}

/// Sets the fields that differ from segment to segment to zero, as far as they are summed up.
fn clear(headers: &mut [u8], packet: &Packet) {
    let (network, transport) = (packet.network_start, packet.transport_start);
    if packet.network == Network::V4 {
        for field in [ipv4::TOTAL_LENGTH, ipv4::ID, ipv4::CHECKSUM] {
            field.set_number(headers, network, 0);
        }
    }
    match packet.transport {
        Transport::Tcp => {
            tcp::SEQUENCE.set_number(headers, transport, 0);
            tcp::FLAGS.set(headers, transport, [0]);
            tcp::CHECKSUM.set_number(headers, transport, 0);
        }
        Transport::Udp => {
            udp::LENGTH.set_number(headers, transport, 0);
            udp::CHECKSUM.set_number(headers, transport, 0);
        }
    }
}

/// Checks what was asked for against what is there; returns the bytes of payload.
fn check(packet: &Packet, frame_len: usize, request: Request) -> Result<usize, SegmentError> {
    let (asked, found) = (request.kind, packet.kind());
    if asked != found {
        return Err(SegmentError::Kind { asked, found });
    }
    let place = (packet.transport_start, packet.checksum_offset());
    if place != (request.checksum_start, request.checksum_offset) {
        return Err(SegmentError::ChecksumPlace);
    }
    let least = match packet.transport {
        Transport::Tcp => MIN_TCP_SIZE,
        Transport::Udp => 1,
    };
    if request.size < least || request.size == NOT_A_SIZE {
        return Err(SegmentError::Size(request.size));
    }
    if frame_len - packet.network_start.min(frame_len) > MAX_IP {
        return Err(SegmentError::TooLong);
    }
    // Not by the IP header's length: what is there counts.
    let payload = frame_len.saturating_sub(packet.payload_start);
    if payload == 0 {
        return Err(SegmentError::Empty);
    }
    let datagrams = payload.div_ceil(usize::from(request.size));
    if packet.transport == Transport::Udp && datagrams > MAX_DATAGRAMS {
        return Err(SegmentError::TooLong);
    }
    Ok(payload)
}

/// Writes the checksum of the IPv4 header from `start` to `end`.
pub(super) fn write_ipv4_checksum(headers: &mut [u8], start: usize, end: usize) {
    ipv4::CHECKSUM.set_number(headers, start, 0);
    let mut sum = Checksum::new();
    sum.add(headers.get(start..end).unwrap_or_default());
    ipv4::CHECKSUM.set_number(headers, start, sum.finish());
}

/// Cuts a whole frame: calls `segment` with the headers and the payload of each segment.
///
/// # Errors
/// As [`Segmenter::new`]; `segment` was not called then.
pub fn cut(
    frame: &[u8],
    request: Request,
    mut segment: impl FnMut(&[u8], &[u8]),
) -> Result<(), SegmentError> {
    let mut segmenter = Segmenter::new(frame, frame.len(), request)?;
    while !segmenter.is_done() {
        let (_, rest) = frame.split_at(segmenter.position());
        let (payload, _) = rest.split_at(segmenter.payload_len());
        let mut sum = Checksum::new();
        sum.add(payload);
        segment(segmenter.header(sum), payload);
        segmenter.advance();
    }
    Ok(())
}

#[cfg(test)]
#[path = "segment_tests.rs"]
pub(super) mod tests;
