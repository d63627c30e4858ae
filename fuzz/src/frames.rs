//! Frames made of a script's choices: real ones, and such that nearly are.

use arbitrary::{Result, Unstructured};
use devices::testing::frames::FrameSpec;

/// A TCP or UDP frame with up to `longest` bytes of payload, at least one.
///
/// # Errors
/// The script ends.
pub fn spec(u: &mut Unstructured<'_>, longest: u16) -> Result<FrameSpec> {
    let len = u.int_in_range(1..=longest)?;
    let seed: u8 = u.arbitrary()?;
    // Not of the script's bytes: these are better spent on headers.
    let byte = |at: u16| (at ^ (at >> 8) ^ u16::from(seed).wrapping_mul(37)).to_le_bytes()[0];
    let mut spec = FrameSpec::tcp(u.arbitrary()?, (0..len).map(byte).collect());
    spec.udp = u.arbitrary()?;
    spec.tags = vec![(0x8100, 1); u.int_in_range(0..=3)?];
    spec.ip_options = vec![1; 4 * u.int_in_range(0..=10)?];
    spec.tcp_options = vec![1; 4 * u.int_in_range(0..=10)?];
    if u.arbitrary()? {
        let number = *u.choose(&[0, 43, 60])?;
        let mut bytes = vec![0; 8 * u.int_in_range(1..=4)? - 2];
        bytes.fill_with(|| u.arbitrary().unwrap_or(0));
        spec.extensions = vec![(number, bytes)];
    }
    spec.id = u.arbitrary()?;
    spec.ports = u.arbitrary()?;
    spec.sequence = u.arbitrary()?;
    spec.acknowledgment = u.arbitrary()?;
    spec.flags = u.arbitrary()?;
    spec.fragment = *u.choose(&[0x4000, 0, 0x2000, 1])?;
    Ok(spec)
}

/// Changes up to five bytes of the first 200, and may shorten the frame.
///
/// # Errors
/// The script ends.
pub fn spoil(u: &mut Unstructured<'_>, frame: &mut Vec<u8>) -> Result<()> {
    for _ in 0..u.int_in_range(0..=5)? {
        let at = u.int_in_range(0..=199usize)?;
        let value = u.arbitrary()?;
        if let Some(byte) = frame.get_mut(at) {
            *byte = value;
        }
    }
    if u.ratio(1, 8)? {
        frame.truncate(u.int_in_range(0..=frame.len())?);
    }
    Ok(())
}
