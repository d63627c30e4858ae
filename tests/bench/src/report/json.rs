//! All figures, for programs.

use serde_json::{Value, json};

use super::Report;
use crate::{rounds::Outcome, stats::Spread};

/// The text of the file.
pub(super) fn text(report: &Report) -> String {
    let value = json!({
        "title": report.title,
        "command": report.command,
        "machine": report.machine.to_json(),
        "cases": report.outcomes.iter().map(case).collect::<Vec<_>>(),
    });
    format!("{value:#}\n")
}

fn case(outcome: &Outcome) -> Value {
    let first = outcome.series.first();
    let contestants = outcome.series.iter().map(|series| {
        let samples = series.samples.iter().map(|it| {
            it.map_or(
                Value::Null,
                |it| json!({ "value": it.value, "cpu_seconds_per_second": it.cpu, "io_nanoseconds_per_frame": it.io }),
            )
        });
        json!({
            "name": series.name,
            "samples": samples.collect::<Vec<_>>(),
            "value": series.values().map(spread),
            "cpu_seconds_per_second": series.cpu().map(spread),
            "value_per_cpu_second": series.per_cpu().filter(|_| !outcome.unit.less).map(spread),
            "first_divided_by_this": first.and_then(|it| it.ratio_to(series)).map(spread),
            "io_nanoseconds_per_frame": series.io().map(spread),
            "first_divided_by_this_per_io_cpu_second": first.and_then(|it| it.io_ratio_to(series)).map(spread),
            "failure": series.failure,
        })
    });
    json!({
        "case": outcome.case,
        "unit": outcome.unit.name,
        "less_is_better": outcome.unit.less,
        "contestants": contestants.collect::<Vec<_>>(),
    })
}

fn spread(it: Spread) -> Value {
    json!({
        "min": it.min, "lower_quartile": it.lower, "median": it.median, "upper_quartile": it.upper, "max": it.max,
    })
}
