//! What the device, its threads and the VMM's control loop share: nothing of a packet's way.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use virtio_bindings::virtio_net::{VIRTIO_NET_S_ANNOUNCE, VIRTIO_NET_S_LINK_UP};

use super::{
    NetBackend, NetConfig, NetError,
    backend::{BackendReport, Losses},
    coalesce::{Coalescing, CoalescingCell},
    config::LinkSpeed,
    counters::{NetCounters, PairCounters},
    features::GUEST_ANNOUNCE,
    filter::{FilterCell, RxFilter},
    offloads::GuestOffloads,
    poll::BusyPoll,
    rate::Limiter,
    rx::WireMtu,
    wire::MacAddress,
};
use crate::{
    placement::Placement,
    virtio::{interrupt::Interrupt, quiet::Quiet, worker::OnFault},
};

/// VIRTIO_NET_S_LINK_UP and VIRTIO_NET_S_ANNOUNCE as the 16-bit field has them.
const LINK_UP: u16 = 1;
const ANNOUNCE: u16 = 2;
const _: () = assert!(LINK_UP as u32 == VIRTIO_NET_S_LINK_UP);
const _: () = assert!(ANNOUNCE as u32 == VIRTIO_NET_S_ANNOUNCE);

pub(super) struct Shared {
    pub(super) name: String,
    /// The card's address, which the driver may have changed.
    pub(super) mac: Mutex<MacAddress>,
    pub(super) link_up: AtomicBool,
    pub(super) speed: Mutex<LinkSpeed>,
    /// The driver is asked to announce itself on the wire, and has not said that it did.
    announce: AtomicBool,
    /// Between DRIVER_OK and reset only: no interrupt may come at other times.
    pub(super) driver: Mutex<Option<ActiveDriver>>,
    /// What the driver wants to receive.
    pub(super) filter: Arc<FilterCell>,
    /// What the driver takes besides plain frames.
    pub(super) guest_offloads: Arc<GuestOffloads>,
    /// What the wire takes in one frame.
    pub(super) wire_mtu: Arc<WireMtu>,
    /// How each queue's interrupts are put off: receive and transmit queue of each pair in turn.
    pub(super) coalescing: Vec<Arc<CoalescingCell>>,
    /// What a receive queue and a transmit queue have of this when they are enabled.
    pub(super) coalescing_at_first: [CoalescingCell; 2],
    /// One a queue pair.
    pub(super) counters: Vec<Arc<PairCounters>>,
    /// One a queue pair: what its back end threw away.
    pub(super) losses: Vec<Option<Losses>>,
    /// The control queue's.
    pub(super) control_counters: Arc<PairCounters>,
    /// One a queue pair: what the back end said when its thread last ended.
    pub(super) reports: Mutex<Vec<BackendReport>>,
    /// The card's limit, for what the guest receives and for what it sends.
    pub(super) limits: Option<[Limiter; 2]>,
    pub(super) busy_poll: BusyPoll,
    pub(super) placement: Placement,
    pub(super) on_fault: OnFault,
    pub(super) fault_lines: Quiet,
    pub(super) carrier_lines: Quiet,
    pub(super) offload_lines: Quiet,
}

/// A driver that is ready.
pub(super) struct ActiveDriver {
    /// The transport's.
    pub(super) interrupt: Interrupt,
    /// The negotiated features.
    pub(super) features: u64,
}

impl Shared {
    /// What a card of `config` with these back ends starts with.
    ///
    /// # Errors
    /// The rate limit makes no sense.
    pub(super) fn new<B: NetBackend>(config: NetConfig, backends: &[B]) -> Result<Self, NetError> {
        let limits = match &config.rate {
            Some(limit) => {
                limit.check()?;
                Some([Limiter::new(limit), Limiter::new(limit)])
            }
            None => None,
        };
        let filter = RxFilter::new(0, config.mac);
        Ok(Self {
            name: config.name,
            mac: Mutex::new(config.mac),
            link_up: AtomicBool::new(config.link_up),
            speed: Mutex::new(config.speed),
            announce: AtomicBool::new(false),
            driver: Mutex::new(None),
            filter: Arc::new(FilterCell::new(filter)),
            guest_offloads: Arc::default(),
            wire_mtu: Arc::new(WireMtu::new(config.mtu)),
            coalescing: (0..2 * backends.len()).map(|_| Arc::default()).collect(),
            coalescing_at_first: Default::default(),
            counters: backends
                .iter()
                .map(|_| Arc::<PairCounters>::default())
                .collect(),
            losses: backends.iter().map(NetBackend::losses).collect(),
            control_counters: Arc::default(),
            reports: Mutex::new(vec![BackendReport::default(); backends.len()]),
            limits,
            busy_poll: config.busy_poll,
            placement: config.placement,
            on_fault: config.on_fault,
            fault_lines: Quiet::default(),
            carrier_lines: Quiet::default(),
            offload_lines: Quiet::default(),
        })
    }

    /// DRIVER_OK: all that an earlier driver said is forgotten. `mac`: the card's address as it was
    /// made.
    pub(super) fn begin(&self, driver: ActiveDriver, mac: MacAddress) {
        self.set_mac(mac);
        self.filter.publish(RxFilter::new(driver.features, mac));
        self.guest_offloads.start(driver.features);
        for cell in self
            .coalescing
            .iter()
            .map(|it| &**it)
            .chain(&self.coalescing_at_first)
        {
            cell.set(Coalescing::default());
        }
        *lock(&self.driver) = Some(driver);
    }

    /// Queue `index` is reset: its notifications are put off like those of all of its kind, for which the driver
    /// may have said how (virtio 1.3, 5.1.6.5.10).
    pub(super) fn forget_coalescing(&self, index: u16) {
        let index = usize::from(index);
        let first = self.coalescing_at_first.get(index % 2);
        if let (Some(cell), Some(first)) = (self.coalescing.get(index), first) {
            cell.set(first.get());
        }
    }

    /// Reset: no interrupt comes any more.
    pub(super) fn end(&self) {
        let mut driver = lock(&self.driver);
        self.announce.store(false, Ordering::Release);
        *driver = None;
    }

    pub(super) fn set_mac(&self, mac: MacAddress) {
        *lock(&self.mac) = mac;
    }

    /// The status field of the configuration space (5.1.4).
    pub(super) fn status(&self) -> u16 {
        let bit = |flag: &AtomicBool, bit| {
            if flag.load(Ordering::Acquire) { bit } else { 0 }
        };
        bit(&self.link_up, LINK_UP) | bit(&self.announce, ANNOUNCE)
    }

    /// The driver announced itself; false if nobody had asked it to.
    pub(super) fn end_announcement(&self) -> bool {
        self.announce.swap(false, Ordering::AcqRel)
    }

    /// Asks the driver to announce itself, if it knows how; whether that is to be told to it.
    fn ask_for_announcement(&self, driver: &ActiveDriver) -> bool {
        let can = driver.features & GUEST_ANNOUNCE != 0;
        if can {
            self.announce.store(true, Ordering::Release);
        }
        can
    }

    pub(super) fn rx_limit(&self) -> Option<&Limiter> {
        self.limits.as_ref().map(|[rx, _]| rx)
    }

    pub(super) fn tx_limit(&self) -> Option<&Limiter> {
        self.limits.as_ref().map(|[_, tx]| tx)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("name", &self.name)
            .field("link_up", &self.link_up)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

/// A lock whose data is valid at every instant, so a panic elsewhere does not spoil it.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A handle on a running virtio-net device for the VMM's control loop.
#[derive(Debug, Clone)]
pub struct NetControl(pub(super) Arc<Shared>);

impl NetControl {
    /// The name that the device was given.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Tells the guest that its link is up or down: the STATUS bit of the configuration space
    /// (virtio 1.2, 5.1.4) and, if that changed, a configuration interrupt. With a link that came
    /// up, the guest is asked to [announce](Self::announce) itself: whoever forgot it learns it again.
    pub fn set_link(&self, up: bool) {
        let driver = lock(&self.0.driver);
        let was = self.0.link_up.swap(up, Ordering::Release);
        if let Some(driver) = driver.as_ref().filter(|_| was != up) {
            if up {
                self.0.ask_for_announcement(driver);
            }
            driver.interrupt.config();
        }
    }

    /// Asks the guest to announce itself on the wire (VIRTIO_NET_S_ANNOUNCE, 5.1.6.5.4): by
    /// gratuitous ARP and the like, so that switches and neighbours learn where it is now.
    /// Returns whether there is a driver that can. A link that comes up asks for it by itself.
    pub fn announce(&self) -> bool {
        let driver = lock(&self.0.driver);
        let Some(driver) = driver.as_ref() else {
            return false;
        };
        let asked = self.0.ask_for_announcement(driver);
        if asked {
            driver.interrupt.config();
        }
        asked
    }

    /// Tells the guest of the link's speed, as of the next time that it looks. (Linux looks when the
    /// link's state changes, so this comes before [`set_link`](Self::set_link).)
    pub fn set_speed(&self, speed: LinkSpeed) {
        *lock(&self.0.speed) = speed;
    }

    /// The wire's MTU in bytes is another one now. The guest keeps the one that it was told; frames that a sender on
    /// this host left whole are cut by this one.
    pub fn set_wire_mtu(&self, mtu: u32) {
        self.0.wire_mtu.set(mtu);
    }

    /// The card's Ethernet address, as the driver has it at the moment.
    pub fn mac(&self) -> [u8; 6] {
        *lock(&self.0.mac)
    }

    /// The counters of all queue pairs and of the control queue, added up.
    pub fn counters(&self) -> NetCounters {
        let all = self.0.counters.iter().chain([&self.0.control_counters]);
        let all = all.map(|counters| counters.snapshot());
        all.fold(NetCounters::default(), NetCounters::sum)
    }

    /// What each queue pair's back end reported when its thread last ended (at reset).
    pub fn reports(&self) -> Vec<BackendReport> {
        lock(&self.0.reports).clone()
    }
}
