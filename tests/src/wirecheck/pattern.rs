//! A byte stream that depends on a seed and on the position, so that a byte at a wrong place is noticed.

/// The 64-bit word number `index` of the stream of `seed` (SplitMix64, whose every step is a bijection).
fn word(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The bytes of the stream of `seed` from `offset` on, without end.
pub fn bytes(seed: u64, offset: u64) -> impl Iterator<Item = u8> {
    let skip = usize::try_from(offset % 8).unwrap_or(0);
    (offset / 8..)
        .flat_map(move |index| word(seed, index).to_le_bytes())
        .skip(skip)
}

/// Fills `buffer` with the bytes of the stream from `offset` on.
pub fn fill(seed: u64, offset: u64, buffer: &mut [u8]) {
    for (byte, wanted) in buffer.iter_mut().zip(bytes(seed, offset)) {
        *byte = wanted;
    }
}

/// Where in `buffer` the first byte is that is not the stream's, `buffer` being at `offset`.
#[must_use]
pub fn first_difference(seed: u64, offset: u64, buffer: &[u8]) -> Option<usize> {
    buffer
        .iter()
        .zip(bytes(seed, offset))
        .position(|(&got, wanted)| got != wanted)
}

/// A number below `bound` (0 if that is 0), different for each `index`: sizes and gaps that a run can repeat.
#[must_use]
pub fn pick(seed: u64, index: u64, bound: u64) -> u64 {
    word(!seed, index).checked_rem(bound).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_part_is_the_same_as_in_the_whole() {
        let mut whole = [0; 100];
        fill(7, 0, &mut whole);
        for start in 0..100_usize {
            for end in start..100 {
                assert_eq!(first_difference(7, start as u64, &whole[start..end]), None);
            }
        }
    }

    #[test]
    fn a_shift_a_flip_and_another_seed_are_noticed() {
        let mut part = [0; 64];
        fill(7, 1000, &mut part);
        assert!(first_difference(7, 1001, &part).is_some());
        assert!(first_difference(8, 1000, &part).is_some());
        part[63] ^= 1;
        assert_eq!(first_difference(7, 1000, &part), Some(63));
    }
}
