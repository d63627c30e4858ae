use super::*;
use crate::testing::frames::FrameSpec;

fn verdict(frame: &[u8]) -> Verdict {
    judge(&[frame], &Packet::parse(frame).unwrap(), true)
}

#[test]
fn right_wrong_and_partial_checksums_are_told_apart() {
    for spec in super::super::packet::tests::specs() {
        let (right, partial) = (spec.build(), spec.build_partial());
        assert_eq!(verdict(&right), Verdict::Right, "{spec:?}");
        assert_eq!(verdict(&partial), Verdict::Partial, "{spec:?}");
        for at in [spec.transport_start(), right.len() - 1] {
            let mut wrong = right.clone();
            wrong[at] ^= 0x10;
            assert_eq!(verdict(&wrong), Verdict::Wrong, "{at} of {spec:?}");
        }
        let packet = Packet::parse(&right).unwrap();
        assert_eq!(judge(&[&right], &packet, false), Verdict::Unknown);
        assert_eq!(judge(&[&partial], &packet, false), Verdict::Partial);
    }
}

#[test]
fn partial_checksums_are_completed_in_any_pieces() {
    for mut spec in super::super::packet::tests::specs() {
        for len in [0, 1, 2, 99, 100] {
            spec.payload.truncate(len);
            let (right, partial) = (spec.build(), spec.build_partial());
            let packet = Packet::parse(&partial).unwrap();
            let want = packet.checksum(&right).unwrap();
            let start = spec.payload_start();
            for cut in start..=partial.len() {
                let (one, rest) = partial.split_at(cut);
                let (two, three) = rest.split_at(rest.len() / 3);
                assert_eq!(
                    complete(&[one, two, three], &packet),
                    want,
                    "{cut} of {spec:?}"
                );
                let (one, rest) = right.split_at(cut);
                let (two, three) = rest.split_at(rest.len() / 3);
                assert_eq!(judge(&[one, two, three], &packet, true), Verdict::Right);
            }
        }
    }
}

/// The checksum is over what the IP header says, not over the padding of a short frame.
#[test]
fn padding_does_not_count() {
    let spec = FrameSpec::tcp(false, vec![7]);
    let padding = [0xee; 5];
    for (frame, want) in [
        (spec.build(), Verdict::Right),
        (spec.build_partial(), Verdict::Partial),
    ] {
        let padded = [&frame[..], &padding].concat();
        assert_eq!(verdict(&padded), want);
        let packet = Packet::parse(&padded).unwrap();
        assert_eq!(
            complete(&[&spec.build_partial(), &padding], &packet),
            packet.checksum(&spec.build()).unwrap()
        );
    }
}

/// Lengths that contradict each other, no checksum, a destination that is elsewhere.
#[test]
fn what_cannot_be_judged_is_not() {
    let spec = FrameSpec::udp(false, vec![1; 40]);
    let mut none = spec.build();
    none[40..42].fill(0);
    assert_eq!(verdict(&none), Verdict::Unknown, "no checksum");
    let mut short = spec.build();
    short[39] -= 1;
    assert_eq!(verdict(&short), Verdict::Unknown, "the UDP length");
    let whole = spec.build();
    assert_eq!(verdict(&whole[..whole.len() - 1]), Verdict::Unknown, "cut");
    for total in [0u16, 27] {
        let mut tiny = spec.build();
        tiny[16..18].copy_from_slice(&total.to_be_bytes());
        assert_eq!(verdict(&tiny), Verdict::Unknown, "an IP length of {total}");
    }
    let mut routed = FrameSpec::tcp(true, vec![0; 20]);
    let mut routing = vec![0; 22];
    (routing[0], routing[1]) = (4, 1);
    routed.extensions = vec![(43, routing)];
    assert_eq!(verdict(&routed.build()), Verdict::Unknown);
    assert_eq!(verdict(&routed.build_partial()), Verdict::Unknown);
}
