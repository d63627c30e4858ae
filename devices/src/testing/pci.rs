//! A machine with a PCI bus, and the part of a driver that finds a device on it.

use std::sync::{Arc, Mutex};

use vmm_sys_util::eventfd::EventFd;

use crate::{
    GuestRam,
    bus::BusDevice,
    pci::{Ecam, MsiMessage, MsiSink, PciBus, PciFunction},
    virtio::{
        VirtioDevice,
        pci::{BarAddresses, PciMachine, PciTransport},
    },
};

/// Where BARs can be: above 4 GiB, so that both halves of a BAR matter.
pub const APERTURE: std::ops::Range<u64> = 0x10_0000_0000..0x10_1000_0000;
/// The device number of the function under test.
pub const SLOT: u8 = 3;
/// Where the registers' BAR and the MSI-X BAR are at first.
const BARS: BarAddresses = BarAddresses {
    registers: 0x10_0010_0000,
    msix: 0x10_0020_0000,
};
/// What a machine has before the VMM of a test says otherwise, for PCI's command register: memory
/// decoding and bus mastering.
const RUNNING: u16 = 0b110;
/// The same without bus mastering.
const DECODING: u16 = 0b010;

/// A call of [`MsiSink::set_route`].
pub type Route = (u16, MsiMessage, bool);

#[derive(Debug, Clone, Default)]
struct Routes(Arc<Mutex<Vec<Route>>>);

impl MsiSink for Routes {
    fn set_route(&mut self, vector: u16, message: MsiMessage, masked: bool) {
        let mut routes = self.0.lock().expect("nobody panicked");
        routes.push((vector, message, masked));
    }
}

/// Sets or clears the Bus Master Enable of the function under test, also from another thread than the
/// driver's; it decodes memory.
pub fn bus_master(bus: &Arc<PciBus>, on: bool) {
    let command = if on { RUNNING } else { DECODING };
    let ecam = u64::from(SLOT) << 15 | 4;
    Ecam(Arc::clone(bus)).write(ecam, &command.to_le_bytes());
}

/// A function found on a bus. All accesses go by configuration space and guest physical addresses,
/// as a guest's do.
#[derive(Debug)]
pub struct PciGuest {
    bus: Arc<PciBus>,
    function: Arc<Mutex<PciTransport>>,
    routes: Routes,
    events: Vec<Arc<EventFd>>,
    /// Address of the common configuration structure.
    pub common: u64,
    /// Address of the ISR status.
    pub isr: u64,
    /// Address of the device configuration structure.
    pub device: u64,
    /// Address of the notification structure.
    pub notify: u64,
    /// Bytes between the notification addresses of two queues.
    pub notify_stride: u64,
    /// Address of the MSI-X table.
    pub table: u64,
    /// Address of the pending bits.
    pub pending: u64,
}

impl PciGuest {
    pub(super) fn new(ram: GuestRam, device: Box<dyn VirtioDevice>) -> Self {
        let bus = PciBus::new(APERTURE).expect("an aperture");
        let routes = Routes::default();
        let machine = PciMachine {
            bars: BARS,
            space: bus.bar_space(SLOT),
            msi: Box::new(routes.clone()),
        };
        let transport = PciTransport::new(ram, device, machine).expect("a transport");
        let events = transport.vectors().events().cloned().collect();
        let function = Arc::new(Mutex::new(transport));
        bus.plug(SLOT, function.clone()).expect("a free slot");
        let mut guest = Self {
            bus,
            function,
            routes,
            events,
            common: 0,
            isr: 0,
            device: 0,
            notify: 0,
            notify_stride: 0,
            table: 0,
            pending: 0,
        };
        guest.bring_up();
        guest
    }

    /// What firmware and an operating system do before a driver starts: BARs in their first places,
    /// decoding on, vectors set up and unmasked.
    pub fn bring_up(&mut self) {
        self.set_config(0x04, &[0, 0]);
        self.set_config(0x10, &BARS.registers.to_le_bytes());
        self.set_config(0x18, &BARS.msix.to_le_bytes());
        self.set_config(0x04, &RUNNING.to_le_bytes());
        self.find_registers();
        self.enable_msix(false, false);
        for vector in 0..self.events.len() as u64 {
            let data = 0x4000 + u32::try_from(vector).expect("few vectors");
            self.set_entry(vector, 0xfee0_0000, data, false);
        }
        self.enable_msix(true, false);
    }

    /// Walks the capabilities (4.1.4), as a driver does at first sight, or after it moved a BAR.
    pub fn find_registers(&mut self) {
        for (at, id) in self.capabilities() {
            let word = |offset: u16| u32::from_le_bytes(self.config(at + offset));
            if id == 0x11 {
                let place = |word: u32| self.bar(word & 7) + u64::from(word & !7);
                (self.table, self.pending) = (place(word(4)), place(word(8)));
                continue;
            }
            let [kind, bar] = self.config(at + 3);
            let address = self.bar(bar.into()) + u64::from(word(8));
            match kind {
                1 => self.common = address,
                2 => (self.notify, self.notify_stride) = (address, word(16).into()),
                3 => self.isr = address,
                4 => self.device = address,
                _ => {}
            }
        }
    }

    /// Offset and ID of each capability, in the list's order.
    pub fn capabilities(&self) -> Vec<(u16, u8)> {
        let mut found = Vec::new();
        let [mut at] = self.config(0x34);
        while at != 0 {
            let [id, next] = self.config(at.into());
            found.push((at.into(), id));
            assert!(found.len() < 48, "a loop of capabilities");
            at = next;
        }
        found
    }

    /// Offset of the MSI-X capability.
    pub fn msix_capability(&self) -> u16 {
        let found = self.capabilities().into_iter().find(|&(_, id)| id == 0x11);
        found.expect("an MSI-X capability").0
    }

    /// The address in BAR `index`.
    pub fn bar(&self, index: u32) -> u64 {
        let offset = u16::try_from(0x10 + 4 * index).expect("a BAR");
        u64::from_le_bytes(self.config(offset)) & !0xf
    }

    /// Reads configuration space of the function.
    pub fn config<const N: usize>(&self, offset: u16) -> [u8; N] {
        let mut data = [0; N];
        let ecam = u64::from(SLOT) << 15 | u64::from(offset);
        Ecam(Arc::clone(&self.bus)).read(ecam, &mut data);
        data
    }

    /// Writes configuration space of the function.
    pub fn set_config(&mut self, offset: u16, data: &[u8]) {
        let ecam = u64::from(SLOT) << 15 | u64::from(offset);
        Ecam(Arc::clone(&self.bus)).write(ecam, data);
    }

    /// Reads at a guest physical address; whether a BAR is there.
    pub fn read(&self, address: u64, data: &mut [u8]) -> bool {
        self.bus.read(address, data)
    }

    /// Writes at a guest physical address; whether a BAR is there.
    pub fn write(&mut self, address: u64, data: &[u8]) -> bool {
        self.bus.write(address, data)
    }

    /// Writes an entry of the MSI-X table as drivers do: masked first, unmasked last.
    pub fn set_entry(&mut self, vector: u64, address: u64, data: u32, masked: bool) {
        let entry = self.table + 16 * vector;
        self.write(entry + 12, &1u32.to_le_bytes());
        self.write(entry, &address.to_le_bytes());
        self.write(entry + 8, &data.to_le_bytes());
        self.write(entry + 12, &u32::from(masked).to_le_bytes());
    }

    /// Masks or unmasks a vector.
    pub fn mask(&mut self, vector: u64, masked: bool) {
        let control = self.table + 16 * vector + 12;
        self.write(control, &u32::from(masked).to_le_bytes());
    }

    /// Whether a vector's pending bit is set.
    pub fn is_pending(&self, vector: u64) -> bool {
        let mut byte = [0];
        self.read(self.pending + vector / 8, &mut byte);
        byte[0] >> (vector % 8) & 1 != 0
    }

    /// Writes MSI-X Message Control.
    pub fn enable_msix(&mut self, enable: bool, function_mask: bool) {
        let control = u16::from(enable) << 15 | u16::from(function_mask) << 14;
        self.set_config(self.msix_capability() + 2, &control.to_le_bytes());
    }

    /// Sets or clears Bus Master Enable.
    pub fn set_bus_master(&mut self, on: bool) {
        bus_master(&self.bus, on);
    }

    /// What the machine was told of messages since the last time.
    pub fn take_routes(&self) -> Vec<Route> {
        std::mem::take(&mut *self.routes.0.lock().expect("nobody panicked"))
    }

    /// Whether `vector` was sent since the last time.
    pub fn take_interrupt(&self, vector: usize) -> bool {
        self.events[vector].read().is_ok()
    }

    /// The bus, for a test that puts more on it.
    pub fn bus(&self) -> &Arc<PciBus> {
        &self.bus
    }

    /// The function itself, past the bus.
    pub fn function(&self) -> &Mutex<impl PciFunction + use<>> {
        &self.function
    }

    pub(super) fn reset(&mut self) {
        self.function.lock().expect("nobody panicked").reset();
    }

    pub(super) fn kicks(&self) -> Vec<Arc<EventFd>> {
        let function = self.function.lock().expect("nobody panicked");
        function.queue_kicks().to_vec()
    }

    pub(super) fn kick(&mut self, queue: u32) {
        let address = self.notify + self.notify_stride * u64::from(queue);
        let index = queue.to_le_bytes();
        self.write(address, &index[..2]);
    }

    pub(super) fn bind_config(&mut self) {
        self.write(self.common + 16, &0u16.to_le_bytes());
    }

    pub(super) fn bind_queue(&mut self, index: u16) {
        self.write(self.common + 22, &index.to_le_bytes());
        self.write(self.common + 26, &(index + 1).to_le_bytes());
    }

    pub(super) fn take_interrupts(&self) -> Option<u32> {
        let mut reasons = 0;
        for vector in 0..self.events.len() {
            if self.take_interrupt(vector) {
                reasons |= if vector == 0 { 2 } else { 1 };
            }
        }
        (reasons != 0).then_some(reasons)
    }
}
