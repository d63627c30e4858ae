//! A line for each station and period.

use std::time::Duration;

use crate::{plan::Place, resident::Resident, station::Station};

/// The columns.
const COLUMNS: [&str; 16] = [
    "time",
    "VM",
    "events",
    "entries",
    "frames right",
    "frames of floods",
    "flows",
    "MB right",
    "cut",
    "ended, frames exact",
    "killed",
    "memory KiB",
    "fds",
    "threads",
    "lasts",
    "verdict",
];

/// The head of the table.
pub(crate) fn head() -> String {
    let columns = COLUMNS.len();
    format!("| {} |\n|{}", COLUMNS.join(" | "), "---|".repeat(columns))
}

/// A line of it.
pub(crate) fn line<R: Resident>(
    time: Duration,
    place: Place,
    events: u64,
    station: &Station<R>,
) -> String {
    let seconds = time.as_secs();
    let tally = station.tally();
    let counts = [
        events,
        tally.entries,
        tally.frames,
        tally.floods,
        tally.flows,
        tally.bytes / 1_000_000,
        tally.cut,
        station.exact,
        station.killed,
    ];
    let counts = counts.map(|it| it.to_string()).join(" | ");
    let (lasts, verdict) = if place.lasts {
        ("yes", station.costs.verdict())
    } else {
        ("no", "-".to_owned())
    };
    format!(
        "| {}:{:02} | {} {}{} | {counts} | {} | {lasts} | {verdict} |",
        seconds / 60,
        seconds % 60,
        R::NAME,
        place.number,
        place.link.name(),
        station.costs.cells().join(" | ")
    )
}
