//! virtio-net towards the driver: features, configuration space, life of the threads.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_MAC, VIRTIO_NET_F_MTU, VIRTIO_NET_F_STATUS, VIRTIO_NET_S_LINK_UP,
};

use super::{
    NetBackend, NetConfig, NetControl, NetError,
    backend::BackendReport,
    config::MAX_PAIRS,
    control::{CONTROL_QUEUE_SIZE, CTRL_GUEST_OFFLOADS, CTRL_VQ, Control, MQ},
    counters::PairCounters,
    offloads::{Offloads, dependencies_hold},
    pairs::Pairs,
    rate::Limiter,
    shared::{Shared, lock},
    wire::MRG_RXBUF,
    worker::WorkerParts,
};
use crate::virtio::{
    ActivateError, Activation, ActiveQueue, VirtioDevice, interrupt::Interrupt, quiet::Quiet,
    requests, worker::WorkerThread,
};

/// Device ID of a network card (section 5).
const NETWORK_CARD: u32 = 1;
const MAC: u64 = 1 << VIRTIO_NET_F_MAC;
const STATUS: u64 = 1 << VIRTIO_NET_F_STATUS;
const MTU: u64 = 1 << VIRTIO_NET_F_MTU;

/// Largest size of each queue in descriptors.
pub const QUEUE_SIZE: u16 = 1024;

/// Offsets in struct virtio_net_config (5.1.4).
mod offset {
    pub(super) const MAC: usize = 0;
    pub(super) const STATUS: usize = 6;
    pub(super) const MAX_PAIRS: usize = 8;
    pub(super) const MTU: usize = 10;
    pub(super) const LEN: usize = 12;
}

/// VIRTIO_NET_S_LINK_UP as the 16-bit field has it.
const LINK_UP: u16 = 1;
const _: () = assert!(LINK_UP as u32 == VIRTIO_NET_S_LINK_UP);

/// A virtio-net device on back ends of one kind, one a queue pair.
///
/// With more than one it offers VIRTIO_NET_F_MQ and a control queue, by which the driver says how many
/// pairs it uses; until it does, that is one.
#[derive(Debug)]
pub struct NetDevice<B: NetBackend> {
    shared: Arc<Shared>,
    mac: [u8; 6],
    mtu: Option<u16>,
    offloads: Offloads,
    /// Shared with the control queue's thread, and never with one that moves frames.
    pairs: Arc<Mutex<Pairs<B>>>,
    count: usize,
    queue_sizes: Vec<u16>,
    /// The control queue's thread.
    control: Option<WorkerThread>,
    control_faults: Arc<Quiet>,
    fewer: Arc<Quiet>,
    refusals: Arc<Quiet>,
}

impl<B: NetBackend> NetDevice<B> {
    /// Makes a device; its threads start when the driver is ready.
    ///
    /// # Errors
    /// The configuration contradicts itself, the back ends, or virtio.
    pub fn new(config: NetConfig, backends: Vec<B>) -> Result<Self, NetError> {
        let count = backends.len();
        let max_frame = backends.iter().map(NetBackend::max_frame).min();
        let max_frame = max_frame
            .filter(|_| count <= MAX_PAIRS)
            .ok_or(NetError::Pairs(count))?;
        if config.mac[0] & 1 != 0 || config.mac == [0; 6] {
            return Err(NetError::Mac(config.mac));
        }
        if let Some(name) = config.offloads.without_checksums() {
            return Err(NetError::Offloads(name));
        }
        let mtu = config.usable_mtu(max_frame)?;
        let limits = match &config.rate {
            Some(limit) => {
                limit.check()?;
                Some([Limiter::new(limit), Limiter::new(limit)])
            }
            None => None,
        };
        let shared = Arc::new(Shared {
            name: config.name,
            link_up: AtomicBool::new(config.link_up),
            guest_offloads: Arc::default(),
            interrupt: Mutex::new(None),
            counters: backends
                .iter()
                .map(|_| Arc::<PairCounters>::default())
                .collect(),
            control_counters: Arc::default(),
            reports: Mutex::new(vec![BackendReport::default(); count]),
            limits,
            busy_poll: config.busy_poll,
            on_fault: config.on_fault,
            fault_lines: Quiet::default(),
            carrier_lines: Quiet::default(),
            offload_lines: Quiet::default(),
        });
        let mut queue_sizes = vec![QUEUE_SIZE; 2 * count];
        if count > 1 {
            queue_sizes.push(CONTROL_QUEUE_SIZE);
        }
        Ok(Self {
            mac: config.mac,
            mtu,
            offloads: config.offloads,
            pairs: Arc::new(Mutex::new(Pairs::new(Arc::clone(&shared), backends))),
            shared,
            count,
            queue_sizes,
            control: None,
            control_faults: Arc::default(),
            fewer: Arc::default(),
            refusals: Arc::default(),
        })
    }

    /// A handle for the VMM's control loop, valid as long as it likes.
    pub fn control(&self) -> NetControl {
        NetControl(Arc::clone(&self.shared))
    }

    fn log_offloads(&self, features: u64) {
        if let Some(number) = self.shared.offload_lines.count() {
            let (name, used) = (&self.shared.name, Offloads::among(features));
            tracing::info!(
                "{name}: offloads in use: {used}; offered: {} (message {number})",
                self.offloads
            );
        }
    }

    fn config_space(&self) -> [u8; offset::LEN] {
        let mut space = [0; offset::LEN];
        let link = u16::from(self.shared.link_up.load(Ordering::Acquire));
        let status = link * LINK_UP;
        let pairs = u16::try_from(self.count).unwrap_or(u16::MAX);
        space[offset::MAC..offset::STATUS].copy_from_slice(&self.mac);
        space[offset::STATUS..offset::MAX_PAIRS].copy_from_slice(&status.to_le_bytes());
        space[offset::MAX_PAIRS..offset::MTU].copy_from_slice(&pairs.to_le_bytes());
        space[offset::MTU..].copy_from_slice(&self.mtu.unwrap_or(0).to_le_bytes());
        space
    }

    fn start_control(
        &mut self,
        queue: ActiveQueue,
        features: u64,
        interrupt: Interrupt,
    ) -> Result<(), ActivateError> {
        let worker = requests::Worker {
            name: format!("{}.ctrl", self.shared.name.replace('\0', "")),
            faults: Arc::clone(&self.control_faults),
            on_fault: Arc::clone(&self.shared.on_fault),
            handler: Control {
                pairs: Arc::clone(&self.pairs),
                shared: Arc::clone(&self.shared),
                counters: Arc::clone(&self.shared.control_counters),
                features,
                fewer: Arc::clone(&self.fewer),
                refusals: Arc::clone(&self.refusals),
            },
        };
        let what = "start the thread of the control queue";
        let thread = worker.spawn(queue, interrupt);
        self.control = Some(thread.map_err(|source| ActivateError::System { what, source })?);
        Ok(())
    }
}

impl<B: NetBackend> VirtioDevice for NetDevice<B> {
    fn device_id(&self) -> u32 {
        NETWORK_CARD
    }

    fn features(&self) -> u64 {
        let mtu = if self.mtu.is_some() { MTU } else { 0 };
        let commands = if self.count > 1 {
            MQ | CTRL_VQ | CTRL_GUEST_OFFLOADS
        } else {
            0
        };
        MAC | STATUS | MRG_RXBUF | mtu | commands | self.offloads.features()
    }

    /// 5.1.3.1: what the driver asks for by commands is no use without a way to give them.
    fn check_features(&self, features: u64) -> bool {
        let commands = features & (MQ | CTRL_GUEST_OFFLOADS) != 0;
        (!commands || features & CTRL_VQ != 0) && dependencies_hold(features)
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let space = self.config_space();
        let rest = usize::try_from(offset)
            .ok()
            .and_then(|offset| space.get(offset..));
        for (byte, &value) in data.iter_mut().zip(rest.unwrap_or_default()) {
            *byte = value;
        }
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let Activation {
            features,
            interrupt,
            queues,
            ..
        } = activation;
        *lock(&self.shared.interrupt) = Some(interrupt.clone());
        self.shared.guest_offloads.start(features);
        self.log_offloads(features);
        // 5.1.2: receive, transmit, receive, transmit, ..., control; one pair without MQ.
        let count = if features & MQ != 0 { self.count } else { 1 };
        let mut queues = queues.into_iter();
        let mut pairs = Vec::with_capacity(count);
        for (pair, counters) in self.shared.counters.iter().enumerate().take(count) {
            let both = (queues.next().flatten(), queues.next().flatten());
            // Further pairs may be left out (5.1.5): they can't be used then.
            let index = |both: &(Option<_>, _)| u16::from(both.0.is_some());
            let parts = match both {
                (Some(rx), Some(tx)) => Some(WorkerParts {
                    pair,
                    rx,
                    tx,
                    features,
                    interrupt: interrupt.clone(),
                    shared: Arc::clone(&self.shared),
                    counters: Arc::clone(counters),
                }),
                missing if pair == 0 => return Err(ActivateError::QueueMissing(index(&missing))),
                _ => None,
            };
            pairs.push(parts);
        }
        lock(&self.pairs).begin(pairs)?;
        // A driver that has nothing to say need not set it up.
        match queues.next().flatten() {
            Some(queue) if features & CTRL_VQ != 0 => {
                self.start_control(queue, features, interrupt)
            }
            _ => Ok(()),
        }
    }

    fn reset(&mut self) {
        *lock(&self.shared.interrupt) = None;
        // First, and joined: nobody uses pairs again after they ended.
        self.control = None;
        lock(&self.pairs).end();
    }
}
