//! The Internet checksum (RFC 1071): the ones' complement of the ones' complement sum of 16-bit words.

mod wide;

use wide::{BLOCK, sum_blocks};

/// A sum in the making, over pieces that follow each other.
///
/// Words are added as this machine has them in memory, and swapped at the end if need be: the sum does not
/// depend on the byte order (RFC 1071, section 2 (B)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Checksum {
    /// Never wraps: each word adds less than 2^32, and no frame has 2^32 of them.
    sum: u64,
    /// An odd number of bytes so far: the next byte is the second one of its word.
    odd: bool,
}

impl Checksum {
    /// A sum of nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { sum: 0, odd: false }
    }

    /// Adds bytes that follow those added before.
    pub fn add(&mut self, bytes: &[u8]) {
        let bytes = match bytes.split_first() {
            Some((&second, rest)) if self.odd => {
                self.sum += u64::from(u16::from_ne_bytes([0, second]));
                self.odd = false;
                rest
            }
            _ => bytes,
        };
        self.sum += sum_words(bytes);
        self.odd ^= bytes.len() % 2 == 1;
    }

    /// Adds a number as its two bytes in network order. Only where an even number of bytes was added.
    pub fn add_u16(&mut self, value: u16) {
        debug_assert!(!self.odd, "a word in the middle of a word");
        self.sum += u64::from(value.to_be());
    }

    /// Adds what `other` has summed up, as if its bytes began at an even place.
    pub fn add_sum(&mut self, other: Self) {
        self.sum += other.sum;
    }

    /// The sum as a number of the machine, carries added, not yet inverted: what a driver leaves in the
    /// checksum field for a device to complete. 0 only if all words were 0.
    #[must_use]
    pub fn sum(self) -> u16 {
        u16::from_be(self.folded())
    }

    /// The checksum as a number of the machine.
    #[must_use]
    pub fn finish(self) -> u16 {
        !self.sum()
    }

    /// The checksum as UDP has it, where 0 means that there is none (RFC 768). 0xffff is the same number in
    /// ones' complement.
    #[must_use]
    pub fn finish_nonzero(self) -> u16 {
        match self.finish() {
            0 => 0xffff,
            sum => sum,
        }
    }

    fn folded(self) -> u16 {
        let mut sum = (self.sum >> 32) + (self.sum & 0xffff_ffff);
        sum = (sum >> 16) + (sum & 0xffff);
        sum = (sum >> 16) + (sum & 0xffff);
        sum = (sum >> 16) + (sum & 0xffff);
        let [low, high, ..] = sum.to_le_bytes();
        u16::from_le_bytes([low, high])
    }
}

/// The sum of the words in `bytes`, a single last byte being the first one of its word. 32 bits at a time:
/// carries between the halves are what is added in folding.
fn sum_words(bytes: &[u8]) -> u64 {
    let (blocks, rest) = bytes.as_chunks::<BLOCK>();
    // Headers alone are shorter, and need no lanes.
    let mut sum = if blocks.is_empty() {
        0
    } else {
        sum_blocks(blocks)
    };
    let (words, rest) = rest.as_chunks::<4>();
    for word in words {
        sum += u64::from(u32::from_ne_bytes(*word));
    }
    let (words, rest) = rest.as_chunks::<2>();
    for word in words {
        sum += u64::from(u16::from_ne_bytes(*word));
    }
    for &last in rest {
        sum += u64::from(u16::from_ne_bytes([last, 0]));
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1071, word by word.
    fn plain(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u32::from(low));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::try_from(sum).unwrap()
    }

    #[test]
    fn the_example_of_the_rfc() {
        let mut sum = Checksum::new();
        sum.add(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.sum(), 0xddf2);
        assert_eq!(sum.finish(), !0xddf2);
    }

    #[test]
    fn every_length_and_every_cut_gives_the_same_sum() {
        let bytes: Vec<u8> = (0..300u32)
            .map(|i| (i * 197 + 13).to_le_bytes()[0])
            .collect();
        for len in 0..bytes.len() {
            let mut whole = Checksum::new();
            whole.add(&bytes[..len]);
            assert_eq!(whole.sum(), plain(&bytes[..len]), "{len} bytes");
            let mut cut = Checksum::new();
            for piece in bytes[..len].chunks(len % 7 + 1) {
                cut.add(piece);
            }
            assert_eq!(
                cut.sum(),
                whole.sum(),
                "{len} bytes in pieces of {}",
                len % 7 + 1
            );
        }
    }

    #[test]
    fn carries_are_never_lost() {
        let ones = vec![0xff; 70_000];
        let mut sum = Checksum::new();
        sum.add(&ones);
        sum.add(&ones);
        assert_eq!(
            (sum.sum(), sum.finish(), sum.finish_nonzero()),
            (0xffff, 0, 0xffff)
        );
        assert_eq!(Checksum::new().sum(), 0);
    }

    #[test]
    fn numbers_and_sums_are_added_as_bytes_are() {
        let (mut bytes, mut numbers) = (Checksum::new(), Checksum::new());
        bytes.add(&[0x12, 0x34, 0xfe, 0xdc, 0x80]);
        numbers.add_u16(0x1234);
        numbers.add_u16(0xfedc);
        let mut last = Checksum::new();
        last.add(&[0x80]);
        numbers.add_sum(last);
        assert_eq!(bytes.sum(), numbers.sum());
    }
}
