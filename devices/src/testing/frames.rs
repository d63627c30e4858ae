//! TCP and UDP frames for tests, built and checked without any code of the devices.

use crate::virtio::net::offload::{Kind, segment::Request};

/// Ethernet addresses, the same in all frames.
const ADDRESSES: [u8; 12] = [0x52, 0x54, 0, 0, 0, 1, 0x52, 0x54, 0, 0, 0, 2];

/// A frame to be built. Start from one of the constructors and change what is to be otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameSpec {
    /// VLAN tags, outermost first: EtherType and tag.
    pub tags: Vec<(u16, u16)>,
    /// IPv6 instead of IPv4.
    pub v6: bool,
    /// UDP instead of TCP.
    pub udp: bool,
    /// IPv4 options: a multiple of 4 bytes.
    pub ip_options: Vec<u8>,
    /// IPv6 extension headers: number and bytes after the first two; 6 more than a multiple of 8.
    pub extensions: Vec<(u8, Vec<u8>)>,
    /// IPv4 identification.
    pub id: u16,
    /// IPv4 flags and fragment offset.
    pub fragment: u16,
    /// Source and destination port.
    pub ports: [u16; 2],
    /// TCP sequence number.
    pub sequence: u32,
    /// TCP acknowledgment number.
    pub acknowledgment: u32,
    /// TCP flags.
    pub flags: u8,
    /// TCP options: a multiple of 4 bytes.
    pub tcp_options: Vec<u8>,
    /// What follows.
    pub payload: Vec<u8>,
}

impl FrameSpec {
    /// TCP with ACK over IPv4 with "don't fragment", or over IPv6.
    pub fn tcp(v6: bool, payload: Vec<u8>) -> Self {
        Self {
            tags: Vec::new(),
            v6,
            udp: false,
            ip_options: Vec::new(),
            extensions: Vec::new(),
            id: 0x1234,
            fragment: 0x4000,
            ports: [40_000, 5201],
            sequence: 0xffff_f000,
            acknowledgment: 0x0102_0304,
            flags: 0x10,
            tcp_options: Vec::new(),
            payload,
        }
    }

    /// A datagram over IPv4, or over IPv6.
    pub fn udp(v6: bool, payload: Vec<u8>) -> Self {
        Self {
            udp: true,
            ..Self::tcp(v6, payload)
        }
    }

    /// Bytes of the Ethernet header with its tags.
    pub fn network_start(&self) -> usize {
        14 + 4 * self.tags.len()
    }

    /// Where the TCP or UDP header begins.
    pub fn transport_start(&self) -> usize {
        let extensions: usize = self
            .extensions
            .iter()
            .map(|(_, bytes)| bytes.len() + 2)
            .sum();
        let network = if self.v6 {
            40 + extensions
        } else {
            20 + self.ip_options.len()
        };
        self.network_start() + network
    }

    /// Where the payload begins.
    pub fn payload_start(&self) -> usize {
        let len = if self.udp {
            8
        } else {
            20 + self.tcp_options.len()
        };
        self.transport_start() + len
    }

    /// Offset of the checksum in the TCP or UDP header.
    pub fn checksum_offset(&self) -> usize {
        if self.udp { 6 } else { 16 }
    }

    /// What a driver that tells the truth asks for when the frame is to be cut into `size` bytes.
    pub fn request(&self, size: u16) -> Request {
        let kind = match (self.udp, self.v6) {
            (true, _) => Kind::Udp,
            (false, false) => Kind::Tcp4,
            (false, true) => Kind::Tcp6,
        };
        Request {
            kind,
            size,
            checksum_start: self.transport_start(),
            checksum_offset: self.checksum_offset(),
        }
    }

    /// The frame with right checksums.
    pub fn build(&self) -> Vec<u8> {
        self.with_checksum(false)
    }

    /// The frame with the sum over the pseudo-header in place of the TCP or UDP checksum.
    pub fn build_partial(&self) -> Vec<u8> {
        self.with_checksum(true)
    }

    fn with_checksum(&self, partial: bool) -> Vec<u8> {
        let mut frame = ADDRESSES.to_vec();
        for (ether_type, tag) in &self.tags {
            frame.extend(ether_type.to_be_bytes());
            frame.extend(tag.to_be_bytes());
        }
        let transport = self.transport();
        if self.v6 {
            self.push_v6(&mut frame, transport.len());
        } else {
            self.push_v4(&mut frame, transport.len());
        }
        let start = frame.len();
        frame.extend(transport);
        let pseudo = pseudo_header(&frame, self.network_start(), start);
        let at = start + self.checksum_offset();
        let sum = if partial {
            ones_sum(&pseudo)
        } else {
            match !ones_sum(&[&pseudo[..], &frame[start..]].concat()) {
                0 if self.udp => 0xffff,
                sum => sum,
            }
        };
        frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        frame
    }

    fn push_v4(&self, frame: &mut Vec<u8>, transport: usize) {
        let len = 20 + self.ip_options.len();
        let total = u16::try_from(len + transport).unwrap_or(0);
        let mut header = vec![
            0x40 | u8::try_from(len / 4).expect("40 bytes of options"),
            0,
        ];
        for number in [total, self.id, self.fragment] {
            header.extend(number.to_be_bytes());
        }
        header.extend([64, if self.udp { 17 } else { 6 }, 0, 0]);
        header.extend([10, 78, 0, 1, 10, 78, 0, 2]);
        header.extend(&self.ip_options);
        let sum = !ones_sum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        frame.extend([0x08, 0x00]);
        frame.extend(header);
    }

    fn push_v6(&self, frame: &mut Vec<u8>, transport: usize) {
        let extensions: usize = self
            .extensions
            .iter()
            .map(|(_, bytes)| bytes.len() + 2)
            .sum();
        let total = u16::try_from(extensions + transport).unwrap_or(0);
        let last = if self.udp { 17 } else { 6 };
        let mut numbers = self
            .extensions
            .iter()
            .map(|(number, _)| *number)
            .chain([last]);
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend(total.to_be_bytes());
        frame.extend([numbers.next().unwrap_or(last), 64]);
        for host in [1, 2] {
            frame.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]);
        }
        for (_, bytes) in &self.extensions {
            let words = u8::try_from((bytes.len() + 2) / 8 - 1).expect("2048 bytes at most");
            frame.extend([numbers.next().unwrap_or(last), words]);
            frame.extend(bytes);
        }
    }

    fn transport(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self
            .ports
            .iter()
            .flat_map(|port| port.to_be_bytes())
            .collect();
        if self.udp {
            let len = u16::try_from(8 + self.payload.len()).unwrap_or(0);
            bytes.extend(len.to_be_bytes());
            bytes.extend([0, 0]);
        } else {
            let words =
                u8::try_from((20 + self.tcp_options.len()) / 4).expect("40 bytes of options");
            bytes.extend(self.sequence.to_be_bytes());
            bytes.extend(self.acknowledgment.to_be_bytes());
            bytes.extend([words << 4, self.flags, 0x20, 0, 0, 0, 0, 0]);
            bytes.extend(&self.tcp_options);
        }
        bytes.extend(&self.payload);
        bytes
    }
}

/// The ones' complement sum of 16-bit words, one by one (RFC 1071).
pub fn ones_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(u16::from_be_bytes([pair[0], low]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).expect("carries were added")
}

/// The pseudo-header of the TCP or UDP packet in `frame`, by the lengths that are there.
pub fn pseudo_header(frame: &[u8], network: usize, transport: usize) -> Vec<u8> {
    let v6 = frame[network] >> 4 == 6;
    let (addresses, protocol) = if v6 {
        let mut protocol = frame[network + 6];
        let mut at = network + 40;
        while at < transport {
            protocol = frame[at];
            at += (usize::from(frame[at + 1]) + 1) * 8;
        }
        (network + 8..network + 40, protocol)
    } else {
        (network + 12..network + 20, frame[network + 9])
    };
    let len = u32::try_from(frame.len() - transport).expect("a frame");
    let mut bytes = frame[addresses].to_vec();
    bytes.extend(len.to_be_bytes());
    bytes.extend([0, 0, 0, protocol]);
    bytes
}

/// Asserts that all checksums of a frame without padding, and its IP and UDP lengths, are right.
///
/// # Panics
/// One is not.
pub fn assert_right(frame: &[u8], network: usize, transport: usize) {
    let number = |at: usize| usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    if frame[network] >> 4 == 6 {
        assert_eq!(
            number(network + 4),
            frame.len() - network - 40,
            "IPv6 length"
        );
    } else {
        assert_eq!(number(network + 2), frame.len() - network, "IPv4 length");
        assert_eq!(
            ones_sum(&frame[network..transport]),
            0xffff,
            "IPv4 checksum"
        );
    }
    let pseudo = pseudo_header(frame, network, transport);
    if pseudo.last() == Some(&17) {
        assert_eq!(number(transport + 4), frame.len() - transport, "UDP length");
    }
    let sum = ones_sum(&[&pseudo[..], &frame[transport..]].concat());
    assert_eq!(sum, 0xffff, "checksum");
}
