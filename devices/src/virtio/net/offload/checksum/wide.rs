//! The sum over whole blocks, with the widest vectors that this CPU and the compiler have.
#![expect(
    unsafe_code,
    reason = "calls what is compiled for AVX2 once the CPU said that it has that"
)]

/// Bytes that are added in one step of the loop that the compiler turns into vector instructions.
pub(super) const BLOCK: usize = 64;

/// The sum of the 32-bit words in `blocks`, as this machine has them in memory.
pub(super) fn sum_blocks(blocks: &[[u8; BLOCK]]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the CPU has AVX2, which is all that the function asks for.
        return unsafe { sum_blocks_avx2(blocks) };
    }
    sum_lanes(blocks)
}

/// A baseline x86-64 CPU has vectors of half that size.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn sum_blocks_avx2(blocks: &[[u8; BLOCK]]) -> u64 {
    sum_lanes(blocks)
}

#[inline(always)]
fn sum_lanes(blocks: &[[u8; BLOCK]]) -> u64 {
    let mut lanes = [0u64; BLOCK / 4];
    for block in blocks {
        let (words, _) = block.as_chunks::<4>();
        for (lane, word) in lanes.iter_mut().zip(words) {
            *lane += u64::from(u32::from_ne_bytes(*word));
        }
    }
    lanes.iter().sum()
}
