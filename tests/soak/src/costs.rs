//! What must stay as it is while a process lives.

use crate::{
    problem::{Outcome, wrong},
    process::Cost,
};

/// What is looked at, and how much more of it is none: memory that allocators may come to hold, as no leak grows by less
/// in the long run.
const WATCHED: [(&str, u64); 3] = [("memory (KiB)", 1024), ("descriptors", 0), ("threads", 0)];

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

    /// By how much it is over an earlier one. A guest resets its card many times a second, which ends and starts threads and
    /// closes and opens descriptors, so it is the least of a later period that must not be over the most of an earlier one.
    fn growth(self, earlier: Self) -> u64 {
        if self.least > self.most || earlier.least > earlier.most {
            return 0;
        }
        self.least.saturating_sub(earlier.most)
    }
}

/// What a process costs in this period, in the one before, and in its first whole one.
#[derive(Debug)]
pub(crate) struct Costs {
    now: [Range; 3],
    last: Option<[Range; 3]>,
    first: Option<[Range; 3]>,
    /// Periods that this process has been seen in.
    periods: u64,
}

impl Default for Costs {
    fn default() -> Self {
        Self {
            now: [Range::EMPTY; 3],
            last: None,
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

    /// Ends a period; an error if something has grown.
    pub(crate) fn end_period(&mut self) -> Outcome {
        let now = std::mem::replace(&mut self.now, [Range::EMPTY; 3]);
        self.periods += 1;
        // The first one may be of a moment only.
        if self.periods == 2 {
            self.first = Some(now);
        }
        self.last = Some(now);
        let Some(first) = self.first else {
            return Ok(());
        };
        for ((now, first), (what, slack)) in now.into_iter().zip(first).zip(WATCHED) {
            let growth = now.growth(first);
            if growth > slack {
                return wrong(format!(
                    "{what} grew by {growth}: {} at first, {} now",
                    first.text(),
                    now.text()
                ));
            }
        }
        Ok(())
    }

    /// This period, or, where it has just begun, the one before: memory, descriptors, threads.
    pub(crate) fn cells(&self) -> [String; 3] {
        let [memory, ..] = self.now;
        let shown = match self.last {
            Some(last) if memory.least > memory.most => last,
            _ => self.now,
        };
        shown.map(Range::text)
    }

    /// How it stands, for the table.
    pub(crate) fn verdict(&self) -> String {
        let Some(first) = self.first else {
            return "too early".to_owned();
        };
        let [memory, ..] = self.last.unwrap_or(first);
        // More would have ended it.
        match memory.growth(first[0]) {
            0 => "constant".to_owned(),
            growth => format!("constant but for {growth} KiB"),
        }
    }

    /// What was at first and what is at last, in words; `None` if it was too short to tell.
    pub(crate) fn comparison(&self) -> Option<String> {
        // The first whole period is not compared with itself.
        let (first, last) = (self.first?, self.last.filter(|_| self.periods > 2)?);
        let words = first.into_iter().zip(last).zip(WATCHED);
        let words: Vec<_> = words
            .map(|((first, last), (what, _))| {
                format!("{what} {} at first, {} at last", first.text(), last.text())
            })
            .collect();
        Some(words.join("; "))
    }
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
            assert_eq!(costs.verdict(), "constant");
            costs.see(leak);
            let end = costs.end_period();
            assert!(end.is_err_and(|it| it.to_string().contains("grew by")));
        }
    }

    #[test]
    fn a_verdict_takes_three_periods() {
        let mut costs = Costs::default();
        for period in 0..3 {
            assert_eq!(costs.comparison(), None);
            costs.see(cost(1000 + 100 * period, 1, 1));
            assert!(costs.end_period().is_ok());
        }
        let text = costs.comparison().unwrap();
        let memory = "memory (KiB) 1100-1100 at first, 1200-1200 at last; ";
        assert!(text.starts_with(memory), "{text}");
        assert_eq!(costs.verdict(), "constant but for 100 KiB");
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
