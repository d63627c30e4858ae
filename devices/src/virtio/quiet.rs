//! Log lines that a guest can cause, without letting it fill the disk.

use std::sync::atomic::{AtomicU64, Ordering};

/// Lets the 1st, 2nd, 4th, 8th, ... occurrence of something into the log.
#[derive(Debug, Default)]
pub(crate) struct Quiet(AtomicU64);

impl Quiet {
    /// Counts one occurrence; its number if it is to be logged.
    pub(crate) fn count(&self) -> Option<u64> {
        let number = self.0.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        number.is_power_of_two().then_some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_occurrences_are_twenty_lines() {
        let quiet = Quiet::default();
        assert_eq!(quiet.count(), Some(1));
        assert_eq!((2..1 << 20).filter_map(|_| quiet.count()).count(), 19);
    }
}
