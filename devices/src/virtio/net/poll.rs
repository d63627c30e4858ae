//! How long an io-thread looks for new work before it asks for events and sleeps.
//!
//! Looking costs CPU time, sleeping costs a wake-up: a kick or an interrupt of the interface, a switch of
//! threads, and the system calls around it. Adaptive polling guesses from the last sleep: if work came
//! before polling would have ended, polling would have been cheaper; if it came long after, it
//! would have been for nothing. (KVM's `halt_poll_ns` decides in the same way for idle vCPUs.)

use std::time::{Duration, Instant};

/// How long an io-thread polls after the last frame (`busy-poll=`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BusyPoll {
    /// From not at all up to 50 µs, by what the last sleeps were like. An idle guest costs nothing.
    #[default]
    Adaptive,
    /// Always so long. Zero: never.
    For(Duration),
}

/// The longest that adaptive polling goes on without work.
const MOST: Duration = Duration::from_micros(50);
/// Where it begins.
const LEAST: Duration = Duration::from_micros(8);

/// One thread's polling.
#[derive(Debug)]
pub(super) struct Spin {
    adaptive: bool,
    /// How long to go on without work.
    window: Duration,
    idle_since: Option<Instant>,
}

impl Spin {
    pub(super) fn new(policy: BusyPoll) -> Self {
        let (adaptive, window) = match policy {
            BusyPoll::Adaptive => (true, Duration::ZERO),
            BusyPoll::For(window) => (false, window),
        };
        Self {
            adaptive,
            window,
            idle_since: None,
        }
    }

    /// There was work.
    pub(super) fn worked(&mut self) {
        self.idle_since = None;
    }

    /// There was none: whether to look again before sleeping.
    pub(super) fn goes_on(&mut self) -> bool {
        // No clock for those who don't poll.
        !self.window.is_zero() && self.idle_for(Instant::now()) < self.window
    }

    fn idle_for(&mut self, now: Instant) -> Duration {
        now.saturating_duration_since(*self.idle_since.get_or_insert(now))
    }

    /// The thread slept until an event came, for so long.
    pub(super) fn slept(&mut self, time: Duration) {
        self.idle_since = None;
        if !self.adaptive {
            return;
        }
        self.window = if time < MOST {
            (self.window * 2).clamp(LEAST, MOST)
        } else if self.window > LEAST {
            self.window / 2
        } else {
            Duration::ZERO
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_micros(10);
    const LONG: Duration = Duration::from_millis(3);

    #[test]
    fn polls_while_work_comes_soon_and_stops_when_it_does_not() {
        let mut spin = Spin::new(BusyPoll::Adaptive);
        assert!(!spin.goes_on(), "nothing is known yet");
        spin.slept(SHORT);
        assert_eq!(spin.window, LEAST);
        for _ in 0..10 {
            spin.slept(SHORT);
        }
        assert_eq!(spin.window, MOST, "there is a cap");
        for _ in 0..4 {
            spin.slept(LONG);
        }
        assert_eq!(spin.window, Duration::ZERO, "an idle guest costs nothing");
        assert!(!spin.goes_on());
    }

    #[test]
    fn the_time_counts_from_the_last_work() {
        let start = Instant::now();
        let mut spin = Spin::new(BusyPoll::For(LONG));
        assert_eq!(spin.idle_for(start), Duration::ZERO);
        assert_eq!(spin.idle_for(start + SHORT), SHORT);
        spin.worked();
        assert_eq!(spin.idle_for(start + LONG), Duration::ZERO);
        assert_eq!(spin.idle_for(start + LONG + SHORT), SHORT);
    }

    #[test]
    fn a_fixed_time_stays_and_zero_is_never() {
        let mut spin = Spin::new(BusyPoll::For(LONG));
        spin.slept(SHORT);
        assert_eq!(spin.window, LONG);
        assert!(spin.goes_on());
        let mut never = Spin::new(BusyPoll::For(Duration::ZERO));
        never.slept(SHORT);
        assert!(!never.goes_on());
    }
}
