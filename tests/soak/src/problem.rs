//! What ends a soak.

use std::io;

/// Why it failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    /// A VM, a frame or a figure is not as it must be; a sentence.
    #[error("{0}")]
    Wrong(String),
    /// The system refused something that the soak itself needs.
    #[error("could not {what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
}

impl Problem {
    /// The system refused to do `what`.
    pub(crate) fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::System { what, source }
    }
}

/// That, or what was asked for.
pub(crate) type Outcome<T = ()> = Result<T, Problem>;

/// Something is not as it must be.
pub(crate) fn wrong<T>(sentence: impl Into<String>) -> Outcome<T> {
    Err(Problem::Wrong(sentence.into()))
}
