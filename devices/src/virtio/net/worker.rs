//! The io-thread of one queue pair: owns both live queues and the back end, and nobody else
//! touches them until it ends and hands them back.
//!
//! A turn moves bounded bursts both ways until there is nothing to do, and nothing has come for as
//! long as it [polls](super::poll); then it asks for the events that would change that, looks once
//! more, and sleeps. A queue whose driver broke the rules
//! stops; the other one and the thread go on until the driver resets the device.
//!
//! Besides its own, the thread may hold the back ends of pairs that the driver does not use: what
//! they receive goes to this pair's receive queue.

mod notify;
mod queues;
mod sent;
mod shift;
mod sleep;

use std::{hint, io, sync::Arc, thread, time::Duration};

use vmm_sys_util::timerfd::TimerFd;

use super::{
    NetBackend,
    carrier::{Carrier, Interest},
    counters::{PairCounters, State},
    poll::Spin,
    rate::{Limiter, Meter},
    rx::{Rx, RxOutcome},
    shared::Shared,
    tx::{Tx, TxOutcome},
};
use crate::virtio::{interrupt::Interrupt, queue::QueueFault, worker::StopSignal};
use notify::Live;
pub(super) use shift::{Shift, host_error};

/// Frames moved one way before the other way has its turn.
const BURST: usize = 64;
/// Bursts both ways before the event loop has its turn.
const BURSTS_A_TURN: usize = 16;
/// How long to wait for room while a pair is given up.
const ROOM_PAUSE: Duration = Duration::from_millis(1);

/// What a worker is made of. It has no queues at first.
pub(super) struct WorkerParts {
    pub(super) pair: usize,
    pub(super) features: u64,
    pub(super) interrupt: Interrupt,
    pub(super) shared: Arc<Shared>,
    pub(super) counters: Arc<PairCounters>,
}

/// What ended a burst one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way<O> {
    Open(O),
    /// The driver has no queue enabled there, or it was stopped by the driver's fault.
    Closed,
}

/// One of the two queues of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The receive queue.
    Rx,
    /// The transmit queue.
    Tx,
}

/// How long the event loop may wait before the next turn. The shorter one is the lesser one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pause {
    /// There is work already.
    None,
    /// At most this many milliseconds.
    Short(i32),
    /// Until an event.
    Long,
}

#[derive(Debug)]
pub(super) struct Worker<B> {
    pub(super) pair: usize,
    /// The pair's own back end first, then those of pairs that are not used. None while the
    /// pair itself is not used.
    pub(super) carriers: Vec<Carrier<B>>,
    /// How many of them have their turn to receive only after the others: nobody's frames wait for
    /// ever when buffers are short.
    later: usize,
    rx: Option<Live<Rx>>,
    tx: Option<Live<Tx>>,
    interrupt: Interrupt,
    features: u64,
    /// Wakes the thread up for an interrupt that was put off.
    alarm: Option<TimerFd>,
    shared: Arc<Shared>,
    counters: Arc<PairCounters>,
    /// The states that the counters count the beginnings of.
    starved: State,
    blocked: State,
    rx_limited: State,
    tx_limited: State,
    pub(super) spin: Spin,
    /// Frames were moved since the last look at this.
    moved: bool,
    /// The driver got frames, so it had buffers, since it was last waited for some.
    fed: bool,
    /// Why the thread can't go on.
    failure: Option<io::Error>,
}

impl<B: NetBackend> Worker<B> {
    pub(super) fn new(parts: WorkerParts) -> Self {
        Self {
            pair: parts.pair,
            carriers: Vec::new(),
            later: 0,
            rx: None,
            tx: None,
            interrupt: parts.interrupt,
            features: parts.features,
            alarm: None,
            spin: Spin::new(parts.shared.busy_poll),
            moved: false,
            fed: false,
            shared: parts.shared,
            counters: parts.counters,
            starved: State::default(),
            blocked: State::default(),
            rx_limited: State::default(),
            tx_limited: State::default(),
            failure: None,
        }
    }

    /// How its queues reach the driver.
    pub(super) fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    /// Works until there is nothing to do, or for a bounded number of bursts.
    pub(super) fn turn(&mut self, stop: &StopSignal) -> Pause {
        if let Some(rx) = &mut self.rx {
            rx.work.queue.disable_kicks();
        }
        if let Some(tx) = &mut self.tx {
            tx.work.queue.disable_kicks();
        }
        let mut bursts = 0;
        while bursts < BURSTS_A_TURN {
            if stop.is_raised() {
                return Pause::None;
            }
            let rx = self.receive();
            let tx = self.send();
            self.notify_due();
            let moved = std::mem::take(&mut self.moved);
            if moved {
                self.spin.worked();
            }
            let look_again = idle(rx, tx) && self.spin.goes_on();
            if moved || !look_again {
                // Looking alone is bounded by time.
                bursts += 1;
            }
            if look_again {
                hint::spin_loop();
                continue;
            }
            if rx == Way::Open(RxOutcome::More) || tx == Way::Open(TxOutcome::More) {
                continue;
            }
            if let Some(pause) = self.prepare_to_sleep(rx, tx) {
                return pause;
            }
        }
        self.carriers.iter_mut().for_each(Carrier::stay_awake);
        Pause::None
    }

    fn receive(&mut self) -> Way<RxOutcome> {
        let mut meter = meter(self.shared.rx_limit());
        let Some(result) = self.receive_from_all(&mut meter) else {
            return Way::Closed;
        };
        if let Some(limit) = self.shared.rx_limit() {
            limit.charge(&meter);
        }
        let moved = self.announce(Side::Rx, meter.frames());
        self.moved |= moved;
        self.fed |= moved;
        let starved = self
            .starved
            .begins(matches!(result, Ok(RxOutcome::Starved(_))));
        self.counters.rx_starved.add(starved);
        let limited = self.rx_limited.begins(result == Ok(RxOutcome::Limited));
        self.counters.rx_limited.add(limited);
        self.judge(Side::Rx, result)
    }

    /// A burst from each back end; `None` if there is no queue to receive into.
    fn receive_from_all(&mut self, meter: &mut Meter) -> Option<Result<RxOutcome, QueueFault>> {
        let rx = self.rx.as_mut().filter(|rx| !rx.port.closed)?;
        self.later = (self.later + 1) % self.carriers.len().max(1);
        let (later, sooner) = self.carriers.split_at_mut(self.later);
        let mut all = RxOutcome::Empty;
        for carrier in sooner.iter_mut().chain(later) {
            let before = meter.frames();
            let outcome = rx.work.burst(&mut carrier.backend, BURST, meter);
            if carrier.home != self.pair {
                self.counters.rx_steered.add(meter.frames() - before);
            }
            match outcome {
                Ok(RxOutcome::Empty) => {}
                Ok(RxOutcome::More) => all = RxOutcome::More,
                end => return Some(end),
            }
        }
        Some(Ok(all))
    }

    fn send(&mut self) -> Way<TxOutcome> {
        self.take_sent();
        let mut meter = meter(self.shared.tx_limit());
        let tx = self.tx.as_mut().filter(|tx| !tx.port.closed);
        let result = match (self.carriers.first_mut(), tx) {
            (Some(own), Some(tx)) => Some(tx.work.burst(own, BURST, &mut meter)),
            _ => None,
        };
        if let Some(limit) = self.shared.tx_limit() {
            limit.charge(&meter);
        }
        for carrier in &mut self.carriers {
            carrier.flush(&self.shared, &self.counters);
        }
        // In copy mode they are back already.
        self.take_sent();
        let Some(result) = result else {
            return Way::Closed;
        };
        let announced = self.announce(Side::Tx, meter.frames());
        // The first segments of a large frame go out before its buffers go back.
        let moved = announced || meter.frames() > 0;
        self.moved |= moved;
        if let Some(own) = self.carriers.first_mut().filter(|_| moved) {
            own.had_room();
        }
        let blocked = self.blocked.begins(result == Ok(TxOutcome::Blocked));
        self.counters.tx_blocked.add(blocked);
        let limited = self.tx_limited.begins(result == Ok(TxOutcome::Limited));
        self.counters.tx_limited.add(limited);
        self.judge(Side::Tx, result)
    }

    /// Sends what the driver queued before it gave the pair up. What there is no room for in a
    /// bounded time is thrown away and counted: the driver wants its buffers back.
    pub(super) fn drain(&mut self) {
        self.drain_transmit();
        self.notify_now();
    }

    fn drain_transmit(&mut self) {
        let Some(tx) = &self.tx else {
            return;
        };
        // A ring's worth: the driver must not add anything any more (5.1.6.5.5.1).
        for _ in 0..=usize::from(tx.work.queue.size()) / BURST {
            match self.send() {
                Way::Open(TxOutcome::More) => {}
                Way::Open(TxOutcome::Blocked | TxOutcome::Limited) => thread::sleep(ROOM_PAUSE),
                Way::Open(TxOutcome::Empty) | Way::Closed => break,
            }
        }
        self.settle();
        let Some(tx) = self.tx.as_mut().filter(|tx| !tx.port.closed) else {
            return;
        };
        let result = tx.work.throw_away();
        self.announce(Side::Tx, 0);
        self.judge(Side::Tx, result);
    }

    /// Closes a queue whose driver broke the rules.
    fn judge<O>(&mut self, side: Side, result: Result<O, QueueFault>) -> Way<O> {
        let fault = match result {
            Ok(outcome) => return Way::Open(outcome),
            Err(fault) => fault,
        };
        let Some(port) = self.port(side) else {
            return Way::Closed;
        };
        port.closed = true;
        let index = port.index;
        self.counters.guest_faults.add(1);
        if let Some(number) = self.shared.fault_lines.count() {
            let name = &self.shared.name;
            tracing::warn!(
                "{name}: queue {index} stopped until the guest resets the device (fault {number}): {fault}"
            );
        }
        self.interrupt.needs_reset();
        Way::Closed
    }

    /// What epoll is to be told since the last turn, one back end at a time; `None` when it knows
    /// all.
    pub(super) fn next_interest(&mut self) -> Option<Interest> {
        self.carriers.iter_mut().find_map(Carrier::changed_interest)
    }

    /// Why the thread can't go on, once.
    pub(super) fn take_failure(&mut self) -> Option<io::Error> {
        self.failure.take()
    }
}

/// Whether both ways only wait for new work, and not for something that is known to be missing.
fn idle(rx: Way<RxOutcome>, tx: Way<TxOutcome>) -> bool {
    rx == Way::Open(RxOutcome::Empty) && tx == Way::Open(TxOutcome::Empty)
}

fn meter(limit: Option<&Limiter>) -> Meter {
    limit.map_or(Meter::unlimited(), Limiter::meter)
}
