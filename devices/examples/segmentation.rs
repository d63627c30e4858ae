//! What segmentation costs: the bytes of 64 KiB frames moved in a given time by a plain copy, by the
//! checksum alone, and by cutting into segments with checksums while they are copied, as the card does it.
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
        segment::{Request, Segmenter},
    },
};

/// Bytes of payload in each segment at an MTU of 1500 with timestamps.
const SIZE: u16 = 1448;
const ROUNDS: usize = 200;
const FRAMES_A_ROUND: usize = 50;
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

fn cut(frame: &[u8], request: Request, chunks: &mut [[u8; CHUNK]]) {
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
        let mut sum = Checksum::new();
        sum.add(body);
        head.copy_from_slice(segmenter.header(sum));
        segmenter.advance();
    }
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
    let mut chunks = vec![[0; CHUNK]; 64];
    let mut best = [Duration::MAX; 3];
    for _ in 0..ROUNDS {
        let times = [
            time(|| copy(black_box(&frame), black_box(&mut chunks))),
            time(|| sum(black_box(&frame))),
            time(|| cut(black_box(&frame), request, black_box(&mut chunks))),
        ];
        for (best, time) in best.iter_mut().zip(times) {
            *best = time.min(*best);
        }
    }
    let bytes = u32::try_from(frame.len() * FRAMES_A_ROUND).expect("some megabytes");
    let rate = |time: Duration| f64::from(bytes) / time.as_secs_f64() / 1e9;
    let [copy, sum, cut] = best.map(rate);
    println!("copy          {copy:6.2} GB/s");
    println!("checksum      {sum:6.2} GB/s");
    println!(
        "segmentation  {cut:6.2} GB/s, {:.2} of the copy",
        cut / copy
    );
}
