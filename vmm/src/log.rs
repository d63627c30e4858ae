//! The log of the `ringwire` command, on standard error: bounded in what a guest can make it say, and in how long
//! anybody waits for it.
//!
//! - [`Limited`]: of each line of the source so many pass, and the others are counted.
//! - [`Stderr`]: a line that nobody takes is waited for for a moment, and then dropped and counted.

use std::io::{self, IsTerminal};

use tracing::Level;
use tracing_subscriber::{filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

use crate::COUNTERS;

mod limit;
mod stderr;

pub use limit::Limited;
pub use stderr::{Stderr, own_streams, say};

/// Sends log lines to standard error, for the life of the process; `verbose`: how often `-v` was given.
pub fn start(verbose: u8) {
    let level = match verbose {
        0 => Level::WARN,
        1 => Level::INFO,
        _ => Level::DEBUG,
    };
    let format = tracing_subscriber::fmt::format().with_target(false);
    let lines = tracing_subscriber::fmt::layer()
        .event_format(Limited::new(format))
        .with_writer(Stderr::default)
        // It would go to standard error in another way.
        .log_internal_errors(false)
        .with_ansi(io::stderr().is_terminal());
    // What it says of each interface that it opened, the netdev says with its id.
    let port = if level == Level::INFO {
        Level::WARN
    } else {
        level
    };
    let shown = Targets::new()
        .with_default(level)
        .with_target("net_afxdp::port", port)
        .with_target(COUNTERS, level.max(Level::INFO));
    tracing_subscriber::registry()
        .with(lines)
        .with(shown)
        .init();
}

/// Says what was left out since it was said last; for the end of the process.
pub fn finish() {
    let left_out = limit::left_out();
    if left_out > 0 {
        tracing::warn!(
            "{left_out} log lines in all were left out, as there were too many like them"
        );
    }
    stderr::flush();
}
