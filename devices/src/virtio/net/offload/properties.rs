//! Properties that hold for all bytes: the entry points of a fuzzer, tried at random.

use proptest::{collection::vec, prelude::*, sample::Index};

use super::{
    Kind,
    checksum::Checksum,
    coalesce::tests::{ALL, coalesce},
    packet::Packet,
    segment::{Request, cut, tests::segments},
    verify::{Verdict, complete, judge},
};
use crate::testing::frames::{FrameSpec, assert_right, ones_sum};

fn frame_spec() -> impl Strategy<Value = FrameSpec> {
    let shape = (
        any::<bool>(),
        any::<bool>(),
        0usize..3,
        0usize..=10,
        0usize..=10,
        any::<bool>(),
    );
    let fields = (
        any::<u16>(),
        any::<[u16; 2]>(),
        any::<u32>(),
        any::<u32>(),
        any::<bool>(),
    );
    let flags = prop_oneof![Just(0x10u8), Just(0x18), Just(0x19), Just(0x98), Just(0x50)];
    (shape, fields, flags, vec(any::<u8>(), 1..3000)).prop_map(
        |((v6, udp, tags, options, tcp_options, extension), fields, flags, payload)| {
            let (id, ports, sequence, acknowledgment, unfragmented) = fields;
            let mut spec = FrameSpec::tcp(v6, payload);
            spec.udp = udp;
            spec.tags = vec![(0x8100, 1); tags];
            spec.ip_options = vec![1; 4 * options];
            spec.tcp_options = vec![1; 4 * tcp_options];
            if extension {
                spec.extensions = vec![(60, vec![0; 14])];
            }
            (spec.id, spec.ports, spec.sequence) = (id, ports, sequence);
            (spec.acknowledgment, spec.flags) = (acknowledgment, flags);
            spec.fragment = if unfragmented { 0x4000 } else { 0 };
            spec
        },
    )
}

/// Bytes that are nearly a frame: a few of a real one's are changed, and it may be cut.
fn nearly_a_frame() -> impl Strategy<Value = (FrameSpec, Vec<u8>)> {
    let changes = vec((any::<Index>(), any::<u8>()), 0..6);
    (frame_spec(), changes, any::<Index>(), any::<bool>()).prop_map(
        |(spec, changes, end, is_cut)| {
            let mut bytes = spec.build_partial();
            let headers = spec.payload_start();
            for (at, value) in changes {
                let at = at.index(headers);
                bytes[at] = value;
            }
            if is_cut {
                bytes.truncate(end.index(bytes.len()));
            }
            (spec, bytes)
        },
    )
}

/// Whatever the bytes, nothing panics, and what is cut out of them is frames with right checksums.
fn never_harmful(frame: &[u8], request: Request) -> Result<(), TestCaseError> {
    let packet = Packet::parse(frame);
    let mut payloads = 0;
    let done = cut(frame, request, |headers, payload| {
        let packet = Packet::parse(headers).unwrap();
        let segment = [headers, payload].concat();
        let verdict = judge(&[&segment], &packet, true);
        // The sum over the pseudo-header may be 0xffff, and so may that over all.
        assert!(
            packet.is_routed || verdict != Verdict::Wrong,
            "{segment:x?}"
        );
        assert!(payload.len() <= usize::from(request.size));
        payloads += payload.len();
    });
    if let Ok(packet) = packet {
        let _ = judge(&[frame], &packet, true);
        let _ = complete(&[frame], &packet);
        prop_assert!(packet.payload_start <= frame.len());
        if done.is_ok() {
            prop_assert_eq!(payloads, frame.len() - packet.payload_start);
        }
    } else {
        prop_assert!(done.is_err());
    }
    // Twice the same: the second one follows only where a sequence number allows it.
    let _ = coalesce(&[frame.to_vec(), frame.to_vec()], ALL);
    Ok(())
}

proptest! {
    #[test]
    fn checksums_are_those_of_the_rfc(bytes in vec(any::<u8>(), 0..2000), cuts in vec(any::<Index>(), 0..4)) {
        let mut cuts: Vec<usize> = cuts.iter().map(|it| it.index(bytes.len() + 1)).collect();
        cuts.sort_unstable();
        let mut sum = Checksum::new();
        let mut from = 0;
        for to in cuts.into_iter().chain([bytes.len()]) {
            sum.add(&bytes[from..to]);
            from = to;
        }
        prop_assert_eq!(sum.sum(), ones_sum(&bytes));
    }

    /// Segments have right checksums, and make the whole again where nothing is in the way of it.
    #[test]
    fn cutting_and_coalescing_is_the_identity(spec in frame_spec(), size in 8u16..2000) {
        let datagrams = spec.payload.len().div_ceil(size.into());
        prop_assume!(!spec.udp || datagrams <= 64);
        let all = segments(&spec, size);
        for one in &all {
            assert_right(one, spec.network_start(), spec.transport_start());
        }
        let options = if spec.v6 { !spec.extensions.is_empty() } else { !spec.ip_options.is_empty() };
        let whole = coalesce(&all, ALL);
        if options {
            prop_assert_eq!(whole.len(), all.len());
        } else if all.len() > 1 {
            prop_assert_eq!(whole, [(spec.build_partial(), all.len())]);
        }
    }

    /// No byte is lost, added or moved, whatever follows whatever.
    #[test]
    fn coalescing_keeps_bytes_and_order(
        spec in frame_spec(),
        size in 8u16..500,
        order in vec((any::<Index>(), any::<bool>()), 0..40),
    ) {
        prop_assume!(!spec.udp || spec.payload.len().div_ceil(size.into()) <= 128);
        let all = segments(&spec, size);
        let frames: Vec<Vec<u8>> = order.iter().map(|(at, spoilt)| {
            let mut frame = at.get(&all).clone();
            if *spoilt {
                frame[spec.transport_start()] ^= 1;
            }
            frame
        }).collect();
        let start = spec.payload_start();
        let payload = |frames: &mut dyn Iterator<Item = &Vec<u8>>| -> Vec<u8> {
            frames.flat_map(|frame| frame[start..].to_vec()).collect()
        };
        let whole = coalesce(&frames, ALL);
        prop_assert_eq!(payload(&mut whole.iter().map(|it| &it.0)), payload(&mut frames.iter()));
        prop_assert_eq!(whole.iter().map(|it| it.1).sum::<usize>(), frames.len());
    }

    /// Flows that take turns, in runs of any length: cutting what comes out gives all frames back, byte for byte and in
    /// the order of the wire, and a run of one flow is not left in pieces.
    #[test]
    fn flows_side_by_side_are_not_mixed(
        specs in vec(frame_spec(), 2..5),
        size in 100u16..600,
        turns in vec((any::<Index>(), 1usize..6), 1..40),
    ) {
        let mut flows: Vec<_> = (1u16..).zip(specs).map(|(port, mut spec)| {
            // What nothing is put together of is another test's.
            (spec.ip_options, spec.extensions) = (Vec::new(), Vec::new());
            spec.ports[0] = port;
            let all = segments(&spec, size);
            (spec, all.into_iter())
        }).collect();
        let mut sent: Vec<(usize, Vec<u8>)> = Vec::new();
        for (flow, run) in turns {
            let flow = flow.index(flows.len());
            let frames = flows[flow].1.by_ref().take(run);
            sent.extend(frames.map(|frame| (flow, frame)));
        }
        let frames: Vec<Vec<u8>> = sent.iter().map(|(_, frame)| frame.clone()).collect();
        let mut left = sent.iter();
        let mut before = None;
        for (whole, count) in coalesce(&frames, ALL) {
            let group: Vec<_> = left.by_ref().take(count).collect();
            let flow = group[0].0;
            let spec = &flows[flow].0;
            prop_assert!(group.iter().all(|it| it.0 == flow));
            // None of these flows has a segment that ends a frame before its last one.
            prop_assert!(before.replace(flow) != Some(flow));
            let mut cut_again = Vec::new();
            if count == 1 {
                cut_again.push(whole);
            } else {
                cut(&whole, spec.request(size), |head, payload| {
                    cut_again.push([head, payload].concat());
                }).unwrap();
            }
            prop_assert!(cut_again.iter().eq(group.iter().map(|it| &it.1)));
        }
        prop_assert!(left.next().is_none());
    }

    #[test]
    fn near_frames_are_harmless((spec, bytes) in nearly_a_frame(), size in any::<u16>()) {
        never_harmful(&bytes, spec.request(size))?;
    }

    #[test]
    fn any_bytes_are_harmless(
        bytes in vec(any::<u8>(), 0..300),
        size in any::<u16>(),
        checksum_start in 0usize..400,
    ) {
        let request = Request { kind: Kind::Tcp4, size, checksum_start, checksum_offset: 16 };
        never_harmful(&bytes, request)?;
    }
}
