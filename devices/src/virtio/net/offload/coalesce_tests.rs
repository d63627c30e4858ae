use super::super::segment::tests::segments;
use super::*;
use crate::testing::frames::{FrameSpec, ones_sum, pseudo_header};

pub(in super::super) const ALL: Allowed = Allowed {
    tcp4: true,
    tcp6: true,
    ecn: true,
    udp4: true,
    udp6: true,
};

/// What a receiver gets of `frames`: whole frames, with the number of segments in each.
pub(in super::super) fn coalesce(frames: &[Vec<u8>], allowed: Allowed) -> Vec<(Vec<u8>, usize)> {
    let mut out = Vec::new();
    let mut open: Option<(Coalescer, Vec<u8>)> = None;
    let close = |open: &mut Option<(Coalescer, Vec<u8>)>, out: &mut Vec<_>| {
        if let Some((mut whole, mut bytes)) = open.take() {
            if whole.segments() > 1 {
                let done = whole.finish();
                bytes[..done.headers.len()].copy_from_slice(done.headers);
            }
            out.push((bytes, whole.segments()));
        }
    };
    for frame in frames {
        let packet = Packet::parse(frame).ok();
        if let (Some((whole, bytes)), Some(packet)) = (&mut open, &packet)
            && let Some(step) = whole.fits(frame, packet, frame.len())
        {
            whole.add(step);
            bytes.extend(&frame[packet.payload_start..]);
            continue;
        }
        close(&mut open, &mut out);
        let first =
            packet.and_then(|packet| Coalescer::begin(frame, &packet, frame.len(), allowed));
        match first {
            Some(first) => open = Some((first, frame.clone())),
            None => out.push((frame.clone(), 1)),
        }
    }
    close(&mut open, &mut out);
    out
}

fn bulk(v6: bool, udp: bool, len: usize) -> FrameSpec {
    let payload = (0..len)
        .map(|i| (i * 11 + (i >> 8)).to_le_bytes()[0])
        .collect();
    let mut spec = FrameSpec::tcp(v6, payload);
    spec.udp = udp;
    spec
}

/// A frame that is cut and put together again is the same, with the pseudo-header's sum as checksum.
#[test]
fn what_was_cut_becomes_whole_again() {
    for (v6, udp) in [(false, false), (false, true), (true, false), (true, true)] {
        for (len, flags) in [(2000, 0x10), (1999, 0x18), (300, 0x19), (250, 0xd8)] {
            let mut spec = bulk(v6, udp, len);
            spec.tags = vec![(0x8100, 3)];
            (spec.flags, spec.tcp_options) = (flags, vec![1; 12]);
            let cut = segments(&spec, 100);
            let whole = coalesce(&cut, ALL);
            assert_eq!(whole, [(spec.build_partial(), cut.len())], "{spec:?}");
            let (frame, start) = (&whole[0].0, spec.transport_start());
            let at = start + spec.checksum_offset();
            let pseudo = pseudo_header(frame, spec.network_start(), start);
            assert_eq!(frame[at..at + 2], ones_sum(&pseudo).to_be_bytes());
        }
    }
}

#[test]
fn the_receiver_says_what_it_takes() {
    for (v6, udp) in [(false, false), (false, true), (true, false), (true, true)] {
        let cut = segments(&bulk(v6, udp, 300), 100);
        let mut allowed = ALL;
        *match (v6, udp) {
            (false, false) => &mut allowed.tcp4,
            (false, true) => &mut allowed.udp4,
            (true, false) => &mut allowed.tcp6,
            (true, true) => &mut allowed.udp6,
        } = false;
        assert_eq!(coalesce(&cut, ALL).len(), 1);
        assert_eq!(coalesce(&cut, allowed).len(), 3);
        assert_eq!(coalesce(&cut, Allowed::default()).len(), 3);
    }
    let mut spec = bulk(false, false, 300);
    spec.flags = 0x90;
    let cut = segments(&spec, 100);
    assert_eq!(coalesce(&cut, ALL).len(), 1);
    let counts: Vec<_> = coalesce(&cut, Allowed { ecn: false, ..ALL })
        .iter()
        .map(|it| it.1)
        .collect();
    assert_eq!(counts, [1, 2], "the one with CWR stays alone");
}

/// Each change of the second of three segments, and how the three arrive.
#[test]
fn segments_that_differ_are_not_mixed() {
    type Change = fn(&mut FrameSpec);
    let changes: [(&str, Change, &[usize]); 14] = [
        ("nothing", |_| {}, &[3]),
        ("a gap", |it| it.sequence += 1, &[1, 1, 1]),
        ("a repetition", |it| it.sequence -= 100, &[1, 1, 1]),
        ("another port", |it| it.ports[0] += 1, &[1, 1, 1]),
        (
            "another acknowledgment",
            |it| it.acknowledgment += 1,
            &[1, 1, 1],
        ),
        ("PSH", |it| it.flags |= 8, &[2, 1]),
        ("FIN", |it| it.flags |= 1, &[2, 1]),
        ("URG", |it| it.flags |= 0x20, &[1, 1, 1]),
        ("RST", |it| it.flags |= 4, &[1, 1, 1]),
        ("ECE", |it| it.flags |= 0x40, &[1, 1, 1]),
        ("CWR", |it| it.flags |= 0x80, &[1, 2]),
        ("another ID", |it| it.id += 7, &[1, 1, 1]),
        ("other options", |it| it.tcp_options[3] = 0, &[1, 1, 1]),
        ("a fragment", |it| it.fragment = 0x2000, &[1, 1, 1]),
    ];
    for (what, change, want) in changes {
        let all = (0..3u16).map(|number| {
            let mut spec = bulk(false, false, 100);
            spec.tcp_options = vec![1; 4];
            spec.sequence = spec.sequence.wrapping_add(100 * u32::from(number));
            spec.id += number;
            if number == 1 {
                change(&mut spec);
            }
            spec.build()
        });
        let all: Vec<_> = all.collect();
        let whole = coalesce(&all, ALL);
        let counts: Vec<_> = whole.iter().map(|it| it.1).collect();
        assert_eq!(counts, want, "{what}");
    }
}

#[test]
fn sizes_and_padding_end_a_frame() {
    let build = |lens: &[usize], udp: bool| {
        let mut sequence = 5u32;
        let frames = lens.iter().zip(0u16..).map(|(&len, number)| {
            let mut spec = bulk(false, udp, len);
            (spec.sequence, spec.id) = (sequence, number);
            sequence += u32::try_from(len).unwrap();
            spec.build()
        });
        frames.collect::<Vec<_>>()
    };
    let counts = |frames: &[Vec<u8>]| -> Vec<usize> {
        coalesce(frames, ALL).iter().map(|it| it.1).collect()
    };
    for udp in [false, true] {
        assert_eq!(counts(&build(&[100, 100, 40, 100], udp)), [3, 1]);
        assert_eq!(counts(&build(&[40, 100, 100], udp)), [1, 2]);
        assert_eq!(counts(&build(&[100, 0, 100], udp)), [1, 1, 1]);
    }
    let mut padded = build(&[100, 100], false);
    padded[1].push(0);
    assert_eq!(counts(&padded), [1, 1]);
    assert_eq!(counts(&build(&[10; 100], true)), [64, 36], "datagrams");
    let long = counts(&build(&[1448; 50], false));
    assert_eq!(long, [(65_535 - 40) / 1448, 50 - (65_535 - 40) / 1448]);
}

/// IDs that stay the same, as hosts may send them with "don't fragment"; options; a bad IPv4 checksum.
#[test]
fn the_ip_header_counts() {
    let build = |fragment: u16, step: u16, options: usize| -> Vec<Vec<u8>> {
        let frames = (0..4u16).map(|number| {
            let mut spec = bulk(false, false, 100);
            spec.sequence = 100 * u32::from(number);
            (spec.id, spec.fragment) = (number * step, fragment);
            spec.ip_options = vec![1; options];
            spec.build()
        });
        frames.collect()
    };
    assert_eq!(coalesce(&build(0x4000, 0, 0), ALL).len(), 1);
    assert_eq!(coalesce(&build(0, 0, 0), ALL).len(), 4);
    assert_eq!(coalesce(&build(0, 1, 0), ALL).len(), 1);
    assert_eq!(coalesce(&build(0x4000, 1, 4), ALL).len(), 4);
    let mut bad = build(0x4000, 1, 0);
    bad[1][24] ^= 1;
    assert_eq!(coalesce(&bad, ALL).len(), 3);
}
