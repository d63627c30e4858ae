//! Notification coalescing (virtio 1.3, "Notifications Coalescing"): the driver says how long, and how
//! many packets, a queue may wait before it interrupts.
//!
//! An io-thread moves bursts and interrupts at most once a burst, and polls while work comes quickly;
//! this is for drivers that want fewer interrupts still, at the price of latency.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// How much a queue's notifications may be put off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Coalescing {
    /// Notify after this many packets; 0: their number does not matter.
    pub(super) max_packets: u32,
    /// Notify after this many microseconds; 0: at once.
    pub(super) max_usecs: u32,
}

impl Coalescing {
    /// Waiting for packets alone might be waiting for ever, and one packet is never waited for.
    fn is_off(self) -> bool {
        self.max_usecs == 0 || self.max_packets == 1
    }

    fn is_full(self, packets: u64) -> bool {
        self.max_packets != 0 && packets >= u64::from(self.max_packets)
    }

    fn delay(self) -> Duration {
        Duration::from_micros(self.max_usecs.into())
    }
}

/// One queue's setting: written by the control queue's thread, read by the io-thread once a burst.
#[derive(Debug, Default)]
pub(super) struct CoalescingCell(AtomicU64);

impl CoalescingCell {
    pub(super) fn set(&self, value: Coalescing) {
        let both = u64::from(value.max_usecs) << 32 | u64::from(value.max_packets);
        self.0.store(both, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> Coalescing {
        let [a, b, c, d, usecs @ ..] = self.0.load(Ordering::Relaxed).to_le_bytes();
        Coalescing {
            max_packets: u32::from_le_bytes([a, b, c, d]),
            max_usecs: u32::from_le_bytes(usecs),
        }
    }
}

/// Decides when a queue's notifications are sent. Owned by the queue's io-thread.
#[derive(Debug)]
pub(super) struct Moderator {
    cell: Arc<CoalescingCell>,
    /// When the notification that is being put off is to be sent at the latest.
    due: Option<Instant>,
    /// Packets since it was put off first.
    packets: u64,
}

impl Moderator {
    pub(super) fn new(cell: Arc<CoalescingCell>) -> Self {
        Self {
            cell,
            due: None,
            packets: 0,
        }
    }

    /// A burst of `packets` was given back, and the driver wants to hear of it or not: whether to
    /// notify it now.
    pub(super) fn completed(&mut self, packets: u64, wanted: bool) -> bool {
        let setting = self.cell.get();
        if self.due.is_none() && (setting.is_off() || !wanted) {
            // No clock for those who don't coalesce.
            return wanted;
        }
        self.completed_at(Instant::now(), packets, setting)
    }

    fn completed_at(&mut self, now: Instant, packets: u64, setting: Coalescing) -> bool {
        let due = *self.due.get_or_insert(now + setting.delay());
        self.packets = self.packets.saturating_add(packets);
        let ends = setting.is_off() || setting.is_full(self.packets) || now >= due;
        ends && self.take()
    }

    /// Whether a notification was put off; it is not any more.
    pub(super) fn take(&mut self) -> bool {
        self.packets = 0;
        self.due.take().is_some()
    }

    /// How long a notification is to be put off still; zero: send it.
    pub(super) fn left(&self) -> Option<Duration> {
        let due = self.due?;
        Some(due.saturating_duration_since(Instant::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moderator(max_packets: u32, max_usecs: u32) -> Moderator {
        let cell = CoalescingCell::default();
        cell.set(Coalescing {
            max_packets,
            max_usecs,
        });
        assert_eq!(
            (cell.get().max_packets, cell.get().max_usecs),
            (max_packets, max_usecs)
        );
        Moderator::new(Arc::new(cell))
    }

    #[test]
    fn without_a_time_nothing_is_put_off() {
        for (packets, usecs) in [(0, 0), (1, 0), (64, 0), (1, u32::MAX)] {
            let mut moderator = moderator(packets, usecs);
            assert!(moderator.completed(1, true));
            assert!(!moderator.completed(1, false));
            assert_eq!(moderator.left(), None);
        }
    }

    #[test]
    fn packets_are_counted_from_the_first_that_was_put_off() {
        let mut moderator = moderator(8, u32::MAX);
        assert!(!moderator.completed(100, false), "nobody wants to hear");
        assert!(!moderator.completed(3, true));
        assert!(!moderator.completed(4, false));
        assert!(moderator.left().is_some());
        assert!(moderator.completed(1, false), "it wanted to before");
        assert_eq!(moderator.left(), None);
        assert!(!moderator.completed(7, true), "from the start");
        moderator.cell.set(Coalescing::default());
        assert!(moderator.completed(1, false), "the setting changed");
    }

    #[test]
    fn time_counts_from_the_first_that_was_put_off() {
        let mut moderator = moderator(0, 50);
        let setting = moderator.cell.get();
        let start = Instant::now();
        let at = |micros| start + Duration::from_micros(micros);
        assert!(!moderator.completed_at(at(0), 1, setting));
        assert!(!moderator.completed_at(at(49), 1000, setting));
        assert!(moderator.completed_at(at(50), 1, setting));
        assert!(!moderator.completed_at(at(60), 1, setting));
        assert!(moderator.take() && !moderator.take());
    }
}
