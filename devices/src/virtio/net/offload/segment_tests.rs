use super::*;
use crate::testing::frames::{FrameSpec, assert_right};

pub(in super::super) fn segments(spec: &FrameSpec, size: u16) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let frame = spec.build_partial();
    cut(&frame, spec.request(size), |head, payload| {
        all.push([head, payload].concat());
    })
    .unwrap();
    all
}

/// What each segment is to be: built anew, not cut.
fn expected(spec: &FrameSpec, size: usize) -> Vec<Vec<u8>> {
    let count = spec.payload.len().div_ceil(size);
    let pieces = spec.payload.chunks(size).enumerate();
    let segment = |(number, piece): (usize, &[u8])| {
        let mut one = spec.clone();
        one.payload = piece.to_vec();
        one.id = spec.id.wrapping_add(u16::try_from(number).unwrap());
        let passed = u32::try_from(number * size).unwrap();
        one.sequence = spec.sequence.wrapping_add(passed);
        if number > 0 {
            one.flags &= !0x80;
        }
        if number + 1 < count {
            one.flags &= !0x09;
        }
        one.build()
    };
    pieces.map(segment).collect()
}

#[test]
fn segments_are_what_a_host_would_have_sent() {
    for spec in super::super::packet::tests::specs() {
        for len in [1usize, 99, 100, 101, 1000, 1001] {
            for flags in [0x10, 0x18, 0x19, 0xd8] {
                let mut spec = spec.clone();
                (spec.id, spec.flags) = (0xfffe, flags);
                spec.payload = (0..len)
                    .map(|i| (i * 7 + (i >> 8)).to_le_bytes()[0])
                    .collect();
                let size = 100u16;
                let all = segments(&spec, size);
                assert_eq!(all, expected(&spec, size.into()), "{spec:?}");
                for one in &all {
                    assert_right(one, spec.network_start(), spec.transport_start());
                }
            }
        }
    }
}

#[test]
fn the_longest_frame_is_cut() {
    for v6 in [false, true] {
        let mut spec = FrameSpec::tcp(v6, Vec::new());
        spec.tcp_options = vec![1; 12];
        let room = 65_535 + 14 - spec.payload_start();
        // Longer than the length field of IPv6 would allow, or exactly as long as that of IPv4.
        spec.payload = (0..room).map(|i| (i * 13).to_le_bytes()[0]).collect();
        let all = segments(&spec, 1448);
        assert_eq!(all.len(), room.div_ceil(1448));
        assert_eq!(all, expected(&spec, 1448));
        let frame = [spec.build_partial(), vec![0]].concat();
        let refused = Segmenter::new(&frame, frame.len(), spec.request(1448)).unwrap_err();
        assert_eq!(refused, SegmentError::TooLong);
    }
}

/// 17: sizes of 0, 1 and 65535, and kinds that the frame is not.
#[test]
fn requests_that_make_no_sense_are_refused() {
    let spec = FrameSpec::tcp(false, vec![0; 3000]);
    let frame = spec.build_partial();
    let good = spec.request(1000);
    let refused = |request| Segmenter::new(&frame, frame.len(), request).unwrap_err();
    for size in [0, 1, 7, 0xffff] {
        assert_eq!(refused(Request { size, ..good }), SegmentError::Size(size));
    }
    for kind in [Kind::Tcp6, Kind::Udp] {
        let (asked, found) = (kind, Kind::Tcp4);
        assert_eq!(
            refused(Request { kind, ..good }),
            SegmentError::Kind { asked, found }
        );
    }
    for checksum_start in [0, 33, 35, 0xffff] {
        let request = Request {
            checksum_start,
            ..good
        };
        assert_eq!(refused(request), SegmentError::ChecksumPlace);
    }
    for checksum_offset in [0, 6, 0xffff] {
        let request = Request {
            checksum_offset,
            ..good
        };
        assert_eq!(refused(request), SegmentError::ChecksumPlace);
    }
    let mut arp = frame.clone();
    arp[12..14].copy_from_slice(&[8, 6]);
    let refused = Segmenter::new(&arp, arp.len(), good).unwrap_err();
    assert_eq!(refused, PacketError::EtherType(0x0806).into());
}

/// 21: no payload, and more datagrams than anybody sends.
#[test]
fn the_number_of_segments_is_bounded() {
    let mut spec = FrameSpec::udp(false, vec![0; 128]);
    assert_eq!(segments(&spec, 1).len(), 128);
    spec.payload.push(0);
    let frame = spec.build_partial();
    let refused = Segmenter::new(&frame, frame.len(), spec.request(1)).unwrap_err();
    assert_eq!(refused, SegmentError::TooLong);
    for udp in [false, true] {
        let mut spec = FrameSpec::tcp(true, Vec::new());
        spec.udp = udp;
        let frame = spec.build_partial();
        let refused = Segmenter::new(&frame, frame.len(), spec.request(100)).unwrap_err();
        assert_eq!(refused, SegmentError::Empty);
    }
}

/// The pseudo-header is made from the IP header, whatever the sender left in the checksum; only where a
/// routing header hides the last destination is the sender believed.
#[test]
fn the_partial_checksum_is_not_trusted() {
    let mut spec = FrameSpec::tcp(false, (0..250).collect());
    let mut frame = spec.build_partial();
    let at = spec.transport_start() + 16;
    frame[at..at + 2].copy_from_slice(&[0xde, 0xad]);
    let mut all = Vec::new();
    cut(&frame, spec.request(100), |head, payload| {
        all.push([head, payload].concat())
    })
    .unwrap();
    assert_eq!(all, expected(&spec, 100));

    spec = FrameSpec::tcp(true, (0..250).collect());
    let mut routing = vec![0; 22];
    (routing[0], routing[1]) = (4, 1);
    spec.extensions = vec![(43, routing)];
    // This builder takes the header's destination; it is the sum that counts.
    assert_eq!(segments(&spec, 100), expected(&spec, 100));
}

/// For every size, and for every length at some sizes: segments follow each other without a gap, all but the
/// last are full, and together they are the payload. Their IP packets have a length that fits its field.
#[test]
fn lengths_add_up_for_every_size_and_every_length() {
    let spec = FrameSpec::tcp(false, Vec::new());
    let (start, headers) = (spec.build_partial(), spec.payload_start());
    let check = |size: u16, payload: usize| {
        let mut segmenter = Segmenter::new(&start, headers + payload, spec.request(size)).unwrap();
        let (mut count, mut at) = (0, headers);
        while !segmenter.is_done() {
            let len = segmenter.payload_len();
            assert_eq!(segmenter.position(), at);
            at += len;
            count += 1;
            let is_last = at == headers + payload;
            assert!(len == usize::from(size) || is_last && len < usize::from(size));
            assert!(len > 0 && headers + len <= segmenter.longest());
            segmenter.advance();
        }
        assert_eq!(segmenter.payload_len(), 0);
        assert_eq!(
            (at, count),
            (headers + payload, payload.div_ceil(size.into()))
        );
    };
    let longest = MAX_IP + spec.network_start() - headers;
    for size in MIN_TCP_SIZE..NOT_A_SIZE {
        check(size, longest);
    }
    for payload in 1..=longest {
        for size in [1448, 8948] {
            check(size, payload);
        }
    }
}
