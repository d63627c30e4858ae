//! Frames of many segments that a sender on this host left whole, as they come in skb mode.

use devices::{testing::frames::FrameSpec, virtio::net::loopback::Loopback};

use crate::{guest::*, offload_guest::*};

/// Longest frame of the wire.
const LONGEST: usize = 66_000;
/// Bytes of one buffer that holds anything.
const LARGE: u32 = 70_000;
/// What fits in the wire's MTU of 1500 bytes of a segment without options, over IPv4 and IPv6.
const SIZES: [usize; 2] = [1460, 1440];

/// A guest without `features`, whose frames come in fragments of this many bytes.
fn guest(name: &str, without: u64, fragment: usize) -> NetGuest {
    let (near, wire) = Loopback::pair(LONGEST).unwrap();
    let mut guest = NetGuest::plug_on(name, near.with_fragments(fragment), wire);
    guest.features &= !without;
    guest.boot();
    guest
}

/// One each of IPv4, IPv6 and with a VLAN tag, and the size of its segments.
fn specs(len: usize) -> [(FrameSpec, usize); 3] {
    let payload = pattern(len, 5);
    let [v4, v6] = [false, true].map(|v6| {
        let mut spec = FrameSpec::tcp(v6, payload.clone());
        spec.flags = 0x18;
        spec
    });
    let mut tagged = v4.clone();
    tagged.tags = vec![(0x8100, 3)];
    tagged.tcp_options = vec![1; 12];
    [(v4, SIZES[0]), (v6, SIZES[1]), (tagged, SIZES[0] - 12)]
}

/// A guest that takes such frames gets them as they are, with the number to cut them by.
#[test]
fn a_guest_that_takes_them_gets_them_whole() {
    for (fragment, rooms) in [
        (LONGEST, vec![LARGE]),
        (3840, vec![LARGE]),
        (3840, vec![1536; 44]),
        (1000, vec![4096; 17]),
    ] {
        let mut guest = guest("torwhole", 0, fragment);
        for len in [1461, 2920, 64_000] {
            for (spec, size) in specs(len) {
                guest.boot();
                guest.inject_burst(&[spec.build_partial()], &rooms);
                let (header, frame) = guest.received_with_header();
                let want = NetHeader {
                    num_buffers: header.num_buffers,
                    ..NetHeader::segments(&spec, u16::try_from(size).unwrap())
                };
                assert_eq!(header, want, "{len} {size}");
                assert!(frame == spec.build_partial(), "{len} {size}");
            }
        }
        let counters = guest.control.counters();
        assert_eq!((counters.rx_uncut, counters.rx_frames), (9, 9));
        assert_eq!(counters.rx_uncut_dropped, 0);
        guest.assert_sound();
    }
}

/// Others get the segments, which are those that the sender's kernel would have made.
#[test]
fn others_get_the_segments() {
    const GUEST_TSO: u64 = 0b11 << 7 | GUEST_ECN;
    for (without, fragment) in [
        (GUEST_TSO, 3840),
        (GUEST_TSO, 1000),
        (GUEST_TSO | GUEST_CSUM | 0b11 << 54, 3840),
        (MRG_RXBUF | GUEST_TSO, LONGEST),
    ] {
        let mut guest = guest("torcut", without, fragment);
        let mut count = 0;
        for len in [1461, 2920, 64_000] {
            for (spec, size) in specs(len) {
                guest.boot();
                let want = segments(&spec, size);
                count += want.len() as u64;
                guest.inject_burst(&[spec.build_partial()], &vec![2048; want.len()]);
                for (number, whole) in want.iter().enumerate() {
                    let (header, mut frame) = guest.received_with_header();
                    let mut one = spec.clone();
                    one.payload = spec.payload.chunks(size).nth(number).unwrap().to_vec();
                    let field = spec.transport_start() + spec.checksum_offset();
                    if without & GUEST_CSUM == 0 {
                        // The sum over the pseudo-header, which the guest believes.
                        let partial = NetHeader {
                            num_buffers: 1,
                            ..NetHeader::partial(&spec)
                        };
                        assert_eq!(header, partial);
                        let sum = &one.build_partial()[field..field + 2];
                        assert_eq!(&frame[field..field + 2], sum);
                        frame[field..field + 2].copy_from_slice(&whole[field..field + 2]);
                    } else {
                        assert_eq!((header.flags, header.gso_type), (0, 0));
                    }
                    assert!(frame == *whole, "{number} of {len}: {spec:?}");
                }
                assert!(guest.rx.take_used().is_none());
            }
        }
        let counters = guest.control.counters();
        assert_eq!((counters.rx_uncut, counters.rx_uncut_dropped), (9, 0));
        assert_eq!(counters.rx_frames, count);
        guest.assert_sound();
    }
}

/// 24: all of the segments or none, so that none comes twice; what never fits is dropped.
#[test]
fn segments_wait_for_all_of_their_buffers() {
    let mut guest = guest("torcutwait", GUEST_TSO4, 3840);
    let (spec, size) = specs(20_000)[0].clone();
    let want = segments(&spec, size);
    guest.inject(&spec.build_partial());
    for _ in 0..want.len() - 1 {
        guest.post(2048);
        assert!(guest.rx.take_used().is_none());
    }
    guest.post(2048);
    for whole in &want {
        let (_, frame) = guest.received_with_header();
        assert_eq!(frame[70..], whole[70..]);
    }
    // The queue of 64 buffers has no room for so many of 512 bytes.
    let (long, _) = specs(64_000)[0].clone();
    guest.inject(&long.build_partial());
    for _ in 0..QUEUE_SIZE {
        guest.post(512);
    }
    let frame = pattern(60, 1);
    guest.inject(&frame);
    assert_eq!(guest.received(), frame);
    let counters = guest.control.counters();
    assert_eq!((counters.rx_uncut, counters.rx_uncut_dropped), (1, 1));
    guest.assert_sound();
}

/// Frames that nobody knows how to cut are dropped and counted; the others keep their order, and are not put together
/// with them.
#[test]
fn what_has_no_segments_is_dropped() {
    for without in [0, GUEST_TSO4] {
        let mut guest = guest("torcutudp", without, 3840);
        let (spec, size) = specs(5000)[0].clone();
        let mut next = FrameSpec::tcp(false, pattern(1000, 3));
        next.sequence = spec.sequence.wrapping_add(5000);
        let datagrams = FrameSpec::udp(false, pattern(5000, 1)).build_partial();
        let padded = [&spec.build_partial()[..], &[0xee; 4]].concat();
        let frames = [
            FrameSpec::udp(false, pattern(100, 1)).build(),
            datagrams,
            spec.build_partial(),
            padded,
            next.build_partial(),
        ];
        guest.inject_burst(&frames, &[LARGE; 8]);
        let mut lens = vec![142];
        match without {
            0 => lens.push(5054),
            _ => lens.extend(segments(&spec, size).iter().map(Vec::len)),
        }
        lens.push(1054);
        for len in lens {
            assert_eq!(guest.received_with_header().1.len(), len);
        }
        assert_eq!(guest.control.counters().rx_uncut_dropped, 2);
        guest.assert_sound();
    }
}

/// Whole or not by the MTU as it is now, and by what the guest takes now.
#[test]
fn the_mtu_of_the_wire_decides() {
    let mut guest = guest("torcutmtu", 0, LONGEST);
    let datagram = FrameSpec::udp(false, pattern(5000, 1));
    let (mut spec, _) = specs(5000)[0].clone();
    spec.flags = 0x90;
    for (mtu, gso_size) in [(1500, 1460), (2000, 1960), (9000, 0), (68, 28)] {
        guest.control.set_wire_mtu(mtu);
        guest.inject_burst(&[spec.build_partial()], &[LARGE]);
        let (header, frame) = guest.received_with_header();
        assert_eq!((header.gso_size, header.flags), (gso_size, NEEDS_CSUM));
        assert_eq!(
            header.gso_type,
            if gso_size > 0 { 0x81 } else { 0 },
            "with CWR"
        );
        assert!(frame == spec.build_partial());
    }
    // No room for the headers: no segments.
    for (mtu, dropped) in [(40, 1), (0, 2)] {
        guest.control.set_wire_mtu(mtu);
        guest.inject_burst(&[spec.build_partial()], &[LARGE]);
        guest.check_traffic();
        assert_eq!(guest.control.counters().rx_uncut_dropped, dropped);
    }
    guest.control.set_wire_mtu(9000);
    guest.inject_burst(&[datagram.build_partial()], &[LARGE; 2]);
    assert!(guest.received_with_header().1 == datagram.build_partial());
    guest.assert_sound();
}
