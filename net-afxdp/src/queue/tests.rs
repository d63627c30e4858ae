//! A queue on the model: what the kernel at hand never does.

use std::{ops::ControlFlow, sync::LazyLock};

use rustix::io::Errno;

use super::{
    Path, SendError,
    model::{Luck, Model, queue, queue_with_metadata},
};
use crate::{
    multi_buffer::{FrameLimits, MAX_FRAGMENTS, PACKET_CONTINUES},
    ring::Descriptor,
    tx_metadata::ChecksumRequest,
};

pub(super) const FRAMES: u32 = 64;
/// Bytes that the model puts into a chunk.
pub(super) const FRAGMENT: usize = 3840;

pub(super) fn limits() -> FrameLimits {
    FrameLimits::several_chunks(9000, None, 0)
}

/// A frame to recognize: a piece of what does not repeat, from a place that `number` says.
pub(super) fn frame(number: u32, length: usize) -> Vec<u8> {
    static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let mut state = 1_u32;
        let next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_le_bytes()[3]
        };
        std::iter::repeat_with(next).take(1 << 15).collect()
    });
    let start = number as usize * 61 % 8192;
    BYTES[start..start + length].to_vec()
}

/// The frame as it is on the wire: with zeros behind it if it is short.
pub(super) fn on_the_wire(mut frame: Vec<u8>) -> Vec<u8> {
    frame.resize(frame.len().max(60), 0);
    frame
}

pub(super) fn send(path: &mut Path<Model>, frame: &[u8]) -> Result<(), SendError> {
    let mut rest = frame;
    path.send(frame.len(), |fragment| {
        let (bytes, after) = rest.split_at(fragment.len());
        fragment.copy_from_slice(bytes);
        rest = after;
    })
}

fn receive(path: &mut Path<Model>) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    path.receive(usize::MAX, |fragments| {
        frames.push(fragments.concat());
        ControlFlow::Continue(())
    });
    frames
}

/// Checks that every chunk is in exactly one place, as the queue and the model see it.
pub(super) fn check(path: &Path<Model>, model: &Model) {
    let accounting = path.accounting();
    assert!(accounting.is_balanced(), "{accounting:?}");
    assert_eq!(path.counters.invalid_descriptors, 0);
    let mut chunks = model.0.borrow_mut().chunks();
    let there = accounting.free + accounting.rx + accounting.completion;
    // Staged, and not yet seen by the kernel.
    let staged = path.socket.rings.tx.staged();
    let known = u32::try_from(chunks.len()).unwrap();
    assert_eq!(known + there + staged, FRAMES, "{accounting:?}");
    chunks.sort_unstable();
    chunks.dedup();
    assert_eq!(
        u32::try_from(chunks.len()).unwrap(),
        known,
        "a chunk is in two places"
    );
}

#[test]
fn a_frame_whose_end_is_not_there_yet_waits() {
    let (mut path, model) = queue(FRAMES, limits(), u32::MAX);
    let (first, second) = (frame(1, 9014), frame(2, 60));
    assert!(model.0.borrow_mut().deliver(&first, FRAGMENT, 2));
    for _ in 0..3 {
        assert!(receive(&mut path).is_empty());
        assert_eq!(path.discard(), 0);
        assert_eq!(path.accounting().rx, 2);
    }
    model.0.borrow_mut().publish(1);
    assert!(model.0.borrow_mut().deliver(&second, FRAGMENT, 1));
    assert!(receive(&mut path) == [first, second]);
    check(&path, &model);
}

#[test]
fn a_frame_of_too_many_fragments_is_dropped_whole_and_counted() {
    let (mut path, model) = queue(FRAMES, limits(), 0);
    let longest = frame(1, MAX_FRAGMENTS * 100);
    assert!(model.0.borrow_mut().deliver(&longest, 100, 99));
    assert!(receive(&mut path) == [longest]);
    for first in [MAX_FRAGMENTS - 1, MAX_FRAGMENTS, MAX_FRAGMENTS + 1, 99] {
        let longer = frame(2, MAX_FRAGMENTS * 100 + 150);
        assert!(model.0.borrow_mut().deliver(&longer, 100, first));
        assert!(receive(&mut path).is_empty(), "{first} at once");
        model.0.borrow_mut().publish(99);
        let next = frame(3, 60);
        assert!(model.0.borrow_mut().deliver(&next, 100, 1));
        assert!(receive(&mut path) == [next], "{first} at once");
        check(&path, &model);
    }
    assert_eq!(path.counters.rx_too_long, 4);
    assert_eq!(path.counters.rx_packets, 5);
}

#[test]
fn descriptors_of_memory_that_the_kernel_does_not_have_are_counted_and_never_touched() {
    let (mut path, model) = queue(FRAMES, limits(), 0);
    let free = u64::from(FRAMES - 1) * 4096;
    let addresses = [free, free + 4096, u64::MAX, u64::from(u32::MAX) * 4096];
    for address in addresses {
        for options in [0, PACKET_CONTINUES] {
            let lie = Descriptor {
                address,
                length: 60,
                options,
            };
            model.0.borrow_mut().inject(lie);
        }
    }
    let good = frame(1, 60);
    assert!(model.0.borrow_mut().deliver(&good, FRAGMENT, 1));
    // The last lie says that it goes on in what follows.
    assert!(receive(&mut path).is_empty());
    assert_eq!(path.counters.invalid_descriptors, 8);
    assert!(model.0.borrow_mut().deliver(&good, FRAGMENT, 1));
    assert!(receive(&mut path) == [good]);
    assert!(path.accounting().is_balanced());
}

#[test]
fn a_descriptor_that_ends_beyond_its_chunk_is_counted_and_its_memory_recycled() {
    let (mut path, model) = queue(FRAMES, limits(), 0);
    let before = path.accounting();
    let chunk = model.0.borrow_mut().deliver(&frame(1, 60), FRAGMENT, 0);
    assert!(chunk && model.0.borrow().is_amid_a_frame());
    model.0.borrow_mut().lengthen_the_tail(3841);
    model.0.borrow_mut().publish(1);
    assert!(receive(&mut path).is_empty());
    assert_eq!(path.counters.invalid_descriptors, 1);
    assert_eq!(path.accounting(), before);
}

#[test]
fn no_kick_goes_on_for_ever() {
    let refusals = [
        Errno::AGAIN,
        Errno::NOBUFS,
        Errno::NOMEM,
        Errno::INTR,
        Errno::BUSY,
        Errno::NETDOWN,
        Errno::NXIO,
        Errno::INVAL,
    ];
    for error in refusals {
        let (mut path, model) = queue(FRAMES, limits(), 0);
        for number in 0..10 {
            send(&mut path, &frame(number, 9014)).unwrap();
        }
        model.0.borrow_mut().luck = Luck::Refused(error);
        model.0.borrow_mut().kicks = 0;
        let result = path.flush();
        let hopeless = [Errno::NETDOWN, Errno::NXIO, Errno::INVAL].contains(&error);
        assert_eq!(result.is_err(), hopeless, "{error}");
        let kicks = model.0.borrow().kicks;
        assert!(
            kicks <= if hopeless { 1 } else { 32 },
            "{error}: {kicks} kicks"
        );
        assert_eq!(path.unsent(), 30);
        // Nothing was lost: it goes when the cause has gone.
        model.0.borrow_mut().luck = Luck::Good;
        path.flush().unwrap();
        assert_eq!(model.0.borrow().gone.len(), 10);
        path.reap();
        check(&path, &model);
    }
}

#[test]
fn a_polled_card_whose_transmit_side_is_apart_is_woken() {
    let (mut path, model) = queue(FRAMES, limits(), 0);
    path.socket.zero_copy = true;
    path.busy_poll = true;
    for (luck, kicks) in [(Luck::Apart, 2), (Luck::Good, 1)] {
        model.0.borrow_mut().luck = luck;
        model.0.borrow_mut().kicks = 0;
        for number in 0..10 {
            send(&mut path, &frame(number, 60)).unwrap();
        }
        path.flush().unwrap();
        assert_eq!(path.unsent(), 0, "{luck:?}");
        assert_eq!(model.0.borrow().kicks, kicks, "{luck:?}");
        path.reap();
        check(&path, &model);
    }
}

#[test]
fn metadata_goes_with_the_first_chunk_of_the_frames_that_ask_for_it() {
    let (mut path, model) = queue_with_metadata(FRAMES, u32::MAX - 3);
    let request = ChecksumRequest {
        start: 34,
        offset: 16,
    };
    let (mut sent, mut asked) = (Vec::new(), 0);
    for round in 0..20 {
        for length in [60, 4064, 4065, 9014] {
            let frame = frame(round, length);
            let mut rest = frame.as_slice();
            let asks = (round as usize + length)
                .is_multiple_of(3)
                .then_some(request);
            asked += usize::from(asks.is_some());
            let result = path.send_with(length, asks, |fragment| {
                let (bytes, after) = rest.split_at(fragment.len());
                fragment.copy_from_slice(bytes);
                rest = after;
            });
            result.unwrap();
            sent.push(frame);
        }
        path.flush().unwrap();
        path.reap();
        check(&path, &model);
        // What is received lies where it always did.
        assert!(
            model
                .0
                .borrow_mut()
                .deliver(&frame(round, 9014), FRAGMENT, 9)
        );
        assert!(receive(&mut path) == [frame(round, 9014)]);
    }
    let state = model.0.borrow();
    assert!(state.gone == sent);
    assert_eq!(state.requests.len(), asked);
    assert!(state.requests.iter().all(|it| **it == request.to_bytes()));
}

#[test]
fn a_request_that_the_kernel_would_not_get_past_is_refused() {
    let request = |start, offset| Some(ChecksumRequest { start, offset });
    let (mut path, model) = queue_with_metadata(FRAMES, 0);
    for (length, request) in [
        (60, request(59, 0)),
        (60, request(40, 19)),
        // In the second chunk.
        (9014, request(4063, 0)),
    ] {
        let refused = path.send_with(length, request, |_| panic!("not to be filled"));
        assert_eq!(refused, Err(SendError::NoChecksum));
    }
    assert_eq!(path.send_with(9014, request(4062, 0), |_| {}), Ok(()));
    path.flush().unwrap();
    path.reap();
    check(&path, &model);
    assert_eq!(model.0.borrow().requests.len(), 1);
    let (mut path, _model) = queue(FRAMES, limits(), 0);
    let refused = path.send_with(60, request(34, 16), |_| panic!("not to be filled"));
    assert_eq!(refused, Err(SendError::NoChecksum));
}
