//! What the guest leaves to the card when it sends: checksums and segmentation.

use devices::{
    testing::frames::{FrameSpec, assert_right},
    virtio::net::loopback::Loopback,
};

use crate::{guest::*, offload_guest::*, random::Numbers};

/// Checksums are completed in frames of every protocol, whether they leave in one piece or in many.
#[test]
fn checksums_are_completed() {
    for fragment in [MAX_FRAME, 64, 33] {
        let (near, wire) = Loopback::pair(MAX_FRAME).unwrap();
        let mut guest = NetGuest::plug_on("tocsum", near.with_fragments(fragment), wire);
        guest.boot();
        let mut count = 0;
        for len in [0, 1, 2, 101, 1400] {
            for spec in specs(len) {
                let frame = spec.build_partial();
                guest.queue_frame(NetHeader::partial(&spec), &frame, 77);
                assert_eq!(guest.sent(), spec.build(), "{spec:?}");
                guest.tx.wait_used();
                count += 1;
            }
        }
        assert_eq!(guest.control.counters().tx_checksums, count);
        guest.check_traffic();
    }
}

/// A checksum of 0 would mean "none" to UDP.
#[test]
fn a_checksum_of_zero_is_sent_as_ones() {
    let mut guest = NetGuest::start("tozero");
    let mut spec = FrameSpec::udp(false, vec![0; 2]);
    let frame = spec.build();
    let at = spec.transport_start() + 6;
    // What is summed up then is all ones.
    spec.payload = frame[at..at + 2].to_vec();
    assert_eq!(spec.build()[at..at + 2], [0xff, 0xff], "the builder knows");
    guest.queue_frame(NetHeader::partial(&spec), &spec.build_partial(), 4096);
    assert_eq!(guest.sent(), spec.build());
}

/// 19: places beyond the frame, and at its very end.
#[test]
fn checksums_elsewhere_are_refused() {
    let mut guest = NetGuest::start("t19");
    let frame = pattern(100, 1);
    let mut refused = 0;
    for (start, offset, good) in [
        (0, 98, true),
        (98, 0, true),
        (50, 48, true),
        (0, 99, false),
        (99, 0, false),
        (100, 0, false),
        (0, 100, false),
        (0xffff, 0, false),
        (0xffff, 0xffff, false),
        (34, 0xffff, false),
    ] {
        let header = NetHeader {
            flags: NEEDS_CSUM,
            csum_start: start,
            csum_offset: offset,
            ..NetHeader::default()
        };
        guest.queue_frame(header, &frame, 4096);
        guest.tx.wait_used();
        if good {
            assert_eq!(guest.sent().len(), 100);
        } else {
            refused += 1;
        }
        assert_eq!(guest.control.counters().tx_bad_offload, refused);
    }
    assert!(guest.wire_is_empty());
    guest.check_traffic();
}

/// 18: whatever `hdr_len` says, in whatever buffers it comes: segments as a host would have sent them.
#[test]
fn large_frames_are_cut() {
    for fragment in [MAX_FRAME, 70] {
        let (near, wire) = Loopback::pair(MAX_FRAME).unwrap();
        let mut guest = NetGuest::plug_on("totso", near.with_fragments(fragment), wire);
        guest.boot();
        let mut count = 0;
        for (len, piece) in [
            (1, 4096),
            (1000, 100),
            (1001, 4096),
            (20_000, 1999),
            (60_000, 4096),
        ] {
            for spec in specs(len) {
                for hdr_len in [0, 54, 0xffff] {
                    let header = NetHeader::segments(&spec, 1000);
                    let header = NetHeader { hdr_len, ..header };
                    guest.queue_frame(header, &spec.build_partial(), piece);
                    for segment in segments(&spec, 1000) {
                        assert_eq!(guest.sent(), segment, "{len} bytes");
                        count += 1;
                    }
                    guest.tx.wait_used();
                }
                // The test's memory is bounded.
                guest.boot();
            }
        }
        let counters = guest.control.counters();
        assert_eq!((counters.tx_frames, counters.tx_segmented), (count, 75));
        guest.check_traffic();
    }
}

/// More segments than the back end ever has room for go out in several bursts; the chain comes back once.
#[test]
fn a_frame_of_many_segments_takes_its_time() {
    let mut guest = NetGuest::start("tomany");
    let spec = FrameSpec::tcp(false, pattern(65_000, 3));
    guest.queue_frame(NetHeader::segments(&spec, 50), &spec.build_partial(), 4096);
    let after = pattern(100, 4);
    guest.queue_bytes(&with_header(&after));
    for (number, segment) in segments(&spec, 50).into_iter().enumerate() {
        assert_eq!(guest.sent(), segment);
        if number < 500 {
            assert_eq!(guest.tx.used_idx(), 0, "not all of it is sent");
        }
    }
    assert_eq!(guest.sent(), after);
    guest.tx.wait_used();
    guest.tx.wait_used();
    assert!(guest.control.counters().tx_blocked > 0);
    assert_eq!(guest.control.counters().tx_frames, 1301);
}

/// A reset in the midst of a large frame: no rest of it is sent afterwards.
#[test]
fn a_reset_forgets_what_was_half_sent() {
    let mut guest = NetGuest::start("toreset");
    let spec = FrameSpec::tcp(true, pattern(65_000, 5));
    for round in 0..20 {
        guest.queue_frame(NetHeader::segments(&spec, 50), &spec.build_partial(), 4096);
        for segment in segments(&spec, 50).into_iter().take(10 * round) {
            assert_eq!(guest.sent(), segment);
        }
        guest.driver.write(devices::testing::register::STATUS, 0);
        // What the back end had taken is on its way.
        while take(&mut guest.wire).is_some() {}
        guest.boot();
        while take(&mut guest.wire).is_some() {}
        let frame = pattern(64, round);
        guest.transmit(&frame);
        while guest.sent() != frame {}
    }
    guest.check_traffic();
    guest.assert_sound();
}

/// 17, 20, 21: refused, counted, the buffer comes back, and the queue goes on.
#[test]
fn requests_that_cannot_be_met_are_dropped() {
    let mut guest = NetGuest::start("t17");
    let spec = FrameSpec::tcp(false, pattern(2000, 6));
    let good = NetHeader::segments(&spec, 1000);
    let frame = spec.build_partial();
    let mut arp = frame.clone();
    arp[12..14].copy_from_slice(&[8, 6]);
    let (mut short_ip, mut short_tcp, mut long_tcp) = (frame.clone(), frame.clone(), frame.clone());
    (short_ip[14], short_tcp[46], long_tcp[46]) = (0x44, 0x40, 0xf0);
    let cut = |len: usize| frame[..len].to_vec();
    let header = |change: fn(&mut NetHeader)| {
        let mut header = good;
        change(&mut header);
        header
    };
    let bad = [
        (header(|it| it.gso_size = 0), frame.clone()),
        (header(|it| it.gso_size = 1), frame.clone()),
        (header(|it| it.gso_size = 0xffff), frame.clone()),
        (header(|it| it.gso_type = 2), frame.clone()),
        (header(|it| it.gso_type = 3), frame.clone()),
        (header(|it| it.gso_type = 4), frame.clone()),
        (header(|it| it.gso_type = 5), frame.clone()),
        (header(|it| it.gso_type = 0x80), frame.clone()),
        (header(|it| it.gso_type = 0x85), frame.clone()),
        (header(|it| it.flags = 0), frame.clone()),
        (header(|it| it.csum_start = 33), frame.clone()),
        (header(|it| it.csum_offset = 6), frame.clone()),
        (good, arp),
        (good, short_ip),
        (good, short_tcp),
        (good, cut(54)),
        (good, cut(53)),
        (good, cut(40)),
        (good, cut(14)),
    ];
    let count = bad.len() as u64;
    for (header, frame) in bad {
        guest.queue_frame(header, &frame, 4096);
        guest.tx.wait_used();
    }
    assert_eq!(guest.control.counters().tx_bad_offload, count);
    // The longer header of a frame that is as long as before: another cut, and no harm.
    guest.queue_frame(good, &long_tcp, 4096);
    guest.tx.wait_used();
    assert_eq!((guest.sent().len(), guest.sent().len()), (1094, 1054));
    // Segments that the back end can't carry, a frame that IP can't.
    guest.queue_frame(
        header(|it| it.gso_size = 2990),
        &[&frame[..], &[0; 9000]].concat(),
        4096,
    );
    guest.tx.wait_used();
    guest.queue_frame(good, &[&frame[..], &[0; 64_000]].concat(), 4096);
    guest.tx.wait_used();
    assert_eq!(guest.control.counters().tx_too_long, 2);
    assert!(guest.wire_is_empty());
    guest.check_traffic();
    guest.assert_sound();
}

/// 25, 26: what was not negotiated is not done, under every set of features.
#[test]
fn offloads_that_were_not_negotiated_are_refused() {
    let offered = NetGuest::plug("tooff").features;
    for (feature, spec, size) in [
        (CSUM, FrameSpec::tcp(false, pattern(100, 1)), None),
        (
            HOST_TSO4,
            FrameSpec::tcp(false, pattern(2000, 1)),
            Some(1000),
        ),
        (
            HOST_TSO6,
            FrameSpec::tcp(true, pattern(2000, 1)),
            Some(1000),
        ),
        (
            HOST_USO,
            FrameSpec::udp(false, pattern(2000, 1)),
            Some(1000),
        ),
        (HOST_ECN, FrameSpec::tcp(true, pattern(2000, 1)), Some(1000)),
    ] {
        let mut header = size.map_or(NetHeader::partial(&spec), |size| {
            NetHeader::segments(&spec, size)
        });
        if feature == HOST_ECN {
            header.gso_type |= 0x80;
        }
        let dependents = HOST_TSO4 | HOST_TSO6 | HOST_ECN | HOST_USO;
        for without in [
            0,
            if feature == CSUM {
                feature | dependents
            } else {
                feature
            },
        ] {
            let mut guest = NetGuest::plug("tooff");
            guest.features = offered & !without;
            if feature == HOST_TSO4 || feature == HOST_TSO6 {
                guest.features &= !HOST_ECN;
            }
            guest.boot();
            guest.queue_frame(header, &spec.build_partial(), 4096);
            guest.tx.wait_used();
            let counters = guest.control.counters();
            let refused = u64::from(without != 0);
            assert_eq!(counters.tx_bad_offload, refused, "{feature:#x}");
            assert_eq!(counters.tx_frames > 0, without == 0, "{feature:#x}");
        }
    }
}

/// 22: headers and payload that change while the card works on them: its own lengths hold.
#[test]
fn a_frame_that_changes_is_cut_once() {
    let mut guest = NetGuest::start("t22tso");
    let spec = FrameSpec::tcp(false, pattern(3000, 8));
    let bytes = [
        &NetHeader::segments(&spec, 1000).to_bytes()[..],
        &spec.build_partial(),
    ]
    .concat();
    let address = guest.driver.allocate(bytes.len(), 1);
    guest.driver.write_memory(address, &bytes);
    let ram = guest.driver.ram().clone();
    let ender = Ender::default();
    std::thread::scope(|scope| {
        let _guard = ender.guard();
        scope.spawn(|| {
            use vm_memory::{Bytes, GuestAddress};
            let mut numbers = Numbers(22);
            while ender.goes_on() {
                // Mostly in the headers.
                let at = numbers.next() % 70;
                let byte = numbers.next().to_le_bytes()[0];
                ram.write_obj(byte, GuestAddress(address + at)).unwrap();
                let at = usize::try_from(at).unwrap();
                ram.write_obj(bytes[at], GuestAddress(address + at as u64))
                    .unwrap();
            }
        });
        for _ in 0..2000 {
            let len = u32::try_from(bytes.len()).unwrap();
            guest
                .tx
                .add(&[devices::testing::Buffer::readable(address, len)]);
            guest.driver.kick_if_wanted(&mut guest.tx);
            guest.tx.wait_used();
            while let Some(frame) = take(&mut guest.wire) {
                assert!(frame.len() <= MAX_FRAME);
            }
        }
    });
    assert_eq!(guest.control.counters().guest_faults, 0);
    guest.assert_sound();
}

/// Random headers before frames that are nearly good: each comes back, and the queue goes on.
#[test]
fn random_requests_are_harmless() {
    let mut guest = NetGuest::start("torandom");
    let mut numbers = Numbers(0x0ff1);
    let specs = specs(700);
    for round in 0..4000usize {
        if round % 100 == 0 {
            guest.boot();
        }
        let spec = &specs[round % specs.len()];
        let mut frame = spec.build_partial();
        let mut header = NetHeader::segments(spec, numbers.pick(&[100, 100, 8, 1, 0, 0xffff]));
        header.gso_type = numbers.pick(&[header.gso_type, header.gso_type, 0, 0x80, 4, 5]);
        header.csum_start = numbers.pick(&[header.csum_start, header.csum_start, 0, 700, 0xffff]);
        for _ in 0..numbers.pick(&[0, 1, 3]) {
            let at = usize::try_from(numbers.next() % 80).unwrap();
            frame[at] = numbers.next().to_le_bytes()[0];
        }
        frame.truncate(numbers.pick(&[frame.len(), frame.len(), 60, 30, 14]));
        guest.queue_frame(header, &frame, 4096);
        while guest.tx.take_used().is_none() {
            while take(&mut guest.wire).is_some() {}
        }
        while take(&mut guest.wire).is_some() {}
    }
    let counters = guest.control.counters();
    assert!(counters.tx_bad_offload > 100 && counters.tx_segmented > 100);
    guest.boot();
    while take(&mut guest.wire).is_some() {}
    guest.check_traffic();
    guest.assert_sound();
}

/// Segments of an untouched frame have right checksums (the builder's view of all of them).
#[test]
fn segments_are_right_for_every_size() {
    let mut guest = NetGuest::start("tosize");
    for spec in specs(3000) {
        for size in [8, 99, 536, 1448, 2900, 3000, 4000] {
            // More datagrams than a frame may have.
            if spec.udp && size < 99 {
                continue;
            }
            guest.boot();
            guest.queue_frame(
                NetHeader::segments(&spec, size),
                &spec.build_partial(),
                1500,
            );
            let mut got = 0;
            while got < spec.payload.len() {
                if usize::from(size).min(3000) + spec.payload_start() > MAX_FRAME {
                    break;
                }
                let segment = guest.sent();
                assert_right(&segment, spec.network_start(), spec.transport_start());
                got += segment.len() - spec.payload_start();
            }
            guest.tx.wait_used();
        }
    }
}
