//! What a frame asks the card for by metadata before its first byte (`XDP_TX_METADATA`,
//! Documentation/networking/xsk-tx-metadata.rst): here, that it completes a checksum.

use std::{fmt, io};

use crate::{
    ethtool,
    handle::{CopyMode, Handle},
    interface::Interface,
    multi_buffer, probe,
    socket::{self, SocketError},
    umem::Umem,
};

/// Bytes that are kept free before each frame (`tx_metadata_len` of `struct xdp_umem_reg`): a multiple of 8, no
/// less than `struct xsk_tx_metadata` has (24 since Linux 6.14), and such that frames begin as aligned as copies
/// like it.
pub(crate) const LENGTH: u32 = 32;

/// `XDP_TX_METADATA` (linux/if_xdp.h), in a descriptor: there is metadata before this frame.
pub(crate) const HAS_METADATA: u32 = 1 << 1;

/// `XDP_TXMD_FLAGS_CHECKSUM`, in the metadata.
const CHECKSUM: u64 = 1 << 1;

/// Whether the checksums of frames may be left to the card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TxMetadata {
    /// Where its driver says that it completes them (`tx-checksum` among the `xsk-features` of
    /// Documentation/netlink/specs/netdev.yaml), which it says of zero-copy mode.
    #[default]
    Auto,
    /// In copy mode as well: there the kernel passes the request on as it does that of its own stack, and
    /// completes the checksum itself if the device can't. Refused where it does not work.
    On,
    /// Never.
    Off,
}

impl fmt::Display for TxMetadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::On => "on",
            Self::Off => "off",
        })
    }
}

/// A checksum that the card is to complete: an Internet checksum over all bytes from `start` to the end of the
/// frame. The field holds the sum of what is summed up besides, the pseudo-header, as Linux has it
/// (`CHECKSUM_PARTIAL`).
///
/// Cards that look at the headers themselves, as mlx5 does, take nothing from it but the fact. So ask only for
/// what they find: TCP and UDP directly behind an IP header, and no fragments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChecksumRequest {
    /// Offset in the frame, in bytes, from which on is summed up (`csum_start`).
    pub start: u16,
    /// Offset of the checksum from there, in bytes (`csum_offset`).
    pub offset: u16,
}

impl ChecksumRequest {
    /// Whether the checksum is within the first `length` bytes. If it were not, the kernel would not get past the
    /// frame: it says EINVAL, and looks at it again at the next call.
    pub(crate) fn is_within(self, length: u32) -> bool {
        u32::from(self.start) + u32::from(self.offset) + 2 <= length
    }

    /// `struct xsk_tx_metadata`.
    pub(crate) fn to_bytes(self) -> [u8; LENGTH as usize] {
        let mut bytes = [0; LENGTH as usize];
        let fields = CHECKSUM
            .to_ne_bytes()
            .into_iter()
            .chain(self.start.to_ne_bytes())
            .chain(self.offset.to_ne_bytes());
        for (to, from) in bytes.iter_mut().zip(fields) {
            *to = from;
        }
        bytes
    }
}

/// Why checksums can't be left to the card, though that is asked for.
#[derive(Debug, thiserror::Error)]
pub enum TxMetadataError {
    /// Frames are sent from where they are.
    #[error(
        "TX metadata is asked for (tx-metadata=on), and so is sending in place: there is no room for it \
         before frames that stay where they are. Leave one of them out"
    )]
    InPlace,
    /// The driver uses the frames in place and knows nothing of metadata.
    #[error(
        "TX metadata is asked for (tx-metadata=on), but the driver ({driver}), which is in zero-copy mode, \
         says that it completes no checksums (tx-checksum): frames would go out with wrong ones. Use \
         tx-metadata=auto or off, or copy mode (force-copy=on)"
    )]
    Driver {
        /// Its name.
        driver: String,
    },
    /// The driver gets from the kernel, in copy mode, less than it may need.
    #[error(
        "TX metadata is asked for (tx-metadata=on), but in copy mode the kernel tells the driver of {interface} \
         ({driver}) less than drivers may need: frames could go out with wrong checksums. It is enough for \
         veth and, from Linux 6.18 on, virtio_net. Use tx-metadata=auto or off, or let the kernel complete \
         them (`ethtool -K {interface} tx off`)"
    )]
    CopyMode {
        /// Name of the interface.
        interface: String,
        /// Name of its driver.
        driver: String,
    },
}

impl TxMetadata {
    /// Whether the memory of a queue is to be registered with room for metadata. `in_place`: frames are sent from
    /// elsewhere as well; with metadata, no descriptor may begin in the first [`LENGTH`] bytes of a chunk.
    ///
    /// # Errors
    /// It must be, and can't.
    pub(crate) fn is_wanted(
        self,
        interface: &Interface,
        copy: CopyMode,
        in_place: bool,
    ) -> Result<bool, TxMetadataError> {
        match self {
            Self::Off => Ok(false),
            Self::On if in_place => Err(TxMetadataError::InPlace),
            Self::On => Ok(true),
            Self::Auto => Ok(!in_place && copy != CopyMode::Copy && is_offered(interface)),
        }
    }

    /// Whether requests are honoured on a queue that was registered and bound so.
    ///
    /// # Errors
    /// They must be, and are not.
    pub(crate) fn is_honoured(
        self,
        interface: &Interface,
        zero_copy: bool,
    ) -> Result<bool, TxMetadataError> {
        let honoured = match (zero_copy, self) {
            (true, _) => is_offered(interface),
            (false, Self::On) => is_passed_on(interface),
            (false, _) => false,
        };
        if honoured || self != Self::On {
            return Ok(honoured);
        }
        let driver = driver(interface);
        Err(if zero_copy {
            TxMetadataError::Driver { driver }
        } else {
            TxMetadataError::CopyMode {
                interface: interface.name().to_owned(),
                driver,
            }
        })
    }
}

/// Whether the driver says that it completes checksums, in zero-copy mode.
fn is_offered(interface: &Interface) -> bool {
    let features = probe::features(interface.index());
    features.is_some_and(|it| it.zero_copy && it.tx_checksum)
}

/// Whether a request is met in copy mode.
///
/// The kernel makes a packet of its own of the frame (`xsk_build_skb`), and says in it where the checksum is, but not
/// where the IP header is, by which drivers of cards find it (igb, for one: `igb_tx_csum`). For virtio_net, which
/// wants packets of another kind (`IFF_TX_SKB_NO_LINEAR`), it forgot all of it before Linux 6.18. Where the
/// device does no checksums, the stack completes them before the driver sees the packet.
fn is_passed_on(interface: &Interface) -> bool {
    match driver(interface).as_str() {
        "veth" => true,
        "virtio_net" => multi_buffer::version().is_some_and(|version| version >= (6, 18)),
        _ => {
            let offloads =
                ethtool::offloads(interface.name(), interface.index()).unwrap_or_default();
            offloads.iter().any(|it| it.name == "tx" && !it.on)
        }
    }
}

fn driver(interface: &Interface) -> String {
    let driver = ethtool::driver(interface.name()).ok().flatten();
    driver.unwrap_or_else(|| "unknown".to_owned())
}

/// Whether this kernel may have TX metadata without having the flag for it (`XDP_UMEM_TX_METADATA_LEN`).
pub(crate) fn is_without_flag() -> bool {
    multi_buffer::version().is_some_and(|version| ((6, 8)..(6, 11)).contains(&version))
}

/// Whether the kernel registers memory with room for metadata: tried, with little.
///
/// # Errors
/// It does not, or there is no socket.
pub(crate) fn kernel_can() -> Result<(), SocketError> {
    let socket = socket::create()?;
    let register = || {
        let (mut umem, _pool) = Umem::new(2, None)?;
        umem.reserve_tx_metadata();
        Handle::register(socket, &umem, 2).map(drop)
    };
    register().map_err(|error: io::Error| SocketError::TxMetadata(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metadata_is_laid_out_as_the_kernel_has_it() {
        let request = ChecksumRequest {
            start: 0x0122,
            offset: 16,
        };
        let bytes = request.to_bytes();
        // linux/if_xdp.h, struct xsk_tx_metadata: flags, request.csum_start, request.csum_offset.
        assert_eq!(bytes[..8], 2_u64.to_ne_bytes());
        assert_eq!(bytes[8..10], 0x0122_u16.to_ne_bytes());
        assert_eq!(bytes[10..12], 16_u16.to_ne_bytes());
        assert_eq!(bytes[12..], [0; 20]);
    }

    #[test]
    fn a_checksum_is_within_the_frame() {
        for (start, offset, length, within) in [
            (34, 6, 42, true),
            (34, 6, 41, false),
            (0, 0, 2, true),
            (0, 0, 1, false),
            (u16::MAX, u16::MAX, 4096, false),
        ] {
            let request = ChecksumRequest { start, offset };
            assert_eq!(request.is_within(length), within, "{request:?} in {length}");
        }
    }

    #[test]
    fn memory_with_metadata_can_be_registered_from_linux_6_8_on() {
        match kernel_can() {
            Ok(()) => assert!(multi_buffer::version() >= Some((6, 8))),
            Err(SocketError::Create(_)) => {}
            Err(error) => assert!(multi_buffer::version() < Some((6, 11)), "{error}"),
        }
    }
}
