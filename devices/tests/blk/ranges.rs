//! DISCARD and WRITE_ZEROES, where the file system has them.

use crate::driver::{Disk, IOERR, OK, SECTOR, TempFile, UNSUPP, pattern};

const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;
const UNMAP: u32 = 1;
/// Most sectors of a segment.
const MAX: u32 = 1 << 21;

fn segment(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    let mut bytes = sector.to_le_bytes().to_vec();
    bytes.extend(sectors.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes
}

impl Disk {
    fn offers(&mut self, kind: u32) -> bool {
        // The feature bit is 13 for DISCARD (request 11) and 14 for WRITE_ZEROES (request 13).
        let bit = if kind == DISCARD { 13 } else { 14 };
        self.driver.offered() & 1 << bit != 0
    }

    fn on_range(&mut self, kind: u32, segment: &[u8]) -> u8 {
        self.request(kind, 0, segment, 0).status
    }
}

#[test]
fn ranges_read_as_zeros_afterwards_and_the_file_keeps_its_size() {
    for (kind, flags) in [(DISCARD, 0), (WRITE_ZEROES, 0), (WRITE_ZEROES, UNMAP)] {
        // The last sector is not full.
        let len = 64 * SECTOR - 10;
        let image = TempFile::new(&pattern(1, len));
        let mut disk = Disk::new(&image);
        if !disk.offers(kind) {
            let status = disk.on_range(kind, &segment(3, 9, flags));
            assert_eq!(status, UNSUPP, "not offered");
            assert!(image.content() == pattern(1, len));
            continue;
        }
        assert_eq!(disk.on_range(kind, &segment(3, 9, flags)), OK);
        assert_eq!(disk.on_range(kind, &segment(62, 2, flags)), OK);
        assert_eq!(disk.on_range(kind, &segment(64, 0, flags)), OK, "nothing");
        let mut expected = pattern(1, len);
        expected[3 * SECTOR..12 * SECTOR].fill(0);
        expected[62 * SECTOR..].fill(0);
        assert!(image.content() == expected);
        assert_eq!(disk.read(3, 9 * SECTOR).data, [0; 9 * SECTOR]);
    }
}

#[test]
fn segments_that_break_the_rules_change_nothing() {
    let content = pattern(2, 64 * SECTOR);
    let image = TempFile::new(&content);
    let mut disk = Disk::new(&image);
    for kind in [DISCARD, WRITE_ZEROES] {
        if !disk.offers(kind) {
            continue;
        }
        assert_eq!(disk.on_range(kind, &segment(0, 1, 2)), UNSUPP);
        assert_eq!(disk.on_range(kind, &segment(0, 1, 1 << 31)), UNSUPP);
        let outside = [
            (64, 1),
            (63, 2),
            (u64::MAX, 1),
            (u64::MAX, u32::MAX),
            (1 << 55, 1),
        ];
        for (sector, sectors) in outside {
            assert_eq!(disk.on_range(kind, &segment(sector, sectors, 0)), IOERR);
        }
        let two = [segment(0, 1, 0), segment(2, 1, 0)].concat();
        for bytes in [&two[..0], &two[..15], &two[..17], &two] {
            assert_eq!(disk.on_range(kind, bytes), IOERR);
        }
    }
    if disk.offers(DISCARD) {
        assert_eq!(disk.on_range(DISCARD, &segment(0, 1, UNMAP)), UNSUPP);
    }
    assert!(image.content() == content);
}

#[test]
fn the_limit_of_a_segment_holds() {
    let image = TempFile::new(&[]);
    image.set_len(4 << 30);
    let mut disk = Disk::new(&image);
    if disk.offers(DISCARD) {
        assert_eq!(disk.driver.config::<4>(36), MAX.to_le_bytes());
        assert_eq!(disk.driver.config::<4>(40), 1u32.to_le_bytes());
        assert_eq!(disk.on_range(DISCARD, &segment(1, MAX, 0)), OK);
        assert_eq!(disk.on_range(DISCARD, &segment(1, MAX + 1, 0)), IOERR);
    } else {
        assert_eq!(disk.driver.config::<4>(36), [0; 4]);
    }
}
