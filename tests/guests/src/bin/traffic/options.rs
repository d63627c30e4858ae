//! What the command line asks for.

use guest::{clock, cmdline::Cmdline, frame};

/// Which way frames go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Out.
    Tx,
    /// In.
    Rx,
    /// In and out again.
    Fwd,
}

impl Mode {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tx => "tx",
            Self::Rx => "rx",
            Self::Fwd => "fwd",
        }
    }
}

/// The words of the command line, checked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    pub(crate) mode: Mode,
    /// Bytes of a frame.
    pub(crate) size: u16,
    /// End after so many.
    pub(crate) packets: u64,
    /// End after so many cycles.
    pub(crate) cycles: u64,
    /// End after so many cycles without a frame.
    pub(crate) patience: u64,
    pub(crate) pairs: u16,
    pub(crate) ring: u16,
    pub(crate) batch: u16,
    pub(crate) check: bool,
    /// Cycles that each received frame takes.
    pub(crate) work: u64,
    pub(crate) offloads: bool,
    /// Cycles a millisecond.
    pub(crate) kilohertz: u64,
}

impl Options {
    /// # Panics
    /// A word is wrong: the panic says which.
    pub(crate) fn new(line: Cmdline<'_>) -> Self {
        let mode = match line.text("mode") {
            Some("tx") => Mode::Tx,
            Some("rx") => Mode::Rx,
            Some("fwd") => Mode::Fwd,
            other => panic!("mode={} is not tx, rx or fwd", other.unwrap_or_default()),
        };
        let kilohertz = line.number("tsc-khz").or_else(clock::kilohertz);
        let Some(kilohertz) = kilohertz else {
            panic!("nobody tells how fast the TSC runs: give tsc-khz=");
        };
        let cycles = |seconds: u64| seconds.saturating_mul(1000).saturating_mul(kilohertz);
        let packets = line.number("packets");
        let seconds = line.number("seconds");
        let seconds = seconds.or_else(|| packets.is_none().then_some(10));
        let ring = within(line, "ring", 1024, 2, 1024);
        assert!(ring.is_power_of_two(), "ring={ring} is no power of two");
        Self {
            mode,
            size: within(line, "size", 64, frame::MIN, frame::MAX),
            packets: packets.unwrap_or(u64::MAX),
            cycles: seconds.map_or(u64::MAX, cycles),
            patience: cycles(line.number("patience").unwrap_or(10)),
            pairs: within(line, "pairs", 1, 1, 4),
            ring,
            batch: within(line, "batch", 256, 1, 1024),
            check: within(line, "check", 0, 0, 1) == 1,
            work: u64::from(within(line, "work", 0, 0, 65_535)) * kilohertz / 1_000_000,
            offloads: within(line, "offloads", 0, 0, 1) == 1,
            kilohertz,
        }
    }
}

/// A number that must be from `least` to `most`.
fn within(line: Cmdline<'_>, name: &str, default: u64, least: u64, most: u64) -> u16 {
    let number = line.number(name).unwrap_or(default);
    match u16::try_from(number) {
        Ok(value) if (least..=most).contains(&number) => value,
        _ => panic!("{name}={number} is not from {least} to {most}"),
    }
}
