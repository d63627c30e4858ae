//! The status machine, feature negotiation and configured queues (virtio 1.2, sections 2.1, 2.2 and
//! 3.1): what all transports share, in the terms of no transport's registers.

mod live;
mod pause;

use std::{
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK,
    VIRTIO_CONFIG_S_FAILED, VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET,
};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::{
    VirtioDevice,
    interrupt::Interrupt,
    queue::{EVENT_IDX, INDIRECT_DESC, QueueState, RING_RESET, RingPart, VERSION_1},
    quiet::Quiet,
};
use crate::GuestRam;
use pause::Late;

const ACKNOWLEDGE: u32 = VIRTIO_CONFIG_S_ACKNOWLEDGE;
const DRIVER: u32 = VIRTIO_CONFIG_S_DRIVER;
const FEATURES_OK: u32 = VIRTIO_CONFIG_S_FEATURES_OK;
const DRIVER_OK: u32 = VIRTIO_CONFIG_S_DRIVER_OK;
const FAILED: u32 = VIRTIO_CONFIG_S_FAILED;
const NEEDS_RESET: u32 = VIRTIO_CONFIG_S_NEEDS_RESET;

/// Each step that the driver reports, and the steps that must come before it (3.1.1).
const STEPS: [(u32, u32); 4] = [
    (ACKNOWLEDGE, 0),
    (DRIVER, ACKNOWLEDGE),
    (FEATURES_OK, ACKNOWLEDGE | DRIVER),
    (DRIVER_OK, ACKNOWLEDGE | DRIVER | FEATURES_OK),
];

/// What a device's threads change of its visible state, through the transport's
/// [`InterruptSink`](super::interrupt::InterruptSink).
#[derive(Debug, Default)]
pub struct DeviceFlags {
    needs_reset: AtomicBool,
    generation: AtomicU32,
}

impl DeviceFlags {
    /// Sets DEVICE_NEEDS_RESET (2.1.2), until the driver resets the device.
    pub fn set_needs_reset(&self) {
        self.needs_reset.store(true, Ordering::Release);
    }

    /// Counts a change of the configuration space (2.5.1), to be called after the change.
    pub fn config_changed(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }
}

/// One half of a 64-bit register that is written as two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    /// Bits 0 to 31.
    Low,
    /// Bits 32 to 63.
    High,
}

/// One device and its configured queues, behind any transport.
///
/// Driver mistakes are ignored where the specification lets them be, and answered by a clear
/// FEATURES_OK or by DEVICE_NEEDS_RESET where it does not.
pub struct VirtioCore {
    device: Box<dyn VirtioDevice>,
    ram: GuestRam,
    flags: Arc<DeviceFlags>,
    interrupt: Interrupt,
    /// The bits that the driver set and that were accepted.
    status: u32,
    driver_features: u64,
    queues: Vec<QueueState>,
    kicks: Vec<Arc<EventFd>>,
    /// The device was given queues that it has not given up yet.
    active: bool,
    /// The device may touch guest memory.
    may_run: bool,
    /// What waits until it may.
    late: Late,
    refusals: Quiet,
}

impl VirtioCore {
    /// Puts a device behind a transport; `interrupt` is the transport's, on the same `flags`.
    ///
    /// # Errors
    /// The system has no more eventfds for the queues' kicks.
    pub fn new(
        ram: GuestRam,
        device: Box<dyn VirtioDevice>,
        flags: Arc<DeviceFlags>,
        interrupt: Interrupt,
    ) -> io::Result<Self> {
        let sizes = device.queue_max_sizes();
        let kick = |_: &u16| EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map(Arc::new);
        let kicks = sizes.iter().map(kick).collect::<io::Result<_>>()?;
        let queues = sizes.iter().copied().map(unconfigured).collect();
        Ok(Self {
            device,
            ram,
            flags,
            interrupt,
            status: 0,
            driver_features: 0,
            queues,
            kicks,
            active: false,
            may_run: true,
            late: Late::default(),
            refusals: Quiet::default(),
        })
    }

    /// Device ID of virtio 1.2, section 5.
    pub fn device_id(&self) -> u32 {
        self.device.device_id()
    }

    /// The device status field (2.1).
    pub fn status(&self) -> u32 {
        let broken = self.flags.needs_reset.load(Ordering::Acquire);
        self.status | if broken { NEEDS_RESET } else { 0 }
    }

    /// The driver writes the device status field.
    ///
    /// Zero resets. Steps that are out of order, taken back, or unknown are ignored.
    pub fn write_status(&mut self, value: u32) {
        if value == 0 {
            return self.reset();
        }
        let takes_back = self.status & !value != 0;
        if takes_back || self.status & FAILED != 0 {
            return;
        }
        self.status |= value & FAILED;
        for (step, before) in STEPS {
            let new = value & step != 0 && self.status & step == 0;
            if !new || self.status & FAILED != 0 {
                continue;
            }
            if self.status & before != before || (step == FEATURES_OK && !self.features_fit()) {
                return;
            }
            self.status |= step;
            if step == DRIVER_OK {
                self.start();
            }
        }
    }

    fn offered(&self) -> u64 {
        self.device.features() | VERSION_1 | EVENT_IDX | INDIRECT_DESC | RING_RESET
    }

    /// 2.2.2: FEATURES_OK only for a subset of the offer that the device can work with.
    fn features_fit(&self) -> bool {
        self.driver_features & !self.offered() == 0
            && self.driver_features & VERSION_1 != 0
            && self.device.check_features(self.driver_features)
    }

    /// Word `select` (32 bits each) of the features offered; zero past the last.
    pub fn device_features(&self, select: u32) -> u32 {
        match select {
            0 => low(self.offered()),
            1 => high(self.offered()),
            _ => 0,
        }
    }

    /// Word `select` of the features that the driver accepted so far; zero past the last.
    pub fn driver_features(&self, select: u32) -> u32 {
        match select {
            0 => low(self.driver_features),
            1 => high(self.driver_features),
            _ => 0,
        }
    }

    /// The driver writes word `select` of the features it accepts. Ignored outside negotiation, and
    /// for words that hold no feature.
    pub fn write_driver_features(&mut self, select: u32, value: u32) {
        let half = match select {
            0 => Half::Low,
            1 => Half::High,
            _ => return,
        };
        if self.status & (DRIVER | FEATURES_OK | FAILED) == DRIVER {
            put(&mut self.driver_features, half, value);
        }
    }

    /// Number of queues.
    pub fn queue_count(&self) -> usize {
        self.queues.len()
    }

    /// The registers of queue `index`; `None` if there is no such queue.
    pub fn queue(&self, index: u32) -> Option<&QueueState> {
        self.queues.get(usize::try_from(index).ok()?)
    }

    /// The same while the driver may configure it: between FEATURES_OK and DRIVER_OK, and with RING_RESET
    /// also later, as long as it is not enabled (2.6.1.2).
    fn configurable(&mut self, index: u32) -> Option<&mut QueueState> {
        let phase = self.status & (FEATURES_OK | DRIVER_OK | FAILED);
        let again = phase == FEATURES_OK | DRIVER_OK && self.driver_features & RING_RESET != 0;
        let queue = self.queues.get_mut(usize::try_from(index).ok()?);
        queue.filter(|queue| phase == FEATURES_OK || again && !queue.ready)
    }

    /// The driver sets a queue's size. Ignored if it is no power of two or above the maximum.
    pub fn write_queue_size(&mut self, index: u32, size: u32) {
        if let Some(queue) = self.configurable(index).filter(|queue| !queue.ready) {
            let fits = |&size: &u16| size.is_power_of_two() && size <= queue.max_size;
            if let Some(size) = u16::try_from(size).ok().filter(fits) {
                queue.size = size;
            }
        }
    }

    /// The driver sets half of the guest physical address of one of a queue's parts.
    pub fn write_queue_address(&mut self, index: u32, part: RingPart, half: Half, value: u32) {
        if let Some(queue) = self.configurable(index).filter(|queue| !queue.ready) {
            let address = match part {
                RingPart::Descriptors => &mut queue.desc_table,
                RingPart::Available => &mut queue.avail_ring,
                RingPart::Used => &mut queue.used_ring,
            };
            put(address, half, value);
        }
    }

    /// The driver enables (or, before DRIVER_OK, disables) a queue.
    pub fn write_queue_ready(&mut self, index: u32, ready: bool) {
        if let Some(queue) = self.configurable(index) {
            queue.ready = ready;
            if ready && self.status & DRIVER_OK != 0 {
                self.enable(index);
            }
        }
    }

    /// Reads the device configuration space. Bytes past its end are zero.
    pub fn read_config(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        self.device.read_config(offset, data);
    }

    /// Writes the device configuration space.
    pub fn write_config(&mut self, offset: u64, data: &[u8]) {
        self.device.write_config(offset, data);
    }

    /// The configuration generation (2.5.1); a transport with fewer bits cuts it off.
    pub fn config_generation(&self) -> u32 {
        self.flags.generation.load(Ordering::Acquire)
    }

    /// One eventfd a queue, for the VMM to bind to the transport's notification address.
    pub fn kicks(&self) -> &[Arc<EventFd>] {
        &self.kicks
    }

    /// A kick of queue `index` that came as a register write. No such queue: ignored.
    pub fn kick(&self, index: u32) {
        let kick = usize::try_from(index).ok().and_then(|i| self.kicks.get(i));
        if let Some(kick) = kick {
            // Fails only when 2^64 - 2 kicks are pending, and then one more says nothing new.
            let _ = kick.write(1);
        }
    }

    /// What status 0 does (2.1, 2.4): stops the device and forgets all that the driver said.
    pub fn reset(&mut self) {
        if std::mem::take(&mut self.active) {
            self.device.reset();
        }
        self.status = 0;
        self.driver_features = 0;
        self.late = Late::default();
        self.flags.needs_reset.store(false, Ordering::Release);
        for queue in &mut self.queues {
            *queue = unconfigured(queue.max_size);
        }
        for kick in &self.kicks {
            // Kicks of the time before mean nothing afterwards; an error is "there were none".
            let _ = kick.read();
        }
    }
}

impl Drop for VirtioCore {
    fn drop(&mut self) {
        self.reset();
    }
}

impl fmt::Debug for VirtioCore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VirtioCore")
            .field("device_id", &self.device_id())
            .field("status", &self.status())
            .field("queues", &self.queues)
            .finish_non_exhaustive()
    }
}

fn unconfigured(max_size: u16) -> QueueState {
    QueueState {
        max_size,
        size: max_size,
        ..QueueState::default()
    }
}

fn put(register: &mut u64, half: Half, value: u32) {
    *register = match half {
        Half::Low => *register & !u64::from(u32::MAX) | u64::from(value),
        Half::High => u64::from(low(*register)) | u64::from(value) << 32,
    };
}

fn low(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

fn high(value: u64) -> u32 {
    low(value >> 32)
}
