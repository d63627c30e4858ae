//! The io-thread of one queue pair: owns both live queues and the back end, and nobody else
//! touches them until it ends and hands the back end back.
//!
//! A turn moves bounded bursts both ways until there is nothing to do; then it asks for the events
//! that would change that, looks once more, and sleeps. A queue whose driver broke the rules
//! stops; the other one and the thread go on until the driver resets the device.

use std::{io, os::fd::AsRawFd, sync::Arc};

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use vmm_sys_util::eventfd::EventFd;

use super::{
    NetBackend,
    counters::PairCounters,
    rx::{Rx, RxOutcome},
    shared::Shared,
    tx::{Tx, TxOutcome},
};
use crate::virtio::{
    ActiveQueue,
    interrupt::Interrupt,
    queue::{LiveQueue, QueueFault},
    worker::StopSignal,
};

/// Frames moved one way before the other way has its turn.
const BURST: usize = 64;
/// Bursts both ways before the event loop has its turn.
const BURSTS_A_TURN: usize = 16;
/// How soon to look again for room that no event announces, in milliseconds.
const ROOM_RETRY_MS: i32 = 1;
/// How soon to try again after the wire refused frames, in milliseconds.
const CARRIER_RETRY_MS: i32 = 100;

/// What a worker is made of.
pub(super) struct WorkerParts<B> {
    pub(super) pair: usize,
    pub(super) backend: B,
    pub(super) rx: ActiveQueue,
    pub(super) tx: ActiveQueue,
    pub(super) features: u64,
    pub(super) interrupt: Interrupt,
    pub(super) shared: Arc<Shared>,
    pub(super) counters: Arc<PairCounters>,
}

/// What ended a burst one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way<O> {
    Open(O),
    /// Stopped for good by the driver's fault.
    Closed,
}

#[derive(Debug, Clone, Copy)]
enum Side {
    Rx,
    Tx,
}

/// How long the event loop may wait before the next turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pause {
    /// There is work already.
    None,
    /// At most this many milliseconds.
    Short(i32),
    /// Until an event.
    Long,
}

/// One queue's identity towards the transport.
#[derive(Debug)]
struct Port {
    index: u16,
    kick: Arc<EventFd>,
    closed: bool,
}

pub(super) struct Worker<B> {
    pub(super) backend: B,
    pub(super) stop: Arc<StopSignal>,
    rx: Rx,
    rx_port: Port,
    tx: Tx,
    tx_port: Port,
    interrupt: Interrupt,
    shared: Arc<Shared>,
    counters: Arc<PairCounters>,
    /// What is to be told by the back end's fd now, and what epoll was asked for.
    want: EventSet,
    registered: EventSet,
    /// The fd was writable and yet nothing could be sent since: it is no help in waiting for room.
    writable_in_vain: bool,
    carrier_failed: bool,
    /// The states that the counters count the beginnings of.
    starved: bool,
    blocked: bool,
    /// Why the thread can't go on.
    pub(super) failure: Option<io::Error>,
}

impl<B: NetBackend> Worker<B> {
    pub(super) fn new(parts: WorkerParts<B>, stop: Arc<StopSignal>) -> Self {
        let WorkerParts {
            rx,
            tx,
            features,
            counters,
            ..
        } = parts;
        let port = |index, kick| Port {
            index,
            kick,
            closed: false,
        };
        Self {
            backend: parts.backend,
            stop,
            rx: Rx::new(rx.queue, features, Arc::clone(&counters)),
            rx_port: port(rx.index, rx.kick),
            tx: Tx::new(tx.queue, features, Arc::clone(&counters)),
            tx_port: port(tx.index, tx.kick),
            interrupt: parts.interrupt,
            shared: parts.shared,
            counters,
            want: EventSet::IN,
            registered: EventSet::IN,
            writable_in_vain: false,
            carrier_failed: false,
            starved: false,
            blocked: false,
            failure: None,
        }
    }

    /// Works until there is nothing to do, or for a bounded number of bursts.
    pub(super) fn turn(&mut self) -> Pause {
        self.rx.queue.disable_kicks();
        self.tx.queue.disable_kicks();
        for _ in 0..BURSTS_A_TURN {
            if self.stop.is_raised() {
                return Pause::None;
            }
            let rx = self.receive();
            let tx = self.send();
            if rx == Way::Open(RxOutcome::More) || tx == Way::Open(TxOutcome::More) {
                continue;
            }
            if let Some(pause) = self.prepare_to_sleep(rx, tx) {
                return pause;
            }
        }
        Pause::None
    }

    fn receive(&mut self) -> Way<RxOutcome> {
        if self.rx_port.closed {
            return Way::Closed;
        }
        let result = self.rx.burst(&mut self.backend, BURST);
        announce(
            &mut self.rx.queue,
            self.rx_port.index,
            &self.interrupt,
            &self.counters,
        );
        let starved = matches!(result, Ok(RxOutcome::Starved(_)));
        if starved && !self.starved {
            self.counters.rx_starved.add(1);
        }
        self.starved = starved;
        self.judge(Side::Rx, result)
    }

    fn send(&mut self) -> Way<TxOutcome> {
        if self.tx_port.closed {
            return Way::Closed;
        }
        let result = self.tx.burst(&mut self.backend, BURST);
        self.flush();
        let moved = announce(
            &mut self.tx.queue,
            self.tx_port.index,
            &self.interrupt,
            &self.counters,
        );
        self.writable_in_vain &= !moved;
        let blocked = result == Ok(TxOutcome::Blocked);
        if blocked && !self.blocked {
            self.counters.tx_blocked.add(1);
        }
        self.blocked = blocked;
        self.judge(Side::Tx, result)
    }

    /// Gives what was queued to the wire. What it does not take stays queued.
    fn flush(&mut self) {
        if !self.tx.unflushed {
            return;
        }
        match self.backend.flush() {
            Ok(()) => {
                self.tx.unflushed = false;
                if std::mem::take(&mut self.carrier_failed) {
                    self.log_carrier("frames go out again");
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                self.counters.tx_carrier_errors.add(1);
                if !std::mem::replace(&mut self.carrier_failed, true) {
                    self.log_carrier(&format!(
                        "frames can't be sent now and will be tried again: {error}"
                    ));
                }
            }
        }
    }

    fn log_carrier(&self, what: &str) {
        if let Some(number) = self.shared.carrier_lines.count() {
            tracing::warn!("{}: {what} (message {number})", self.shared.name);
        }
    }

    /// Closes a queue whose driver broke the rules.
    fn judge<O>(&mut self, side: Side, result: Result<O, QueueFault>) -> Way<O> {
        let fault = match result {
            Ok(outcome) => return Way::Open(outcome),
            Err(fault) => fault,
        };
        let port = match side {
            Side::Rx => &mut self.rx_port,
            Side::Tx => &mut self.tx_port,
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

    /// Asks for what would bring new work. `None`: there is some already.
    fn prepare_to_sleep(&mut self, rx: Way<RxOutcome>, tx: Way<TxOutcome>) -> Option<Pause> {
        let mut want = EventSet::empty();
        let mut pause = Pause::Long;
        match rx {
            Way::Closed | Way::Open(RxOutcome::More) => {}
            Way::Open(RxOutcome::Empty) => want |= EventSet::IN,
            // Not the fd: it stays readable, and only the guest's kick changes anything.
            Way::Open(RxOutcome::Starved(known)) => {
                let more = self.rx.queue.enable_kicks_beyond(known);
                if self.judge(Side::Rx, more) == Way::Open(true) {
                    return None;
                }
            }
        }
        let writable_in_vain = std::mem::take(&mut self.writable_in_vain);
        if tx == Way::Open(TxOutcome::Blocked) || (self.tx.unflushed && !self.carrier_failed) {
            if writable_in_vain || self.backend.event_fd().is_none() {
                pause = Pause::Short(ROOM_RETRY_MS);
            } else {
                want |= EventSet::OUT;
            }
        }
        if self.carrier_failed {
            want -= EventSet::OUT;
            pause = Pause::Short(CARRIER_RETRY_MS);
        }
        if tx == Way::Open(TxOutcome::Empty) {
            let more = self.tx.queue.enable_kicks();
            if self.judge(Side::Tx, more) == Way::Open(true) {
                return None;
            }
        }
        self.want = want;
        Some(pause)
    }

    /// Brings epoll up to date with what the last turn wanted.
    pub(super) fn update_interest(&mut self) -> Option<Events> {
        let fd = self.backend.event_fd()?.as_raw_fd();
        let stale = std::mem::replace(&mut self.registered, self.want) != self.want;
        stale.then(|| Events::new_raw(fd, self.want))
    }
}

/// Publishes a burst and makes its one interrupt decision; false if the burst was empty.
fn announce(
    queue: &mut LiveQueue,
    index: u16,
    interrupt: &Interrupt,
    counters: &PairCounters,
) -> bool {
    let published = queue.publish();
    if published && queue.needs_interrupt() {
        interrupt.queue(index);
        counters.interrupts.add(1);
    }
    published
}

impl<B: NetBackend> MutEventSubscriber for Worker<B> {
    /// Only takes note: the work is done in [`Worker::turn`], which looks at both queues anyway.
    fn process(&mut self, events: Events, _ops: &mut EventOps<'_>) {
        let fd = events.fd();
        if let Some(port) = [&self.rx_port, &self.tx_port]
            .into_iter()
            .find(|p| p.kick.as_raw_fd() == fd)
        {
            // Kicks are level triggered; "nothing there" is no error.
            let _ = port.kick.read();
            return;
        }
        if fd == self.stop.as_raw_fd() {
            return;
        }
        let happened = events.event_set();
        self.writable_in_vain = happened.contains(EventSet::OUT);
        if !happened.intersects(EventSet::IN | EventSet::OUT) {
            let what =
                "its connection to the wire is broken (the file descriptor reports an error)";
            self.failure = Some(io::Error::other(what));
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        let fds = [
            Some(self.stop.as_raw_fd()),
            Some(self.rx_port.kick.as_raw_fd()),
            Some(self.tx_port.kick.as_raw_fd()),
            self.backend.event_fd().map(|fd| fd.as_raw_fd()),
        ];
        for fd in fds.into_iter().flatten() {
            if let Err(error) = ops.add(Events::new_raw(fd, EventSet::IN)) {
                self.failure = Some(io::Error::other(format!(
                    "could not wait for events: {error}"
                )));
            }
        }
    }
}
