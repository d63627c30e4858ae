//! What the command line asks for.

use guest::{clock, cmdline::Cmdline};

/// The words of the command line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    /// Entries at random, for ever.
    pub(crate) seed: Option<u64>,
    /// No other entry.
    pub(crate) only: Option<u8>,
    /// Cycles after which a frame that did not come back is sent again.
    pub(crate) retry: Option<u64>,
    /// Cycles that anything may take.
    pub(crate) patience: u64,
    /// Cycles a millisecond.
    pub(crate) kilohertz: u64,
}

impl Options {
    /// # Panics
    /// A word is wrong: the panic says which.
    pub(crate) fn new(line: Cmdline<'_>) -> Self {
        let kilohertz = line.number("tsc-khz").or_else(clock::kilohertz);
        let Some(kilohertz) = kilohertz else {
            panic!("nobody tells how fast the TSC runs: give tsc-khz=");
        };
        let milliseconds = |number: u64| number.saturating_mul(kilohertz);
        let seconds = line.number("patience").unwrap_or(20);
        Self {
            seed: line.number("seed"),
            only: line.number("only").map(|it| u8::try_from(it).unwrap_or(0)),
            retry: line.number("retry").map(milliseconds),
            patience: milliseconds(seconds.saturating_mul(1000)),
            kilohertz,
        }
    }
}
