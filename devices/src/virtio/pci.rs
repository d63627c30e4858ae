//! Virtio over PCI (virtio 1.2, section 4.1): the modern interface, registers only.
//!
//! One memory BAR has the four register blocks that capabilities point at; a second one has the
//! MSI-X table. Each queue has a notification address of its own, so that a VMM can bind each to an
//! eventfd without matching what is written.
//!
//! There is no INTx (the interrupt pin reads 0): all systems that know virtio 1.x know MSI-X, and a
//! level-triggered line that devices share costs an exit per interrupt to acknowledge it. A driver
//! that polls can do so with the ISR status instead.

mod capabilities;
mod common;
mod signals;

use std::{fmt, io, sync::Arc};

use vmm_sys_util::eventfd::EventFd;

use super::{
    VirtioDevice,
    interrupt::{Interrupt, InterruptSink},
    state::{DeviceFlags, VirtioCore},
};
use crate::{
    GuestRam,
    pci::{BarSpace, ConfigSpace, Identity, MAX_VECTORS, MsiSink, Msix, PciFunction, Vectors},
};
use capabilities::{Window, add_capabilities};
use common::Selectors;
use signals::Signals;

/// BAR of the registers.
pub const REGISTER_BAR: u8 = 0;
/// BAR of the MSI-X table.
pub const MSIX_BAR: u8 = 2;

/// Red Hat, for virtio devices (4.1.2).
const VENDOR: u16 = 0x1af4;
/// Device IDs are this plus the virtio device ID (4.1.2.1).
const DEVICE_BASE: u16 = 0x1040;
/// 4.1.2.1: a device without the legacy interface has revision 1 or more.
const REVISION: u8 = 1;

/// Where the register blocks are in their BAR, a page each.
mod block {
    pub(super) const COMMON: u64 = 0;
    pub(super) const ISR: u64 = 0x1000;
    pub(super) const DEVICE: u64 = 0x2000;
    pub(super) const NOTIFY: u64 = 0x3000;
    pub(super) const PAGE: u64 = 0x1000;
}

/// Bytes from one queue's notification address to the next one's (`notify_off_multiplier`).
const NOTIFY_STRIDE: u32 = 4;

/// Where firmware, or a VMM in its place, puts a function's BARs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BarAddresses {
    /// The registers: a multiple of [`PciTransport::register_bar_size`].
    pub registers: u64,
    /// The MSI-X table: a multiple of [`PciTransport::msix_bar_size`].
    pub msix: u64,
}

/// What a function needs of its machine.
pub struct PciMachine {
    /// Where the BARs are until the driver moves them.
    pub bars: BarAddresses,
    /// Where they can be moved to.
    pub space: Box<dyn BarSpace>,
    /// What is told of the messages.
    pub msi: Box<dyn MsiSink>,
}

impl fmt::Debug for PciMachine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PciMachine")
            .field("bars", &self.bars)
            .finish_non_exhaustive()
    }
}

/// A virtio device as a PCI function.
pub struct PciTransport {
    core: VirtioCore,
    signals: Arc<Signals>,
    config: ConfigSpace,
    msix: Msix,
    space: Box<dyn BarSpace>,
    selectors: Selectors,
    window: Window,
}

impl PciTransport {
    /// Makes a function of `device`, which decodes no memory before the driver says so.
    ///
    /// # Errors
    /// The system has no more eventfds for queues and vectors.
    ///
    /// # Panics
    /// A BAR's address is not a multiple of its size.
    pub fn new(
        ram: GuestRam,
        device: Box<dyn VirtioDevice>,
        machine: PciMachine,
    ) -> io::Result<Self> {
        let queues = device.queue_max_sizes().len();
        let PciMachine { bars, space, msi } = machine;
        let mut config = ConfigSpace::new(&identity(device.device_id()));
        config.add_bar(
            REGISTER_BAR,
            Self::register_bar_size(queues),
            bars.registers,
        );
        let vectors = Self::vector_count(queues);
        let msix = Msix::new(&mut config, MSIX_BAR, bars.msix, vectors, msi)?;
        let window = add_capabilities(&mut config, notify_len(queues));
        let flags = Arc::new(DeviceFlags::default());
        let vectors = Arc::clone(msix.vectors());
        let signals = Arc::new(Signals::new(Arc::clone(&flags), vectors, queues));
        let sink: Arc<dyn InterruptSink> = Arc::<Signals>::clone(&signals);
        let mut core = VirtioCore::new(ram, device, flags, Interrupt::new(sink))?;
        // Until the driver makes it a bus master.
        core.pause();
        Ok(Self {
            core,
            signals,
            config,
            msix,
            space,
            selectors: Selectors::default(),
            window,
        })
    }

    /// Bytes of the register BAR of a device with so many queues.
    pub fn register_bar_size(queues: usize) -> u64 {
        (block::NOTIFY + notify_len(queues)).next_power_of_two()
    }

    /// Bytes of the MSI-X BAR of a device with so many queues.
    pub fn msix_bar_size(queues: usize) -> u64 {
        Msix::bar_size_for(Self::vector_count(queues))
    }

    /// Vectors of a device with so many queues: one for configuration changes and one a queue.
    pub fn vector_count(queues: usize) -> u16 {
        let count = u16::try_from(queues.saturating_add(1));
        count.unwrap_or(MAX_VECTORS).min(MAX_VECTORS)
    }

    /// Where queue `index` is notified, from the start of the register BAR: the address for its
    /// ioeventfd, at any width and value.
    pub fn notify_offset(index: u16) -> u64 {
        block::NOTIFY + u64::from(NOTIFY_STRIDE) * u64::from(index)
    }

    /// One eventfd a queue. The VMM registers each as an ioeventfd at [`Self::notify_offset`], and
    /// moves it with the BAR; a write that exits to us instead signals the same one.
    pub fn queue_kicks(&self) -> &[Arc<EventFd>] {
        self.core.kicks()
    }

    /// One eventfd a vector, for the VMM to bind to irqfds.
    pub fn vectors(&self) -> &Arc<Vectors> {
        self.msix.vectors()
    }

    /// As if the driver wrote status 0: when it returns, the device's threads are gone and nothing
    /// touches guest memory. BARs and MSI-X belong to the PCI function and stay.
    pub fn reset(&mut self) {
        self.core.reset();
        self.signals.reset();
        self.selectors = Selectors::default();
    }

    /// Bus Master Enable (PCI 3.0, 6.2.2): without it the device rests, and interrupts wait. When the write
    /// that clears it is over, nothing touches guest memory.
    fn obey_bus_master(&mut self) {
        let may = self.config.is_bus_master();
        if !may {
            self.core.pause();
        }
        self.msix.config_written(&self.config);
        if may {
            self.core.resume();
        }
    }

    fn read_registers(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let within = offset % block::PAGE;
        match offset - within {
            block::COMMON => self.read_common(within, data),
            block::ISR => {
                // 4.1.4.5: reading it, and only at its one byte, acknowledges.
                if let Some(byte) = data.first_mut().filter(|_| within == 0) {
                    *byte = self.signals.take_isr();
                }
            }
            block::DEVICE => self.core.read_config(within, data),
            // Notification addresses are written only.
            _ => {}
        }
    }

    fn write_registers(&mut self, offset: u64, data: &[u8]) {
        let within = offset % block::PAGE;
        match offset - within {
            block::COMMON => self.write_common(within, data),
            block::DEVICE => self.core.write_config(within, data),
            block::ISR => {}
            _ => {
                // By the address alone, as an ioeventfd does: what is written is the queue's index
                // again (4.1.5.2).
                let at = offset.saturating_sub(block::NOTIFY);
                let stride = u64::from(NOTIFY_STRIDE);
                if let Ok(queue) = u32::try_from(at / stride)
                    && at.is_multiple_of(stride)
                {
                    self.core.kick(queue);
                }
            }
        }
    }
}

impl PciFunction for PciTransport {
    fn read_config(&mut self, offset: u16, data: &mut [u8]) {
        if self.window.covers(offset, data.len())
            && let Some(access) = self.window.access(&self.config)
        {
            let mut bytes = [0; 4];
            if let Some(bytes) = bytes.get_mut(..access.len) {
                self.read_bar(access.bar, access.offset, bytes);
            }
            self.window.store(&mut self.config, &bytes);
        }
        self.config.read(offset, data);
    }

    fn write_config(&mut self, offset: u16, data: &[u8]) {
        self.config.write(offset, data, &mut *self.space);
        self.obey_bus_master();
        if self.window.covers(offset, data.len())
            && let Some(access) = self.window.access(&self.config)
        {
            let bytes = self.window.load(&self.config);
            let bytes = bytes.get(..access.len).unwrap_or_default();
            self.write_bar(access.bar, access.offset, bytes);
        }
    }

    fn read_bar(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
        match bar {
            REGISTER_BAR => self.read_registers(offset, data),
            MSIX_BAR => self.msix.read(offset, data),
            _ => data.fill(0),
        }
    }

    fn write_bar(&mut self, bar: u8, offset: u64, data: &[u8]) {
        match bar {
            REGISTER_BAR => self.write_registers(offset, data),
            MSIX_BAR => self.msix.write(offset, data),
            _ => {}
        }
    }
}

impl fmt::Debug for PciTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PciTransport")
            .field("core", &self.core)
            .field("msix", &self.msix)
            .finish_non_exhaustive()
    }
}

fn identity(device_id: u32) -> Identity {
    let device = DEVICE_BASE.saturating_add(u16::try_from(device_id).unwrap_or(u16::MAX));
    Identity {
        vendor: VENDOR,
        device,
        revision: REVISION,
        // What it is like; drivers go by the IDs.
        class: match device_id {
            1 => 0x02_0000,
            2 => 0x01_0000,
            _ => 0xff_0000,
        },
        subsystem_vendor: VENDOR,
        // 4.1.2.1: 0x40 or higher.
        subsystem: device,
    }
}

fn notify_len(queues: usize) -> u64 {
    let bytes = queues as u64 * u64::from(NOTIFY_STRIDE);
    bytes.max(1).next_multiple_of(block::PAGE)
}
