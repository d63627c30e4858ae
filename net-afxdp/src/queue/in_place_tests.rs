//! Frames that are sent in place, on the model.
#![cfg(not(miri))]

use std::{collections::HashSet, os::fd::OwnedFd};

use proptest::prelude::*;
use rustix::io::Errno;

use super::{
    Path, SendError,
    model::{Luck, Model, queue_sharing},
    tests::{FRAMES, frame, limits, send},
};
use crate::{
    multi_buffer::FrameLimits,
    shared_memory::{FileRange, Piece, SharedMemory},
};

/// Bytes of the memory to send from.
const LENGTH: u64 = 64 << 10;

struct World {
    path: Path<Model>,
    model: Model,
    file: OwnedFd,
    next: u32,
    /// Tokens that have not come back.
    out: HashSet<u32>,
    /// What was queued, in order.
    queued: Vec<Vec<u8>>,
}

impl World {
    fn new(limits: FrameLimits) -> Self {
        let file = rustix::fs::memfd_create("t", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&file, LENGTH).unwrap();
        let range = FileRange {
            file: file.try_clone().unwrap(),
            offset: 0,
            length: LENGTH,
        };
        let shared = SharedMemory::new(vec![range]).unwrap();
        let (path, model) = queue_sharing(FRAMES, limits, u32::MAX - 5, Some(&shared));
        Self {
            path,
            model,
            file,
            next: 0,
            out: HashSet::new(),
            queued: Vec::new(),
        }
    }

    /// Writes a frame there and sends it.
    fn send_in_place(&mut self, offset: u64, length: usize) -> Result<u32, SendError> {
        self.next += 1;
        let bytes = frame(self.next, length);
        rustix::io::pwrite(&self.file, &bytes, offset).unwrap();
        let piece = Piece {
            offset,
            length: u32::try_from(length).unwrap(),
        };
        self.path.send_in_place(&[piece], self.next)?;
        self.out.insert(self.next);
        self.queued.push(bytes);
        Ok(self.next)
    }

    fn take_sent(&mut self) -> Vec<u32> {
        let mut tokens = Vec::new();
        let count = self.path.take_sent(|token| tokens.push(token));
        assert_eq!(count, tokens.len());
        for token in &tokens {
            assert!(self.out.remove(token), "{token} is told twice");
        }
        tokens
    }

    fn check(&mut self) {
        let accounting = self.path.accounting();
        assert!(accounting.is_balanced(), "{accounting:?}");
        assert_eq!(self.path.counters.invalid_descriptors, 0);
        let there = accounting.free - self.path.free_to_send();
        assert_eq!(there, accounting.in_place, "{accounting:?}");
    }
}

#[test]
fn a_frame_comes_back_when_the_kernel_says_so() {
    let mut world = World::new(limits());
    world.model.0.borrow_mut().luck = Luck::Slow;
    let token = world.send_in_place(3500, 1000).unwrap();
    world.path.flush().unwrap();
    assert_eq!(world.take_sent(), []);
    world.model.0.borrow_mut().complete(1);
    assert_eq!(world.take_sent(), [], "half of it");
    assert_eq!(world.path.accounting().in_place, 1);
    world.model.0.borrow_mut().complete(1);
    assert_eq!(world.take_sent(), [token]);
    assert_eq!(world.model.0.borrow_mut().gone, world.queued);
    assert_eq!(world.path.in_flight.frames(), 0);
    world.check();
}

#[test]
fn what_does_not_work_in_place_is_refused() {
    let mut world = World::new(FrameLimits::ONE_CHUNK);
    let piece = |offset, length| Piece { offset, length };
    for (pieces, why) in [
        (&[][..], SendError::TooShort),
        (&[piece(0, 13)], SendError::TooShort),
        // To be padded.
        (&[piece(0, 14)], SendError::NotInPlace),
        (&[piece(0, 30), piece(100, 29)], SendError::NotInPlace),
        (&[piece(0, 4097)], SendError::TooLong),
        (
            &[piece(0, u32::MAX), piece(0, u32::MAX)],
            SendError::TooLong,
        ),
        (&[piece(LENGTH - 59, 60)], SendError::NotInPlace),
        (&[piece(LENGTH, 60)], SendError::NotInPlace),
        (&[piece(u64::MAX, 60)], SendError::NotInPlace),
        // One chunk only.
        (&[piece(4000, 1000)], SendError::NotInPlace),
        (&[piece(0, 500), piece(1000, 500)], SendError::NotInPlace),
    ] {
        assert_eq!(world.path.send_in_place(pieces, 1), Err(why), "{pieces:?}");
    }
    assert_eq!(
        world.path.send_in_place(&[piece(0, 50), piece(50, 50)], 1),
        Ok(())
    );

    let mut world = World::new(limits());
    let short = [piece(0, 127), piece(200, 100)];
    assert_eq!(
        world.path.send_in_place(&short, 1),
        Err(SendError::NotInPlace)
    );
    let enough = [piece(0, 128), piece(200, 1)];
    assert_eq!(world.path.send_in_place(&enough, 1), Ok(()));
    let nine: Vec<_> = (0..9).map(|it| piece(it * 512, 200)).collect();
    assert_eq!(
        world.path.send_in_place(&nine, 1),
        Err(SendError::NotInPlace)
    );
    assert_eq!(world.path.send_in_place(&nine[..8], 1), Ok(()));
    world.check();

    // A queue that knows no such memory.
    let (mut path, _model) = super::model::queue(FRAMES, limits(), 0);
    assert_eq!(
        path.send_in_place(&[piece(0, 60)], 1),
        Err(SendError::NotInPlace)
    );
    assert_eq!(path.take_sent(|_| {}), 0);
}

/// The link is down: the kernel refuses, and the frames leave the caller's memory all the same.
#[test]
fn what_waits_in_the_ring_can_be_withdrawn() {
    let mut world = World::new(limits());
    world.model.0.borrow_mut().luck = Luck::Refused(Errno::NETDOWN);
    for number in 0..10 {
        world.send_in_place(number * 6000, 1400).unwrap();
        world.check();
    }
    assert!(send(&mut world.path, &frame(100, 60)).is_ok());
    world.queued.push(frame(100, 60));
    assert!(world.path.flush().is_err());
    world.send_in_place(60000, 100).unwrap();
    assert_eq!(world.path.withdraw(), 0);
    assert_eq!(world.take_sent().len(), 11);
    assert!(world.out.is_empty());
    // From here on it is the caller's again.
    rustix::io::pwrite(&world.file, &vec![0xee; 60100], 0).unwrap();
    world.check();
    world.model.0.borrow_mut().luck = Luck::Good;
    world.path.flush().unwrap();
    assert!(
        world.model.0.borrow_mut().gone == world.queued,
        "as it was when withdrawn"
    );
    world.path.reap();
    world.check();
    assert_eq!(world.path.accounting().free, FRAMES / 2);
}

#[test]
fn there_is_always_a_frame_to_withdraw_to() {
    let mut world = World::new(limits());
    world.model.0.borrow_mut().luck = Luck::Refused(Errno::NETDOWN);
    for number in 0..u64::from(FRAMES / 4) {
        world.send_in_place(number * 256, 200).unwrap();
        send(&mut world.path, &[1; 200]).unwrap();
        world.check();
    }
    assert_eq!(world.path.room(), 0);
    assert_eq!(world.send_in_place(0, 200), Err(SendError::Full));
    assert_eq!(send(&mut world.path, &[1; 200]), Err(SendError::Full));
    assert_eq!(world.path.withdraw(), 0);
    assert_eq!(world.path.accounting().free, 0);
    world.check();
}

#[derive(Debug, Clone)]
enum Step {
    InPlace(u64, usize),
    Copy(usize),
    Flush,
    TakeSent,
    Transmit(u32),
    Complete(u32),
    Withdraw,
    Forget,
    Luck(Luck),
}

fn step() -> impl Strategy<Value = Step> {
    let luck = prop_oneof![
        Just(Luck::Good),
        Just(Luck::Slow),
        Just(Luck::Lost),
        Just(Luck::Refused(Errno::NETDOWN)),
    ];
    prop_oneof![
        12 => (0_u64..50_000, 1_usize..5000).prop_map(|(at, length)| Step::InPlace(at, length)),
        4 => (1_usize..5000).prop_map(Step::Copy),
        4 => Just(Step::Flush),
        4 => Just(Step::TakeSent),
        2 => (0_u32..40).prop_map(Step::Transmit),
        3 => (0_u32..40).prop_map(Step::Complete),
        1 => Just(Step::Withdraw),
        1 => Just(Step::Forget),
        3 => luck.prop_map(Step::Luck),
    ]
}

impl World {
    fn take(&mut self, step: &Step) {
        match *step {
            Step::InPlace(at, length) => drop(self.send_in_place(at, length)),
            Step::Copy(length) => drop(send(&mut self.path, &vec![1; length])),
            Step::Flush => drop(self.path.flush()),
            Step::TakeSent => drop(self.take_sent()),
            Step::Transmit(count) => self.model.0.borrow_mut().transmit(count),
            Step::Complete(count) => self.model.0.borrow_mut().complete(count),
            Step::Withdraw => {
                self.path.withdraw();
                self.take_sent();
            }
            Step::Forget => {
                self.path.in_flight.forget();
                self.out.clear();
            }
            Step::Luck(luck) => self.model.0.borrow_mut().luck = luck,
        }
        self.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_token_comes_back_once_and_every_chunk_has_one_place(
        steps in prop::collection::vec(step(), 1..250),
    ) {
        let mut world = World::new(limits());
        for step in &steps {
            world.take(step);
        }
        world.take(&Step::Luck(Luck::Good));
        world.take(&Step::Flush);
        world.take(&Step::Transmit(u32::MAX));
        world.take(&Step::Complete(u32::MAX));
        world.take(&Step::TakeSent);
        prop_assert!(world.out.is_empty(), "{:?}", world.out);
        world.path.reap();
        let accounting = world.path.accounting();
        prop_assert_eq!((accounting.free, accounting.in_place), (FRAMES / 2, 0));
    }
}
