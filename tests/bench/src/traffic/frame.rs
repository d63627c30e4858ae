//! The frames that are sent.

/// Bytes of the Ethernet, IPv4 and UDP headers.
const HEADERS: usize = 14 + 20 + 8;

/// A UDP datagram to somebody else (a locally administered address that nobody has), as DPDK's testpmd sends: the far
/// end's stack looks at its Ethernet header and drops it. `length` is of the Ethernet frame without FCS.
pub(super) fn udp(length: usize) -> Vec<u8> {
    let mut frame = vec![0; length.max(HEADERS)];
    let ip_length = be16(frame.len() - 14);
    let udp_length = be16(frame.len() - 34);
    put(&mut frame, 0, &[0x02, 0, 0, 0, 0, 0xfe]);
    put(&mut frame, 6, &[0x02, 0, 0, 0, 0, 0xfd]);
    put(&mut frame, 12, &[0x08, 0x00]);
    put(&mut frame, 14, &[0x45, 0]);
    put(&mut frame, 16, &ip_length);
    put(&mut frame, 22, &[64, 17]);
    // 198.18.0.0/15 is for benchmarks (RFC 2544).
    put(&mut frame, 26, &[198, 18, 0, 1, 198, 18, 0, 2]);
    let sum = be16(usize::from(!ones_complement(
        frame.get(14..34).unwrap_or(&[]),
    )));
    put(&mut frame, 24, &sum);
    put(&mut frame, 34, &[0, 9, 0, 9]);
    put(&mut frame, 38, &udp_length);
    frame
}

/// The same datagram with its checksum, which DPDK leaves out.
pub(super) fn checked(mut frame: Vec<u8>) -> Vec<u8> {
    // The pseudo-header: addresses, protocol, length.
    let mut summed = frame.get(26..34).unwrap_or(&[]).to_vec();
    summed.extend([0, 17]);
    summed.extend(frame.get(38..40).unwrap_or(&[]));
    summed.extend(frame.get(34..).unwrap_or(&[]));
    summed.resize(summed.len().next_multiple_of(2), 0);
    let sum = match !ones_complement(&summed) {
        // A sum of 0 would be no checksum (RFC 768).
        0 => u16::MAX,
        sum => sum,
    };
    put(&mut frame, 40, &sum.to_be_bytes());
    frame
}

/// A broadcast of the EtherType for local experiments (IEEE 802).
pub(super) fn experimental(length: usize) -> Vec<u8> {
    let mut frame = vec![0; length.max(HEADERS)];
    put(&mut frame, 0, &[0xff; 6]);
    put(&mut frame, 6, &[0x02, 0, 0, 0, 0, 0xfd]);
    put(&mut frame, 12, &[0x88, 0xb5]);
    frame
}

/// Swaps the destination and the source of an Ethernet header.
pub(super) fn swap_addresses(frame: &mut [u8]) {
    if let Some((destination, rest)) = frame.split_first_chunk_mut::<6>()
        && let Some(source) = rest.first_chunk_mut::<6>()
    {
        std::mem::swap(destination, source);
    }
}

fn put(frame: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(to) = frame.get_mut(at..at + bytes.len()) {
        to.copy_from_slice(bytes);
    }
}

fn be16(value: usize) -> [u8; 2] {
    u16::try_from(value).unwrap_or(u16::MAX).to_be_bytes()
}

/// RFC 1071, of an even number of bytes.
fn ones_complement(bytes: &[u8]) -> u16 {
    let words = bytes.as_chunks::<2>().0.iter();
    let mut sum: u32 = words.map(|&it| u32::from(u16::from_be_bytes(it))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_checksum_is_right() {
        let frame = udp(64);
        assert_eq!(frame.len(), 64);
        assert_eq!(ones_complement(&frame[14..34]), 0xffff);
        assert_eq!(frame[16..18], [0, 50]);
        assert_eq!(frame[38..40], [0, 30]);
    }

    #[test]
    fn the_udp_checksum_is_right_if_there_is_one() {
        assert_eq!(udp(64)[40..42], [0, 0]);
        for length in [64, 65, 1514] {
            let frame = checked(udp(length));
            let length = be16(length - 34);
            let pseudo = [&frame[26..34], &[0, 17], &length].concat();
            let mut all = [&pseudo, &frame[34..]].concat();
            all.resize(all.len().next_multiple_of(2), 0);
            assert_eq!(ones_complement(&all), 0xffff);
        }
    }

    #[test]
    fn addresses_are_swapped_and_nothing_else() {
        let (mut there, back) = (udp(100), udp(100));
        swap_addresses(&mut there);
        assert_eq!((&there[..6], &there[6..12]), (&back[6..12], &back[..6]));
        assert_eq!(there[12..], back[12..]);
    }
}
