//! Frames of the guest: headers, checksums, and cutting into segments.

use arbitrary::{Result, Unstructured};
use devices::{
    testing::frames::assert_right,
    virtio::net::offload::{
        Kind,
        packet::Packet,
        segment::{Request, cut},
        verify::{Verdict, complete, judge},
    },
};

use crate::frames;

/// Cuts a frame that is right, one that nearly is, or any bytes.
pub fn run(data: &[u8]) {
    let _ = script(&mut Unstructured::new(data));
}

fn script(u: &mut Unstructured<'_>) -> Result<()> {
    match u.int_in_range(0..=2)? {
        0 => honest(u),
        1 => {
            let spec = frames::spec(u, 3000)?;
            let mut request = spec.request(u.arbitrary()?);
            let mut frame = spec.build_partial();
            if u.ratio(1, 4)? {
                request = any_request(u)?;
            }
            frames::spoil(u, &mut frame)?;
            check(&frame, request);
            Ok(())
        }
        _ => {
            let request = any_request(u)?;
            let rest = u.len();
            check(u.bytes(rest)?, request);
            Ok(())
        }
    }
}

fn any_request(u: &mut Unstructured<'_>) -> Result<Request> {
    Ok(Request {
        kind: *u.choose(&[Kind::Tcp4, Kind::Tcp6, Kind::Udp])?,
        size: u.arbitrary()?,
        checksum_start: u.int_in_range(0..=0xffff)?,
        checksum_offset: *u.choose(&[16, 6, 0, 0xffff])?,
    })
}

/// Segments of a right frame have right lengths and checksums, all of the payload, and not more of it than asked for.
fn honest(u: &mut Unstructured<'_>) -> Result<()> {
    let spec = frames::spec(u, 60_000)?;
    let size = u.int_in_range(1..=9000)?;
    let mut payload = Vec::new();
    let frame = spec.build_partial();
    let done = cut(&frame, spec.request(size), |headers, piece| {
        let segment = [headers, piece].concat();
        let routed = Packet::parse(headers).is_ok_and(|packet| packet.is_routed);
        if !routed {
            assert_right(&segment, spec.network_start(), spec.transport_start());
        }
        assert!(!piece.is_empty() && piece.len() <= usize::from(size));
        payload.extend_from_slice(piece);
    });
    if done.is_ok() {
        assert_eq!(payload, spec.payload);
    }
    Ok(())
}

/// Whatever the bytes, what is cut out of them is frames with right checksums.
fn check(frame: &[u8], request: Request) {
    let packet = Packet::parse(frame);
    let mut payload = 0;
    let done = cut(frame, request, |headers, piece| {
        let packet = Packet::parse(headers).expect("a segment's headers are headers");
        let segment = [headers, piece].concat();
        let verdict = judge(&[&segment], &packet, true);
        assert!(
            packet.is_routed || verdict != Verdict::Wrong,
            "{segment:x?}"
        );
        payload += piece.len();
    });
    let Ok(packet) = packet else {
        assert!(done.is_err());
        return;
    };
    assert!(packet.payload_start <= frame.len());
    let _ = judge(&[frame], &packet, false);
    let whole = judge(&[frame], &packet, true);
    // In two fragments it is the same frame.
    let (start, rest) = frame.split_at(frame.len().midpoint(packet.payload_start));
    assert_eq!(judge(&[start, rest], &packet, true), whole);
    let _ = complete(&[start, rest], &packet);
    if done.is_ok() {
        assert_eq!(payload, frame.len() - packet.payload_start);
    }
}
