use super::*;
use crate::testing::{
    frames::FrameSpec,
    tunnels::{Carrier, Tunnel as Spec},
};

fn find(frame: &[u8]) -> Option<Hidden> {
    Hidden::find(&[frame], &Packet::parse(frame))
}

/// The frame as it is to be, if anything is to be changed; in whatever pieces it lies.
fn completed(frame: &[u8]) -> Option<Vec<u8>> {
    let hidden = find(frame)?;
    let patches = hidden.complete(&[frame]);
    let headers = frame.len().min(200);
    for cut in [headers, headers.midpoint(frame.len())] {
        let (one, rest) = frame.split_at(cut);
        let (two, three) = rest.split_at(rest.len() / 3);
        let pieces = [one, two, three];
        let parsed = Packet::parse(one);
        assert_eq!(Hidden::find(&pieces, &parsed), Some(hidden));
        assert_eq!(hidden.complete(&pieces), patches, "{cut}");
    }
    let mut done = frame.to_vec();
    let mut before = 0;
    for (at, number) in patches.into_iter().flatten() {
        assert!(at >= before, "lower offsets first");
        before = at + 2;
        done[at..at + 2].copy_from_slice(&number.to_be_bytes());
    }
    Some(done)
}

fn inner_specs() -> Vec<FrameSpec> {
    let mut specs = Vec::new();
    for v6 in [false, true] {
        for len in [0, 1, 2, 99, 1300] {
            let payload: Vec<u8> = (0..len).map(|i: u32| i.to_le_bytes()[0]).collect();
            specs.push(FrameSpec::tcp(v6, payload.clone()));
            specs.push(FrameSpec::udp(v6, payload));
        }
    }
    specs
}

/// The outer checksum, if there is one, is the kernel's for the inner frame with its checksum in place, or 0, or only the
/// sum over the pseudo-header (of what is to be cut later).
#[test]
fn checksums_in_tunnels_are_completed_and_so_are_those_of_the_tunnels() {
    for spec in Spec::all() {
        for inner in inner_specs() {
            let want = spec.carry(&inner.build(), &inner);
            let frame = spec.with_inner(&inner.build(), &inner.build_partial(), &inner);
            assert_eq!(
                completed(&frame).as_ref(),
                Some(&want),
                "{spec:?} {inner:?}"
            );
            assert_eq!(find(&want), None, "{spec:?} {inner:?}");
            if let Some((at, partial)) = spec.partial(&want) {
                let mut uncut = frame.clone();
                uncut[at..at + 2].copy_from_slice(&partial.to_be_bytes());
                assert_eq!(completed(&uncut).as_ref(), Some(&want), "{spec:?}");
            }
        }
    }
}

#[test]
fn vlan_tags_within_and_around_a_tunnel_are_passed_over() {
    for spec in Spec::all().into_iter().filter(Spec::carries_ethernet) {
        let mut spec = spec.clone();
        spec.tags = vec![(0x88a8, 3), (0x8100, 4)];
        let mut inner = FrameSpec::tcp(false, vec![7; 33]);
        inner.tags = vec![(0x8100, 9)];
        inner.ip_options = vec![1; 8];
        let want = spec.carry(&inner.build(), &inner);
        let frame = spec.with_inner(&inner.build(), &inner.build_partial(), &inner);
        assert_eq!(completed(&frame), Some(want), "{spec:?}");
    }
}

/// GRE with a checksum, carrying an ICMP message: Linux leaves 0 there, and knows of no pseudo-header.
#[test]
fn a_checksum_of_gre_alone_is_completed() {
    let mut count = 0;
    for spec in Spec::all() {
        let Carrier::Gre { checksum: true, .. } = spec.carrier else {
            continue;
        };
        let inner = FrameSpec::udp(false, vec![3; 77]);
        let mut icmp = inner.build();
        icmp[23] = 1;
        let want = spec.carry(&icmp, &inner);
        let at = spec.checksum_at().unwrap();
        let mut frame = want.clone();
        frame[at..at + 2].fill(0);
        assert_eq!(completed(&frame).as_ref(), Some(&want), "{spec:?}");
        assert_eq!(find(&want), None, "{spec:?}");
        count += 1;
    }
    assert!(count >= 4);
}

/// Each byte of the headers changed, and the frame cut anywhere: nothing but checksums is ever changed, and none that
/// is outside of the frame.
#[test]
fn what_is_no_tunnel_is_left_alone() {
    for spec in Spec::all() {
        let inner = FrameSpec::tcp(false, vec![5; 40]);
        let frame = spec.with_inner(&inner.build(), &inner.build_partial(), &inner);
        for len in 0..frame.len() {
            let cut = &frame[..len];
            assert_eq!(find(cut), None, "{len} bytes of {spec:?}");
        }
        for at in 0..frame.len().min(140) {
            for bit in 0..8 {
                let mut changed = frame.clone();
                changed[at] ^= 1 << bit;
                let Some(hidden) = find(&changed) else {
                    continue;
                };
                for (at, _) in hidden.complete(&[&changed]).into_iter().flatten() {
                    assert!(at + 2 <= changed.len(), "{spec:?}");
                }
            }
        }
    }
}

#[test]
fn tunnels_of_other_kinds_are_left_alone() {
    let inner = FrameSpec::tcp(false, vec![5; 40]);
    let frame = |spec: &Spec| spec.with_inner(&inner.build(), &inner.build_partial(), &inner);
    let changed = |spec: &Spec, at: usize, value: u8| {
        let mut frame = frame(spec);
        frame[at] = value;
        find(&frame)
    };
    for spec in Spec::all().into_iter().filter(|it| !it.v6) {
        assert!(find(&frame(&spec)).is_some());
        match spec.carrier {
            Carrier::Vxlan { .. } => {
                for flags in [[0, 0], [0x0c, 0], [0x08, 0x20]] {
                    let mut frame = frame(&spec);
                    frame[42..44].copy_from_slice(&flags);
                    assert_eq!(find(&frame), None, "flags {flags:x?}");
                }
                assert!(changed(&spec, 42, 0x88).is_some(), "with a group policy");
                assert_eq!(changed(&spec, 37, 0xee), None, "another port");
            }
            Carrier::Geneve { .. } => {
                assert_eq!(changed(&spec, 42, 0x40), None, "version 1");
                assert_eq!(changed(&spec, 45, 0x59), None, "another protocol");
                assert_eq!(changed(&spec, 37, 0xc2), None, "another port");
            }
            Carrier::Gre { .. } => {
                assert_eq!(changed(&spec, 35, 1), None, "version 1");
                assert_eq!(changed(&spec, 36, 0x88), None, "another protocol");
            }
            Carrier::Ip => assert_eq!(changed(&spec, 23, 94), None, "another protocol"),
        }
        assert_eq!(changed(&spec, 20, 0x20), None, "a fragment");
    }
}

/// One tunnel deep: what a tunnel in a tunnel leaves is the guest's to see.
#[test]
fn a_tunnel_in_a_tunnel_is_left_alone() {
    let inner = FrameSpec::tcp(false, vec![5; 40]);
    let vxlan = Spec::all()
        .into_iter()
        .find(Spec::carries_ethernet)
        .unwrap();
    let once = vxlan.with_inner(&inner.build(), &inner.build_partial(), &inner);
    let outer = FrameSpec::tcp(false, Vec::new());
    assert_eq!(find(&vxlan.carry(&once, &outer)), None);
}

/// Bit by bit, as RFC 9260 has it.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 != 0 { 0x82f6_3b78 } else { 0 };
        }
    }
    !crc
}

/// An SCTP packet of an INIT chunk's length, with a checksum or 0.
fn sctp_frame(v6: bool, tags: Vec<(u16, u16)>, done: bool) -> (Vec<u8>, usize) {
    let mut spec = FrameSpec::udp(v6, vec![0x5a; 32]);
    spec.tags = tags;
    let (mut frame, start) = (spec.build(), spec.transport_start());
    let protocol = spec.network_start() + if v6 { 6 } else { 9 };
    frame[protocol] = 132;
    frame[start + 8..start + 12].fill(0);
    if done {
        let crc = crc32c(&frame[start..]).to_le_bytes();
        frame[start + 8..start + 12].copy_from_slice(&crc);
    }
    (frame, start)
}

#[test]
fn a_checksum_of_sctp_that_is_0_is_completed() {
    for v6 in [false, true] {
        for tags in [vec![], vec![(0x8100, 5)]] {
            let (want, start) = sctp_frame(v6, tags.clone(), true);
            let (frame, _) = sctp_frame(v6, tags, false);
            assert_eq!(completed(&frame).as_ref(), Some(&want));
            assert_eq!(find(&want), None, "it is there");
            // Padding does not count.
            let padded = |frame: &[u8]| [frame, &[0xee; 9]].concat();
            assert_eq!(completed(&padded(&frame)), Some(padded(&want)));
            for len in 0..frame.len() {
                assert_eq!(find(&frame[..len]), None, "{len} bytes");
            }
            for byte in 8..12 {
                let mut wrong = frame.clone();
                wrong[start + byte] = 1;
                assert_eq!(find(&wrong), None, "a wrong one stays wrong");
            }
        }
    }
    let (mut fragment, _) = sctp_frame(false, Vec::new(), false);
    fragment[20] = 0x20;
    assert_eq!(find(&fragment), None);
    // Too short for a header, as its IP header has it.
    let (mut short, _) = sctp_frame(false, Vec::new(), false);
    short[16..18].copy_from_slice(&31u16.to_be_bytes());
    assert_eq!(find(&short), None);
}
