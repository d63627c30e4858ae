//! A table in Markdown.

use crate::{
    rounds::{Outcome, Series},
    stats::Spread,
};

/// What a row has besides case, contestant and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Columns {
    /// CPU time of the program, and the ratio of values.
    Program,
    /// The same, and that of the threads that move frames.
    IoThreads,
}

impl Columns {
    /// The first two lines.
    pub(super) fn head(self) -> String {
        let ratio = "first / this: median (quartiles; min to max; rounds)";
        match self {
            Self::Program => format!(
                "| case | who | values | median | min to max | CPU-s/s | per CPU-s | {ratio} |\n\
                 |---|---|---:|---:|---|---:|---:|---|\n"
            ),
            Self::IoThreads => format!(
                "| case | who | values | median | min to max | CPU-s/s | per CPU-s | I/O ns | {ratio} | the same per I/O CPU-s |\n\
                 |---|---|---:|---:|---|---:|---:|---:|---|---|\n"
            ),
        }
    }

    /// One row a contestant.
    pub(super) fn rows(self, outcome: &Outcome) -> String {
        let first = outcome.series.first();
        let rows = outcome.series.iter();
        rows.map(|it| self.row(outcome, it, first)).collect()
    }

    fn row(self, outcome: &Outcome, series: &Series, first: Option<&Series>) -> String {
        let has_io = self == Self::IoThreads;
        let Some(values) = series.values() else {
            let empty = " |".repeat(if has_io { 6 } else { 4 });
            return format!(
                "| {} | {} | 0 | failed |{empty}\n",
                outcome.case, series.name
            );
        };
        let digits = digits(values.median);
        let cpu = median(series.cpu(), 2);
        let per_cpu = median(series.per_cpu().filter(|_| !outcome.unit.less), 2);
        let io = median(series.io(), 0);
        let first = first.filter(|it| it.name != series.name);
        let by_value = ratio(first.and_then(|it| it.ratio_to(series)));
        let by_io = ratio(first.and_then(|it| it.io_ratio_to(series)));
        let start = format!(
            "| {} | {} | {} | {:.digits$} {} | {:.digits$} to {:.digits$} | {cpu} | {per_cpu} |",
            outcome.case,
            series.name,
            values.count,
            values.median,
            outcome.unit.name,
            values.min,
            values.max
        );
        if has_io {
            format!("{start} {io} | {by_value} | {by_io} |\n")
        } else {
            format!("{start} {by_value} |\n")
        }
    }
}

fn median(spread: Option<Spread>, digits: usize) -> String {
    spread.map_or_else(String::new, |it| format!("{:.digits$}", it.median))
}

fn ratio(spread: Option<Spread>) -> String {
    spread.map_or_else(String::new, |it| match it.count {
        // A spread of one would look like a narrow one.
        1 => format!("{:.2} (one round)", it.median),
        rounds => format!(
            "{:.2} ({:.2} to {:.2}; {:.2} to {:.2}; {rounds})",
            it.median, it.lower, it.upper, it.min, it.max
        ),
    })
}

/// Three digits that count.
fn digits(value: f64) -> usize {
    match value.abs() {
        it if it >= 100.0 => 0,
        it if it >= 10.0 => 1,
        it if it >= 1.0 => 2,
        _ => 3,
    }
}

/// What went wrong, one paragraph each.
pub(super) fn failures(outcome: &Outcome) -> String {
    let failed = outcome.series.iter().filter_map(|it| {
        let (all, lost) = (it.runs(), it.failures);
        let why = it.failure.as_ref()?;
        Some(format!(
            "\n{}, {}: {lost} of {all} rounds failed: {why}\n",
            outcome.case, it.name
        ))
    });
    failed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        error::BenchError,
        rounds::{Sample, Unit},
    };

    fn series(name: &str, values: &[f64]) -> Series {
        let mut series = Series::new(name);
        for &value in values {
            series.push(Ok(Sample {
                value,
                cpu: Some(0.5),
                io: Some(1000.0 / value),
            }));
        }
        series
    }

    #[test]
    fn a_row_has_the_ratio_of_the_first_to_it() {
        let outcome = Outcome {
            case: "txpush 64 B".into(),
            unit: Unit::MPPS,
            series: vec![series("a", &[2.0, 3.0]), series("b", &[1.0, 1.0])],
        };
        let expected = "\
| txpush 64 B | a | 2 | 2.50 Mpps | 2.00 to 3.00 | 0.50 | 5.00 |  |
| txpush 64 B | b | 2 | 1.00 Mpps | 1.00 to 1.00 | 0.50 | 2.00 | 2.50 (2.25 to 2.75; 2.00 to 3.00; 2) |
";
        assert_eq!(Columns::Program.rows(&outcome), expected);
        let rows = Columns::IoThreads.rows(&outcome);
        let ratio = "2.50 (2.25 to 2.75; 2.00 to 3.00; 2)";
        assert!(rows.contains("| 5.00 | 417 |  |  |\n"), "{rows}");
        assert!(
            rows.ends_with(&format!("| 2.00 | 1000 | {ratio} | {ratio} |\n")),
            "{rows}"
        );
        assert_eq!(failures(&outcome), "");
    }

    /// Rounds are left out when time is short: how many there were must be seen.
    #[test]
    fn one_round_is_said_to_be_one() {
        let mut second = series("b", &[1.0]);
        second.samples.extend([None, None]);
        let outcome = Outcome {
            case: "rxdrop 64 B".into(),
            unit: Unit::MPPS,
            series: vec![series("a", &[2.0, 3.0, 4.0]), second],
        };
        let rows = Columns::Program.rows(&outcome);
        assert!(rows.contains("| a | 3 | 3.00 Mpps |"), "{rows}");
        assert!(rows.contains("| b | 1 | 1.00 Mpps |"), "{rows}");
        assert!(rows.ends_with("| 2.00 (one round) |\n"), "{rows}");
    }

    #[test]
    fn a_failure_is_a_row_and_a_sentence() {
        let mut failed = Series::new("c");
        for _ in 0..2 {
            failed.push(Err(BenchError::Nothing("not there".into())));
        }
        // Rounds that it did not run in.
        failed.samples.extend([None; 8]);
        let outcome = Outcome {
            case: "l2fwd 64 B".into(),
            unit: Unit::MPPS,
            series: vec![failed],
        };
        let rows = Columns::Program.rows(&outcome);
        assert_eq!(rows, "| l2fwd 64 B | c | 0 | failed | | | | |\n");
        let rows = Columns::IoThreads.rows(&outcome);
        assert_eq!(rows, "| l2fwd 64 B | c | 0 | failed | | | | | | |\n");
        let failures = failures(&outcome);
        assert!(failures.contains("2 of 2 rounds failed"), "{failures}");
        assert!(failures.contains("not there"), "{failures}");
    }
}
