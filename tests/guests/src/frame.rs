//! The frames that guests send and check: Ethernet, a number, a pattern.
//!
//! ```text
//! 0   destination (6), source (6), EtherType (2): 0x88b5, for local experiments
//! 14  the frame's number, 64 bits, big endian
//! 22  byte i of the frame is i modulo 256
//! ```
//! The pattern is the same in all frames, so that a frame costs its sender a number and nothing else.

use core::sync::atomic::Ordering;

use crate::memory::Region;

/// EtherType for local experiments (IEEE 802, 9.2.3.4).
pub const ETHERTYPE: u16 = 0x88b5;
/// Bytes of the shortest frame, without FCS.
pub const MIN: u64 = 60;
/// Bytes of the longest, without FCS.
pub const MAX: u64 = 1514;

/// Offset of the EtherType.
const TYPE: usize = 12;
/// Offset of the number.
const NUMBER: usize = 14;
/// Offset of the pattern.
const PATTERN: usize = 22;

/// Byte `position` of the pattern.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the pattern is modulo 256 throughout"
)]
fn pattern(position: usize) -> u8 {
    position as u8
}

/// Writes a frame of `len` bytes at `at`, without its number.
pub fn write(memory: &Region, at: usize, len: usize, destination: [u8; 6], source: [u8; 6]) {
    memory.write(at, &destination);
    memory.write(at + 6, &source);
    memory.write(at + TYPE, &ETHERTYPE.to_be_bytes());
    for position in PATTERN..len {
        memory.write(at + position, &[pattern(position)]);
    }
}

/// Numbers a frame. In pieces of 16 bits: `at + 14` is no multiple of more.
pub fn set_number(memory: &Region, at: usize, number: u64) {
    let [a, b, c, d, e, f, g, h] = number.to_be_bytes();
    for (i, piece) in [[a, b], [c, d], [e, f], [g, h]].into_iter().enumerate() {
        let cell = memory.u16(at + NUMBER + 2 * i);
        cell.store(u16::from_ne_bytes(piece), Ordering::Relaxed);
    }
}

/// Swaps destination and source.
pub fn swap_addresses(memory: &Region, at: usize) {
    for i in [0, 2, 4] {
        let (one, other) = (memory.u16(at + i), memory.u16(at + 6 + i));
        let value = one.load(Ordering::Relaxed);
        one.store(other.load(Ordering::Relaxed), Ordering::Relaxed);
        other.store(value, Ordering::Relaxed);
    }
}

/// What a received frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// One of these frames, of the right length and with every byte right: its number.
    Good(u64),
    /// One of these frames, and not as it was sent.
    Bad,
    /// Somebody else's.
    Other,
}

/// Checks a frame of `len` bytes that should have `expected`.
#[must_use]
pub fn check(memory: &Region, at: usize, len: usize, expected: usize) -> Check {
    let byte = |position| memory.u8(at + position).load(Ordering::Relaxed);
    if len < PATTERN || [byte(TYPE), byte(TYPE + 1)] != ETHERTYPE.to_be_bytes() {
        return Check::Other;
    }
    let right = len == expected && (PATTERN..len).all(|i| byte(i) == pattern(i));
    if !right {
        return Check::Bad;
    }
    let mut number = [0; 8];
    for (i, digit) in number.iter_mut().enumerate() {
        *digit = byte(NUMBER + i);
    }
    Check::Good(u64::from_be_bytes(number))
}

/// Whether it is a frame that was shorter when it was sent: zeros were put behind it, up to the shortest frame of the
/// wire. No byte of the pattern there is 0.
#[must_use]
pub fn is_padded(memory: &Region, at: usize, len: usize) -> bool {
    let byte = |position| memory.u8(at + position).load(Ordering::Relaxed);
    let sent = (PATTERN..len).find(|&i| byte(i) != pattern(i));
    len as u64 == MIN && sent.is_some_and(|sent| (sent..len).all(|i| byte(i) == 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_counts() {
        let memory = Region::take(2048);
        let (one, other) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        write(&memory, 12, 64, one, other);
        set_number(&memory, 12, 0x0102_0304_0506_0708);
        let good = Check::Good(0x0102_0304_0506_0708);
        assert_eq!(check(&memory, 12, 64, 64), good);
        assert_eq!(check(&memory, 12, 65, 64), Check::Bad);
        swap_addresses(&memory, 12);
        assert_eq!(check(&memory, 12, 64, 64), good);
        assert_eq!(memory.u8(17).load(Ordering::Relaxed), 2);
        for position in PATTERN..64 {
            let cell = memory.u8(12 + position);
            cell.fetch_xor(0x80, Ordering::Relaxed);
            assert_eq!(check(&memory, 12, 64, 64), Check::Bad);
            cell.fetch_xor(0x80, Ordering::Relaxed);
        }
        memory.write(12 + TYPE, &[8, 0]);
        assert_eq!(check(&memory, 12, 64, 64), Check::Other);
    }

    #[test]
    fn frames_that_were_shorter_end_with_zeros() {
        let memory = Region::take(2048);
        write(&memory, 12, 60, [2; 6], [4; 6]);
        assert!(!is_padded(&memory, 12, 60));
        memory.write(12 + 54, &[0; 6]);
        assert!(is_padded(&memory, 12, 60));
        assert!(!is_padded(&memory, 12, 59));
        memory.write(12 + 57, &[1]);
        assert!(!is_padded(&memory, 12, 60));
    }
}
