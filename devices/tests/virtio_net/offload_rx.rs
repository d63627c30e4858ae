//! What the card does for the guest when it receives: partial checksums, and segments in one frame.

use devices::{
    testing::frames::FrameSpec,
    virtio::net::{NetDevice, NetError, Offloads, loopback::Loopback},
};

use crate::{
    guest::*,
    offload_guest::*,
    pairs_guest::{ERR, OK, PairsGuest},
};

/// Bytes of one buffer that holds anything.
const LARGE: u32 = 70_000;

#[test]
fn checksums_are_told_to_a_guest_that_asks() {
    let mut guest = NetGuest::start("torcsum");
    for len in [0, 1, 100, 1400] {
        for spec in specs(len) {
            let right = spec.build();
            let mut wrong = right.clone();
            *wrong.last_mut().unwrap() ^= 1;
            let valid = NetHeader {
                flags: DATA_VALID,
                ..NetHeader::default()
            };
            for (frame, header) in [
                (right, valid),
                (wrong, NetHeader::default()),
                (spec.build_partial(), NetHeader::partial(&spec)),
            ] {
                guest.post(2048);
                guest.inject(&frame);
                let header = NetHeader {
                    num_buffers: 1,
                    ..header
                };
                assert_eq!(guest.received_with_header(), (header, frame), "{spec:?}");
            }
        }
        guest.boot();
    }
    assert_eq!(guest.control.counters().rx_checksums, 0);
}

/// A guest without GUEST_CSUM gets whole checksums, in buffers of any size, from fragments of any size; and
/// frames that are wrong as they are.
#[test]
fn partial_checksums_are_completed_for_others() {
    for (fragment, room) in [(MAX_FRAME, 2048), (MAX_FRAME, 61), (150, 61), (151, 2048)] {
        let (near, wire) = Loopback::pair(MAX_FRAME).unwrap();
        let mut guest = NetGuest::plug_on("torsoft", near.with_fragments(fragment), wire);
        guest.features &= VERSION_1 | MRG_RXBUF | EVENT_IDX;
        guest.boot();
        let mut count = 0;
        for len in [0, 1, 100, 1400] {
            for spec in specs(len) {
                let right = spec.build();
                let mut wrong = right.clone();
                *wrong.last_mut().unwrap() ^= 1;
                for (frame, want) in [
                    (&spec.build_partial(), &right),
                    (&right, &right),
                    (&wrong, &wrong),
                ] {
                    for _ in 0..(frame.len() + HEADER).div_ceil(room as usize) {
                        guest.post(room);
                    }
                    guest.inject(frame);
                    assert_eq!(&guest.received(), want, "{spec:?}");
                }
                count += 1;
            }
            guest.boot();
        }
        assert_eq!(guest.control.counters().rx_checksums, count);
    }
}

/// Padding is no part of the packet: a short frame with a partial checksum is completed by the card.
#[test]
fn padding_is_not_summed_up() {
    let mut guest = NetGuest::start("torpad");
    let spec = FrameSpec::udp(false, vec![1, 2, 3]);
    let padding = [0xee; 15];
    guest.post(2048);
    guest.inject(&[&spec.build_partial()[..], &padding].concat());
    assert_eq!(guest.received(), [&spec.build()[..], &padding].concat());
}

/// Segments of one burst are one frame, in one buffer or in many.
#[test]
fn segments_become_one_frame() {
    for (name, rooms) in [
        ("torone", vec![LARGE]),
        ("tormany", vec![999; 16]),
        ("torodd", vec![200, 1, 3000, 13, 9000]),
    ] {
        let mut guest = NetGuest::start(name);
        for partial in [false, true] {
            for mut spec in specs(8 * 1000 + 17) {
                spec.flags = 0x18;
                let mut frames = segments(&spec, 1000);
                if partial {
                    for (number, frame) in frames.iter_mut().enumerate() {
                        let mut one = spec.clone();
                        one.payload = spec.payload.chunks(1000).nth(number).unwrap().to_vec();
                        let at = spec.transport_start() + spec.checksum_offset();
                        let sum = one.build_partial()[at..at + 2].to_vec();
                        frame[at..at + 2].copy_from_slice(&sum);
                    }
                }
                guest.boot();
                guest.inject_burst(&frames, &rooms);
                let (header, frame) = guest.received_with_header();
                let want = NetHeader {
                    num_buffers: header.num_buffers,
                    ..NetHeader::segments(&spec, 1000)
                };
                assert_eq!(header, want, "{spec:?}");
                assert_eq!(frame, spec.build_partial());
                let used = rooms.iter().scan(0, |sum, room| {
                    *sum += *room as usize;
                    Some(*sum)
                });
                let used = used.take_while(|&sum| sum < frame.len() + HEADER).count() + 1;
                assert_eq!(usize::from(header.num_buffers), used);
                assert!(guest.rx.take_used().is_none());
            }
        }
        let counters = guest.control.counters();
        assert_eq!((counters.rx_frames, counters.rx_coalesced), (90, 80));
        guest.boot();
        guest.check_traffic();
        guest.assert_sound();
    }
}

/// 24: what there are no buffers for is not lost and not mixed up: it comes later, in frames of its own.
#[test]
fn segments_wait_for_buffers() {
    let spec = FrameSpec::tcp(false, pattern(9 * 1000, 9));
    let frames = segments(&spec, 1000);
    for rooms in [
        vec![1500],
        vec![1500, 1500],
        vec![500; 5],
        vec![1066, 1000, 1000],
        vec![1065, 1000, 500],
    ] {
        let mut guest = NetGuest::start("torwait");
        guest.inject_burst(&frames, &rooms);
        let mut payload: Vec<u8> = Vec::new();
        while payload.len() < spec.payload.len() {
            let (header, frame) = guest.received_with_header();
            let one = frame.len() - spec.payload_start();
            payload.extend(&frame[spec.payload_start()..]);
            assert_eq!(header.gso_type, u8::from(one > 1000));
            if payload.len() < spec.payload.len() {
                guest.post_together(&rooms);
            }
        }
        assert_eq!(payload, spec.payload, "{rooms:?}");
        assert_eq!(guest.control.counters().rx_frames, 9);
        guest.assert_sound();
    }
}

/// Without mergeable buffers there is one for each frame: as many segments as it holds.
#[test]
fn one_buffer_takes_what_fits() {
    let mut guest = NetGuest::plug("torbig");
    guest.features &= !MRG_RXBUF;
    guest.boot();
    let spec = FrameSpec::tcp(true, pattern(9 * 1000, 9));
    guest.inject_burst(&segments(&spec, 1000), &[5000, LARGE]);
    let start = spec.payload_start();
    for part in [&spec.payload[..4000], &spec.payload[4000..]] {
        let (header, frame) = guest.received_with_header();
        assert_eq!(
            (header.gso_type, header.gso_size, header.num_buffers),
            (4, 1000, 1)
        );
        assert_eq!(&frame[start..], part);
    }
}

/// Flows that take turns, and frames that are no segments: the order is that of the wire.
#[test]
fn the_order_of_frames_is_kept() {
    let mut guest = NetGuest::start("tororder");
    let one = FrameSpec::tcp(false, pattern(4000, 1));
    let mut other = FrameSpec::tcp(false, pattern(4000, 2));
    other.ports = [1, 2];
    let (one, other) = (segments(&one, 1000), segments(&other, 1000));
    let mut wrong = one[2].clone();
    wrong[100] ^= 1;
    let arp = pattern(60, 3);
    let frames = [
        &one[0], &one[1], &wrong, &arp, &one[2], &other[0], &one[3], &other[1], &other[2],
    ];
    let frames: Vec<_> = frames.into_iter().cloned().collect();
    guest.inject_burst(&frames, &[2200; 10]);
    let mut got = Vec::new();
    let lens = [2054, 1054, 60, 1054, 1054, 1054, 2054];
    for len in lens {
        let (_, frame) = guest.received_with_header();
        assert_eq!(frame.len(), len);
        got.extend_from_slice(if len == 60 { &frame } else { &frame[54..] });
    }
    let want = frames.iter().flat_map(|frame| {
        if frame.len() == 60 {
            &frame[..]
        } else {
            &frame[54..]
        }
    });
    assert_eq!(got, want.copied().collect::<Vec<_>>());
}

/// Only what the guest takes, under each set of features.
#[test]
fn only_what_was_negotiated_is_coalesced() {
    let offered = NetGuest::plug("torneg").features;
    let spec = FrameSpec::tcp(false, pattern(3000, 1));
    let mut congested = spec.clone();
    congested.flags = 0x90;
    for (without, spec, count) in [
        (0, &spec, 1),
        (GUEST_TSO4, &FrameSpec::tcp(true, pattern(3000, 1)), 1),
        (GUEST_TSO4, &spec, 3),
        (0, &congested, 1),
        (GUEST_ECN, &congested, 2),
    ] {
        let mut guest = NetGuest::plug("torneg");
        guest.features = offered & !without;
        guest.boot();
        guest.inject_burst(&segments(spec, 1000), &[LARGE; 3]);
        for _ in 0..count {
            let (header, _) = guest.received_with_header();
            let ecn = header.gso_type & 0x80 != 0;
            assert_eq!(ecn, count == 1 && spec.flags == 0x90);
        }
        assert_eq!(guest.control.counters().rx_coalesced, 3 - count);
    }
    assert_ne!(offered & GUEST_CSUM, 0);
}

/// The guest switches its offloads off and on (as a driver does that runs XDP programs of its own).
#[test]
fn offloads_are_switched_by_command() {
    let mut guest = PairsGuest::start("torctrl", 2);
    let all = GUEST_CSUM | GUEST_TSO4 | GUEST_ECN | 1 << 8 | 0b11 << 54;
    let set = |guest: &mut PairsGuest, offloads: u64| {
        let command = [&[5, 0][..], &offloads.to_le_bytes()].concat();
        guest.command(&command)
    };
    for (offloads, answer) in [
        (0, OK),
        (all, OK),
        (GUEST_CSUM, OK),
        (GUEST_CSUM | GUEST_TSO4, OK),
        (GUEST_TSO4, ERR),
        (all | CSUM, ERR),
        (u64::MAX, ERR),
        (0, OK),
    ] {
        assert_eq!(set(&mut guest, offloads), answer, "{offloads:#x}");
    }
    // Too short, too long, no such command.
    assert_eq!(guest.command(&[5, 0, 0, 0, 0]), ERR);
    assert_eq!(guest.command(&[&[5, 0][..], &[0; 9]].concat()), ERR);
    assert_eq!(guest.command(&[&[5, 1][..], &[0; 8]].concat()), ERR);
    // Off: a partial checksum is completed.
    let spec = FrameSpec::tcp(false, pattern(100, 1));
    assert_eq!(
        guest.receive_on(0, &spec.build_partial()),
        ([0; 10].to_vec(), spec.build())
    );
    assert_eq!(set(&mut guest, all), OK);
    let (header, frame) = guest.receive_on(0, &spec.build_partial());
    assert_eq!((header[0], frame), (NEEDS_CSUM, spec.build_partial()));
    // A reset brings back what was negotiated.
    assert_eq!(set(&mut guest, 0), OK);
    guest.boot();
    let (header, _) = guest.receive_on(0, &spec.build_partial());
    assert_eq!(header[0], NEEDS_CSUM);
    assert_ne!(guest.features & CTRL_VQ, 0);
    guest.assert_sound();
}

/// The options: what is off is not offered, and nothing is offered without checksums.
#[test]
fn what_is_switched_off_is_not_offered() {
    let offered = |offloads: Offloads| {
        let (near, _far) = Loopback::pair(1514).unwrap();
        let (mut config, _) = config("torsw");
        config.offloads = offloads;
        let device = NetDevice::new(config, vec![near])?;
        Ok(devices::testing::TestDriver::on(crate::FACE, device).offered())
    };
    let all = Offloads::default();
    let mask = 0b11 | 0b11_1011_1000_0000 | 0b111 << 54;
    let among = |offloads| offered(offloads).map(|features| features & mask);
    assert_eq!(among(all), Ok(mask));
    assert_eq!(among(Offloads::NONE), Ok(0));
    let tso = Offloads {
        csum: true,
        tso: true,
        ..Offloads::NONE
    };
    assert_eq!(among(tso), Ok(0b11 | HOST_TSO4 | HOST_TSO6 | HOST_ECN));
    for (name, offloads) in [
        ("tso", Offloads { csum: false, ..all }),
        (
            "uso",
            Offloads {
                uso: true,
                ..Offloads::NONE
            },
        ),
        (
            "gro",
            Offloads {
                gro: true,
                ..Offloads::NONE
            },
        ),
    ] {
        assert_eq!(among(offloads), Err(NetError::Offloads(name)));
    }
}
