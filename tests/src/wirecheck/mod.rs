//! Traffic whose every byte is checked at the other end. Used by the `wirecheck` program.
//!
//! iperf3 counts bytes; it does not look at them. A VMM that mixes up frames, shows a guest stale memory, or delivers a
//! segment twice can have perfect counts.

pub mod pattern;
mod segmentation;
pub mod tcp;
pub mod udp;

use std::fmt;
use std::io;

/// What went wrong on the wire, or with the means to look at it.
#[derive(Debug)]
pub enum CheckError {
    /// An operation on a socket failed.
    Io {
        /// What was tried, as in "connecting to 10.0.0.1:5000".
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// Bytes differ from what was sent.
    Content(String),
    /// The amount is not what the other end sent, or its report is not what it should be.
    Count(String),
}

impl CheckError {
    /// For `map_err`: `what` was tried.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

impl fmt::Display for CheckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { what, source } => write!(f, "{what} failed: {source}"),
            Self::Content(text) => write!(f, "wrong content: {text}"),
            Self::Count(text) => write!(f, "wrong amount: {text}"),
        }
    }
}

impl std::error::Error for CheckError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Content(_) | Self::Count(_) => None,
        }
    }
}
