//! Numbers at random, the same for the same seed.

use std::time::Duration;

/// xorshift64 (Marsaglia 2003).
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// Begins with `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        // Neighbours are to differ in all bits; 0 would stay 0.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// One of these.
    pub(crate) fn one_of<T: Copy, const N: usize>(&mut self, all: [T; N]) -> T {
        const { assert!(N > 0) };
        let at = self.next() % N as u64;
        all[usize::try_from(at).unwrap_or(0)]
    }

    /// From `least` to ten times that, in milliseconds.
    pub(crate) fn pause(&mut self, least: u64) -> Duration {
        Duration::from_millis(least + self.next() % (9 * least + 1))
    }
}
