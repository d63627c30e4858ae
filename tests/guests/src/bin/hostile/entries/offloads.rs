//! What is left to the device, and can't be done: 17 to 21.

use guest::net::HEADER;

use super::Must;
use crate::{
    packet::{self, Change, HEADERS, Header, NEEDS_CSUM},
    rig::Rig,
};

/// 17
pub(super) fn segmentation(rig: &mut Rig, way: u16) -> Option<Must> {
    match way {
        0 => {
            for gso_size in [0, 1, 2990, 0xffff] {
                let header = Header {
                    gso_size,
                    ..Header::TCP
                };
                rig.send_tcp(header, 5000, None);
            }
        }
        1 => {
            for gso_type in [2, 3, 4, 5, 6, 0x40, 0x80, 0x85, 0xff] {
                let header = Header {
                    gso_type,
                    ..Header::TCP
                };
                rig.send_tcp(header, 5000, None);
            }
        }
        2 => {
            for flags in [0, 2, 4, 0xff] {
                let header = Header {
                    flags,
                    ..Header::TCP
                };
                rig.send_tcp(header, 5000, None);
            }
        }
        3 => rig.send_tcp(Header::TCP, 5000, Some(Change::Arp)),
        _ => return None,
    }
    Some(Must::GoOn)
}

/// 18
pub(super) fn header_lengths(rig: &mut Rig, way: u16) -> Option<Must> {
    let lens = [0, 1, 53, 55, 3000, 0xffff];
    let &hdr_len = lens.get(usize::from(way))?;
    let header = Header {
        hdr_len,
        ..Header::TCP
    };
    rig.send_tcp(header, 2000, None);
    Some(Must::GoOn)
}

/// 19
pub(super) fn checksums(rig: &mut Rig, way: u16) -> Option<Must> {
    let places = [
        (0, 99),
        (99, 0),
        (100, 0),
        (0, 100),
        (0xffff, 0),
        (0, 0xffff),
        (0xffff, 0xffff),
        (34, 0xffff),
    ];
    let &(csum_start, csum_offset) = places.get(usize::from(way))?;
    packet::write_plain(&rig.send, rig.mac, 100);
    let header = Header {
        flags: NEEDS_CSUM,
        csum_start,
        csum_offset,
        ..Header::default()
    };
    header.write(&rig.send);
    rig.send_bytes(HEADER + 100);
    Some(Must::GoOn)
}

/// 20
pub(super) fn packets(rig: &mut Rig, way: u16) -> Option<Must> {
    let way = usize::from(way);
    if let Some(&change) = Change::ALL.get(way) {
        rig.send_tcp(Header::TCP, 2000, Some(change));
        return Some(Must::GoOn);
    }
    // Cut within each of the headers.
    let lens = [14, 20, 33, 34, 40, 53, HEADERS];
    let &len = lens.get(way - Change::ALL.len())?;
    packet::write_tcp(&rig.send, rig.mac, 0);
    Header::TCP.write(&rig.send);
    rig.send_bytes(HEADER + len);
    Some(Must::GoOn)
}

/// 21
pub(super) fn many(rig: &mut Rig, way: u16) -> Option<Must> {
    let (gso_size, payload) = match way {
        0 => (50, 60_000),
        1 => (8, 60_000),
        // More than IP can carry.
        2 => (1000, 66_000),
        _ => return None,
    };
    let header = Header {
        gso_size,
        ..Header::TCP
    };
    rig.send_tcp(header, payload, None);
    rig.calm_down();
    Some(Must::GoOn)
}
