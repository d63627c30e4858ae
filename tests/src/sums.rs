//! Whether the checksums of frames are right: of IPv4 headers, TCP, UDP, ICMP, ICMPv6. Written for tests, with nothing of what
//! is tested.

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// VLAN tags.
const TAGS: [u16; 2] = [0x8100, 0x88a8];

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
/// IPv6's fragment header.
const FRAGMENT: u8 = 44;

/// Wrong frames that are kept as text.
const KEPT: usize = 5;

/// Frames that were looked at, by what they carry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sums {
    /// TCP segments with right checksums.
    pub tcp: u64,
    /// UDP datagrams with right checksums.
    pub udp: u64,
    /// ICMP and ICMPv6 messages with right checksums.
    pub icmp: u64,
    /// Fragments: only their IPv4 headers were looked at.
    pub fragments: u64,
    /// Those of all of these that had a VLAN tag.
    pub tagged: u64,
    /// Frames of other protocols.
    pub others: u64,
    /// Frames with a wrong checksum or length.
    pub wrong: u64,
    /// The first of these, with what is wrong.
    pub samples: Vec<String>,
}

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tcp,
    Udp,
    Icmp,
    Fragment,
    Other,
}

impl Sums {
    /// Counts a frame.
    pub fn look_at(&mut self, frame: &[u8]) {
        let tagged = ether_type(frame, 12).is_some_and(|it| TAGS.contains(&it));
        match judge(frame) {
            Ok(kind) => {
                *match kind {
                    Kind::Tcp => &mut self.tcp,
                    Kind::Udp => &mut self.udp,
                    Kind::Icmp => &mut self.icmp,
                    Kind::Fragment => &mut self.fragments,
                    Kind::Other => &mut self.others,
                } += 1;
                self.tagged += u64::from(tagged && kind != Kind::Other);
            }
            Err(what) => {
                self.wrong += 1;
                if self.samples.len() < KEPT {
                    let start = frame.get(..80).unwrap_or(frame);
                    self.samples.push(format!("{what}: {start:02x?}"));
                }
            }
        }
    }
}

fn ether_type(frame: &[u8], at: usize) -> Option<u16> {
    number(frame, at)
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes([bytes[0], bytes[1]]))
}

fn judge(frame: &[u8]) -> Result<Kind, &'static str> {
    let mut at = 12;
    while ether_type(frame, at).is_some_and(|it| TAGS.contains(&it)) {
        at += 4;
    }
    let packet = frame.get(at + 2..).unwrap_or(&[]);
    match ether_type(frame, at) {
        Some(IPV4) => v4(packet),
        Some(IPV6) => v6(packet),
        _ => Ok(Kind::Other),
    }
}

fn v4(packet: &[u8]) -> Result<Kind, &'static str> {
    let first = *packet.first().ok_or("no IPv4 header")?;
    let length = usize::from(number(packet, 2).ok_or("no IPv4 header")?);
    // Padding is behind it.
    let packet = packet
        .get(..length)
        .ok_or("an IPv4 packet that is cut off")?;
    let (header, rest) = packet
        .split_at_checked(usize::from(first & 0xf) * 4)
        .filter(|(header, _)| header.len() >= 20)
        .ok_or("no IPv4 header")?;
    if sum(&[header]) != 0xffff {
        return Err("the checksum of an IPv4 header");
    }
    // More fragments, or an offset.
    if number(header, 6).unwrap_or(0) & 0x3fff != 0 {
        return Ok(Kind::Fragment);
    }
    transport(header[9], &header[12..20], rest)
}

fn v6(packet: &[u8]) -> Result<Kind, &'static str> {
    let length = usize::from(number(packet, 4).ok_or("no IPv6 header")?);
    let packet = packet
        .get(..40 + length)
        .ok_or("an IPv6 packet that is cut off")?;
    match packet[6] {
        FRAGMENT => Ok(Kind::Fragment),
        next => transport(next, &packet[8..40], &packet[40..]),
    }
}

/// `addresses` are those of the pseudo-header (RFC 9293, 3.1; RFC 8200, 8.1).
fn transport(protocol: u8, addresses: &[u8], packet: &[u8]) -> Result<Kind, &'static str> {
    let length = u32::try_from(packet.len()).map_err(|_| "too long")?;
    let pseudo = [addresses, &length.to_be_bytes(), &[0, 0, 0, protocol]].concat();
    match protocol {
        TCP if sum(&[&pseudo, packet]) == 0xffff => Ok(Kind::Tcp),
        TCP => Err("the checksum of a TCP segment"),
        UDP if number(packet, 4).map(usize::from) != Some(packet.len()) => {
            Err("the length of a UDP datagram")
        }
        // None at all: over IPv4 only.
        UDP if number(packet, 6) == Some(0) && addresses.len() == 8 => Ok(Kind::Udp),
        UDP if number(packet, 6) != Some(0) && sum(&[&pseudo, packet]) == 0xffff => Ok(Kind::Udp),
        UDP => Err("the checksum of a UDP datagram"),
        ICMP if sum(&[packet]) == 0xffff => Ok(Kind::Icmp),
        ICMP => Err("the checksum of an ICMP message"),
        ICMPV6 if sum(&[&pseudo, packet]) == 0xffff => Ok(Kind::Icmp),
        ICMPV6 => Err("the checksum of an ICMPv6 message"),
        _ => Ok(Kind::Other),
    }
}

/// In ones' complement (RFC 1071), of parts of which all but the last have an even number of bytes.
fn sum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u64;
    for part in parts {
        let (words, odd) = part.as_chunks::<2>();
        let words = words.iter().map(|&it| u64::from(u16::from_be_bytes(it)));
        sum += words.sum::<u64>() + odd.first().map_or(0, |&it| u64::from(it) << 8);
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
#[path = "sums_tests.rs"]
mod tests;
