//! The formats of virtio-blk (virtio 1.2, section 5.2): request header, segments, configuration.

pub(super) use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_T_DISCARD as T_DISCARD, VIRTIO_BLK_T_FLUSH as T_FLUSH,
    VIRTIO_BLK_T_GET_ID as T_GET_ID, VIRTIO_BLK_T_IN as T_IN, VIRTIO_BLK_T_OUT as T_OUT,
    VIRTIO_BLK_T_WRITE_ZEROES as T_WRITE_ZEROES,
};

/// Bytes of a sector: the unit of all sector numbers, whatever the disk's block size (5.2.4).
pub(super) const SECTOR_LEN: u16 = 512;
/// The same as a number of bytes of a disk.
pub(super) const SECTOR: u64 = SECTOR_LEN as u64;
/// Bytes of the request header (5.2.6): type (4), reserved (4), sector (8).
pub(super) const HEADER_LEN: usize = 16;
/// Bytes of the status that ends the writable part.
pub(super) const STATUS_LEN: u32 = 1;
/// Bytes of the device ID that GET_ID asks for.
pub(super) const ID_LEN: usize = 20;
/// Bytes of a segment of DISCARD and WRITE_ZEROES: sector (8), number of sectors (4), flags (4).
pub(super) const SEGMENT_LEN: usize = 16;
/// Flag of a WRITE_ZEROES segment: the space may be given back to the host.
pub(super) const UNMAP: u32 = virtio_bindings::virtio_blk::VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;

/// The status byte (5.2.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Status {
    /// VIRTIO_BLK_S_OK
    Ok = 0,
    /// VIRTIO_BLK_S_IOERR
    IoError = 1,
    /// VIRTIO_BLK_S_UNSUPP
    Unsupported = 2,
}

/// The first 16 readable bytes of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) kind: u32,
    pub(super) sector: u64,
}

impl Header {
    pub(super) fn parse(bytes: [u8; HEADER_LEN]) -> Self {
        let [k0, k1, k2, k3, _, _, _, _, sector @ ..] = bytes;
        Self {
            kind: u32::from_le_bytes([k0, k1, k2, k3]),
            sector: u64::from_le_bytes(sector),
        }
    }
}

/// A range of sectors to discard or to zero.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    pub(super) sector: u64,
    pub(super) sectors: u32,
    pub(super) flags: u32,
}

impl Segment {
    pub(super) fn parse(bytes: [u8; SEGMENT_LEN]) -> Self {
        let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, flags @ ..] = bytes;
        Self {
            sector: u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]),
            sectors: u32::from_le_bytes([n0, n1, n2, n3]),
            flags: u32::from_le_bytes(flags),
        }
    }
}

/// The configuration space (5.2.4). Fields of features that are not offered are zero.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Config {
    /// Size of the disk in sectors.
    pub(super) capacity: u64,
    /// Most data descriptors of a request.
    pub(super) seg_max: u32,
    /// Bytes of a logical block.
    pub(super) blk_size: u32,
    /// Most sectors of a DISCARD segment; 0 if not offered.
    pub(super) max_discard_sectors: u32,
    /// Most sectors of a WRITE_ZEROES segment; 0 if not offered.
    pub(super) max_write_zeroes_sectors: u32,
}

/// Bytes of the configuration space that this device has.
const CONFIG_LEN: usize = 60;

impl Config {
    fn to_bytes(self) -> [u8; CONFIG_LEN] {
        let mut bytes = [0; CONFIG_LEN];
        let mut put = |offset: usize, field: &[u8]| {
            for (to, from) in bytes.iter_mut().skip(offset).zip(field) {
                *to = *from;
            }
        };
        put(0, &self.capacity.to_le_bytes());
        put(12, &self.seg_max.to_le_bytes());
        put(20, &self.blk_size.to_le_bytes());
        if self.max_discard_sectors > 0 {
            put(36, &self.max_discard_sectors.to_le_bytes());
            // One segment a request, aligned to any sector.
            put(40, &1u32.to_le_bytes());
            put(44, &1u32.to_le_bytes());
        }
        if self.max_write_zeroes_sectors > 0 {
            put(48, &self.max_write_zeroes_sectors.to_le_bytes());
            put(52, &1u32.to_le_bytes());
            // write_zeroes_may_unmap
            put(56, &[1]);
        }
        bytes
    }

    /// Copies the bytes from `offset` on; what lies past the end is left alone.
    pub(super) fn read(self, offset: u64, data: &mut [u8]) {
        let bytes = self.to_bytes();
        let offset = usize::try_from(offset).unwrap_or(CONFIG_LEN);
        for (to, from) in data.iter_mut().zip(bytes.iter().skip(offset)) {
            *to = *from;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lie_where_the_specification_puts_them() {
        let config = Config {
            capacity: 0x1122_3344_5566_7788,
            seg_max: 254,
            blk_size: 512,
            max_discard_sectors: 7,
            max_write_zeroes_sectors: 9,
        };
        let mut bytes = [0xee; 64];
        config.read(0, &mut bytes);
        assert_eq!(bytes[..8], 0x1122_3344_5566_7788u64.to_le_bytes());
        assert_eq!(bytes[8..24], *b"\0\0\0\0\xfe\0\0\0\0\0\0\0\0\x02\0\0");
        assert_eq!(bytes[24..36], [0; 12]);
        assert_eq!(bytes[36..48], *b"\x07\0\0\0\x01\0\0\0\x01\0\0\0");
        assert_eq!(bytes[48..60], *b"\x09\0\0\0\x01\0\0\0\x01\0\0\0");
        assert_eq!(bytes[60..], [0xee; 4], "past the end");
    }

    #[test]
    fn odd_accesses_are_bytes_of_the_same_space() {
        let config = Config {
            capacity: 0x1122_3344_5566_7788,
            ..Config::default()
        };
        let mut bytes = [0; 3];
        config.read(1, &mut bytes);
        assert_eq!(bytes, [0x77, 0x66, 0x55]);
        let mut bytes = [0; 8];
        for offset in [58, 60, 4096, u64::MAX] {
            config.read(offset, &mut bytes);
            assert_eq!(bytes, [0; 8]);
        }
    }
}
