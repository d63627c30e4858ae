//! A queue on the model under random operations: no chunk is ever in two places or in none, and
//! every frame comes out whole and in order.

use std::{
    collections::VecDeque,
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

use proptest::prelude::*;
use rustix::io::Errno;

use super::{
    Path, SendError,
    model::{Luck, Model, queue},
    tests::{FRAGMENT, FRAMES, check, frame, limits, on_the_wire, send},
};
use crate::multi_buffer::MAX_FRAGMENTS;

/// What can happen.
#[derive(Debug, Clone)]
enum Step {
    Send(usize),
    SendAndPanic(usize),
    Flush,
    Room,
    /// With a budget; takes up to that many, and ends as told.
    Receive(usize, usize, End),
    Discard,
    /// A frame of that length arrives in fragments of up to that many bytes, of which so many are
    /// seen at once.
    Arrive(usize, usize, usize),
    /// The rest of it.
    Rest,
    Luck(Luck),
    Transmit(u32),
    Complete(u32),
    Wakeups(bool),
}

#[derive(Debug, Clone, Copy)]
enum End {
    Break,
    Panic,
}

fn step() -> impl Strategy<Value = Step> {
    let end = prop_oneof![3 => Just(End::Break), 1 => Just(End::Panic)];
    let luck = prop_oneof![
        4 => Just(Luck::Good),
        1 => Just(Luck::Lost),
        1 => Just(Luck::Slow),
        1 => prop_oneof![
            Just(Errno::AGAIN), Just(Errno::NOBUFS), Just(Errno::NOMEM), Just(Errno::INTR),
            Just(Errno::NETDOWN), Just(Errno::NXIO)
        ].prop_map(Luck::Refused),
    ];
    let length = || prop_oneof![14_usize..200, 3800_usize..4200, 1_usize..13_000];
    prop_oneof![
        8 => length().prop_map(Step::Send),
        1 => length().prop_map(Step::SendAndPanic),
        4 => Just(Step::Flush),
        1 => Just(Step::Room),
        6 => (0_usize..12, 0_usize..12, end).prop_map(|(budget, most, end)| {
            Step::Receive(budget, most, end)
        }),
        1 => Just(Step::Discard),
        8 => (length(), 0_usize..5).prop_map(|(length, first)| {
            Step::Arrive(length, FRAGMENT, first)
        }),
        // Around the most fragments that a frame may have.
        3 => (1700_usize..2000, 0_usize..25).prop_map(|(length, first)| {
            Step::Arrive(length, 100, first)
        }),
        6 => Just(Step::Rest),
        2 => luck.prop_map(Step::Luck),
        1 => (0_u32..40).prop_map(Step::Transmit),
        2 => (0_u32..40).prop_map(Step::Complete),
        1 => any::<bool>().prop_map(Step::Wakeups),
    ]
}

/// A queue, the model under it, and what is to be expected of both.
struct World {
    path: Path<Model>,
    model: Model,
    number: u32,
    /// Frames whose end has been seen, oldest first.
    arrived: VecDeque<Vec<u8>>,
    /// A frame whose end has not; `None` in it: it will be dropped.
    arriving: Option<Option<Vec<u8>>>,
    queued: VecDeque<Vec<u8>>,
}

impl World {
    fn new(start: u32) -> Self {
        let (path, model) = queue(FRAMES, limits(), start);
        Self {
            path,
            model,
            number: 0,
            arrived: VecDeque::new(),
            arriving: None,
            queued: VecDeque::new(),
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Send(length) => self.send(length),
            Step::SendAndPanic(length) => {
                let path = &mut self.path;
                let quiet = |_: &mut [u8]| resume_unwind(Box::new("expected"));
                let _ = catch_unwind(AssertUnwindSafe(|| path.send(length, quiet)));
            }
            Step::Flush => drop(self.path.flush()),
            Step::Room => {
                let room = self.path.room();
                for _ in 0..room.min(3) {
                    self.send(9014);
                }
            }
            Step::Receive(budget, most, end) => self.receive(budget, most, end),
            Step::Discard => {
                let whole = self.arrived.len();
                assert_eq!(self.path.discard(), whole);
                self.arrived.clear();
            }
            Step::Arrive(length, fragment, first) => self.arrive(length, fragment, first),
            Step::Rest => {
                self.model.0.borrow_mut().publish(usize::MAX);
                self.seen();
            }
            Step::Luck(luck) => self.model.0.borrow_mut().luck = luck,
            Step::Transmit(count) => self.model.0.borrow_mut().transmit(count),
            Step::Complete(count) => self.model.0.borrow_mut().complete(count),
            Step::Wakeups(want) => self.model.0.borrow().want_wakeups(want),
        }
        for frame in self.model.0.borrow_mut().gone.drain(..) {
            assert_eq!(
                Some(frame),
                self.queued.pop_front(),
                "sent as queued, in order"
            );
        }
        check(&self.path, &self.model);
    }

    fn send(&mut self, length: usize) {
        self.number += 1;
        let frame = frame(self.number, length);
        let free = self.path.accounting().free;
        match send(&mut self.path, &frame) {
            Ok(()) => self.queued.push_back(on_the_wire(frame)),
            Err(SendError::NotInPlace | SendError::NoChecksum) => {
                unreachable!("nothing is sent in place here")
            }
            Err(SendError::TooShort) => assert!(length < 14),
            Err(SendError::TooLong) => assert!(length > self.path.limits.sent() as usize),
            Err(SendError::Full) => {
                let now = self.path.accounting();
                assert!((now.free as usize) < length.div_ceil(4096) && now.free >= free);
            }
        }
    }

    fn receive(&mut self, budget: usize, most: usize, end: End) {
        let mut seen = Vec::new();
        let path = &mut self.path;
        let result = catch_unwind(AssertUnwindSafe(|| {
            path.receive(budget, |fragments| {
                seen.push(fragments.concat());
                match end {
                    _ if seen.len() <= most => ControlFlow::Continue(()),
                    End::Break => ControlFlow::Break(()),
                    End::Panic => resume_unwind(Box::new("expected")),
                }
            })
        }));
        let expected: Vec<_> = self.arrived.iter().take(seen.len()).cloned().collect();
        assert!(seen == expected, "received as it arrived, in order");
        assert!(seen.len() == self.arrived.len().min(budget).min(most + 1));
        let taken = match end {
            // What panicked counts as taken.
            End::Panic => seen.len(),
            End::Break => seen.len().min(most),
        };
        if let Ok(count) = result {
            assert_eq!(count, taken);
        }
        self.arrived.drain(..taken);
    }

    fn arrive(&mut self, length: usize, fragment: usize, first: usize) {
        if self.arriving.is_some() {
            return;
        }
        self.number += 1;
        let frame = frame(self.number, length);
        if self.model.0.borrow_mut().deliver(&frame, fragment, first) {
            let fits = length.div_ceil(fragment) <= MAX_FRAGMENTS;
            self.arriving = Some(fits.then_some(frame));
            self.seen();
        }
    }

    /// The frame that arrives, if its end has been seen.
    fn seen(&mut self) {
        if !self.model.0.borrow().is_amid_a_frame()
            && let Some(Some(frame)) = self.arriving.take()
        {
            self.arrived.push_back(frame);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 200 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_chunk_has_one_place_and_every_frame_its_order(
        start in prop_oneof![Just(0), Just(u32::MAX - 20)],
        steps in prop::collection::vec(step(), 1..if cfg!(miri) { 40 } else { 250 }),
    ) {
        let mut world = World::new(start);
        for step in &steps {
            world.take(step);
        }
        // All of it can be brought home.
        world.take(&Step::Luck(Luck::Good));
        world.take(&Step::Wakeups(true));
        world.take(&Step::Rest);
        world.take(&Step::Receive(usize::MAX, usize::MAX - 1, End::Break));
        world.take(&Step::Flush);
        world.take(&Step::Transmit(u32::MAX));
        world.take(&Step::Complete(u32::MAX));
        assert!(world.queued.is_empty() && world.arrived.is_empty());
        world.path.reap();
        let accounting = world.path.accounting();
        prop_assert_eq!((accounting.free, accounting.tx, accounting.rx), (FRAMES / 2, 0, 0));
    }
}
