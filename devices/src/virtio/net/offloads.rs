//! Which offloads a card offers, and what the driver made of that (virtio 1.2, 5.1.3).
//!
//! All of them are done in software, by [`offload`](super::offload), in the io-thread and in the copy that it
//! makes anyway.

use std::sync::atomic::{AtomicU64, Ordering};

use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6,
};

use super::offload::coalesce::Allowed;

/// Feature bit: the device completes checksums of what the driver sends.
pub(super) const CSUM: u64 = 1 << VIRTIO_NET_F_CSUM;
pub(super) const HOST_TSO4: u64 = 1 << VIRTIO_NET_F_HOST_TSO4;
pub(super) const HOST_TSO6: u64 = 1 << VIRTIO_NET_F_HOST_TSO6;
pub(super) const HOST_ECN: u64 = 1 << VIRTIO_NET_F_HOST_ECN;
/// VIRTIO_NET_F_HOST_USO, of virtio 1.2 too, which the bindings lack; so do they the next but four.
pub(super) const HOST_USO: u64 = 1 << 56;
/// Feature bit: the driver takes frames with partial checksums.
pub(super) const GUEST_CSUM: u64 = 1 << VIRTIO_NET_F_GUEST_CSUM;
const GUEST_TSO4: u64 = 1 << VIRTIO_NET_F_GUEST_TSO4;
const GUEST_TSO6: u64 = 1 << VIRTIO_NET_F_GUEST_TSO6;
const GUEST_ECN: u64 = 1 << VIRTIO_NET_F_GUEST_ECN;
/// VIRTIO_NET_F_GUEST_USO4.
const GUEST_USO4: u64 = 1 << 54;
/// VIRTIO_NET_F_GUEST_USO6.
const GUEST_USO6: u64 = 1 << 55;
/// Either of these: the driver takes frames of many TCP segments.
pub(super) const GUEST_TSO: u64 = GUEST_TSO4 | GUEST_TSO6;
/// Any of these: the driver may send frames to be cut.
pub(super) const HOST_GSO: u64 = HOST_TSO4 | HOST_TSO6 | HOST_USO;
const TSO: u64 = HOST_TSO4 | HOST_TSO6 | HOST_ECN;
const COALESCED: u64 = GUEST_TSO4 | GUEST_TSO6 | GUEST_ECN | GUEST_USO4 | GUEST_USO6;

/// What the driver may switch on and off by VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET (5.1.6.5.6), each by its feature
/// bit.
pub(super) const GUEST_OFFLOADS: u64 = GUEST_CSUM | COALESCED;

/// Which offloads a card offers to its driver; all of them by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offloads {
    /// The guest may leave checksums to the card (CSUM), and gets frames whose checksum a sender on this
    /// host left undone as they are (GUEST_CSUM). Off, such frames are completed by the card.
    pub csum: bool,
    /// The guest may send TCP frames of up to 64 KiB, which the card cuts (HOST_TSO4, HOST_TSO6, HOST_ECN).
    pub tso: bool,
    /// The same for UDP (HOST_USO).
    pub uso: bool,
    /// The card puts segments that follow each other into frames of up to 64 KiB for the guest
    /// (GUEST_TSO4, GUEST_TSO6, GUEST_ECN, GUEST_USO4, GUEST_USO6).
    pub gro: bool,
}

impl Default for Offloads {
    fn default() -> Self {
        Self {
            csum: true,
            tso: true,
            uso: true,
            gro: true,
        }
    }
}

impl Offloads {
    /// None at all.
    pub const NONE: Self = Self {
        csum: false,
        tso: false,
        uso: false,
        gro: false,
    };

    /// The first that is on and can't be without checksums: all of the others (5.1.3.1).
    #[must_use]
    pub fn without_checksums(self) -> Option<&'static str> {
        let others = [("tso", self.tso), ("uso", self.uso), ("gro", self.gro)];
        let mut on = others.into_iter().filter(|(_, on)| *on && !self.csum);
        on.next().map(|(name, _)| name)
    }

    /// The feature bits to offer.
    pub(super) fn features(self) -> u64 {
        let when = |on: bool, features: u64| if on { features } else { 0 };
        when(self.csum, CSUM | GUEST_CSUM)
            | when(self.tso, TSO)
            | when(self.uso, HOST_USO)
            | when(self.gro, COALESCED)
    }

    /// Those of which at least one feature is among `features`.
    pub(super) fn among(features: u64) -> Self {
        Self {
            csum: features & (CSUM | GUEST_CSUM) != 0,
            tso: features & TSO != 0,
            uso: features & HOST_USO != 0,
            gro: features & COALESCED != 0,
        }
    }
}

/// "csum, tso": the names of their options.
impl std::fmt::Display for Offloads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all = [
            ("csum", self.csum),
            ("tso", self.tso),
            ("uso", self.uso),
            ("gro", self.gro),
        ];
        let on: Vec<_> = all
            .into_iter()
            .filter_map(|(name, on)| on.then_some(name))
            .collect();
        if on.is_empty() {
            return f.write_str("none");
        }
        f.write_str(&on.join(", "))
    }
}

/// Whether each feature comes with one of those that it is nothing without (5.1.3.1).
pub(super) fn dependencies_hold(features: u64) -> bool {
    let needs = |feature: u64, one_of: u64| features & feature == 0 || features & one_of != 0;
    needs(HOST_TSO4 | HOST_TSO6 | HOST_USO, CSUM)
        && needs(HOST_ECN, HOST_TSO4 | HOST_TSO6)
        && needs(
            GUEST_TSO4 | GUEST_TSO6 | GUEST_USO4 | GUEST_USO6,
            GUEST_CSUM,
        )
        && needs(GUEST_ECN, GUEST_TSO4 | GUEST_TSO6)
}

/// The receive offloads that are on now: set by the control queue, read by io-threads once a burst.
#[derive(Debug, Default)]
pub(super) struct GuestOffloads(AtomicU64);

impl GuestOffloads {
    /// Those that were negotiated, as at the start.
    pub(super) fn start(&self, features: u64) {
        self.0.store(features & GUEST_OFFLOADS, Ordering::Relaxed);
    }

    /// Those that the driver wants from now on; false, and nothing changes, if it can't have them.
    pub(super) fn set(&self, wanted: u64, features: u64) -> bool {
        let possible = wanted & !(features & GUEST_OFFLOADS) == 0 && dependencies_hold(wanted);
        if possible {
            self.0.store(wanted, Ordering::Relaxed);
        }
        possible
    }

    pub(super) fn get(&self) -> ReceiveOffloads {
        let on = self.0.load(Ordering::Relaxed);
        let has = |feature| on & feature != 0;
        ReceiveOffloads {
            partial: has(GUEST_CSUM),
            coalesce: Allowed {
                tcp4: has(GUEST_TSO4),
                tcp6: has(GUEST_TSO6),
                ecn: has(GUEST_ECN),
                udp4: has(GUEST_USO4),
                udp6: has(GUEST_USO6),
            },
        }
    }
}

/// What the guest takes besides plain frames.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ReceiveOffloads {
    /// Frames with partial checksums.
    pub(super) partial: bool,
    /// Frames of several segments.
    pub(super) coalesce: Allowed,
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Offloads = Offloads {
        csum: true,
        tso: true,
        uso: true,
        gro: true,
    };

    /// The bits as virtio 1.2 has them.
    #[test]
    fn features_are_those_of_the_specification() {
        let bits = |offloads: Offloads| -> Vec<u32> {
            let features = offloads.features();
            (0..64).filter(|bit| features >> bit & 1 == 1).collect()
        };
        assert_eq!(Offloads::default(), ALL);
        assert_eq!(bits(ALL), [0, 1, 7, 8, 9, 11, 12, 13, 54, 55, 56]);
        assert_eq!(bits(Offloads { gro: false, ..ALL }), [0, 1, 11, 12, 13, 56]);
        assert_eq!(
            bits(Offloads {
                tso: false,
                uso: false,
                ..ALL
            }),
            [0, 1, 7, 8, 9, 54, 55]
        );
        assert_eq!(bits(Offloads::NONE), [0; 0]);
    }

    #[test]
    fn nothing_works_without_checksums() {
        assert_eq!(ALL.without_checksums(), None);
        assert_eq!(Offloads::NONE.without_checksums(), None);
        let uso = Offloads {
            uso: true,
            ..Offloads::NONE
        };
        assert_eq!(uso.without_checksums(), Some("uso"));
    }

    /// 25: each feature with and without what it depends on.
    #[test]
    fn features_need_their_dependencies() {
        for (feature, one_of) in [
            (HOST_TSO4, CSUM),
            (HOST_TSO6, CSUM),
            (HOST_USO, CSUM),
            (GUEST_TSO4, GUEST_CSUM),
            (GUEST_TSO6, GUEST_CSUM),
            (GUEST_USO4, GUEST_CSUM),
            (GUEST_USO6, GUEST_CSUM),
            (HOST_ECN, HOST_TSO6 | CSUM),
            (GUEST_ECN, GUEST_TSO4 | GUEST_CSUM),
        ] {
            assert!(!dependencies_hold(feature), "{feature:#x}");
            assert!(dependencies_hold(feature | one_of), "{feature:#x}");
        }
        assert!(dependencies_hold(0) && dependencies_hold(u64::MAX));
    }

    #[test]
    fn the_driver_switches_what_it_negotiated() {
        let offloads = GuestOffloads::default();
        let features = GUEST_CSUM | GUEST_TSO4 | CSUM;
        offloads.start(features);
        assert!(offloads.get().partial && offloads.get().coalesce.tcp4);
        assert!(!offloads.get().coalesce.tcp6);
        assert!(
            !offloads.set(GUEST_CSUM | GUEST_TSO6, features),
            "not negotiated"
        );
        assert!(!offloads.set(CSUM, features), "not the receiver's");
        assert!(!offloads.set(GUEST_TSO4, features), "without checksums");
        assert!(offloads.get().coalesce.tcp4, "as before");
        assert!(offloads.set(0, features));
        assert!(!offloads.get().partial && !offloads.get().coalesce.tcp4);
        assert!(offloads.set(GUEST_CSUM | GUEST_TSO4, features));
        assert!(offloads.get().coalesce.tcp4);
    }

    #[test]
    fn offloads_have_names() {
        assert_eq!(ALL.to_string(), "csum, tso, uso, gro");
        assert_eq!(Offloads::NONE.to_string(), "none");
        assert_eq!(Offloads::among(CSUM | HOST_TSO6).to_string(), "csum, tso");
    }

    /// What the log says of a driver: one feature of a kind is enough, and those of others are none of it.
    #[test]
    fn each_offload_is_told_by_its_features() {
        let named = |features| Offloads::among(features).to_string();
        for feature in [CSUM, GUEST_CSUM, CSUM | GUEST_CSUM] {
            assert_eq!(named(feature), "csum", "{feature:#x}");
        }
        for feature in [HOST_TSO4, HOST_TSO6, HOST_ECN, TSO] {
            assert_eq!(named(feature), "tso", "{feature:#x}");
        }
        assert_eq!(named(HOST_USO), "uso");
        for feature in [GUEST_TSO4, GUEST_TSO6, GUEST_ECN, GUEST_USO4, GUEST_USO6] {
            assert_eq!(named(feature), "gro", "{feature:#x}");
        }
        assert_eq!(named(COALESCED), "gro");
        assert_eq!(named(0), "none");
        assert_eq!(named(u64::MAX), "csum, tso, uso, gro");
    }

    /// Either is enough for what is asked of them: statistics of large frames, for one.
    #[test]
    fn groups_of_features_have_all_of_their_kind() {
        assert_eq!(GUEST_TSO, 1 << 7 | 1 << 8);
        assert_eq!(HOST_GSO, 1 << 11 | 1 << 12 | 1 << 56);
        let switched = [1, 7, 8, 9, 54, 55].map(|bit: u32| 1 << bit);
        assert_eq!(GUEST_OFFLOADS, switched.iter().sum::<u64>());
    }
}
