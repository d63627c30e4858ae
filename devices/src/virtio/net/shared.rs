//! What the device, its threads and the VMM's control loop share: nothing of a packet's way.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    backend::BackendReport,
    counters::{NetCounters, PairCounters},
    offloads::GuestOffloads,
    poll::BusyPoll,
    rate::Limiter,
};
use crate::virtio::{interrupt::Interrupt, quiet::Quiet, worker::OnFault};

pub(super) struct Shared {
    pub(super) name: String,
    pub(super) link_up: AtomicBool,
    /// What the driver takes besides plain frames.
    pub(super) guest_offloads: Arc<GuestOffloads>,
    /// The transport's, between DRIVER_OK and reset only: no interrupt may come at other times.
    pub(super) interrupt: Mutex<Option<Interrupt>>,
    /// One a queue pair.
    pub(super) counters: Vec<Arc<PairCounters>>,
    /// The control queue's.
    pub(super) control_counters: Arc<PairCounters>,
    /// One a queue pair: what the back end said when its thread last ended.
    pub(super) reports: Mutex<Vec<BackendReport>>,
    /// The card's limit, for what the guest receives and for what it sends.
    pub(super) limits: Option<[Limiter; 2]>,
    pub(super) busy_poll: BusyPoll,
    pub(super) on_fault: OnFault,
    pub(super) fault_lines: Quiet,
    pub(super) carrier_lines: Quiet,
    pub(super) offload_lines: Quiet,
}

impl Shared {
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
    /// (virtio 1.2, 5.1.4) and, if that changed, a configuration interrupt.
    pub fn set_link(&self, up: bool) {
        let interrupt = lock(&self.0.interrupt);
        let was = self.0.link_up.swap(up, Ordering::Release);
        if let Some(interrupt) = interrupt.as_ref().filter(|_| was != up) {
            interrupt.config();
        }
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
