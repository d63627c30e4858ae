//! What is sent besides the frames that come back: to nobody, of bytes that are known.

use guest::{memory::Region, net::HEADER};

use crate::{exchange::length, rig::Rig};

/// The byte of which all is made that says nothing else.
pub(crate) const FILL: u8 = 0x5a;
/// For local experiments (IEEE 802, 9.2.3.4), the other one.
const ETHERTYPE: [u8; 2] = [0x88, 0xb6];
const IPV4: [u8; 2] = [8, 0];
const IPV6: [u8; 2] = [0x86, 0xdd];
const ARP: [u8; 2] = [8, 6];
const VLAN: [u8; 2] = [0x81, 0];
/// Offset of the EtherType.
const TYPE: usize = 12;
/// Where the network header begins, and in IPv4 the transport header.
pub(crate) const NETWORK: usize = 14;
pub(crate) const TRANSPORT: usize = 34;
/// Bytes of all headers of TCP over IPv4.
pub(crate) const HEADERS: usize = 54;

/// Flags and kinds of segmentation of the virtio-net header (5.1.6).
pub(crate) const NEEDS_CSUM: u8 = 1;
pub(crate) const TCPV4: u8 = 1;

/// The header before a frame (5.1.6), as VERSION_1 has it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Header {
    pub(crate) flags: u8,
    pub(crate) gso_type: u8,
    pub(crate) hdr_len: u16,
    pub(crate) gso_size: u16,
    pub(crate) csum_start: u16,
    pub(crate) csum_offset: u16,
}

impl Header {
    /// What makes sense for [`write_tcp`].
    pub(crate) const TCP: Self = Self {
        flags: NEEDS_CSUM,
        gso_type: TCPV4,
        hdr_len: 54,
        gso_size: 1000,
        csum_start: 34,
        csum_offset: 16,
    };

    /// Writes it to the start of `memory`.
    pub(crate) fn write(self, memory: &Region) {
        memory.write(0, &[self.flags, self.gso_type]);
        let words = [
            self.hdr_len,
            self.gso_size,
            self.csum_start,
            self.csum_offset,
            0,
        ];
        for (at, word) in (2..).step_by(2).zip(words) {
            memory.write(at, &word.to_le_bytes());
        }
    }
}

/// Writes a header of zeros and a frame of `len` bytes that the far end does not send back.
pub(crate) fn write_plain(memory: &Region, mac: [u8; 6], len: usize) {
    Header::default().write(memory);
    memory.fill(HEADER, len, FILL);
    memory.write(HEADER, &[0xff; 6]);
    memory.write(HEADER + 6, &mac);
    memory.write(HEADER + TYPE, &ETHERTYPE);
}

/// Writes a frame of TCP over IPv4 with `payload` bytes, its checksum left to the device; its length.
pub(crate) fn write_tcp(memory: &Region, mac: [u8; 6], payload: usize) -> usize {
    let len = HEADERS + payload;
    write_plain(memory, mac, len);
    memory.write(HEADER + TYPE, &IPV4);
    let [high, low] = total(len).to_be_bytes();
    let ip = [
        0x45, 0, high, low, 0, 0, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2,
    ];
    memory.write(HEADER + NETWORK, &ip);
    let tcp = [
        0, 1, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0,
    ];
    memory.write(HEADER + TRANSPORT, &tcp);
    len
}

fn total(len: usize) -> u16 {
    u16::try_from(len - NETWORK).unwrap_or(u16::MAX)
}

/// Changes of such a frame that leave nothing to be segmented.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Change {
    /// IHL of 4.
    ShortNetwork,
    /// A data offset of 4.
    ShortTransport,
    /// IHL past the end.
    LongNetwork,
    /// ARP.
    Arp,
    /// VLAN tags, and nothing else.
    Vlans,
    /// IPv6 extension headers, and nothing else.
    Extensions,
}

impl Change {
    pub(crate) const ALL: [Self; 6] = [
        Self::ShortNetwork,
        Self::ShortTransport,
        Self::LongNetwork,
        Self::Arp,
        Self::Vlans,
        Self::Extensions,
    ];

    /// Makes it in a frame of `len` bytes.
    pub(crate) fn make(self, memory: &Region, len: usize) {
        let network = HEADER + NETWORK;
        match self {
            Self::ShortNetwork => memory.write(network, &[0x44]),
            Self::ShortTransport => memory.write(HEADER + TRANSPORT + 12, &[0x40]),
            Self::LongNetwork => memory.write(network, &[0x4f]),
            Self::Arp => memory.write(HEADER + TYPE, &ARP),
            Self::Vlans => {
                for at in (TYPE..len - 4).step_by(4) {
                    memory.write(HEADER + at, &VLAN);
                }
            }
            Self::Extensions => {
                memory.write(HEADER + TYPE, &IPV6);
                // Hop-by-hop options (0), each followed by another, 8 bytes each.
                memory.fill(network, len - NETWORK, 0);
                memory.write(network, &[0x60]);
            }
        }
    }
}

impl Rig {
    /// Sends `len` bytes, header and frame, as they lie, in one buffer.
    pub(crate) fn send_bytes(&mut self, len: usize) {
        let address = self.send.address();
        self.first.tx.describe(0, address, length(len), false);
        self.offer(0);
        self.wait_sent();
    }

    /// Sends a frame of TCP with this header.
    pub(crate) fn send_tcp(&mut self, header: Header, payload: usize, change: Option<Change>) {
        let len = write_tcp(&self.send, self.mac, payload);
        if let Some(change) = change {
            change.make(&self.send, len);
        }
        header.write(&self.send);
        self.send_bytes(HEADER + len);
    }
}
