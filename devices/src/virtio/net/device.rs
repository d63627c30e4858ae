//! virtio-net towards the driver: features, configuration space, life of the threads.

use std::sync::{Arc, Mutex};

use super::{
    NetBackend, NetConfig, NetControl, NetError,
    config::MAX_PAIRS,
    control::{CONTROL_QUEUE_SIZE, Control, LogLines},
    features::{self, CTRL_VQ, MAC, MQ, MTU, SPEED_DUPLEX, STATUS},
    offloads::{Offloads, dependencies_hold},
    pairs::{PairParts, Pairs},
    shared::{ActiveDriver, Shared, lock},
    wire::{MRG_RXBUF, MacAddress},
    worker::{Side, WorkerParts},
};
use crate::virtio::{
    ActivateError, Activation, ActiveQueue, VirtioDevice,
    interrupt::Interrupt,
    quiet::Quiet,
    requests::{self, RequestThread},
};

/// Device ID of a network card (section 5).
const NETWORK_CARD: u32 = 1;

/// Largest size of each queue in descriptors.
pub const QUEUE_SIZE: u16 = 1024;

/// Offsets in struct virtio_net_config (5.1.4).
mod offset {
    pub(super) const MAC: usize = 0;
    pub(super) const STATUS: usize = 6;
    pub(super) const MAX_PAIRS: usize = 8;
    pub(super) const MTU: usize = 10;
    pub(super) const SPEED: usize = 12;
    pub(super) const DUPLEX: usize = 16;
    pub(super) const LEN: usize = 17;
}

/// A virtio-net device on back ends of one kind, one a queue pair.
///
/// With more than one it offers VIRTIO_NET_F_MQ: through the control queue, which is always there, the
/// driver says how many pairs it uses; until it does, that is one.
#[derive(Debug)]
pub struct NetDevice<B: NetBackend> {
    shared: Arc<Shared>,
    /// As it was made: what it is again after a reset.
    mac: MacAddress,
    mtu: Option<u16>,
    offloads: Offloads,
    speed_known: bool,
    /// Shared with the control queue's thread, and never with one that moves frames.
    pairs: Arc<Mutex<Pairs<B>>>,
    count: usize,
    queue_sizes: Vec<u16>,
    /// The control queue's thread.
    control: Option<RequestThread<Control<B>>>,
    control_faults: Arc<Quiet>,
    log_lines: LogLines,
}

/// What a queue is for (5.1.2: receive, transmit, receive, transmit, ..., control; one pair without MQ).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Pair(usize, Side),
    Control,
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
        let mac = config.usable_mac()?;
        let mtu = config.usable_mtu(max_frame)?;
        if let Some(name) = config.offloads.without_checksums() {
            return Err(NetError::Offloads(name));
        }
        let (offloads, speed_known) = (config.offloads, config.speed.mbps.is_some());
        let shared = Arc::new(Shared::new(config, &backends)?);
        let mut queue_sizes = vec![QUEUE_SIZE; 2 * count];
        queue_sizes.push(CONTROL_QUEUE_SIZE);
        Ok(Self {
            mac,
            mtu,
            offloads,
            speed_known,
            pairs: Arc::new(Mutex::new(Pairs::new(Arc::clone(&shared), backends))),
            shared,
            count,
            queue_sizes,
            control: None,
            control_faults: Arc::default(),
            log_lines: LogLines::default(),
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
        let pairs = u16::try_from(self.count).unwrap_or(u16::MAX);
        let (speed, duplex) = lock(&self.shared.speed).fields();
        let status = self.shared.status().to_le_bytes();
        space[offset::MAC..offset::STATUS].copy_from_slice(&*lock(&self.shared.mac));
        space[offset::STATUS..offset::MAX_PAIRS].copy_from_slice(&status);
        space[offset::MAX_PAIRS..offset::MTU].copy_from_slice(&pairs.to_le_bytes());
        space[offset::MTU..offset::SPEED].copy_from_slice(&self.mtu.unwrap_or(0).to_le_bytes());
        space[offset::SPEED..offset::DUPLEX].copy_from_slice(&speed);
        space[offset::DUPLEX] = duplex;
        space
    }

    /// How many pairs a driver with these features has.
    fn pairs_of(&self, features: u64) -> usize {
        if features & MQ != 0 { self.count } else { 1 }
    }

    /// What queue `index` is to a driver with these features; `None` if nothing.
    fn role(&self, index: u16, features: u64) -> Option<Role> {
        let (pairs, index) = (self.pairs_of(features), usize::from(index));
        let side = if index.is_multiple_of(2) {
            Side::Rx
        } else {
            Side::Tx
        };
        match index / 2 {
            pair if pair < pairs => Some(Role::Pair(pair, side)),
            _ if index == 2 * pairs && features & CTRL_VQ != 0 => Some(Role::Control),
            _ => None,
        }
    }

    fn start_control(
        &mut self,
        queue: ActiveQueue,
        features: u64,
        interrupt: Interrupt,
    ) -> Result<(), ActivateError> {
        let worker = requests::Worker {
            name: format!("{}.ctrl", self.shared.name.replace('\0', "")),
            placement: self.shared.placement.clone(),
            faults: Arc::clone(&self.control_faults),
            on_fault: Arc::clone(&self.shared.on_fault),
            handler: Control::new(&self.pairs, &self.shared, features, &self.log_lines),
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
        let speed = if self.speed_known { SPEED_DUPLEX } else { 0 };
        let commands = features::control_plane(self.count);
        MAC | STATUS | MRG_RXBUF | mtu | speed | commands | self.offloads.features()
    }

    fn check_features(&self, features: u64) -> bool {
        features::are_complete(features) && dependencies_hold(features)
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
        let driver = ActiveDriver {
            interrupt: interrupt.clone(),
            features,
        };
        self.shared.begin(driver, self.mac);
        self.log_offloads(features);
        let mut queues = queues.into_iter();
        let count = self.pairs_of(features);
        let mut pairs = Vec::with_capacity(count);
        for (pair, counters) in self.shared.counters.iter().enumerate().take(count) {
            let (rx, tx) = (queues.next().flatten(), queues.next().flatten());
            // Further pairs may be left out (5.1.5): they can't be used then.
            if pair == 0 && (rx.is_none() || tx.is_none()) {
                return Err(ActivateError::QueueMissing(rx.is_some().into()));
            }
            let worker = WorkerParts {
                pair,
                features,
                interrupt: interrupt.clone(),
                shared: Arc::clone(&self.shared),
                counters: Arc::clone(counters),
            };
            pairs.push(PairParts { rx, tx, worker });
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

    fn reset_queue(&mut self, index: u16) -> Result<(), ActivateError> {
        let features = lock(&self.shared.driver).as_ref().map(|it| it.features);
        match features.and_then(|features| self.role(index, features)) {
            Some(Role::Pair(pair, side)) => {
                self.shared.forget_coalescing(index);
                Ok(lock(&self.pairs).reset_queue(pair, side)?)
            }
            Some(Role::Control) => {
                // The command under way is carried out and answered before.
                self.control = None;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn enable_queue(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let Activation {
            features,
            interrupt,
            queues,
            ..
        } = activation;
        let Some(queue) = queues.into_iter().flatten().next() else {
            return Ok(());
        };
        match self.role(queue.index, features) {
            Some(Role::Pair(pair, side)) => Ok(lock(&self.pairs).enable_queue(pair, side, queue)?),
            Some(Role::Control) => self.start_control(queue, features, interrupt),
            None => Ok(()),
        }
    }

    fn reset(&mut self) {
        self.shared.end();
        // First, and joined: nobody uses pairs again after they ended.
        self.control = None;
        lock(&self.pairs).end();
    }

    fn pause(&mut self) {
        // First: its commands start threads.
        if let Some(control) = &mut self.control {
            control.pause();
        }
        lock(&self.pairs).pause();
    }

    fn resume(&mut self) -> Result<(), ActivateError> {
        lock(&self.pairs).resume()?;
        self.control.as_mut().map_or(Ok(()), RequestThread::resume)
    }
}
