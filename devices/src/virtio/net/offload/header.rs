//! Named fields of protocol headers, and checked access to them.

/// A field of `N` bytes, by its offset in a header.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field<const N: usize>(pub(super) usize);

impl<const N: usize> Field<N> {
    /// The field in the header that starts at `start`; `None` past the end.
    pub(super) fn get(self, bytes: &[u8], start: usize) -> Option<[u8; N]> {
        let at = start.checked_add(self.0)?;
        bytes.get(at..)?.first_chunk::<N>().copied()
    }

    /// Writes it; past the end nothing is written.
    pub(super) fn set(self, bytes: &mut [u8], start: usize, value: [u8; N]) {
        let at = start.saturating_add(self.0);
        if let Some(field) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
            *field = value;
        }
    }
}

impl Field<1> {
    pub(super) fn byte(self, bytes: &[u8], start: usize) -> Option<u8> {
        self.get(bytes, start).map(|[byte]| byte)
    }
}

impl Field<2> {
    /// The number in network order.
    pub(super) fn number(self, bytes: &[u8], start: usize) -> Option<u16> {
        self.get(bytes, start).map(u16::from_be_bytes)
    }

    pub(super) fn set_number(self, bytes: &mut [u8], start: usize, value: u16) {
        self.set(bytes, start, value.to_be_bytes());
    }
}

impl Field<4> {
    /// The number in network order.
    pub(super) fn number(self, bytes: &[u8], start: usize) -> Option<u32> {
        self.get(bytes, start).map(u32::from_be_bytes)
    }

    pub(super) fn set_number(self, bytes: &mut [u8], start: usize, value: u32) {
        self.set(bytes, start, value.to_be_bytes());
    }
}

/// Ethernet (IEEE 802.3) and VLAN tags (802.1Q): an EtherType, and after each tag another one.
pub(super) mod ethernet {
    use super::Field;

    /// Destination and source address come first.
    pub(in super::super) const TYPE: Field<2> = Field(12);
    pub(in super::super) const LEN: usize = 14;
    /// Bytes of a tag: the rest of it and the next EtherType.
    pub(in super::super) const TAG_LEN: usize = 4;
    /// As deep as Linux looks (`VLAN_MAX_DEPTH`).
    pub(in super::super) const MAX_TAGS: usize = 8;
    /// 802.1Q, 802.1ad, and the number in use for stacks before that.
    pub(in super::super) const TAGS: [u16; 3] = [0x8100, 0x88a8, 0x9100];
    pub(in super::super) const IPV4: u16 = 0x0800;
    pub(in super::super) const IPV6: u16 = 0x86dd;
}

/// IPv4 (RFC 791).
pub(super) mod ipv4 {
    use super::Field;

    /// Version (4 bits) and header length in words of 4 bytes (4 bits).
    pub(in super::super) const VERSION_IHL: Field<1> = Field(0);
    pub(in super::super) const TOTAL_LENGTH: Field<2> = Field(2);
    pub(in super::super) const ID: Field<2> = Field(4);
    /// Flags (3 bits) and fragment offset.
    pub(in super::super) const FRAGMENT: Field<2> = Field(6);
    pub(in super::super) const PROTOCOL: Field<1> = Field(9);
    pub(in super::super) const CHECKSUM: Field<2> = Field(10);
    /// Source and destination.
    pub(in super::super) const ADDRESSES: Field<8> = Field(12);
    pub(in super::super) const MIN_LEN: usize = 20;
    pub(in super::super) const DONT_FRAGMENT: u16 = 0x4000;
    /// "More fragments" and the offset: not 0 in a fragment.
    pub(in super::super) const IS_FRAGMENT: u16 = 0x3fff;
}

/// IPv6 and its extension headers (RFC 8200).
pub(super) mod ipv6 {
    use super::Field;

    pub(in super::super) const VERSION: Field<1> = Field(0);
    pub(in super::super) const PAYLOAD_LENGTH: Field<2> = Field(4);
    pub(in super::super) const NEXT_HEADER: Field<1> = Field(6);
    /// Source and destination.
    pub(in super::super) const ADDRESSES: Field<32> = Field(8);
    pub(in super::super) const LEN: usize = 40;

    /// Of an extension header.
    pub(in super::super) const EXTENSION_NEXT: Field<1> = Field(0);
    /// In units of 8 bytes, without the first.
    pub(in super::super) const EXTENSION_LENGTH: Field<1> = Field(1);
    /// Of a routing header: while it is not 0, the header's destination is not the last one.
    pub(in super::super) const SEGMENTS_LEFT: Field<1> = Field(3);
    pub(in super::super) const HOP_BY_HOP: u8 = 0;
    pub(in super::super) const ROUTING: u8 = 43;
    pub(in super::super) const FRAGMENT: u8 = 44;
    pub(in super::super) const DESTINATION: u8 = 60;
    /// More than any stack sends (RFC 8504, section 5.3).
    pub(in super::super) const MAX_EXTENSIONS: usize = 8;
}

/// TCP (RFC 9293).
pub(super) mod tcp {
    use super::Field;

    pub(in super::super) const PROTOCOL: u8 = 6;
    pub(in super::super) const SEQUENCE: Field<4> = Field(4);
    /// Data offset in words of 4 bytes (4 bits).
    pub(in super::super) const DATA_OFFSET: Field<1> = Field(12);
    pub(in super::super) const FLAGS: Field<1> = Field(13);
    pub(in super::super) const CHECKSUM: Field<2> = Field(16);
    pub(in super::super) const MIN_LEN: usize = 20;
    pub(in super::super) const FIN: u8 = 0x01;
    pub(in super::super) const PSH: u8 = 0x08;
    pub(in super::super) const ACK: u8 = 0x10;
    pub(in super::super) const ECE: u8 = 0x40;
    pub(in super::super) const CWR: u8 = 0x80;
}

/// UDP (RFC 768).
pub(super) mod udp {
    use super::Field;

    pub(in super::super) const PROTOCOL: u8 = 17;
    pub(in super::super) const SOURCE: Field<2> = Field(0);
    pub(in super::super) const DESTINATION: Field<2> = Field(2);
    pub(in super::super) const LENGTH: Field<2> = Field(4);
    pub(in super::super) const CHECKSUM: Field<2> = Field(6);
    pub(in super::super) const LEN: usize = 8;
}

/// SCTP (RFC 9260).
pub(super) mod sctp {
    use super::Field;

    pub(in super::super) const PROTOCOL: u8 = 132;
    /// A CRC32c, the first byte of which has the lowest bits (appendix A).
    pub(in super::super) const CHECKSUM: Field<4> = Field(8);
    pub(in super::super) const LEN: usize = 12;
}

/// What the headers of tunnels have in common: protocols of IP, and the EtherType of a frame in them.
pub(super) mod tunnel {
    /// IPv4 in IP (RFC 2003, RFC 2473).
    pub(in super::super) const IPV4: u8 = 4;
    /// IPv6 in IP (RFC 4213, RFC 2473).
    pub(in super::super) const IPV6: u8 = 41;
    /// Transparent Ethernet bridging: a whole frame (RFC 1701, RFC 8926).
    pub(in super::super) const ETHERNET: u16 = 0x6558;
}

/// GRE (RFC 2784, RFC 2890).
pub(super) mod gre {
    use super::Field;

    pub(in super::super) const PROTOCOL: u8 = 47;
    /// Which fields there are, and the version.
    pub(in super::super) const FLAGS: Field<2> = Field(0);
    pub(in super::super) const TYPE: Field<2> = Field(2);
    /// The Internet checksum over all from the GRE header on; only with `HAS_CHECKSUM`.
    pub(in super::super) const CHECKSUM: Field<2> = Field(4);
    pub(in super::super) const MIN_LEN: usize = 4;
    pub(in super::super) const HAS_CHECKSUM: u16 = 0x8000;
    pub(in super::super) const HAS_KEY: u16 = 0x2000;
    pub(in super::super) const HAS_SEQUENCE: u16 = 0x1000;
    /// Each of these fields is so long.
    pub(in super::super) const FIELD_LEN: usize = 4;
    /// Routing, which is no longer in use, recursion, and any version but 0.
    pub(in super::super) const UNKNOWN: u16 = 0x4707;
}

/// VXLAN (RFC 7348), with or without a group policy.
pub(super) mod vxlan {
    use super::Field;

    /// Linux has 8472 unless told otherwise.
    pub(in super::super) const PORTS: [u16; 2] = [4789, 8472];
    pub(in super::super) const FLAGS: Field<2> = Field(0);
    pub(in super::super) const HAS_ID: u16 = 0x0800;
    /// Another protocol than Ethernet, and "remote checksum offload", which is to find its checksum undone (both were
    /// never more than drafts).
    pub(in super::super) const UNKNOWN: u16 = 0x0420;
    pub(in super::super) const LEN: usize = 8;
}

/// Geneve (RFC 8926).
pub(super) mod geneve {
    use super::Field;

    pub(in super::super) const PORT: u16 = 6081;
    /// Version (2 bits) and length of the options in words of 4 bytes (6 bits).
    pub(in super::super) const VERSION_LENGTH: Field<1> = Field(0);
    pub(in super::super) const TYPE: Field<2> = Field(2);
    pub(in super::super) const MIN_LEN: usize = 8;
}
