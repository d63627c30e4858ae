//! What a virtio-net device is to be, and why it can't be.

use super::{
    offloads::Offloads,
    poll::BusyPoll,
    rate::{RateError, RateLimit},
    wire::{ETHERNET_HEADER, MacAddress, is_station},
};
use crate::{placement::Placement, virtio::worker::OnFault};

/// Smallest MTU that can be announced (5.1.4.1).
pub(super) const MIN_MTU: u16 = 68;

/// Most queue pairs: the control queue's index comes after theirs, and is 16 bits wide.
pub(super) const MAX_PAIRS: usize = 0x7fff;

/// What a virtio-net device is to be.
#[derive(Clone)]
pub struct NetConfig {
    /// For log lines and thread names, for example `net0`.
    pub name: String,
    /// The guest's Ethernet address.
    pub mac: [u8; 6],
    /// The link's MTU in bytes (without Ethernet header), if the guest is to be told. Where it
    /// is more than the back ends can send, the guest is told what they can, and the log says so.
    pub mtu: Option<u16>,
    /// Whether the link is up at the start.
    pub link_up: bool,
    /// How fast the link is at the start.
    pub speed: LinkSpeed,
    /// How much the card may carry; `None`: all that it can.
    pub rate: Option<RateLimit>,
    /// How long the io-threads look for more work before they sleep.
    pub busy_poll: BusyPoll,
    /// What the card offers to do for the guest.
    pub offloads: Offloads,
    /// Which CPUs the card's threads run on.
    pub placement: Placement,
    /// Called with a sentence when an io-thread ended by a panic or by a host error that it can't go
    /// on from. The device is dead then; the VM should end rather than live on half.
    pub on_fault: OnFault,
}

/// How fast a link is, for the guest to show (VIRTIO_NET_F_SPEED_DUPLEX; virtio 1.2, 5.1.4).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkSpeed {
    /// In megabits (10^6) a second; `None`: not known.
    pub mbps: Option<u32>,
    /// Whether it carries both ways at a time; `None`: not known.
    pub full_duplex: Option<bool>,
}

impl LinkSpeed {
    /// Largest speed that the configuration space can tell.
    const MOST: u32 = 0x7fff_ffff;

    /// The fields `speed` and `duplex` of the configuration space.
    pub(super) fn fields(self) -> ([u8; 4], u8) {
        let speed = self.mbps.map_or(u32::MAX, |mbps| mbps.min(Self::MOST));
        let duplex = self.full_duplex.map_or(u8::MAX, u8::from);
        (speed.to_le_bytes(), duplex)
    }
}

impl std::fmt::Debug for NetConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NetConfig")
            .field("name", &self.name)
            .field("mac", &self.mac)
            .field("mtu", &self.mtu)
            .field("link_up", &self.link_up)
            .field("speed", &self.speed)
            .field("rate", &self.rate)
            .field("busy_poll", &self.busy_poll)
            .field("offloads", &self.offloads)
            .field("placement", &self.placement)
            .finish_non_exhaustive()
    }
}

impl NetConfig {
    /// A card of this name and address with all else at its default: link up, MTU 1500, no limit, all
    /// offloads, adaptive polling, threads anywhere.
    #[must_use]
    pub fn new(name: impl Into<String>, mac: [u8; 6], on_fault: OnFault) -> Self {
        Self {
            name: name.into(),
            mac,
            mtu: Some(1500),
            link_up: true,
            speed: LinkSpeed::default(),
            rate: None,
            busy_poll: BusyPoll::Adaptive,
            offloads: Offloads::default(),
            placement: Placement::default(),
            on_fault,
        }
    }

    /// Checks the address.
    pub(super) fn usable_mac(&self) -> Result<MacAddress, NetError> {
        let mac = self.mac;
        is_station(mac).then_some(mac).ok_or(NetError::Mac(mac))
    }

    /// The MTU to offer on back ends that send frames of up to `max_frame` bytes.
    pub(super) fn usable_mtu(&self, max_frame: usize) -> Result<Option<u16>, NetError> {
        let Some(mtu) = self.mtu else {
            return Ok(None);
        };
        if mtu < MIN_MTU {
            return Err(NetError::Mtu(mtu));
        }
        let most = max_frame.saturating_sub(ETHERNET_HEADER);
        let most = u16::try_from(most).unwrap_or(u16::MAX);
        if most < MIN_MTU {
            return Err(NetError::Frame { max_frame });
        }
        if most < mtu {
            tracing::warn!(
                "{}: the guest is told an MTU of {most} rather than {mtu}, as its back end sends \
                 frames of at most {max_frame} bytes",
                self.name
            );
        }
        Ok(Some(mtu.min(most)))
    }
}

/// Why a virtio-net device can't be as asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NetError {
    /// no back end, or more than virtio can number
    #[error(
        "a virtio-net device needs one back end a queue pair, and has 1 to {MAX_PAIRS} pairs, not {0}"
    )]
    Pairs(usize),
    /// an Ethernet address of a host must not be a group address
    #[error("the MAC address {0:02x?} is a group address (its first byte is odd) or all zero")]
    Mac([u8; 6]),
    /// the rate limit makes no sense
    #[error(transparent)]
    Rate(#[from] RateError),
    /// an offload without the one that it needs
    #[error(
        "a card with {0} but without csum is none that virtio knows: switch csum on, or {0} off"
    )]
    Offloads(&'static str),
    /// virtio does not allow this MTU
    #[error("the MTU {0} is below the smallest that virtio allows, 68")]
    Mtu(u16),
    /// not even the smallest MTU would be true
    #[error(
        "the back end can send frames of at most {max_frame} bytes, and the smallest MTU that virtio allows, {MIN_MTU}, needs {}",
        usize::from(MIN_MTU) + ETHERNET_HEADER
    )]
    Frame {
        /// The longest frame of the back end in bytes.
        max_frame: usize,
    },
}
