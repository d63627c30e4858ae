//! virtio-net towards the driver: features, configuration space, life of the io-threads.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_MAC, VIRTIO_NET_F_MTU, VIRTIO_NET_F_STATUS, VIRTIO_NET_S_LINK_UP,
};

use super::{
    NetBackend, NetControl,
    backend::BackendReport,
    counters::PairCounters,
    shared::{Shared, lock},
    thread::NetThread,
    wire::{ETHERNET_HEADER, MRG_RXBUF},
    worker::WorkerParts,
};
use crate::virtio::{
    ActivateError, Activation, ActiveQueue, VirtioDevice, quiet::Quiet, worker::OnFault,
};

/// Device ID of a network card (section 5).
const NETWORK_CARD: u32 = 1;
const MAC: u64 = 1 << VIRTIO_NET_F_MAC;
const STATUS: u64 = 1 << VIRTIO_NET_F_STATUS;
const MTU: u64 = 1 << VIRTIO_NET_F_MTU;

/// Largest size of each queue in descriptors.
pub const QUEUE_SIZE: u16 = 1024;

/// Smallest MTU that can be announced (5.1.4.1).
const MIN_MTU: u16 = 68;

/// Offsets in struct virtio_net_config (5.1.4).
mod config {
    pub(super) const MAC: usize = 0;
    pub(super) const STATUS: usize = 6;
    pub(super) const MAX_PAIRS: usize = 8;
    pub(super) const MTU: usize = 10;
    pub(super) const LEN: usize = 12;
}

/// What a virtio-net device is to be.
#[derive(Clone)]
pub struct NetConfig {
    /// For log lines and thread names, for example `net0`.
    pub name: String,
    /// The guest's Ethernet address.
    pub mac: [u8; 6],
    /// The link's MTU in bytes (without Ethernet header), if the guest is to be told.
    pub mtu: Option<u16>,
    /// Whether the link is up at the start.
    pub link_up: bool,
    /// Called with a sentence when an io-thread ended by a panic or by a host error that it can't go
    /// on from. The device is dead then; the VM should end rather than live on half.
    pub on_fault: OnFault,
}

impl std::fmt::Debug for NetConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NetConfig")
            .field("name", &self.name)
            .field("mac", &self.mac)
            .field("mtu", &self.mtu)
            .field("link_up", &self.link_up)
            .finish_non_exhaustive()
    }
}

/// Why a virtio-net device can't be as asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NetError {
    /// this version has one queue pair a device
    #[error(
        "a virtio-net device has one queue pair in this version, so it needs one back end, not {0}"
    )]
    Pairs(usize),
    /// an Ethernet address of a host must not be a group address
    #[error("the MAC address {0:02x?} is a group address (its first byte is odd) or all zero")]
    Mac([u8; 6]),
    /// virtio does not allow this MTU
    #[error("the MTU {0} is below the smallest that virtio allows, 68")]
    Mtu(u16),
    /// the guest would be promised frames that the back end can't send
    #[error(
        "the MTU {mtu} needs frames of {} bytes, but the back end can send at most {max_frame}; lower the interface's MTU",
        usize::from(*mtu) + ETHERNET_HEADER
    )]
    Frame {
        /// The MTU asked for.
        mtu: u16,
        /// The longest frame of the back end in bytes.
        max_frame: usize,
    },
}

/// A virtio-net device on back ends of one kind, one a queue pair.
#[derive(Debug)]
pub struct NetDevice<B: NetBackend> {
    shared: Arc<Shared>,
    mac: [u8; 6],
    mtu: Option<u16>,
    pairs: Vec<Pair<B>>,
    queue_sizes: Vec<u16>,
}

/// Where a queue pair's back end is.
#[derive(Debug)]
enum Pair<B> {
    /// Here, because the driver is not.
    Idle(B),
    Running(NetThread<B>),
    /// Lost with a thread that panicked; `on_fault` was called.
    Lost,
}

impl<B: NetBackend> NetDevice<B> {
    /// Makes a device; its threads start when the driver is ready.
    ///
    /// # Errors
    /// The configuration contradicts itself, the back ends, or virtio.
    pub fn new(config: NetConfig, backends: Vec<B>) -> Result<Self, NetError> {
        let [backend] = backends.as_slice() else {
            return Err(NetError::Pairs(backends.len()));
        };
        let max_frame = backend.max_frame();
        if config.mac[0] & 1 != 0 || config.mac == [0; 6] {
            return Err(NetError::Mac(config.mac));
        }
        match config.mtu {
            Some(mtu) if mtu < MIN_MTU => return Err(NetError::Mtu(mtu)),
            Some(mtu) if usize::from(mtu) + ETHERNET_HEADER > max_frame => {
                return Err(NetError::Frame { mtu, max_frame });
            }
            _ => {}
        }
        let shared = Shared {
            name: config.name,
            link_up: AtomicBool::new(config.link_up),
            interrupt: Mutex::new(None),
            counters: backends
                .iter()
                .map(|_| Arc::<PairCounters>::default())
                .collect(),
            reports: Mutex::new(vec![BackendReport::default(); backends.len()]),
            on_fault: config.on_fault,
            fault_lines: Quiet::default(),
            carrier_lines: Quiet::default(),
        };
        Ok(Self {
            shared: Arc::new(shared),
            mac: config.mac,
            mtu: config.mtu,
            queue_sizes: vec![QUEUE_SIZE; 2 * backends.len()],
            pairs: backends.into_iter().map(Pair::Idle).collect(),
        })
    }

    /// A handle for the VMM's control loop, valid as long as it likes.
    pub fn control(&self) -> NetControl {
        NetControl(Arc::clone(&self.shared))
    }

    fn config_space(&self) -> [u8; config::LEN] {
        let mut space = [0; config::LEN];
        let link = u16::from(self.shared.link_up.load(Ordering::Acquire));
        let status = link * LINK_UP;
        let pairs = u16::try_from(self.pairs.len()).unwrap_or(u16::MAX);
        space[config::MAC..config::STATUS].copy_from_slice(&self.mac);
        space[config::STATUS..config::MAX_PAIRS].copy_from_slice(&status.to_le_bytes());
        space[config::MAX_PAIRS..config::MTU].copy_from_slice(&pairs.to_le_bytes());
        space[config::MTU..].copy_from_slice(&self.mtu.unwrap_or(0).to_le_bytes());
        space
    }

    fn start_pair(&mut self, pair: usize, start: PairStart) -> Result<(), ActivateError> {
        let (Some(slot), Some(counters)) =
            (self.pairs.get_mut(pair), self.shared.counters.get(pair))
        else {
            return Ok(());
        };
        let mut backend = match std::mem::replace(slot, Pair::Lost) {
            Pair::Idle(backend) => backend,
            other => {
                *slot = other;
                return Err(ActivateError::Dead);
            }
        };
        // Frames that came before the driver was ready are not for it. Here rather than in the thread,
        // so that the first frame after DRIVER_OK is not among them.
        counters.rx_early.add(backend.discard() as u64);
        let parts = WorkerParts {
            pair,
            backend,
            rx: start.rx,
            tx: start.tx,
            features: start.features,
            interrupt: start.interrupt,
            shared: Arc::clone(&self.shared),
            counters: Arc::clone(counters),
        };
        match NetThread::start(parts) {
            Ok(thread) => *slot = Pair::Running(thread),
            Err((backend, error)) => {
                *slot = Pair::Idle(backend);
                return Err(error);
            }
        }
        Ok(())
    }
}

/// VIRTIO_NET_S_LINK_UP as the 16-bit field has it.
const LINK_UP: u16 = 1;
const _: () = assert!(LINK_UP as u32 == VIRTIO_NET_S_LINK_UP);

struct PairStart {
    rx: ActiveQueue,
    tx: ActiveQueue,
    features: u64,
    interrupt: crate::virtio::interrupt::Interrupt,
}

impl<B: NetBackend> VirtioDevice for NetDevice<B> {
    fn device_id(&self) -> u32 {
        NETWORK_CARD
    }

    fn features(&self) -> u64 {
        MAC | STATUS | MRG_RXBUF | self.mtu.map_or(0, |_| MTU)
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
        *lock(&self.shared.interrupt) = Some(activation.interrupt.clone());
        let mut queues = activation.queues.into_iter();
        for pair in 0..self.pairs.len() {
            // Queues come as receive, transmit, receive, transmit, ... (5.1.2).
            let index = u16::try_from(2 * pair).unwrap_or(u16::MAX);
            let (rx, tx) = (queues.next().flatten(), queues.next().flatten());
            let start = PairStart {
                rx: rx.ok_or(ActivateError::QueueMissing(index))?,
                tx: tx.ok_or(ActivateError::QueueMissing(index + 1))?,
                features: activation.features,
                interrupt: activation.interrupt.clone(),
            };
            self.start_pair(pair, start)?;
        }
        Ok(())
    }

    fn reset(&mut self) {
        *lock(&self.shared.interrupt) = None;
        for slot in &mut self.pairs {
            *slot = match std::mem::replace(slot, Pair::Lost) {
                Pair::Running(thread) => thread.stop().map_or(Pair::Lost, Pair::Idle),
                other => other,
            };
        }
    }
}
