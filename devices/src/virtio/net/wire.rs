//! The header before every frame in guest memory (virtio 1.2, 5.1.6), by named offsets.

use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_HDR_F_DATA_VALID, VIRTIO_NET_HDR_F_NEEDS_CSUM,
    VIRTIO_NET_HDR_GSO_ECN, VIRTIO_NET_HDR_GSO_NONE, VIRTIO_NET_HDR_GSO_TCPV4,
    VIRTIO_NET_HDR_GSO_TCPV6, VIRTIO_NET_HDR_GSO_UDP_L4,
};

use super::{
    offload::{Kind, coalesce::Coalesced, segment::Request},
    offloads::{CSUM, HOST_ECN, HOST_TSO4, HOST_TSO6, HOST_USO},
};
use crate::virtio::queue::VERSION_1;

/// Feature bit: a received frame may be spread over several buffers.
pub(super) const MRG_RXBUF: u64 = 1 << VIRTIO_NET_F_MRG_RXBUF;

/// Bytes of an Ethernet header: a frame has at least these.
pub(super) const ETHERNET_HEADER: usize = 14;

/// An Ethernet address.
pub(super) type MacAddress = [u8; 6];

/// Whether it can be a station's own: not a group's, not nobody's.
pub(super) fn is_station(mac: MacAddress) -> bool {
    mac[0] & 1 == 0 && mac != [0; 6]
}

/// Offsets in struct virtio_net_hdr.
mod field {
    pub(super) const FLAGS: usize = 0;
    pub(super) const GSO_TYPE: usize = 1;
    pub(super) const HDR_LEN: usize = 2;
    pub(super) const GSO_SIZE: usize = 4;
    pub(super) const CSUM_START: usize = 6;
    pub(super) const CSUM_OFFSET: usize = 8;
    pub(super) const NUM_BUFFERS: usize = 10;
    /// Length of the part that every layout has; `num_buffers` follows.
    pub(super) const COMMON_END: usize = 10;
}

const NEEDS_CSUM: u8 = byte(VIRTIO_NET_HDR_F_NEEDS_CSUM);
const DATA_VALID: u8 = byte(VIRTIO_NET_HDR_F_DATA_VALID);
const GSO_NONE: u8 = byte(VIRTIO_NET_HDR_GSO_NONE);
const GSO_TCPV4: u8 = byte(VIRTIO_NET_HDR_GSO_TCPV4);
const GSO_TCPV6: u8 = byte(VIRTIO_NET_HDR_GSO_TCPV6);
const GSO_UDP_L4: u8 = byte(VIRTIO_NET_HDR_GSO_UDP_L4);
const GSO_ECN: u8 = byte(VIRTIO_NET_HDR_GSO_ECN);

const fn byte(value: u32) -> u8 {
    let [low, rest @ ..] = value.to_le_bytes();
    assert!(matches!(rest, [0, 0, 0]));
    low
}

/// Length of the longest layout that can be negotiated here.
pub(super) const MAX_HEADER: usize = field::NUM_BUFFERS + 2;

/// Length of the header under `features`, in both directions. The one place that knows it.
pub(super) const fn header_len(features: u64) -> usize {
    if features & (VERSION_1 | MRG_RXBUF) != 0 {
        MAX_HEADER
    } else {
        field::COMMON_END
    }
}

/// The header of a received frame (5.1.6.4.1), but for the number of its buffers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct RxHeader {
    flags: u8,
    gso_type: u8,
    hdr_len: u16,
    gso_size: u16,
    csum_start: u16,
    csum_offset: u16,
}

impl RxHeader {
    /// The checksum was found right.
    pub(super) const VALID: Self = Self {
        flags: DATA_VALID,
        gso_type: GSO_NONE,
        hdr_len: 0,
        gso_size: 0,
        csum_start: 0,
        csum_offset: 0,
    };

    /// The checksum is to be completed from `start` to the end, into the field at `offset` from there.
    pub(super) fn partial(start: usize, offset: usize) -> Self {
        Self {
            flags: NEEDS_CSUM,
            csum_start: number(start),
            csum_offset: number(offset),
            ..Self::default()
        }
    }

    /// A frame of several segments. Its checksum is partial.
    pub(super) fn coalesced(whole: &Coalesced<'_>) -> Self {
        let kind = match whole.kind {
            Kind::Tcp4 => GSO_TCPV4,
            Kind::Tcp6 => GSO_TCPV6,
            Kind::Udp => GSO_UDP_L4,
        };
        let (start, offset) = whole.checksum;
        Self {
            gso_type: if whole.ecn { kind | GSO_ECN } else { kind },
            hdr_len: number(whole.headers.len()),
            gso_size: number(whole.size),
            ..Self::partial(start, offset)
        }
    }

    /// The bytes, for a frame that fills `buffers` chains.
    pub(super) fn to_bytes(self, buffers: u16) -> [u8; MAX_HEADER] {
        let mut header = [0; MAX_HEADER];
        header[field::FLAGS] = self.flags;
        header[field::GSO_TYPE] = self.gso_type;
        for (at, value) in [
            (field::HDR_LEN, self.hdr_len),
            (field::GSO_SIZE, self.gso_size),
            (field::CSUM_START, self.csum_start),
            (field::CSUM_OFFSET, self.csum_offset),
            (field::NUM_BUFFERS, buffers),
        ] {
            header[at..at + 2].copy_from_slice(&value.to_le_bytes());
        }
        header
    }
}

/// All of these are offsets in the headers of a frame, or a segment's size.
fn number(value: usize) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}

/// What a driver asks for with a frame to send: a snapshot, so what was checked is what is used.
#[derive(Debug, Clone, Copy)]
pub(super) struct TxHeader([u8; Self::LEN]);

/// What is to be done with a frame before it is fit for the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TxWork {
    Nothing,
    /// Sum up the bytes from `start` on, and put the checksum at `start + offset`.
    Checksum {
        start: usize,
        offset: usize,
    },
    /// Cut it into segments, each with its checksum.
    Segments(Request),
}

impl TxHeader {
    /// Bytes that [`new`](Self::new) needs; the rest of the header means nothing here.
    pub(super) const LEN: usize = field::COMMON_END;

    pub(super) fn new(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    fn number(self, at: usize) -> u16 {
        u16::from_le_bytes([self.0[at], self.0[at + 1]])
    }

    /// What the driver asks for; `None` if it may not, by the negotiated features or by 5.1.6.2.1, or asks
    /// for what does not exist: the frame would be wrong without it. `hdr_len` is not looked at: the headers
    /// tell it.
    pub(super) fn work(self, features: u64) -> Option<TxWork> {
        let partial = self.0[field::FLAGS] & NEEDS_CSUM != 0;
        let gso_type = self.0[field::GSO_TYPE];
        let start = usize::from(self.number(field::CSUM_START));
        let offset = usize::from(self.number(field::CSUM_OFFSET));
        if !partial {
            return (gso_type == GSO_NONE).then_some(TxWork::Nothing);
        }
        if gso_type == GSO_NONE {
            let offered = features & CSUM != 0;
            return offered.then_some(TxWork::Checksum { start, offset });
        }
        let (kind, needed) = match gso_type & !GSO_ECN {
            GSO_TCPV4 => (Kind::Tcp4, HOST_TSO4),
            GSO_TCPV6 => (Kind::Tcp6, HOST_TSO6),
            GSO_UDP_L4 => (Kind::Udp, HOST_USO),
            _ => return None,
        };
        let congested = gso_type & GSO_ECN != 0;
        if congested && (kind == Kind::Udp || features & HOST_ECN == 0) {
            return None;
        }
        (features & needed != 0).then_some(TxWork::Segments(Request {
            kind,
            size: self.number(field::GSO_SIZE),
            checksum_start: start,
            checksum_offset: offset,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u64 = u64::MAX;

    #[test]
    fn every_feature_set_has_one_header_size() {
        for (features, len) in [
            (0, 10),
            (MRG_RXBUF, 12),
            (VERSION_1, 12),
            (VERSION_1 | MRG_RXBUF, 12),
        ] {
            assert_eq!(header_len(features), len);
        }
        assert!(header_len(u64::MAX) <= MAX_HEADER);
        assert!(header_len(0) >= TxHeader::LEN);
    }

    #[test]
    fn received_frames_say_what_was_done() {
        let plain = RxHeader::default().to_bytes(0x0102);
        assert_eq!(plain, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 1]);
        let valid = RxHeader::VALID.to_bytes(1);
        assert_eq!(valid, [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
        let partial = RxHeader::partial(34, 16).to_bytes(1);
        assert_eq!(partial, [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 1, 0]);
        for (kind, ecn, gso_type) in [
            (Kind::Tcp4, false, 1),
            (Kind::Tcp4, true, 0x81),
            (Kind::Tcp6, false, 4),
            (Kind::Udp, false, 5),
        ] {
            let whole = Coalesced {
                headers: &[0; 66],
                kind,
                size: 1448,
                ecn,
                checksum: (34, 16),
            };
            let bytes = RxHeader::coalesced(&whole).to_bytes(3);
            assert_eq!(bytes, [1, gso_type, 66, 0, 0xa8, 5, 34, 0, 16, 0, 3, 0]);
        }
    }

    fn work(flags: u8, gso_type: u8, features: u64) -> Option<TxWork> {
        let bytes = [flags, gso_type, 0xee, 0xee, 0xa8, 5, 34, 0, 16, 0];
        TxHeader::new(bytes).work(features)
    }

    /// 17: unknown `gso_type`s, and those without a checksum to complete.
    #[test]
    fn only_what_exists_can_be_asked_for() {
        for gso_type in 0..=0xff {
            let known = [0, 1, 4, 5, 0x81, 0x84].contains(&gso_type);
            assert_eq!(work(1, gso_type, ALL).is_some(), known, "{gso_type:#x}");
            assert_eq!(
                work(0, gso_type, ALL).is_some(),
                gso_type == 0,
                "{gso_type:#x}"
            );
        }
        assert_eq!(
            work(2, 0, ALL),
            Some(TxWork::Nothing),
            "a flag that means nothing here"
        );
        let (start, offset) = (34, 16);
        assert_eq!(work(1, 0, ALL), Some(TxWork::Checksum { start, offset }));
        assert_eq!(
            work(1, 0x84, ALL),
            Some(TxWork::Segments(Request {
                kind: Kind::Tcp6,
                size: 1448,
                checksum_start: 34,
                checksum_offset: 16,
            }))
        );
    }

    #[test]
    fn only_what_was_negotiated_can_be_asked_for() {
        for (flags, gso_type, needed) in [
            (1, 0, CSUM),
            (1, 1, HOST_TSO4),
            (1, 4, HOST_TSO6),
            (1, 5, HOST_USO),
            (1, 0x81, HOST_TSO4 | HOST_ECN),
            (1, 0x84, HOST_TSO6 | HOST_ECN),
        ] {
            assert!(work(flags, gso_type, needed).is_some(), "{gso_type:#x}");
            for bit in (0..64).filter(|bit| needed >> bit & 1 == 1) {
                assert_eq!(
                    work(flags, gso_type, !(1 << bit)),
                    None,
                    "{gso_type:#x} without {bit}"
                );
            }
        }
        assert_eq!(work(0, 0, 0), Some(TxWork::Nothing));
    }
}
