//! A table in Markdown.

use crate::rounds::{Outcome, Series};

/// Its first two lines.
pub(super) const HEAD: &str = "\
| case | who | median | min to max | CPU-s/s | per CPU-s | first / this: median (quartiles; min to max) |
|---|---|---:|---|---:|---:|---|
";

/// One row a contestant.
pub(super) fn rows(outcome: &Outcome) -> String {
    let first = outcome.series.first();
    outcome
        .series
        .iter()
        .map(|series| row(outcome, series, first))
        .collect()
}

fn row(outcome: &Outcome, series: &Series, first: Option<&Series>) -> String {
    let Some(values) = series.values() else {
        return format!("| {} | {} | failed | | | | |\n", outcome.case, series.name);
    };
    let digits = digits(values.median);
    let cpu = series
        .cpu()
        .map_or_else(String::new, |it| format!("{:.2}", it.median));
    let per_cpu = series
        .per_cpu()
        .filter(|_| !outcome.unit.less)
        .map_or_else(String::new, |it| format!("{:.2}", it.median));
    let ratio = first
        .filter(|it| it.name != series.name)
        .and_then(|it| it.ratio_to(series))
        .map_or_else(String::new, |it| {
            format!(
                "{:.2} ({:.2} to {:.2}; {:.2} to {:.2})",
                it.median, it.lower, it.upper, it.min, it.max
            )
        });
    format!(
        "| {} | {} | {:.digits$} {} | {:.digits$} to {:.digits$} | {cpu} | {per_cpu} | {ratio} |\n",
        outcome.case, series.name, values.median, outcome.unit.name, values.min, values.max
    )
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
        let all = it.samples.len();
        let lost = it.samples.iter().filter(|it| it.is_none()).count();
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
    use crate::rounds::{Sample, Unit};

    fn series(name: &str, values: &[f64]) -> Series {
        let samples = values.iter().map(|&value| {
            Some(Sample {
                value,
                cpu: Some(0.5),
            })
        });
        Series {
            name: name.into(),
            samples: samples.collect(),
            failure: None,
        }
    }

    #[test]
    fn a_row_has_the_ratio_of_the_first_to_it() {
        let outcome = Outcome {
            case: "txpush 64 B".into(),
            unit: Unit::MPPS,
            series: vec![series("a", &[2.0, 3.0]), series("b", &[1.0, 1.0])],
        };
        let expected = "\
| txpush 64 B | a | 2.50 Mpps | 2.00 to 3.00 | 0.50 | 5.00 |  |
| txpush 64 B | b | 1.00 Mpps | 1.00 to 1.00 | 0.50 | 2.00 | 2.50 (2.25 to 2.75; 2.00 to 3.00) |
";
        assert_eq!(rows(&outcome), expected);
        assert_eq!(failures(&outcome), "");
    }

    #[test]
    fn a_failure_is_a_row_and_a_sentence() {
        let failed = Series {
            name: "c".into(),
            samples: vec![None, None],
            failure: Some("not there".into()),
        };
        let outcome = Outcome {
            case: "l2fwd 64 B".into(),
            unit: Unit::MPPS,
            series: vec![failed],
        };
        assert_eq!(rows(&outcome), "| l2fwd 64 B | c | failed | | | | |\n");
        assert!(failures(&outcome).contains("2 of 2 rounds failed: not there"));
    }
}
