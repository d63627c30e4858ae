//! What is measured: a piece of work, with frames of a size.

use std::fmt;

use clap::ValueEnum;

/// What a program does with its end of the wire. The names are those of the AF_XDP authors' benchmark (RFC of 2017).
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Work {
    /// Sends as fast as it can.
    #[value(name = "txpush")]
    TxPush,
    /// Receives, and drops.
    #[value(name = "rxdrop")]
    RxDrop,
    /// Sends back what it receives, with the Ethernet addresses swapped.
    #[value(name = "l2fwd")]
    L2Fwd,
}

impl Work {
    /// All, in the order of the tables.
    pub(crate) const ALL: [Self; 3] = [Self::TxPush, Self::RxDrop, Self::L2Fwd];

    /// Whether somebody has to send from the other end.
    pub(crate) fn needs_generator(self) -> bool {
        self != Self::TxPush
    }

    /// As on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::TxPush => "txpush",
            Self::RxDrop => "rxdrop",
            Self::L2Fwd => "l2fwd",
        }
    }
}

/// One row group of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Case {
    /// What is done.
    pub(crate) work: Work,
    /// Bytes of a frame, Ethernet header included, FCS not.
    pub(crate) size: usize,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} B", self.work.name(), self.size)
    }
}
