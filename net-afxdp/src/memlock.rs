//! How much memory the process may lock.

use std::fmt;

use rustix::process::{Resource, getrlimit};

/// The soft limit of `RLIMIT_MEMLOCK`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryLimit {
    bytes: Option<u64>,
}

impl MemoryLimit {
    /// The limit of this process now.
    #[must_use]
    pub fn now() -> Self {
        Self {
            bytes: getrlimit(Resource::Memlock).current,
        }
    }

    /// The limit in bytes; `None`: no limit.
    #[must_use]
    pub fn bytes(self) -> Option<u64> {
        self.bytes
    }
}

impl fmt::Display for MemoryLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bytes {
            Some(bytes) => write!(f, "{} KiB", bytes / 1024),
            None => f.write_str("unlimited"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_shown_in_the_unit_of_ulimit() {
        assert_eq!(
            MemoryLimit {
                bytes: Some(8 << 20)
            }
            .to_string(),
            "8192 KiB"
        );
        assert_eq!(MemoryLimit { bytes: None }.to_string(), "unlimited");
    }
}
