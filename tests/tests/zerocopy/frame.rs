//! Frames of IPv4 and UDP whose content follows from a number, and whose addresses vary: by those a card spreads them over
//! its queues (of UDP, cards take the ports into account only when they are told to).

use ringwire_tests::wirecheck::pattern;

/// Ethernet, IPv4 and UDP headers.
const HEADERS: usize = 14 + 20 + 8;

/// Where the UDP header and its checksum are.
pub(crate) const UDP_START: usize = 14 + 20;
pub(crate) const UDP_CHECKSUM: usize = UDP_START + 6;

/// The shortest: headers and the number. (A card pads it to 60 bytes.)
const SHORTEST: usize = HEADERS + 4;

/// The longest for an MTU of 1500.
const LONGEST: usize = 1514;

/// Number `number` of the frames of `seed`.
pub(crate) fn frame(seed: u64, number: u32) -> Vec<u8> {
    let spread = u64::try_from(LONGEST - SHORTEST + 1).unwrap();
    let length = SHORTEST + usize::try_from(pattern::pick(seed, number.into(), spread)).unwrap();
    let ip_length = u16::try_from(length - 14).unwrap();
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 9]);
    frame.extend([8, 0]);
    let mut ip = [0; 20];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&ip_length.to_be_bytes());
    ip[8] = 64;
    ip[9] = 17;
    let [.., high, low] = number.to_be_bytes();
    ip[12..16].copy_from_slice(&[10, 79, high, low]);
    ip[16..20].copy_from_slice(&[10, 80, 0, 1]);
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    frame.extend(ip);
    frame.extend(9_u16.to_be_bytes());
    frame.extend(9_u16.to_be_bytes());
    frame.extend((ip_length - 20).to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(number.to_be_bytes());
    let rest = length - frame.len();
    frame.extend(pattern::bytes(seed, u64::from(number) << 16).take(rest));
    frame
}

/// The number of a frame of `seed`, if every byte is right; what a card may have appended to a short one is zeros.
pub(crate) fn number_of(seed: u64, got: &[u8]) -> Option<u32> {
    let number = u32::from_be_bytes(got.get(HEADERS..SHORTEST)?.try_into().ok()?);
    let wanted = frame(seed, number);
    let (content, padding) = got.split_at_checked(wanted.len())?;
    (content == wanted && got.len() <= wanted.len().max(60) && padding.iter().all(|&it| it == 0))
        .then_some(number)
}

/// The same with the sum over UDP's pseudo-header in the place of its checksum, which is at [`UDP_CHECKSUM`].
pub(crate) fn partial_frame(seed: u64, number: u32) -> Vec<u8> {
    let mut frame = frame(seed, number);
    let sum = !checksum(&pseudo_header(&frame));
    frame[UDP_CHECKSUM..UDP_CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// Whether the UDP checksum is right.
pub(crate) fn is_right(frame: &[u8]) -> bool {
    let length = usize::from(u16::from_be_bytes([frame[38], frame[39]]));
    let udp = [&pseudo_header(frame), &frame[UDP_START..UDP_START + length]].concat();
    frame[UDP_CHECKSUM..UDP_CHECKSUM + 2] != [0, 0] && checksum(&udp) == 0
}

fn pseudo_header(frame: &[u8]) -> Vec<u8> {
    [&frame[26..34], &[0, 17], &frame[38..40]].concat()
}

/// The Internet checksum (RFC 1071).
fn checksum(header: &[u8]) -> u16 {
    let words = header.chunks(2);
    let mut sum: u32 = words
        .map(|it| u32::from(u16::from_be_bytes([it[0], it.get(1).copied().unwrap_or(0)])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}
