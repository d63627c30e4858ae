//! Checksums, segmentation and coalescing in software: what a network card's hardware would do,
//! since AF_XDP has none of it.
//!
//! Pure functions over bytes. They know nothing of rings and of guest memory, allocate nothing, and
//! take any bytes: what is no packet that they understand is an error or `None`, never a panic. Each
//! entry point that takes bytes of strangers is fit to be called by a fuzzer as it is.
//!
//! | module | what it does |
//! |---|---|
//! | [`checksum`] | the Internet checksum (RFC 1071), over pieces of any length |
//! | [`packet`] | where the headers of a frame are: Ethernet, VLAN tags, IPv4, IPv6, TCP, UDP |
//! | [`segment`] | a frame of up to 64 KiB into frames that fit the wire |
//! | [`coalesce`] | the reverse: segments that follow each other into one frame |
//! | [`verify`] | whether the checksum of a received frame is right, or was left to be done |
//! | [`hidden`] | the same deeper in the frame, where only a sender on this host leaves it: in tunnels, and SCTP's |
//! | [`crc32c`] | SCTP's checksum |
//! | [`dhcp`] | datagrams that need a checksum whatever the guest says |

pub mod checksum;
pub mod coalesce;
pub mod crc32c;
pub mod dhcp;
mod header;
pub mod hidden;
pub mod packet;
pub mod segment;
mod tunnel;
pub mod verify;

#[cfg(test)]
mod properties;

/// What a frame of several segments carries (`gso_type` of virtio 1.2, 5.1.6, without the ECN bit).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP over either: each segment is a datagram of its own.
    Udp,
}

/// Most bytes of headers, from the Ethernet header to the end of the TCP or UDP header, of a frame that
/// is segmented or coalesced: an Ethernet header, eight VLAN tags, an IPv6 header, 96 bytes of extension
/// headers and the longest TCP header.
pub const MAX_HEADERS: usize = 14 + 8 * 4 + 40 + 96 + 60;
