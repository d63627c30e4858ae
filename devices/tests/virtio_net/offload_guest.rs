//! Frames with offloads, as a guest's driver sends and receives them.

use devices::{
    testing::{Buffer, frames::FrameSpec},
    virtio::net::NetBackend,
};

use crate::guest::*;

/// Feature bits of virtio 1.2, 5.1.3.
pub(crate) const CSUM: u64 = 1 << 0;
pub(crate) const GUEST_CSUM: u64 = 1 << 1;
pub(crate) const GUEST_TSO4: u64 = 1 << 7;
pub(crate) const GUEST_ECN: u64 = 1 << 9;
pub(crate) const HOST_TSO4: u64 = 1 << 11;
pub(crate) const HOST_TSO6: u64 = 1 << 12;
pub(crate) const HOST_ECN: u64 = 1 << 13;
pub(crate) const HOST_USO: u64 = 1 << 56;

/// The header before a frame (5.1.6).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct NetHeader {
    pub(crate) flags: u8,
    pub(crate) gso_type: u8,
    pub(crate) hdr_len: u16,
    pub(crate) gso_size: u16,
    pub(crate) csum_start: u16,
    pub(crate) csum_offset: u16,
    pub(crate) num_buffers: u16,
}

pub(crate) const NEEDS_CSUM: u8 = 1;
pub(crate) const DATA_VALID: u8 = 2;

fn number(value: usize) -> u16 {
    u16::try_from(value).unwrap()
}

impl NetHeader {
    /// The checksum of this frame is to be completed.
    pub(crate) fn partial(spec: &FrameSpec) -> Self {
        Self {
            flags: NEEDS_CSUM,
            csum_start: number(spec.transport_start()),
            csum_offset: number(spec.checksum_offset()),
            ..Self::default()
        }
    }

    /// This frame is, or is to be, of segments of so many bytes.
    pub(crate) fn segments(spec: &FrameSpec, size: u16) -> Self {
        Self {
            gso_type: match (spec.udp, spec.v6) {
                (true, _) => 5,
                (false, false) => 1,
                (false, true) => 4,
            },
            hdr_len: number(spec.payload_start()),
            gso_size: size,
            ..Self::partial(spec)
        }
    }

    pub(crate) fn to_bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        (bytes[0], bytes[1]) = (self.flags, self.gso_type);
        let numbers = [
            self.hdr_len,
            self.gso_size,
            self.csum_start,
            self.csum_offset,
            self.num_buffers,
        ];
        for (field, number) in bytes[2..].chunks_mut(2).zip(numbers) {
            field.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Self {
        let number = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        Self {
            flags: bytes[0],
            gso_type: bytes[1],
            hdr_len: number(2),
            gso_size: number(4),
            csum_start: number(6),
            csum_offset: number(8),
            num_buffers: number(10),
        }
    }
}

/// What each segment of `spec` is to be on the wire: built, not cut.
pub(crate) fn segments(spec: &FrameSpec, size: usize) -> Vec<Vec<u8>> {
    let count = spec.payload.len().div_ceil(size);
    let pieces = spec.payload.chunks(size).enumerate();
    let one = |(at, piece): (usize, &[u8])| {
        let mut one = spec.clone();
        one.payload = piece.to_vec();
        one.id = spec.id.wrapping_add(number(at));
        one.sequence = spec
            .sequence
            .wrapping_add(u32::try_from(at * size).unwrap());
        one.flags &= if at == 0 { 0xff } else { 0x7f };
        one.flags &= if at + 1 == count { 0xff } else { 0xf6 };
        one.build()
    };
    pieces.map(one).collect()
}

/// One of each protocol, with so much payload.
pub(crate) fn specs(len: usize) -> Vec<FrameSpec> {
    let payload = pattern(len, 7);
    let mut all = vec![
        FrameSpec::tcp(false, payload.clone()),
        FrameSpec::tcp(true, payload.clone()),
        FrameSpec::udp(false, payload.clone()),
        FrameSpec::udp(true, payload),
    ];
    for spec in &mut all {
        spec.flags = 0x18;
        spec.tcp_options = vec![1; 12];
    }
    let mut tagged = all[0].clone();
    tagged.tags = vec![(0x88a8, 2), (0x8100, 3)];
    all.push(tagged);
    all
}

impl<W: NetBackend> NetGuest<W> {
    /// Sends a frame of any length in buffers of `piece` bytes; does not wait.
    pub(crate) fn queue_frame(&mut self, header: NetHeader, frame: &[u8], piece: usize) {
        let bytes = [&header.to_bytes()[..], frame].concat();
        let mut address = self.driver.allocate(bytes.len(), 1);
        self.driver.write_memory(address, &bytes);
        let mut chain = Vec::new();
        for part in bytes.chunks(piece) {
            let len = u32::try_from(part.len()).unwrap();
            chain.push(Buffer::readable(address, len));
            address += u64::from(len);
        }
        self.tx.add(&chain);
        self.driver.kick_if_wanted(&mut self.tx);
    }

    /// The next frame that the guest receives, with its header.
    pub(crate) fn received_with_header(&mut self) -> (NetHeader, Vec<u8>) {
        let (header, frame) = self.received_raw();
        (NetHeader::from_bytes(&header), frame)
    }

    /// Has these few frames arrive in one burst, into buffers of these lengths. There must be no other
    /// buffers.
    pub(crate) fn inject_burst(&mut self, frames: &[Vec<u8>], rooms: &[u32]) {
        for frame in frames {
            self.inject(frame);
        }
        // The wire is not looked at while there are no buffers.
        self.post_together(rooms);
    }
}
