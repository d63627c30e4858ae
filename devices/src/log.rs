//! Log lines that come again and again, in numbers that do not matter any more.
//!
//! What a guest, the wire, a neighbour on the host or a client can cause, it can cause a million times. The library limits
//! such lines where they are made: those of a broken rule by their number (`virtio::quiet`), those of
//! events that matter each (a link that went down) in time, by a [`LogLimit`].

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Lets a number of lines pass at once, and then one in every span of time. Counts the others.
#[derive(Debug)]
pub struct LogLimit {
    burst: u32,
    every: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// How many may pass now.
    credit: u32,
    /// When that was so.
    at: Option<Instant>,
    left_out: u64,
}

/// How many lines were left out before one that passes; the words for its end, if any were, or the next ones may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeftOut {
    /// How many.
    pub count: u64,
    /// Whether the next one would be left out if it came now: what the log says last may not be how it is.
    pub limited: bool,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.count, self.limited) {
            (0, false) => Ok(()),
            (0, true) => write!(f, " (further lines like this may be left out)"),
            (count, _) => write!(f, " ({count} more like this were left out)"),
        }
    }
}

impl Default for LogLimit {
    /// 16 lines at once, then one every ten seconds.
    fn default() -> Self {
        Self::new(16, Duration::from_secs(10))
    }
}

impl LogLimit {
    /// `burst` lines at once, then one in every span of `every`.
    pub const fn new(burst: u32, every: Duration) -> Self {
        Self {
            burst,
            every,
            state: Mutex::new(State {
                credit: burst,
                at: None,
                left_out: 0,
            }),
        }
    }

    /// Whether a line may pass now; if so, how many were left out since the last one.
    pub fn pass(&self) -> Option<LeftOut> {
        self.pass_at(Instant::now())
    }

    fn pass_at(&self, now: Instant) -> Option<LeftOut> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.renew(&mut state, now);
        if state.credit == 0 {
            state.left_out = state.left_out.saturating_add(1);
            return None;
        }
        state.credit -= 1;
        Some(LeftOut {
            count: std::mem::take(&mut state.left_out),
            limited: state.credit == 0,
        })
    }

    /// Gives credit for the time that has gone.
    fn renew(&self, state: &mut State, now: Instant) {
        let since = *state.at.get_or_insert(now);
        let spans = now.saturating_duration_since(since).as_nanos();
        let spans = spans.checked_div(self.every.as_nanos()).unwrap_or(0);
        let spans = u32::try_from(spans).unwrap_or(u32::MAX);
        if spans == 0 {
            return;
        }
        state.credit = state.credit.saturating_add(spans).min(self.burst);
        state.at = since
            .checked_add(self.every.saturating_mul(spans))
            .or(Some(now));
    }

    /// How many lines were left out since the last one that passed.
    pub fn left_out(&self) -> u64 {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.left_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_one_in_a_while_and_the_others_are_counted() {
        let start = Instant::now();
        let limit = LogLimit::new(3, Duration::from_secs(10));
        let pass = |millis| {
            let passed = limit.pass_at(start + Duration::from_millis(millis))?;
            Some((passed.count, passed.limited))
        };
        assert_eq!(pass(0), Some((0, false)));
        assert_eq!(pass(0), Some((0, false)));
        assert_eq!(pass(0), Some((0, true)), "the last one says so");
        for _ in 0..1000 {
            assert_eq!(pass(9_999), None);
        }
        assert_eq!(limit.left_out(), 1000);
        assert_eq!(pass(10_000), Some((1000, true)));
        assert_eq!(pass(19_999), None);
        assert_eq!(pass(20_000), Some((1, true)));
        // After a long silence it is as at the start.
        let passed = (0..1000).filter_map(|_| pass(10_000_000)).count();
        assert_eq!(passed, 3);
    }

    #[test]
    fn a_day_of_events_is_bounded() {
        let start = Instant::now();
        let limit = LogLimit::default();
        let day = (0..86_400_000).step_by(7);
        let passed = day.filter_map(|at| limit.pass_at(start + Duration::from_millis(at)));
        assert_eq!(passed.count(), 16 + 8639);
    }

    #[test]
    fn words_only_where_lines_were_or_may_be_left_out() {
        let words = |count, limited| LeftOut { count, limited }.to_string();
        assert_eq!(words(0, false), "");
        assert_eq!(words(0, true), " (further lines like this may be left out)");
        assert_eq!(words(7, true), " (7 more like this were left out)");
    }
}
