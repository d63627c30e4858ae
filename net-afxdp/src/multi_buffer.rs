//! Frames of several chunks ("multi-buffer"; `XDP_USE_SG`, Documentation/networking/af_xdp.rst,
//! "Multi-Buffer Support"), and how long frames can be with and without.

use rustix::net::{
    AddressFamily, SocketFlags, SocketType,
    xdp::{SocketAddrXdp, SocketAddrXdpFlags},
};

use crate::{
    config::{PortConfig, Require},
    interface::Interface,
    probe,
    program::AttachMode,
    umem::{CHUNK_SIZE, RX_HEADROOM},
};

/// Most descriptors of one frame: what a kernel with the smallest CONFIG_MAX_SKB_FRAGS, 17, sends in
/// copy mode. A frame that is received in more is dropped.
pub(crate) const MAX_FRAGMENTS: usize = 18;

/// `XDP_PKT_CONTD` (linux/if_xdp.h): the frame goes on in the next descriptor.
pub(crate) const PACKET_CONTINUES: u32 = 1;

/// Bytes of an Ethernet header with one VLAN tag.
const ETHERNET_HEADER: u32 = 18;

/// What a driver in zero-copy mode may keep at the end of each chunk of a frame of several, in bytes
/// (`struct skb_shared_info`, aligned).
const TAILROOM: u32 = 320;

/// How long the frames of a queue can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameLimits {
    /// Most bytes of a frame to send in one chunk.
    send_chunk: u32,
    /// Most chunks of a frame to send, from 1 to [`MAX_FRAGMENTS`].
    send_chunks: u32,
    /// Most descriptors of a frame to send that lies scattered.
    send_fragments: u32,
    /// Longest frame that can be received, in bytes.
    received: u32,
}

impl FrameLimits {
    /// Each frame in one chunk.
    pub(crate) const ONE_CHUNK: Self = Self::one_chunk(0);

    /// Each frame in one chunk, `reserved` bytes of which none to send may use.
    pub(crate) const fn one_chunk(reserved: u32) -> Self {
        Self {
            send_chunk: CHUNK_SIZE - reserved,
            send_chunks: 1,
            send_fragments: 1,
            received: CHUNK_SIZE - RX_HEADROOM,
        }
    }

    /// Frames of several chunks, enough for this MTU. `driver_limit`: most fragments of a frame that
    /// the driver takes in zero-copy mode (`xdp_zc_max_segs`, linux/netdev.h); `None`: copy mode.
    /// `reserved`: bytes of each chunk that none to send may use.
    pub(crate) fn several_chunks(mtu: u32, driver_limit: Option<u32>, reserved: u32) -> Self {
        let send_chunk = CHUNK_SIZE - reserved;
        // A small number.
        let most = u32::try_from(MAX_FRAGMENTS).unwrap_or(1);
        let fragment = CHUNK_SIZE - RX_HEADROOM;
        let wanted = mtu.saturating_add(ETHERNET_HEADER).div_ceil(send_chunk);
        match driver_limit {
            None => Self {
                send_chunk,
                send_chunks: wanted.clamp(1, most),
                send_fragments: most,
                received: fragment * most,
            },
            Some(limit) if limit > 1 => Self {
                send_chunk,
                send_chunks: wanted.clamp(1, limit.min(most)),
                send_fragments: limit.min(most),
                received: (fragment - TAILROOM) * limit.min(most),
            },
            Some(_) => Self::one_chunk(reserved),
        }
    }

    /// Most bytes of a frame to send in one chunk.
    pub(crate) fn send_chunk(self) -> u32 {
        self.send_chunk
    }

    /// Most chunks of a frame to send.
    pub(crate) fn send_chunks(self) -> u32 {
        self.send_chunks
    }

    /// Most descriptors of a frame to send.
    pub(crate) fn send_fragments(self) -> u32 {
        self.send_fragments
    }

    /// Whether a frame can have several descriptors.
    pub(crate) fn are_several_chunks(self) -> bool {
        self.received > Self::ONE_CHUNK.received
    }

    /// Longest frame that can be sent, in bytes.
    pub(crate) fn sent(self) -> u32 {
        self.send_chunks * self.send_chunk
    }

    /// Longest frame that can be received, in bytes.
    pub(crate) fn received(self) -> u32 {
        self.received
    }

    /// Largest MTU in bytes whose frames pass both ways, with a VLAN tag.
    pub(crate) fn mtu(self) -> u32 {
        self.received.min(self.sent()) - ETHERNET_HEADER
    }
}

/// Whether frames of several chunks are needed on this interface and can be had. Not asked for without
/// need, nor if zero-copy is required of a driver that has it for frames of one chunk only: the
/// kernel would bind it in copy mode.
///
/// Frames that fit into a chunk may lie [scattered](PortConfig::scattered): then it is asked for where it
/// costs no zero-copy mode. In skb mode, which never is zero-copy, frames come that programs on this host have
/// left uncut, of up to 64 KiB whatever the MTU.
pub(crate) fn wanted(interface: &Interface, config: &PortConfig) -> bool {
    let one = FrameLimits::ONE_CHUNK.mtu();
    let require = config.require;
    if interface.mtu() <= one {
        let scattered = config.scattered && (config.force_copy || is_free(interface));
        return (is_in_stack(interface, config) || scattered) && kernel_can();
    }
    if require == Require::ZeroCopy
        && probe::features(interface.index()).is_none_or(|it| it.zero_copy_fragments <= 1)
    {
        tracing::warn!(
            interface = interface.name(),
            mtu = interface.mtu(),
            "the driver has zero-copy, which is required, for frames of one chunk only: an MTU of \
             up to {one}"
        );
        return false;
    }
    let can = kernel_can();
    if !can {
        tracing::warn!(
            interface = interface.name(),
            mtu = interface.mtu(),
            "this kernel has no AF_XDP frames of several chunks (Linux 6.6 has, XDP_USE_SG), so \
             frames must fit into one: an MTU of up to {one}"
        );
    }
    can
}

/// Whether the program will run, or the one of others runs, in the stack.
fn is_in_stack(interface: &Interface, config: &PortConfig) -> bool {
    match (config.mode, interface.xdp_program()) {
        (Some(mode), _) => mode == AttachMode::Skb,
        _ if config.require != Require::Any => false,
        (None, Some(program)) => program.mode == "skb",
        (None, None) => probe::features(interface.index()).is_some_and(|it| !it.native),
    }
}

/// Whether the driver does not have zero-copy for frames of one chunk only.
fn is_free(interface: &Interface) -> bool {
    probe::features(interface.index()).is_some_and(|it| !it.zero_copy || it.zero_copy_fragments > 1)
}

/// Whether the kernel knows `XDP_USE_SG` (Linux 6.6).
pub(crate) fn kernel_can() -> bool {
    let Ok(socket) = rustix::net::socket_with(
        AddressFamily::XDP,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    ) else {
        // Not allowed to ask, as with sockets that others have created.
        return version().is_some_and(|version| version >= (6, 6));
    };
    // The kernel looks at the flags first (EINVAL), then for the interface; there is none of index 0
    // (ENODEV). So nothing is ever bound.
    let nowhere = SocketAddrXdp::new(SocketAddrXdpFlags::XDP_USE_SG, 0, 0);
    rustix::net::bind(&socket, &nowhere) == Err(rustix::io::Errno::NODEV)
}

/// Version of the running kernel, from "6.12.3-some-distribution".
pub(crate) fn version() -> Option<(u32, u32)> {
    let system = rustix::system::uname();
    let mut numbers = system.release().to_str().ok()?.split(['.', '-']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_the_kernel_is_known() {
        assert!(version().is_some_and(|version| version > (5, 8)));
    }

    #[test]
    fn one_chunk_holds_a_frame_behind_the_headroom() {
        assert_eq!(FrameLimits::ONE_CHUNK.received(), 3840);
        assert_eq!(FrameLimits::ONE_CHUNK.sent(), 4096);
        assert_eq!(FrameLimits::ONE_CHUNK.mtu(), 3822);
    }

    #[test]
    fn every_mtu_that_a_guest_can_be_told_works_in_copy_mode() {
        for mtu in [0, 3823, 4096, 9000, 9216, u32::from(u16::MAX)] {
            let limits = FrameLimits::several_chunks(mtu, None, 0);
            assert!(limits.mtu() >= mtu, "{mtu}: {limits:?}");
        }
        assert_eq!(FrameLimits::several_chunks(9000, None, 0).sent(), 12288);
        let most = FrameLimits::several_chunks(u32::MAX, None, 0);
        assert_eq!((most.send_chunks(), most.received()), (18, 18 * 3840));
    }

    #[test]
    fn what_is_reserved_in_each_chunk_is_made_up_for() {
        assert_eq!(FrameLimits::one_chunk(32).sent(), 4064);
        assert_eq!(
            FrameLimits::one_chunk(32).mtu(),
            FrameLimits::ONE_CHUNK.mtu()
        );
        for mtu in [3823, 4078, 8174, 9000, u32::from(u16::MAX)] {
            let limits = FrameLimits::several_chunks(mtu, None, 32);
            assert!(limits.mtu() >= mtu, "{mtu}: {limits:?}");
        }
    }

    #[test]
    fn a_driver_bounds_what_zero_copy_can() {
        let limits = FrameLimits::several_chunks(9000, Some(8), 0);
        assert_eq!((limits.send_chunks(), limits.received()), (3, 8 * 3520));
        assert!(limits.mtu() >= 9000);
        let limits = FrameLimits::several_chunks(9000, Some(2), 0);
        assert_eq!((limits.send_chunks(), limits.received()), (2, 7040));
        for none in [0, 1] {
            let limits = FrameLimits::several_chunks(9000, Some(none), 0);
            assert_eq!(limits, FrameLimits::ONE_CHUNK);
        }
    }
}
