//! The header before every frame in guest memory (virtio 1.2, 5.1.6), by named offsets.

use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_NONE,
};

use crate::virtio::queue::VERSION_1;

/// Feature bit: a received frame may be spread over several buffers.
pub(super) const MRG_RXBUF: u64 = 1 << VIRTIO_NET_F_MRG_RXBUF;

/// Bytes of an Ethernet header: a frame has at least these.
pub(super) const ETHERNET_HEADER: usize = 14;

/// Offsets in struct virtio_net_hdr.
mod field {
    pub(super) const FLAGS: usize = 0;
    pub(super) const GSO_TYPE: usize = 1;
    pub(super) const NUM_BUFFERS: usize = 10;
    /// Length of the part that every layout has; `num_buffers` follows.
    pub(super) const COMMON_END: usize = 10;
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

/// The header of a received frame that fills `buffers` chains: no offload is negotiated, so all
/// else is zero (5.1.6.4.1).
pub(super) fn rx_header(buffers: u16) -> [u8; MAX_HEADER] {
    let [low, high] = buffers.to_le_bytes();
    let mut header = [0; MAX_HEADER];
    header[field::NUM_BUFFERS] = low;
    header[field::NUM_BUFFERS + 1] = high;
    header
}

/// What a driver asks for with a frame to send: a snapshot, so what was checked is what is used.
#[derive(Debug, Clone, Copy)]
pub(super) struct TxHeader {
    flags: u8,
    gso_type: u8,
}

impl TxHeader {
    /// Bytes that [`new`](Self::new) needs; the rest of the header means nothing here.
    pub(super) const LEN: usize = field::COMMON_END;

    pub(super) fn new(bytes: [u8; Self::LEN]) -> Self {
        Self {
            flags: bytes[field::FLAGS],
            gso_type: bytes[field::GSO_TYPE],
        }
    }

    /// Whether the frame needs work on its bytes before it is fit for the wire. That was not
    /// offered, and a frame sent without it would be wrong (5.1.6.2.1 forbids to ask).
    pub(super) fn asks_for_offload(self) -> bool {
        u32::from(self.flags) & VIRTIO_NET_HDR_F_NEEDS_CSUM != 0
            || u32::from(self.gso_type) != VIRTIO_NET_HDR_GSO_NONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn num_buffers_is_little_endian_at_the_end() {
        assert_eq!(rx_header(0x0102), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 1]);
    }

    #[test]
    fn only_plain_frames_need_no_offload() {
        for (flags, gso_type, asks) in [
            (0, 0, false),
            (1, 0, true),
            (0, 1, true),
            (0, 0xff, true),
            (2, 0, false),
        ] {
            let mut bytes = [0xee; TxHeader::LEN];
            bytes[..2].copy_from_slice(&[flags, gso_type]);
            assert_eq!(
                TxHeader::new(bytes).asks_for_offload(),
                asks,
                "{flags} {gso_type}"
            );
        }
    }
}
