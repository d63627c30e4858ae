//! What segmentation costs: the bytes of 64 KiB frames moved in a given time by a plain copy, by the
//! checksum alone, and by cutting into segments while they are copied, as the card does it: with checksums, and with
//! checksums that are left to the interface (tx-metadata).
//! And what it costs to look at a small received frame, without and with its checksum.
//!
//! `cargo run --release -p devices --example segmentation`. Rounds alternate, and the best of each is taken:
//! ratios on a busy machine are worth more than figures.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use devices::{
    testing::frames::FrameSpec,
    virtio::net::offload::{
        Kind,
        checksum::Checksum,
        hidden::Hidden,
        packet::Packet,
        segment::{Request, Segmenter},
        verify::{Verdict, judge},
    },
};

/// Bytes of payload in each segment at an MTU of 1500 with timestamps.
const SIZE: u16 = 1448;
const ROUNDS: usize = 200;
const FRAMES_A_ROUND: u32 = 50;
/// Where each segment is copied to: frames of a chunk each.
const CHUNK: usize = 4096;

fn copy(frame: &[u8], chunks: &mut [[u8; CHUNK]]) {
    for (piece, chunk) in frame.chunks(usize::from(SIZE) + 66).zip(chunks) {
        let (to, _) = chunk.split_at_mut(piece.len());
        to.copy_from_slice(piece);
    }
}

fn sum(frame: &[u8]) {
    let mut sum = Checksum::new();
    sum.add(frame);
    black_box(sum.finish());
}

fn cut<const PARTIAL: bool>(frame: &[u8], request: Request, chunks: &mut [[u8; CHUNK]]) {
    let mut segmenter =
        Segmenter::new(frame, frame.len(), request).expect("a frame that can be cut");
    for chunk in chunks {
        if segmenter.is_done() {
            break;
        }
        let (_, rest) = frame.split_at(segmenter.position());
        let (payload, _) = rest.split_at(segmenter.payload_len());
        let (head, body) = chunk.split_at_mut(segmenter.header_len());
        let (body, _) = body.split_at_mut(payload.len());
        body.copy_from_slice(payload);
        if PARTIAL {
            head.copy_from_slice(segmenter.partial_header());
        } else {
            let mut sum = Checksum::new();
            sum.add(body);
            head.copy_from_slice(segmenter.header(sum));
        }
        segmenter.advance();
    }
}

/// Looks at a received frame, as the card does it for each.
fn look(frame: &[u8], thorough: bool) {
    let parsed = Packet::parse(frame);
    let verdict = parsed
        .as_ref()
        .map_or(Verdict::Unknown, |packet| judge(&[frame], packet, thorough));
    if verdict != Verdict::Right {
        black_box(Hidden::find(&[frame], &parsed));
    }
    black_box(verdict);
}

fn time(mut work: impl FnMut()) -> Duration {
    let start = Instant::now();
    for _ in 0..FRAMES_A_ROUND {
        work();
    }
    start.elapsed()
}

fn main() {
    let mut spec = FrameSpec::tcp(false, vec![0x5a; 65_000]);
    spec.tcp_options = vec![1; 12];
    let frame = spec.build_partial();
    let request = Request {
        kind: Kind::Tcp4,
        size: SIZE,
        checksum_start: spec.transport_start(),
        checksum_offset: spec.checksum_offset(),
    };
    let small = FrameSpec::udp(false, vec![1; 22]).build();
    let mut chunks = vec![[0; CHUNK]; 64];
    let mut best = [Duration::MAX; 6];
    for _ in 0..ROUNDS {
        let times = [
            time(|| copy(black_box(&frame), black_box(&mut chunks))),
            time(|| sum(black_box(&frame))),
            time(|| cut::<false>(black_box(&frame), request, black_box(&mut chunks))),
            time(|| cut::<true>(black_box(&frame), request, black_box(&mut chunks))),
            time(|| look(black_box(&small), false)),
            time(|| look(black_box(&small), true)),
        ];
        for (best, time) in best.iter_mut().zip(times) {
            *best = time.min(*best);
        }
    }
    let bytes = u32::try_from(frame.len()).expect("64 KiB") * FRAMES_A_ROUND;
    let rate = |time: Duration| f64::from(bytes) / time.as_secs_f64() / 1e9;
    let [copy, sum, cut, partial, headers, checksum] = best;
    let [copy, sum, cut, partial] = [copy, sum, cut, partial].map(rate);
    println!("copy          {copy:6.2} GB/s");
    println!("checksum      {sum:6.2} GB/s");
    println!(
        "segmentation  {cut:6.2} GB/s, {:.2} of the copy",
        cut / copy
    );
    println!(
        "without sums  {partial:6.2} GB/s, {:.2} of the copy",
        partial / copy
    );
    for (what, time) in [("headers alone", headers), ("and its checksum", checksum)] {
        let each = time.as_secs_f64() * 1e9 / f64::from(FRAMES_A_ROUND);
        println!("a datagram of 64 bytes, {what}: {each:.1} ns");
    }
}
