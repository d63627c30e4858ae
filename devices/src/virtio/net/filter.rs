//! Which received frames the driver wants (virtio 1.2, 5.1.6.5.1 to 5.1.6.5.3).
//!
//! The interface is promiscuous, so that frames to the guest's address come at all, and so come
//! those of others. A frame that the driver does not want is dropped before it costs one of the
//! driver's buffers, a copy and an interrupt.
//!
//! Until the driver says otherwise it gets everything: one that knows nothing of filters expects that.
//!
//! The control queue's thread [publishes](FilterCell::publish) a whole new filter for each change; an
//! io-thread has one of its own ([`FilterReader`]) and looks at a number, per frame, that says whether
//! there is a newer one. So a command that was answered is in force for each frame that comes
//! afterwards, and nothing is locked but for a change.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use virtio_bindings::virtio_net::{
    VIRTIO_NET_CTRL_RX_ALLMULTI, VIRTIO_NET_CTRL_RX_ALLUNI, VIRTIO_NET_CTRL_RX_NOBCAST,
    VIRTIO_NET_CTRL_RX_NOMULTI, VIRTIO_NET_CTRL_RX_NOUNI, VIRTIO_NET_CTRL_RX_PROMISC,
};

use super::{
    features::CTRL_VLAN,
    shared::lock,
    wire::{ETHERNET_HEADER, MacAddress},
};

/// Most addresses of a kind that are looked for one by one. A longer list lets all of that kind in.
pub(super) const MAX_ADDRESSES: usize = 64;
/// Number of VLANs, among which 0 is none and 4095 reserved.
pub(super) const VLANS: u16 = 4096;

const BROADCAST: MacAddress = [0xff; 6];

/// Offset of the Ethertype in a frame; a VLAN's tag control information follows it.
const ETHERTYPE: usize = 12;
/// Ethertype of IEEE 802.1Q.
const VLAN_TAGGED: [u8; 2] = [0x81, 0x00];
/// The bits of the tag control information that are the VLAN's number.
const VLAN_NUMBER: u16 = 0x0fff;
/// Bytes of a frame that the filter looks at.
const LOOK: usize = ETHERNET_HEADER + 2;

/// What VIRTIO_NET_CTRL_RX switches on and off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// All frames.
    Promiscuous,
    /// All frames to groups.
    AllMulticast,
    /// All frames to single stations.
    AllUnicast,
    /// None to groups, but for broadcasts.
    NoMulticast,
    /// None to single stations.
    NoUnicast,
    /// No broadcasts.
    NoBroadcast,
}

impl Mode {
    /// The mode that a command of the class VIRTIO_NET_CTRL_RX is about.
    pub(super) fn of_command(command: u8) -> Option<Self> {
        Some(match u32::from(command) {
            VIRTIO_NET_CTRL_RX_PROMISC => Self::Promiscuous,
            VIRTIO_NET_CTRL_RX_ALLMULTI => Self::AllMulticast,
            VIRTIO_NET_CTRL_RX_ALLUNI => Self::AllUnicast,
            VIRTIO_NET_CTRL_RX_NOMULTI => Self::NoMulticast,
            VIRTIO_NET_CTRL_RX_NOUNI => Self::NoUnicast,
            VIRTIO_NET_CTRL_RX_NOBCAST => Self::NoBroadcast,
            _ => return None,
        })
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// Addresses of one kind that the driver listens to besides the card's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Addresses {
    /// In order.
    some: Vec<MacAddress>,
    /// There were more than are looked for.
    all: bool,
}

impl Addresses {
    /// These, of which there are at most [`MAX_ADDRESSES`].
    pub(super) fn some(mut addresses: Vec<MacAddress>) -> Self {
        debug_assert!(addresses.len() <= MAX_ADDRESSES, "the list is bounded");
        addresses.sort_unstable();
        Self {
            some: addresses,
            all: false,
        }
    }

    /// More than [`MAX_ADDRESSES`]: any.
    pub(super) const fn all() -> Self {
        Self {
            some: Vec::new(),
            all: true,
        }
    }

    fn have(&self, address: &MacAddress) -> bool {
        self.all || self.some.binary_search(address).is_ok()
    }
}

/// What the driver wants.
#[derive(Debug, Clone)]
pub(super) struct RxFilter {
    modes: u8,
    /// The card's own address.
    pub(super) mac: MacAddress,
    pub(super) unicast: Addresses,
    pub(super) multicast: Addresses,
    /// A bit a VLAN; `None`: the driver does not choose.
    vlans: Option<Box<[u64; VLANS as usize / 64]>>,
}

impl RxFilter {
    /// What a driver wants that has said nothing yet: everything. When it ends that
    /// (VIRTIO_NET_CTRL_RX_PROMISC), what is to the card's address and to all.
    pub(super) fn new(features: u64, mac: MacAddress) -> Self {
        let chosen = features & CTRL_VLAN != 0;
        Self {
            modes: Mode::Promiscuous.bit(),
            mac,
            unicast: Addresses::default(),
            multicast: Addresses::default(),
            vlans: chosen.then(|| Box::new([0; _])),
        }
    }

    pub(super) fn set_mode(&mut self, mode: Mode, on: bool) {
        self.modes = self.modes & !mode.bit() | if on { mode.bit() } else { 0 };
    }

    /// Lets the frames of a VLAN in, or not any more; false if there is no such VLAN.
    pub(super) fn set_vlan(&mut self, vlan: u16, on: bool) -> bool {
        let Some(word) = self
            .vlans
            .as_mut()
            .and_then(|vlans| vlans.get_mut(usize::from(vlan / 64)))
        else {
            return false;
        };
        let bit = 1 << (vlan % 64);
        *word = *word & !bit | if on { bit } else { 0 };
        true
    }

    const fn is(&self, mode: Mode) -> bool {
        self.modes & mode.bit() != 0
    }

    /// Whether the driver wants a frame that is in these fragments.
    fn accepts(&self, frame: &[&[u8]]) -> bool {
        if self.is(Mode::Promiscuous) {
            return true;
        }
        let (start, len) = start_of(frame);
        let [destination @ .., _, _, _, _, _, _, _, _, _, _] = start;
        // A frame that is none is not for this filter to judge.
        len < ETHERNET_HEADER || self.wants_vlan(&start) && self.wants_address(&destination)
    }

    /// Frames without a tag pass, and so do those whose tag names no VLAN but only a priority.
    fn wants_vlan(&self, start: &[u8; LOOK]) -> bool {
        let Some(vlans) = &self.vlans else {
            return true;
        };
        let (_, [t0, t1, high, low]) = start.split_last_chunk().unwrap_or((&[], &[0; 4]));
        let vlan = u16::from_be_bytes([*high, *low]) & VLAN_NUMBER;
        if [*t0, *t1] != VLAN_TAGGED || vlan == 0 {
            return true;
        }
        let word = vlans.get(usize::from(vlan / 64));
        word.is_some_and(|word| word >> (vlan % 64) & 1 != 0)
    }

    fn wants_address(&self, destination: &MacAddress) -> bool {
        if *destination == BROADCAST {
            !self.is(Mode::NoBroadcast)
        } else if destination[0] & 1 != 0 {
            !self.is(Mode::NoMulticast)
                && (self.is(Mode::AllMulticast) || self.multicast.have(destination))
        } else {
            !self.is(Mode::NoUnicast)
                && (*destination == self.mac
                    || self.is(Mode::AllUnicast)
                    || self.unicast.have(destination))
        }
    }
}

/// The first bytes of a frame, and how many of them there are. Bytes that are missing are zero.
fn start_of(frame: &[&[u8]]) -> ([u8; LOOK], usize) {
    const _: () = assert!(ETHERTYPE + 4 == LOOK);
    if let Some(start) = frame.first().and_then(|fragment| fragment.first_chunk()) {
        return (*start, LOOK);
    }
    let mut start = [0; LOOK];
    let mut len = 0;
    let bytes = frame.iter().flat_map(|fragment| fragment.iter());
    for (to, from) in start.iter_mut().zip(bytes) {
        *to = *from;
        len += 1;
    }
    (start, len)
}

/// The filter that is in force, as the control queue's thread shows it to the io-threads.
#[derive(Debug)]
pub(super) struct FilterCell {
    /// Counts changes.
    version: AtomicU64,
    current: Mutex<Arc<RxFilter>>,
}

impl FilterCell {
    pub(super) fn new(filter: RxFilter) -> Self {
        Self {
            version: AtomicU64::new(0),
            current: Mutex::new(Arc::new(filter)),
        }
    }

    /// Puts a new filter in force for each frame that comes from now on.
    pub(super) fn publish(&self, filter: RxFilter) {
        *lock(&self.current) = Arc::new(filter);
        // Release: who sees the number finds the filter that belongs to it, or a newer one.
        self.version.fetch_add(1, Ordering::Release);
    }

    /// The filter that is in force.
    pub(super) fn current(&self) -> Arc<RxFilter> {
        Arc::clone(&lock(&self.current))
    }
}

/// One io-thread's filter.
#[derive(Debug)]
pub(super) struct FilterReader {
    cell: Arc<FilterCell>,
    version: u64,
    filter: Arc<RxFilter>,
}

impl FilterReader {
    pub(super) fn new(cell: Arc<FilterCell>) -> Self {
        let version = cell.version.load(Ordering::Acquire);
        let filter = cell.current();
        Self {
            cell,
            version,
            filter,
        }
    }

    /// Whether the driver wants the frame that is in these fragments.
    pub(super) fn accepts(&mut self, frame: &[&[u8]]) -> bool {
        let version = self.cell.version.load(Ordering::Acquire);
        if version != self.version {
            self.version = version;
            self.filter = self.cell.current();
        }
        self.filter.accepts(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: MacAddress = [0x52, 0x54, 0, 1, 2, 3];
    const OTHER: MacAddress = [0x52, 0x54, 0, 1, 2, 4];
    const GROUP: MacAddress = [0x33, 0x33, 0, 0, 0, 1];

    fn frame(destination: MacAddress, vlan: Option<u16>) -> Vec<u8> {
        let tag = vlan.map(|vlan| [VLAN_TAGGED, vlan.to_be_bytes()].concat());
        [
            &destination[..],
            &OTHER,
            &tag.unwrap_or_default(),
            &[8, 0, 0x45],
        ]
        .concat()
    }

    fn filter() -> RxFilter {
        let mut filter = RxFilter::new(CTRL_VLAN, OWN);
        filter.set_mode(Mode::Promiscuous, false);
        filter
    }

    fn wanted(filter: &RxFilter) -> [bool; 4] {
        [OWN, OTHER, GROUP, BROADCAST]
            .map(|destination| filter.accepts(&[&frame(destination, None)]))
    }

    #[test]
    fn each_mode_does_what_it_is_called() {
        assert_eq!(wanted(&RxFilter::new(0, OWN)), [true; 4], "at first");
        assert_eq!(wanted(&filter()), [true, false, false, true]);
        for (mode, expected) in [
            (Mode::Promiscuous, [true, true, true, true]),
            (Mode::AllMulticast, [true, false, true, true]),
            (Mode::AllUnicast, [true, true, false, true]),
            (Mode::NoMulticast, [true, false, false, true]),
            (Mode::NoUnicast, [false, false, false, true]),
            (Mode::NoBroadcast, [true, false, false, false]),
        ] {
            let mut filter = filter();
            filter.set_mode(mode, true);
            assert_eq!(wanted(&filter), expected, "{mode:?}");
            filter.set_mode(mode, false);
            assert_eq!(wanted(&filter), [true, false, false, true], "{mode:?} off");
        }
        let mut none = filter();
        for mode in [Mode::AllMulticast, Mode::NoMulticast, Mode::NoUnicast] {
            none.set_mode(mode, true);
        }
        assert_eq!(wanted(&none), [false, false, false, true], "no means no");
    }

    #[test]
    fn tables_let_their_addresses_in() {
        let mut filter = filter();
        let lots = |last| (0..=last).map(|i| [0x33, 0x33, 9, 9, 9, i]);
        filter.unicast = Addresses::some(vec![OTHER]);
        filter.multicast = Addresses::some(lots(62).chain([GROUP]).collect());
        assert_eq!(wanted(&filter), [true; 4]);
        filter.unicast = Addresses::some(vec![[2; 6]]);
        filter.multicast = Addresses::some(lots(63).collect());
        assert_eq!(wanted(&filter), [true, false, false, true]);
        filter.multicast = Addresses::all();
        assert_eq!(wanted(&filter), [true, false, true, true]);
    }

    #[test]
    fn vlans_are_let_in_one_by_one() {
        let mut filter = filter();
        let wants = |filter: &RxFilter, vlan| filter.accepts(&[&frame(OWN, Some(vlan))]);
        assert!(wants(&filter, 0xe000), "a priority alone is no VLAN");
        for vlan in [1, 63, 64, 4095] {
            assert!(!wants(&filter, vlan));
            assert!(filter.set_vlan(vlan, true));
            assert!(wants(&filter, vlan) && wants(&filter, vlan | 0xe000));
            assert!(!wants(&filter, vlan ^ 2));
            assert!(filter.set_vlan(vlan, false));
            assert!(!wants(&filter, vlan));
        }
        assert!(!filter.set_vlan(VLANS, true) && !filter.set_vlan(u16::MAX, true));
        let mut without = RxFilter::new(0, OWN);
        without.set_mode(Mode::Promiscuous, false);
        assert!(wants(&without, 5), "the driver does not choose");
        assert!(!without.set_vlan(5, true));
        assert!(!without.accepts(&[&frame(OTHER, Some(5))]));
    }

    #[test]
    fn fragments_of_any_size_and_frames_that_are_none() {
        let filter = filter();
        for bytes in [frame(OWN, Some(7)), frame(OTHER, None)] {
            for size in 1..=bytes.len() {
                let fragments: Vec<_> = bytes.chunks(size).collect();
                assert!(!filter.accepts(&fragments), "{size}");
            }
        }
        assert!(filter.accepts(&[]) && filter.accepts(&[&[]]));
        assert!(filter.accepts(&[&[0; 13]]), "no Ethernet frame");
        assert!(!filter.accepts(&[&[0; 14]]));
    }

    #[test]
    fn a_new_filter_is_in_force_at_once() {
        let cell = Arc::new(FilterCell::new(RxFilter::new(0, OWN)));
        let mut reader = FilterReader::new(Arc::clone(&cell));
        let frame = frame(OTHER, None);
        assert!(reader.accepts(&[&frame]));
        cell.publish(filter());
        assert!(!reader.accepts(&[&frame]));
        cell.publish(RxFilter::new(0, OWN));
        assert!(reader.accepts(&[&frame]));
    }
}
