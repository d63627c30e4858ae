//! Frames of the wire that become one for the guest, and whether they can be had back.

use arbitrary::{Result, Unstructured};
use devices::virtio::net::offload::{
    coalesce::{Allowed, Coalescer},
    packet::{Network, Packet, Transport},
    segment::{Request, cut},
    verify::{Verdict, judge},
};

use crate::frames;

/// Coalesces segments of a frame: in order or not, some of them changed.
pub fn run(data: &[u8]) {
    let _ = script(&mut Unstructured::new(data));
}

fn script(u: &mut Unstructured<'_>) -> Result<()> {
    let spec = frames::spec(u, 4000)?;
    let size = u.int_in_range(8..=1500)?;
    let mut segments = Vec::new();
    let _ = cut(
        &spec.build_partial(),
        spec.request(size),
        |headers, payload| segments.push([headers, payload].concat()),
    );
    let [tcp4, tcp6, ecn, udp4, udp6] = u.arbitrary()?;
    let allowed = Allowed {
        tcp4,
        tcp6,
        ecn,
        udp4,
        udp6,
    };
    let mut received = Vec::new();
    if segments.is_empty() {
        segments.push(spec.build());
    }
    let in_order = u.arbitrary()?;
    for number in 0..segments.len().min(64) {
        let at = if in_order {
            number
        } else {
            u.choose_index(segments.len())?
        };
        let mut frame = segments.get(at).cloned().unwrap_or_default();
        if u.ratio(1, 6)? {
            frames::spoil(u, &mut frame)?;
            if u.arbitrary()? {
                repair(&mut frame);
            }
        }
        received.push(frame);
    }
    receive(&received, allowed);
    Ok(())
}

/// Makes the checksums right again, so that a changed frame is a frame of its own right.
fn repair(frame: &mut [u8]) {
    let Ok(packet) = Packet::parse(frame) else {
        return;
    };
    let (network, transport) = (packet.network_start, packet.transport_start);
    if packet.network == Network::V4 {
        frame[network + 10..network + 12].fill(0);
        let sum = !devices::testing::frames::ones_sum(&frame[network..transport]);
        frame[network + 10..network + 12].copy_from_slice(&sum.to_be_bytes());
    }
    let Some(len) = packet.end.min(frame.len()).checked_sub(transport) else {
        return;
    };
    let at = packet.checksum_start();
    let pseudo = packet.pseudo_header(frame, len).sum();
    frame[at..at + 2].copy_from_slice(&pseudo.to_be_bytes());
    let sum = devices::virtio::net::offload::verify::complete(&[frame], &packet);
    frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// As the card receives: a segment is added only if its checksum is right or was never on a wire.
fn receive(frames: &[Vec<u8>], allowed: Allowed) {
    let mut open: Option<(Coalescer, Vec<&[u8]>)> = None;
    for frame in frames {
        let packet = Packet::parse(frame).ok().filter(|packet| {
            let verdict = judge(&[frame], packet, true);
            matches!(verdict, Verdict::Right | Verdict::Partial)
        });
        if let (Some((whole, parts)), Some(packet)) = (&mut open, &packet)
            && let Some(step) = whole.fits(frame, packet, frame.len())
        {
            whole.add(step);
            parts.push(frame);
            continue;
        }
        close(open.take());
        let first = packet.and_then(|it| Coalescer::begin(frame, &it, frame.len(), allowed));
        open = first.map(|first| (first, vec![&frame[..]]));
    }
    close(open);
}

/// Cutting the whole must give the very segments back.
fn close(open: Option<(Coalescer, Vec<&[u8]>)>) {
    let Some((mut whole, parts)) = open else {
        return;
    };
    assert_eq!(whole.segments(), parts.len());
    if parts.len() == 1 {
        return;
    }
    let start = whole.header_len();
    let done = whole.finish();
    let mut frame = done.headers.to_vec();
    assert_eq!(frame.len(), start);
    frame.extend(parts.iter().flat_map(|part| &part[start..]));
    let packet = Packet::parse(&frame).expect("the whole is a packet");
    assert_eq!(judge(&[&frame], &packet, true), Verdict::Partial);
    let (checksum_start, checksum_offset) = done.checksum;
    let request = Request {
        kind: done.kind,
        size: u16::try_from(done.size).expect("less than a frame"),
        checksum_start,
        checksum_offset,
    };
    let mut back = Vec::new();
    let result = cut(&frame, request, |headers, payload| {
        back.push([headers, payload].concat());
    });
    if let Err(error) = result {
        // Sizes that nobody means are refused on the way out, and may come in.
        assert!(done.size < 8, "{error}");
        return;
    }
    assert_eq!(back.len(), parts.len());
    for (one, other) in back.iter().zip(parts) {
        assert_eq!(comparable(one, &packet), comparable(other, &packet));
    }
}

/// Without what may differ: a checksum that was partial or has two zeros, and with it the IPv4 ID, which may be the same
/// in all segments where fragmentation is forbidden.
fn comparable(frame: &[u8], packet: &Packet) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let network = packet.network_start;
    if packet.network == Network::V4 {
        let forbidden = frame[network + 6] & 0x40 != 0;
        frame[network + 10..network + 12].fill(0);
        if forbidden {
            frame[network + 4..network + 6].fill(0);
        }
    }
    let at = packet.transport_start
        + match packet.transport {
            Transport::Tcp => 16,
            Transport::Udp => 6,
        };
    frame[at..at + 2].fill(0);
    frame
}
