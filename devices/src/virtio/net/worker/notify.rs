//! When a worker tells the driver of what it did.

use std::{io, sync::Arc, time::Duration};

use vmm_sys_util::{eventfd::EventFd, timerfd::TimerFd};

use super::{NetBackend, Worker};
use crate::virtio::{
    interrupt::Interrupt,
    net::{
        coalesce::Moderator,
        counters::PairCounters,
        features::{NOTF_COAL, VQ_NOTF_COAL},
    },
    queue::LiveQueue,
};

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
    pub(super) fn announce(
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

    fn notify(&self, interrupt: &Interrupt, counters: &PairCounters) {
        interrupt.queue(self.index);
        counters.interrupts.add(1);
    }
}

impl<B: NetBackend> Worker<B> {
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
        for port in [&mut self.rx_port, &mut self.tx_port] {
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
        for port in [&mut self.rx_port, &mut self.tx_port] {
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
