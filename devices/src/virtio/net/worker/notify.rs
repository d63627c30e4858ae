//! When a worker tells the driver of what it did.

use std::{io, sync::Arc, time::Duration};

use vmm_sys_util::{eventfd::EventFd, timerfd::TimerFd};

use super::{NetBackend, Side, Worker};
use crate::virtio::{
    interrupt::Interrupt,
    net::{
        coalesce::Moderator,
        counters::PairCounters,
        features::{NOTF_COAL, VQ_NOTF_COAL},
        rx::Rx,
        tx::Tx,
    },
    queue::LiveQueue,
};

/// A queue that the driver has enabled: the work on it, and how that reaches the driver.
#[derive(Debug)]
pub(super) struct Live<W> {
    pub(super) work: W,
    pub(super) port: Port,
}

/// One queue's identity towards the transport.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) index: u16,
    pub(super) kick: Arc<EventFd>,
    pub(super) closed: bool,
    pub(super) moderator: Moderator,
}

impl Port {
    /// Publishes a burst of `packets` and makes its one interrupt decision; false if it was empty.
    fn announce(
        &mut self,
        queue: &mut LiveQueue,
        packets: u64,
        interrupt: &Interrupt,
        counters: &PairCounters,
    ) -> bool {
        let published = queue.publish();
        if published && self.moderator.completed(packets, queue.needs_interrupt()) {
            self.notify(interrupt, counters);
        }
        published
    }

    /// 5.1.2: receive queues have even numbers.
    pub(super) fn side(&self) -> Side {
        match self.index % 2 {
            0 => Side::Rx,
            _ => Side::Tx,
        }
    }

    fn notify(&self, interrupt: &Interrupt, counters: &PairCounters) {
        interrupt.queue(self.index);
        counters.interrupts.add(1);
        if self.side() == Side::Tx {
            counters.tx_interrupts.add(1);
        }
    }
}

/// Those of the pair's ports that there are.
pub(super) fn ports<'a>(
    rx: &'a mut Option<Live<Rx>>,
    tx: &'a mut Option<Live<Tx>>,
) -> impl Iterator<Item = &'a mut Port> {
    let rx = rx.as_mut().map(|rx| &mut rx.port);
    let tx = tx.as_mut().map(|tx| &mut tx.port);
    rx.into_iter().chain(tx)
}

impl<B: NetBackend> Worker<B> {
    /// Publishes a burst of `packets` and makes its one interrupt decision; false if it was empty.
    pub(super) fn announce(&mut self, side: Side, packets: u64) -> bool {
        let both = match side {
            Side::Rx => self
                .rx
                .as_mut()
                .map(|rx| (&mut rx.port, &mut rx.work.queue)),
            Side::Tx => self
                .tx
                .as_mut()
                .map(|tx| (&mut tx.port, &mut tx.work.queue)),
        };
        let announce = |(port, queue): (&mut Port, _)| {
            port.announce(queue, packets, &self.interrupt, &self.counters)
        };
        both.is_some_and(announce)
    }

    /// Makes the alarm that wakes the thread up for a notification that was put off, if the driver
    /// can ask for that.
    ///
    /// # Errors
    /// The system has no more timers.
    pub(in crate::virtio::net) fn provide_alarm(&mut self) -> io::Result<()> {
        let coalesces = self.features & (NOTF_COAL | VQ_NOTF_COAL) != 0;
        if coalesces && self.alarm.is_none() {
            self.alarm = Some(TimerFd::new()?);
        }
        Ok(())
    }

    /// Sends what was put off and whose time has come; how long until the next one's.
    pub(super) fn notify_due(&mut self) -> Option<Duration> {
        let mut next: Option<Duration> = None;
        for port in ports(&mut self.rx, &mut self.tx) {
            match port.moderator.left() {
                None => {}
                Some(Duration::ZERO) => {
                    port.moderator.take();
                    port.notify(&self.interrupt, &self.counters);
                }
                Some(left) => next = Some(next.map_or(left, |next| next.min(left))),
            }
        }
        next
    }

    /// Sends what was put off, whether its time has come or not.
    pub(super) fn notify_now(&mut self) {
        for port in ports(&mut self.rx, &mut self.tx) {
            if port.moderator.take() {
                port.notify(&self.interrupt, &self.counters);
            }
        }
    }

    /// Before a sleep: it ends when the next notification is due.
    pub(super) fn set_alarm(&mut self) {
        let Some(left) = self.notify_due() else {
            return;
        };
        let set = match &mut self.alarm {
            Some(alarm) => alarm.reset(left, None).map_err(io::Error::from),
            None => Err(io::Error::other("there is no timer")),
        };
        if let Err(error) = set {
            // Early is better than never.
            self.notify_now();
            self.failure = Some(error);
        }
    }
}
