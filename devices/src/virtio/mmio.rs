//! Virtio over MMIO (virtio 1.2, section 4.2): registers only, interface version 2.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use vmm_sys_util::eventfd::EventFd;

use super::{
    VirtioDevice,
    interrupt::{Interrupt, InterruptSink},
    queue::RingPart,
    state::{DeviceFlags, Half, VirtioCore},
};
use crate::{GuestRam, bus::BusDevice};

/// Bytes of address space that one device takes.
pub const MMIO_WINDOW: u64 = 0x1000;

/// Offset of QueueNotify: the address for each queue's ioeventfd, with the queue's index as the
/// 32-bit value to match.
pub const QUEUE_NOTIFY: u64 = 0x50;

/// Register offsets (4.2.2). All are 32 bits wide and accessed as such.
mod register {
    pub(super) const MAGIC: u64 = 0x00;
    pub(super) const VERSION: u64 = 0x04;
    pub(super) const DEVICE_ID: u64 = 0x08;
    pub(super) const VENDOR_ID: u64 = 0x0c;
    pub(super) const DEVICE_FEATURES: u64 = 0x10;
    pub(super) const DEVICE_FEATURES_SEL: u64 = 0x14;
    pub(super) const DRIVER_FEATURES: u64 = 0x20;
    pub(super) const DRIVER_FEATURES_SEL: u64 = 0x24;
    pub(super) const QUEUE_SEL: u64 = 0x30;
    pub(super) const QUEUE_NUM_MAX: u64 = 0x34;
    pub(super) const QUEUE_NUM: u64 = 0x38;
    pub(super) const QUEUE_READY: u64 = 0x44;
    pub(super) const INTERRUPT_STATUS: u64 = 0x60;
    pub(super) const INTERRUPT_ACK: u64 = 0x64;
    pub(super) const STATUS: u64 = 0x70;
    pub(super) const QUEUE_DESC_LOW: u64 = 0x80;
    pub(super) const QUEUE_DESC_HIGH: u64 = 0x84;
    pub(super) const QUEUE_DRIVER_LOW: u64 = 0x90;
    pub(super) const QUEUE_DRIVER_HIGH: u64 = 0x94;
    pub(super) const QUEUE_DEVICE_LOW: u64 = 0xa0;
    pub(super) const QUEUE_DEVICE_HIGH: u64 = 0xa4;
    pub(super) const SHM_LEN_LOW: u64 = 0xb0;
    pub(super) const SHM_BASE_HIGH: u64 = 0xbc;
    pub(super) const QUEUE_RESET: u64 = 0xc0;
    pub(super) const CONFIG_GENERATION: u64 = 0xfc;
    pub(super) const CONFIG: u64 = 0x100;
}

/// "virt", little endian.
const MAGIC: u32 = 0x7472_6976;
const VERSION: u32 = 2;
/// "RGWR", little endian: informative only.
const VENDOR: u32 = 0x5257_4752;
/// InterruptStatus: a used ring was updated.
const USED_BUFFER: u32 = 1;
/// InterruptStatus: the configuration, or DEVICE_NEEDS_RESET, changed.
const CONFIG_CHANGE: u32 = 2;

/// The one interrupt line of an MMIO device, shared with the device's threads.
#[derive(Debug)]
struct Line {
    flags: Arc<DeviceFlags>,
    /// InterruptStatus: says why, so set before the line is raised.
    reasons: AtomicU32,
    irq: EventFd,
}

impl Line {
    fn raise(&self, reason: u32) {
        self.reasons.fetch_or(reason, Ordering::SeqCst);
        // Can only fail when 2^64 - 2 are pending: then an interrupt is on its way anyhow.
        let _ = self.irq.write(1);
    }
}

impl InterruptSink for Line {
    fn queue(&self, _index: u16) {
        self.raise(USED_BUFFER);
    }

    fn config(&self) {
        self.flags.config_changed();
        self.raise(CONFIG_CHANGE);
    }

    fn needs_reset(&self) {
        self.flags.set_needs_reset();
        self.raise(CONFIG_CHANGE);
    }
}

/// The register window of one device.
#[derive(Debug)]
pub struct MmioTransport {
    core: VirtioCore,
    line: Arc<Line>,
    device_features_sel: u32,
    driver_features_sel: u32,
    queue_sel: u32,
}

impl MmioTransport {
    /// Gives `device` a window. `irq` is written once an interrupt, for an edge-triggered irqfd.
    ///
    /// # Errors
    /// The system has no more eventfds for the queues' kicks.
    pub fn new(ram: GuestRam, device: Box<dyn VirtioDevice>, irq: EventFd) -> io::Result<Self> {
        let flags = Arc::new(DeviceFlags::default());
        let line = Arc::new(Line {
            flags: Arc::clone(&flags),
            reasons: AtomicU32::new(0),
            irq,
        });
        let sink: Arc<dyn InterruptSink> = Arc::<Line>::clone(&line);
        Ok(Self {
            core: VirtioCore::new(ram, device, flags, Interrupt::new(sink))?,
            line,
            device_features_sel: 0,
            driver_features_sel: 0,
            queue_sel: 0,
        })
    }

    /// One eventfd a queue. The VMM registers each as an ioeventfd at [`QUEUE_NOTIFY`] with the
    /// index as its 32-bit datamatch; a write that exits to us instead signals the same one.
    pub fn queue_kicks(&self) -> &[Arc<EventFd>] {
        self.core.kicks()
    }

    /// As if the driver wrote status 0: when it returns, the device's threads are gone and nothing
    /// touches guest memory.
    pub fn reset(&mut self) {
        self.core.reset();
        self.line.reasons.store(0, Ordering::SeqCst);
        self.device_features_sel = 0;
        self.driver_features_sel = 0;
        self.queue_sel = 0;
    }

    fn read_register(&self, offset: u64) -> u32 {
        let queue = self.core.queue(self.queue_sel);
        match offset {
            register::MAGIC => MAGIC,
            register::VERSION => VERSION,
            register::DEVICE_ID => self.core.device_id(),
            register::VENDOR_ID => VENDOR,
            register::DEVICE_FEATURES => self.core.device_features(self.device_features_sel),
            register::QUEUE_NUM_MAX => queue.map_or(0, |queue| u32::from(queue.max_size)),
            register::QUEUE_READY => queue.map_or(0, |queue| u32::from(queue.ready)),
            register::INTERRUPT_STATUS => self.line.reasons.load(Ordering::SeqCst),
            register::STATUS => self.core.status(),
            // There are no shared memory regions: their length and base read as all ones (4.2.2).
            register::SHM_LEN_LOW..=register::SHM_BASE_HIGH => u32::MAX,
            register::CONFIG_GENERATION => self.core.config_generation(),
            // QueueReset among them: a reset is over when the write of it is.
            _ => 0,
        }
    }

    fn write_register(&mut self, offset: u64, value: u32) {
        match offset {
            register::DEVICE_FEATURES_SEL => self.device_features_sel = value,
            register::DRIVER_FEATURES => {
                let select = self.driver_features_sel;
                self.core.write_driver_features(select, value);
            }
            register::DRIVER_FEATURES_SEL => self.driver_features_sel = value,
            register::QUEUE_SEL => self.queue_sel = value,
            register::QUEUE_NUM => self.core.write_queue_size(self.queue_sel, value),
            register::QUEUE_READY => self.core.write_queue_ready(self.queue_sel, value == 1),
            register::QUEUE_RESET if value == 1 => {
                self.core.reset_queue(self.queue_sel);
            }
            QUEUE_NOTIFY => self.core.kick(value),
            register::INTERRUPT_ACK => {
                self.line.reasons.fetch_and(!value, Ordering::SeqCst);
            }
            register::STATUS if value == 0 => self.reset(),
            register::STATUS => self.core.write_status(value),
            _ => {
                if let Some((part, half)) = address_register(offset) {
                    let queue = self.queue_sel;
                    self.core.write_queue_address(queue, part, half, value);
                }
            }
        }
    }
}

fn address_register(offset: u64) -> Option<(RingPart, Half)> {
    Some(match offset {
        register::QUEUE_DESC_LOW => (RingPart::Descriptors, Half::Low),
        register::QUEUE_DESC_HIGH => (RingPart::Descriptors, Half::High),
        register::QUEUE_DRIVER_LOW => (RingPart::Available, Half::Low),
        register::QUEUE_DRIVER_HIGH => (RingPart::Available, Half::High),
        register::QUEUE_DEVICE_LOW => (RingPart::Used, Half::Low),
        register::QUEUE_DEVICE_HIGH => (RingPart::Used, Half::High),
        _ => return None,
    })
}

impl BusDevice for MmioTransport {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if let Some(config) = offset.checked_sub(register::CONFIG) {
            return self.core.read_config(config, data);
        }
        // 4.2.2.2: registers are read 32 bits wide and aligned. Anything else reads as zero.
        data.fill(0);
        let word = <&mut [u8; 4]>::try_from(data).ok();
        if let Some(bytes) = word.filter(|_| offset.is_multiple_of(4)) {
            *bytes = self.read_register(offset).to_le_bytes();
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if let Some(config) = offset.checked_sub(register::CONFIG) {
            return self.core.write_config(config, data);
        }
        let word = <[u8; 4]>::try_from(data).ok();
        if let Some(bytes) = word.filter(|_| offset.is_multiple_of(4)) {
            self.write_register(offset, u32::from_le_bytes(bytes));
        }
    }
}
