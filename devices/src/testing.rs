//! A guest's virtio driver, for tests: real rings in real guest memory, behind the registers of a
//! real transport, MMIO or PCI, without a VM and without privileges.
//!
//! It can be as wrong as a driver can be: every register takes any value, every ring field can be
//! written raw ([`DriverQueue`]). It panics when *it* is misused, or when what it waits for does not
//! come: that is the test's failure. Never used by a VMM.

mod face;
pub mod frames;
mod pci;
mod queue;
pub mod tunnels;

use std::{
    fs::File,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustix::fs::{MemfdFlags, memfd_create};
use vm_memory::{Bytes, FileOffset, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use crate::{
    GuestRam,
    virtio::{
        VirtioDevice,
        mmio::{MmioTransport, QUEUE_NOTIFY},
        queue::EVENT_IDX,
    },
};

pub use face::Face;
use face::{Reasons, Registers};
pub use pci::{APERTURE, PciGuest, Route, SLOT, bus_master};
pub use queue::{Buffer, Descriptor, DriverQueue, Used};

/// Bytes of each of the two regions of guest RAM.
const REGION: usize = 16 << 20;
/// Guest RAM ends its first region here, and the second one follows without a gap: buffers across
/// this address are valid.
pub const SEAM: u64 = REGION as u64;
/// First address behind the second region.
pub const RAM_END: u64 = 2 * SEAM;
/// An address in the hole behind RAM.
pub const HOLE: u64 = 0x8000_0000;

/// Device status bits (virtio 1.2, 2.1).
pub mod status {
    /// The guest noticed the device.
    pub const ACKNOWLEDGE: u32 = 1;
    /// The guest has a driver for it.
    pub const DRIVER: u32 = 2;
    /// The driver is ready.
    pub const DRIVER_OK: u32 = 4;
    /// Negotiation is complete.
    pub const FEATURES_OK: u32 = 8;
    /// The device is broken until reset.
    pub const NEEDS_RESET: u32 = 64;
    /// The driver gave up.
    pub const FAILED: u32 = 128;
}

/// MMIO register offsets that tests use by name (virtio 1.2, 4.2.2). On PCI the driver uses the
/// field of the same meaning.
pub mod register {
    pub use crate::virtio::mmio::QUEUE_NOTIFY;
    /// DeviceID.
    pub const DEVICE_ID: u64 = 0x08;
    /// DeviceFeatures.
    pub const DEVICE_FEATURES: u64 = 0x10;
    /// DeviceFeaturesSel.
    pub const DEVICE_FEATURES_SEL: u64 = 0x14;
    /// DriverFeatures.
    pub const DRIVER_FEATURES: u64 = 0x20;
    /// DriverFeaturesSel.
    pub const DRIVER_FEATURES_SEL: u64 = 0x24;
    /// QueueSel.
    pub const QUEUE_SEL: u64 = 0x30;
    /// QueueNumMax.
    pub const QUEUE_NUM_MAX: u64 = 0x34;
    /// QueueNum.
    pub const QUEUE_NUM: u64 = 0x38;
    /// QueueReady.
    pub const QUEUE_READY: u64 = 0x44;
    /// InterruptStatus.
    pub const INTERRUPT_STATUS: u64 = 0x60;
    /// InterruptACK.
    pub const INTERRUPT_ACK: u64 = 0x64;
    /// Status.
    pub const STATUS: u64 = 0x70;
    /// QueueDescLow; the high half follows, as with the next two.
    pub const QUEUE_DESC: u64 = 0x80;
    /// QueueDriverLow.
    pub const QUEUE_DRIVER: u64 = 0x90;
    /// QueueDeviceLow.
    pub const QUEUE_DEVICE: u64 = 0xa0;
    /// QueueReset.
    pub const QUEUE_RESET: u64 = 0xc0;
    /// ConfigGeneration.
    pub const CONFIG_GENERATION: u64 = 0xfc;
    /// Start of the configuration space.
    pub const CONFIG: u64 = 0x100;
}

/// How long a test waits before it calls something lost. Never how long something may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `probe` gives something.
///
/// # Panics
/// It never does; `what` names it.
pub fn wait_for<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    // Most things are there at once, given the processor; sleeping for each would take minutes.
    for _ in 0..200 {
        if let Some(found) = probe() {
            return found;
        }
        thread::yield_now();
    }
    let start = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// The memory of a test's guest: two regions of one memfd, as a VMM's.
pub fn ram() -> GuestRam {
    let file = memfd_create("guest-ram", MemfdFlags::CLOEXEC).expect("a memfd");
    rustix::fs::ftruncate(&file, RAM_END).expect("a memfd of that size");
    let file = Arc::new(File::from(file));
    let region = |start| {
        let place = FileOffset::from_arc(Arc::clone(&file), start);
        (GuestAddress(start), REGION, Some(place))
    };
    GuestRam::from_ranges_with_files([region(0), region(SEAM)]).expect("guest memory")
}

/// A driver and its device.
#[derive(Debug)]
pub struct TestDriver {
    ram: GuestRam,
    registers: Registers,
    features: u64,
    /// Next free guest physical address.
    free: u64,
}

impl TestDriver {
    /// Plugs `device` into a machine of 32 MiB, with MMIO registers.
    pub fn new(device: impl VirtioDevice + 'static) -> Self {
        Self::on(Face::Mmio, device)
    }

    /// Plugs `device` into a machine of 32 MiB, with the registers of either transport.
    pub fn on(face: Face, device: impl VirtioDevice + 'static) -> Self {
        Self::in_ram(face, ram(), device)
    }

    /// The same in guest memory that was made by [`ram`], for a device that has to know it before.
    pub fn in_ram(face: Face, ram: GuestRam, device: impl VirtioDevice + 'static) -> Self {
        let registers = Registers::new(face, ram.clone(), Box::new(device));
        Self {
            ram,
            registers,
            features: 0,
            free: 0x1000,
        }
    }

    /// The guest's memory.
    pub fn ram(&self) -> &GuestRam {
        &self.ram
    }

    /// The device's MMIO window.
    ///
    /// # Panics
    /// It is on PCI.
    pub fn mmio(&mut self) -> &mut MmioTransport {
        match &mut self.registers {
            Registers::Mmio { transport, .. } => transport,
            Registers::Pci(_) => panic!("no MMIO window on PCI"),
        }
    }

    /// The device's PCI function.
    ///
    /// # Panics
    /// It is not on PCI.
    pub fn pci(&mut self) -> &mut PciGuest {
        match &mut self.registers {
            Registers::Pci(pci) => pci,
            Registers::Mmio { .. } => panic!("no PCI function"),
        }
    }

    /// Resets the device as the VMM does at its end, not the driver.
    pub fn reset_by_vmm(&mut self) {
        match &mut self.registers {
            Registers::Mmio { transport, .. } => transport.reset(),
            Registers::Pci(pci) => pci.reset(),
        }
    }

    /// Reads a register.
    pub fn read(&mut self, offset: u64) -> u32 {
        self.registers.read(offset)
    }

    /// Writes a register.
    pub fn write(&mut self, offset: u64, value: u32) {
        self.registers.write(offset, value);
    }

    /// Reads `N` bytes of the configuration space in one access.
    pub fn config<const N: usize>(&mut self, offset: u64) -> [u8; N] {
        let mut data = [0; N];
        self.registers.device_config(offset, &mut data);
        data
    }

    /// The device status.
    pub fn status(&mut self) -> u32 {
        self.read(register::STATUS)
    }

    /// Sets `bits` in the device status, keeping the others.
    pub fn add_status(&mut self, bits: u32) {
        let status = self.status();
        self.write(register::STATUS, status | bits);
    }

    /// All features that the device offers.
    pub fn offered(&mut self) -> u64 {
        let mut word = |select| {
            self.write(register::DEVICE_FEATURES_SEL, select);
            u64::from(self.read(register::DEVICE_FEATURES))
        };
        word(0) | word(1) << 32
    }

    /// From reset to FEATURES_OK (3.1.1, steps 1 to 6); whether the device agreed.
    pub fn negotiate(&mut self, features: u64) -> bool {
        self.write(register::STATUS, 0);
        assert_eq!(self.status(), 0, "reset is complete");
        self.free = 0x1000;
        while self.interrupted() {}
        self.registers.bind_config();
        self.add_status(status::ACKNOWLEDGE);
        self.add_status(status::DRIVER);
        self.accept(features);
        self.add_status(status::FEATURES_OK);
        self.status() & status::FEATURES_OK != 0
    }

    /// Writes the features that the driver accepts.
    pub fn accept(&mut self, features: u64) {
        self.features = features;
        for (select, word) in [(0, features & 0xffff_ffff), (1, features >> 32)] {
            self.write(register::DRIVER_FEATURES_SEL, select);
            let word = u32::try_from(word).expect("32 bits");
            self.write(register::DRIVER_FEATURES, word);
        }
    }

    /// Guest memory that nothing else uses, zeroed, `align` a power of two.
    pub fn allocate(&mut self, len: usize, align: u64) -> u64 {
        let address = self.free.next_multiple_of(align);
        self.free = address + len as u64;
        assert!(self.free <= SEAM, "the test's memory is used up");
        self.write_memory(address, &vec![0; len]);
        address
    }

    /// Writes guest memory.
    pub fn write_memory(&self, address: u64, bytes: &[u8]) {
        let written = self.ram.write_slice(bytes, GuestAddress(address));
        written.expect("an address in RAM");
    }

    /// Reads guest memory.
    pub fn read_memory(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let read = self.ram.read_slice(&mut bytes, GuestAddress(address));
        read.expect("an address in RAM");
        bytes
    }

    /// Makes rings for queue `index` and enables it.
    pub fn queue(&mut self, index: u16, size: u16) -> DriverQueue {
        let rings = self.rings(index, size);
        self.enable(&rings);
        rings
    }

    /// Makes rings for queue `index` without telling the device of them.
    pub fn rings(&mut self, index: u16, size: u16) -> DriverQueue {
        let entries = usize::from(size);
        let desc = self.allocate(16 * entries, 16);
        let avail = self.allocate(6 + 2 * entries, 2);
        let used = self.allocate(6 + 8 * entries, 4);
        let event_idx = self.features & EVENT_IDX != 0;
        DriverQueue::new(
            self.ram.clone(),
            index,
            size,
            [desc, avail, used],
            event_idx,
        )
    }

    /// Tells the device where a queue's rings are, and enables it.
    pub fn enable(&mut self, queue: &DriverQueue) {
        self.registers.bind_queue(queue.index());
        self.write(register::QUEUE_SEL, u32::from(queue.index()));
        self.write(register::QUEUE_NUM, u32::from(queue.size()));
        let [desc, avail, used] = queue.addresses();
        let registers = [
            register::QUEUE_DESC,
            register::QUEUE_DRIVER,
            register::QUEUE_DEVICE,
        ];
        for (register, address) in registers.into_iter().zip([desc, avail, used]) {
            let low = u32::try_from(address & 0xffff_ffff).expect("32 bits");
            let high = u32::try_from(address >> 32).expect("32 bits");
            self.write(register, low);
            self.write(register + 4, high);
        }
        self.write(register::QUEUE_READY, 1);
    }

    /// Resets a queue and waits until that is done, as 4.1.4.3.2 has it.
    pub fn reset_queue(&mut self, index: u16) {
        self.write(register::QUEUE_SEL, u32::from(index));
        self.write(register::QUEUE_RESET, 1);
        for register in [register::QUEUE_RESET, register::QUEUE_READY] {
            assert_eq!(self.read(register), 0, "queue {index} is reset");
        }
    }

    /// The driver is ready (3.1.1, step 8).
    pub fn start(&mut self) {
        self.add_status(status::DRIVER_OK);
    }

    /// Kicks a queue, whether it wants that or not.
    pub fn kick(&mut self, index: u16) {
        self.write(QUEUE_NOTIFY, u32::from(index));
    }

    /// Kicks a queue if its device asked for it, as real drivers do.
    pub fn kick_if_wanted(&mut self, queue: &mut DriverQueue) {
        if queue.wants_kick() {
            self.kick(queue.index());
        }
    }

    /// Whether an interrupt came since the last time; does not wait.
    pub fn interrupted(&self) -> bool {
        self.registers.take_interrupts().is_some()
    }

    /// Waits for an interrupt, acknowledges it, and returns its reasons (1 = used buffer,
    /// 2 = configuration).
    pub fn wait_interrupt(&mut self) -> u32 {
        let registers = &self.registers;
        match wait_for("an interrupt", || registers.take_interrupts()) {
            Reasons::Known(reasons) => reasons,
            Reasons::Ask => {
                let reasons = self.read(register::INTERRUPT_STATUS);
                self.write(register::INTERRUPT_ACK, reasons);
                reasons
            }
        }
    }

    /// Waits for DEVICE_NEEDS_RESET.
    pub fn wait_needs_reset(&mut self) {
        wait_for("DEVICE_NEEDS_RESET", || {
            (self.status() & status::NEEDS_RESET != 0).then_some(())
        });
    }

    /// The eventfd of a queue's kicks, for a test that kicks from another thread.
    pub fn kick_fd(&self, index: u16) -> Arc<EventFd> {
        let kicks = match &self.registers {
            Registers::Mmio { transport, .. } => transport.queue_kicks().to_vec(),
            Registers::Pci(pci) => pci.kicks(),
        };
        let kick = kicks.get(usize::from(index));
        Arc::clone(kick.expect("a queue of the device"))
    }
}
