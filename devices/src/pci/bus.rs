//! Bus 0: its configuration spaces behind an ECAM window, its BARs inside an aperture.

use std::{
    fmt,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use super::{BarRange, BarRefused, BarSpace, ConfigSpace, Identity, PciFunction, SharedFunction};
use crate::bus::BusDevice;

/// Bytes of the ECAM window: one bus.
pub const ECAM_SIZE: u64 = 1 << 20;
/// Devices on a bus. The host bridge is device 0.
pub const SLOTS: u8 = 32;
/// Alignment of the aperture's start and end.
pub const APERTURE_ALIGN: u64 = 0x1000;

/// Bytes of a function's space in the window, and of a device's (eight functions).
const FUNCTION: u64 = 1 << 12;
const DEVICE: u64 = 1 << 15;

/// The host bridge, as QEMU's generic PCI Express host: operating systems need no driver for it.
const HOST_BRIDGE: Identity = Identity {
    vendor: 0x1b36,
    device: 0x0008,
    revision: 0,
    class: 0x06_0000,
    subsystem_vendor: 0x1af4,
    subsystem: 0x1100,
};

/// Why a bus could not be made, or a function not be plugged in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PciError {
    /// there is no such place on the bus, or it is taken
    #[error("device number {0} of the PCI bus does not exist or is taken: use a free one, 1 to 31")]
    Slot(u8),
    /// the aperture has no bytes or is not made of pages
    #[error("the PCI aperture from {start:#x} to {end:#x} is empty or not made of whole pages")]
    Aperture {
        /// First address.
        start: u64,
        /// First address after it.
        end: u64,
    },
}

#[derive(Debug, Clone, Copy)]
struct Placed {
    start: u64,
    slot: u8,
    bar: BarRange,
}

/// Where BARs are. Apart from the bus, so that a function can hold it and the bus the function.
#[derive(Debug)]
struct Places {
    aperture: Range<u64>,
    placed: Mutex<Vec<Placed>>,
}

/// A bus with a host bridge and up to 31 devices of one function each.
pub struct PciBus {
    host: Mutex<ConfigSpace>,
    slots: RwLock<Vec<Option<SharedFunction>>>,
    places: Arc<Places>,
}

impl PciBus {
    /// A bus whose BARs lie in `aperture` (guest physical addresses without RAM or anything else).
    ///
    /// # Errors
    /// The aperture is empty, or does not consist of whole pages.
    pub fn new(aperture: Range<u64>) -> Result<Arc<Self>, PciError> {
        let Range { start, end } = aperture;
        let pages = |address: u64| address.is_multiple_of(APERTURE_ALIGN);
        if aperture.is_empty() || !pages(start) || !pages(end) {
            return Err(PciError::Aperture { start, end });
        }
        Ok(Arc::new(Self {
            host: Mutex::new(ConfigSpace::new(&HOST_BRIDGE)),
            slots: RwLock::new(vec![None; usize::from(SLOTS)]),
            places: Arc::new(Places {
                aperture,
                placed: Mutex::default(),
            }),
        }))
    }

    /// Plugs a function in as device `slot`, 1 to 31, before the guest runs.
    ///
    /// # Errors
    /// There is no such place, or it is taken.
    pub fn plug(&self, slot: u8, function: SharedFunction) -> Result<(), PciError> {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        let place = slots.get_mut(usize::from(slot));
        match place.filter(|place| place.is_none() && slot > 0) {
            Some(place) => *place = Some(function),
            None => return Err(PciError::Slot(slot)),
        }
        Ok(())
    }

    /// The address space for the BARs of the function in `slot`: inside the aperture, each apart
    /// from the others.
    pub fn bar_space(&self, slot: u8) -> Box<dyn BarSpace> {
        Box::new(SlotSpace {
            places: Arc::clone(&self.places),
            slot,
        })
    }

    /// A read at guest physical `address`; `false` if no BAR answers there. Never holds a lock of the
    /// bus while the function works, so vCPUs wait only for the function that they use.
    pub fn read(&self, address: u64, data: &mut [u8]) -> bool {
        self.with_bar(address, |function, bar, offset| {
            function.read_bar(bar, offset, data);
        })
    }

    /// A write at guest physical `address`; `false` if no BAR answers there.
    pub fn write(&self, address: u64, data: &[u8]) -> bool {
        self.with_bar(address, |function, bar, offset| {
            function.write_bar(bar, offset, data);
        })
    }

    fn with_bar(&self, address: u64, access: impl FnOnce(&mut dyn PciFunction, u8, u64)) -> bool {
        let covers = |placed: &&Placed| {
            let offset = address.checked_sub(placed.start);
            offset.is_some_and(|offset| offset < placed.bar.size)
        };
        let found = lock(&self.places.placed).iter().find(covers).copied();
        let Some(placed) = found else { return false };
        let Some(function) = self.function(placed.slot) else {
            return false;
        };
        let mut function = function.lock().unwrap_or_else(PoisonError::into_inner);
        access(&mut *function, placed.bar.index, address - placed.start);
        true
    }

    fn function(&self, slot: u8) -> Option<SharedFunction> {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        slots.get(usize::from(slot)).cloned().flatten()
    }
}

impl Places {
    fn relocate(
        &self,
        slot: u8,
        bar: BarRange,
        from: Option<u64>,
        to: Option<u64>,
    ) -> Result<(), BarRefused> {
        let mut placed = lock(&self.placed);
        let same = |other: &Placed| {
            other.slot == slot && other.bar.index == bar.index && Some(other.start) == from
        };
        if let Some(address) = to {
            let size = bar.size;
            let end = address.checked_add(size);
            let inside = end.is_some_and(|end| end <= self.aperture.end);
            if !inside || address < self.aperture.start {
                return Err(BarRefused::Outside { address, size });
            }
            // No overflow: both lie in the aperture.
            let overlaps = |o: &&Placed| o.start < address + size && address < o.start + o.bar.size;
            let other = placed.iter().filter(|other| !same(other)).find(overlaps);
            if let Some(other) = other.map(|other| other.start) {
                return Err(BarRefused::Overlap {
                    address,
                    size,
                    other,
                });
            }
        }
        placed.retain(|other| !same(other));
        placed.extend(to.map(|start| Placed { start, slot, bar }));
        Ok(())
    }
}

impl fmt::Debug for PciBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PciBus")
            .field("places", &self.places)
            .finish_non_exhaustive()
    }
}

struct SlotSpace {
    places: Arc<Places>,
    slot: u8,
}

impl BarSpace for SlotSpace {
    fn relocate(
        &mut self,
        bar: BarRange,
        from: Option<u64>,
        to: Option<u64>,
    ) -> Result<(), BarRefused> {
        self.places.relocate(self.slot, bar, from, to)
    }
}

/// The host bridge has no BARs.
struct NoSpace;

impl BarSpace for NoSpace {
    fn relocate(&mut self, _: BarRange, _: Option<u64>, to: Option<u64>) -> Result<(), BarRefused> {
        to.map_or(Ok(()), |address| Err(BarRefused::Machine { address }))
    }
}

/// The ECAM window: [`ECAM_SIZE`] bytes, 4 KiB a function.
#[derive(Debug)]
pub struct Ecam(pub Arc<PciBus>);

/// Whose configuration space an offset in the window is in.
enum Target {
    Host,
    Function(SharedFunction),
}

impl Ecam {
    fn target(&self, offset: u64) -> Option<(Target, u16)> {
        let register = u16::try_from(offset % FUNCTION).ok()?;
        if offset % DEVICE >= FUNCTION {
            return None;
        }
        let target = match u8::try_from(offset / DEVICE).ok()? {
            0 => Target::Host,
            slot => Target::Function(self.0.function(slot)?),
        };
        Some((target, register))
    }
}

impl BusDevice for Ecam {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        match self.target(offset) {
            // Nobody there: the bus gives ones (PCI 3.0, 6.1).
            None => data.fill(0xff),
            Some((Target::Host, register)) => lock(&self.0.host).read(register, data),
            Some((Target::Function(function), register)) => {
                let mut function = function.lock().unwrap_or_else(PoisonError::into_inner);
                function.read_config(register, data);
            }
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        match self.target(offset) {
            None => {}
            Some((Target::Host, register)) => {
                lock(&self.0.host).write(register, data, &mut NoSpace);
            }
            Some((Target::Function(function), register)) => {
                let mut function = function.lock().unwrap_or_else(PoisonError::into_inner);
                function.write_config(register, data);
            }
        }
    }
}

/// The aperture as one device of a [`Bus`](crate::bus::Bus). That has a lock for all of it; a VMM that
/// wants none calls [`PciBus::read`] and [`PciBus::write`] itself.
#[derive(Debug)]
pub struct Aperture(pub Arc<PciBus>);

impl BusDevice for Aperture {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let address = self.0.places.aperture.start.saturating_add(offset);
        if !self.0.read(address, data) {
            data.fill(0xff);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let address = self.0.places.aperture.start.saturating_add(offset);
        self.0.write(address, data);
    }
}

/// A panic elsewhere ends the VM, and must not take the other vCPU threads with it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
