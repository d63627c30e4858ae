//! The CRC32c, which SCTP has for a checksum (RFC 9260, appendix A): polynomial 0x1edc6f41, lowest bit first.

/// The polynomial, its bits in reverse order.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// The remainder of each byte.
static REMAINDERS: [u32; 256] = remainders();

const fn remainders() -> [u32; 256] {
    let mut table = [0; 256];
    let mut rest: &mut [u32] = &mut table;
    let mut byte = 0;
    while let [slot, after @ ..] = rest {
        let mut value: u32 = byte;
        let mut bit = 0;
        while bit < 8 {
            let carry = value & 1 != 0;
            value >>= 1;
            if carry {
                value ^= POLYNOMIAL;
            }
            bit += 1;
        }
        *slot = value;
        rest = after;
        byte += 1;
    }
    table
}

/// A CRC32c in the making, over pieces that follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crc32c(u32);

impl Default for Crc32c {
    fn default() -> Self {
        Self::new()
    }
}

impl Crc32c {
    /// A CRC of nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self(u32::MAX)
    }

    /// Adds bytes that follow those added before.
    pub fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let [low, ..] = self.0.to_le_bytes();
            let remainder = REMAINDERS.get(usize::from(low ^ byte)).copied();
            self.0 = (self.0 >> 8) ^ remainder.unwrap_or_default();
        }
    }

    /// The CRC as a number. On the wire its lowest byte comes first.
    #[must_use]
    pub const fn finish(self) -> u32 {
        !self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crc(bytes: &[u8]) -> u32 {
        let mut crc = Crc32c::new();
        crc.add(bytes);
        crc.finish()
    }

    /// The check value of the CRC, and the examples of RFC 3720, appendix B.4.
    #[test]
    fn the_examples_of_the_rfc() {
        let up: Vec<u8> = (0..32).collect();
        let down: Vec<u8> = (0..32).rev().collect();
        for (bytes, want) in [
            (&b"123456789"[..], 0xe306_9283),
            (&[0; 32], 0x8a91_36aa),
            (&[0xff; 32], 0x62a8_ab43),
            (&up, 0x46dd_794e),
            (&down, 0x113f_db5c),
            (&[], 0),
        ] {
            assert_eq!(crc(bytes), want, "{bytes:x?}");
        }
    }

    #[test]
    fn pieces_give_the_crc_of_the_whole() {
        let bytes: Vec<u8> = (0..=255).collect();
        for cut in 0..bytes.len() {
            let (one, two) = bytes.split_at(cut);
            let mut pieces = Crc32c::new();
            pieces.add(one);
            pieces.add(two);
            assert_eq!(pieces.finish(), crc(&bytes), "{cut}");
        }
    }
}
