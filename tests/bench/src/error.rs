//! What can go wrong in a benchmark.

use std::io;

/// Each says what was tried, on what, and what came of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// A call of the system.
    #[error("{what}: {source}")]
    System {
        /// What was tried, on what.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// An interface could not be opened for AF_XDP.
    #[error(transparent)]
    Open(#[from] net_afxdp::OpenError),
    /// A measured program ended, or did not do what it should.
    #[error("{who} in {case}: {what}")]
    Contestant {
        /// Which.
        who: String,
        /// In which case.
        case: String,
        /// What it did, with its last lines.
        what: String,
    },
    /// The results could not be drawn.
    #[error("drawing {file}: {what}")]
    Plot {
        /// Which file.
        file: String,
        /// What the plotting library said.
        what: String,
    },
    /// Nothing to measure.
    #[error("nothing is left to measure: {0}")]
    Nothing(String),
}

impl BenchError {
    /// For `map_err`, with what was tried.
    pub(crate) fn system<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |source| Self::System {
            what,
            source: source.into(),
        }
    }
}
