//! The ACPI PM timer (ACPI 6.5, 4.8.3.3): a counter of 24 bits at a fixed frequency, by which guests without KVM's
//! clock tell how fast their TSC counts, and which they fall back on if they don't trust that.

use std::time::{Duration, Instant};

/// Ticks a second.
const FREQUENCY: u128 = 3_579_545;

/// The counter. It has no carry interrupt.
#[derive(Debug)]
pub(super) struct PmTimer {
    start: Instant,
}

impl PmTimer {
    /// A timer that starts at zero.
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    /// Its count.
    pub(super) fn value(&self) -> u32 {
        count(self.start.elapsed())
    }
}

/// The count after `time`: the upper 8 of 32 bits are zero.
fn count(time: Duration) -> u32 {
    let ticks = time.as_nanos() * FREQUENCY / 1_000_000_000;
    u32::try_from(ticks & 0xff_ffff).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_at_the_frequency_of_the_specification_in_24_bits() {
        assert_eq!(count(Duration::ZERO), 0);
        assert_eq!(count(Duration::from_secs(1)), 3_579_545);
        assert_eq!(count(Duration::from_micros(10)), 35);
        // It wraps after 4.7 s.
        assert_eq!(count(Duration::from_secs(5)), 5 * 3_579_545 - (1 << 24));
        assert!(count(Duration::MAX) < 1 << 24);
    }
}
