//! A line a minute, and what must stay as it is.

use std::time::Duration;

use crate::{
    problem::{Outcome, wrong},
    station::Station,
    vm::Cost,
};

/// Memory that allocators may come to hold, in KiB: no leak grows by less in the long run.
const MEMORY_SLACK: u64 = 1024;

/// The least and the most of a figure in a period.
#[derive(Debug, Clone, Copy)]
struct Range {
    least: u64,
    most: u64,
}

impl Range {
    const EMPTY: Self = Self {
        least: u64::MAX,
        most: 0,
    };

    fn see(&mut self, value: u64) {
        self.least = self.least.min(value);
        self.most = self.most.max(value);
    }

    fn text(self) -> String {
        if self.least > self.most {
            return "-".to_owned();
        }
        format!("{}-{}", self.least, self.most)
    }
}

/// What a process costs in this period, and in its first one: memory, descriptors, threads.
#[derive(Debug)]
pub(crate) struct Costs {
    now: [Range; 3],
    first: Option<[Range; 3]>,
    /// Periods that this process has been seen in.
    periods: u64,
}

impl Default for Costs {
    fn default() -> Self {
        Self {
            now: [Range::EMPTY; 3],
            first: None,
            periods: 0,
        }
    }
}

impl Costs {
    /// Looks at the costs of this moment.
    pub(crate) fn see(&mut self, cost: Cost) {
        let values = [cost.memory, cost.descriptors, cost.threads];
        for (range, value) in self.now.iter_mut().zip(values) {
            range.see(value);
        }
    }

    /// Another process.
    pub(crate) fn restart(&mut self) {
        *self = Self::default();
    }

    /// Ends a period. A guest resets its card many times a second, which ends and starts threads and closes and opens
    /// descriptors, so it is the least of them in a later period that must not be over the most of the first one.
    pub(crate) fn end_period(&mut self) -> Outcome {
        let now = std::mem::replace(&mut self.now, [Range::EMPTY; 3]);
        self.periods += 1;
        // The first one may be of a moment only.
        if self.periods == 2 {
            self.first = Some(now);
        }
        let Some(first) = self.first else {
            return Ok(());
        };
        let slack = [MEMORY_SLACK, 0, 0];
        let what = ["memory (KiB)", "descriptors", "threads"];
        for (((now, first), slack), what) in now.into_iter().zip(first).zip(slack).zip(what) {
            if now.least != u64::MAX && now.least > first.most + slack {
                return wrong(format!(
                    "{what} grew: {} at first, {} now",
                    first.text(),
                    now.text()
                ));
            }
        }
        Ok(())
    }

    fn cells(&self) -> String {
        self.now.map(Range::text).join(" | ")
    }
}

/// The head of the table.
pub(crate) fn head() -> String {
    let columns = [
        "time",
        "events",
        "entries",
        "frames checked",
        "frames of floods",
        "VMs ended, frames exact",
        "killed",
        "lasting VM: memory KiB",
        "fds",
        "threads",
        "other VM: memory KiB",
        "fds",
        "threads",
    ];
    format!(
        "| {} |\n|{}",
        columns.join(" | "),
        "---|".repeat(columns.len())
    )
}

/// A line of it.
pub(crate) fn line(time: Duration, events: u64, stations: &[Station; 2]) -> String {
    let [lasting, other] = stations;
    let (one, two) = (lasting.totals(), other.totals());
    let [frames, entries, floods]: [u64; 3] = std::array::from_fn(|i| one[i] + two[i]);
    let seconds = time.as_secs();
    format!(
        "| {}:{:02} | {events} | {entries} | {frames} | {floods} | {} | {} | {} | {} |",
        seconds / 60,
        seconds % 60,
        lasting.exact + other.exact,
        lasting.killed + other.killed,
        lasting.costs.cells(),
        other.costs.cells(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(memory: u64, descriptors: u64, threads: u64) -> Cost {
        Cost {
            memory,
            descriptors,
            threads,
        }
    }

    #[test]
    fn growth_is_noticed() {
        for leak in [cost(9000, 30, 5), cost(5000, 41, 5), cost(5000, 30, 9)] {
            let mut costs = Costs::default();
            for _ in 0..5 {
                costs.see(cost(4500, 30, 3));
                costs.see(cost(5000, 40, 8));
                assert!(costs.end_period().is_ok());
            }
            // A moment of more is none.
            costs.see(leak);
            costs.see(cost(5000, 31, 4));
            assert!(costs.end_period().is_ok());
            costs.see(leak);
            let end = costs.end_period();
            assert!(end.is_err_and(|it| it.to_string().contains("grew")));
        }
    }

    #[test]
    fn another_process_begins_anew() {
        let mut costs = Costs::default();
        for memory in [1000, 1000, 9000] {
            if memory == 9000 {
                costs.restart();
            }
            costs.see(cost(memory, 1, 1));
            assert!(costs.end_period().is_ok());
        }
        assert_eq!(Range::EMPTY.text(), "-");
    }
}
