//! Address range -> device, for port I/O and for memory-mapped I/O.

use std::{
    fmt,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

/// A device whose registers lie on a [bus](crate::bus).
///
/// Called by vCPU threads with the bus's lock for that device held, so an access must be short:
/// configuration only, never packets.
pub trait BusDevice: Send {
    /// The guest reads `data.len()` bytes (1 to 8) at `offset` from the start of the device's range.
    ///
    /// `data` comes zeroed; what a device does not know stays zero.
    fn read(&mut self, offset: u64, data: &mut [u8]);

    /// The guest writes `data` (1 to 8 bytes) at `offset` from the start of the device's range.
    fn write(&mut self, offset: u64, data: &[u8]);
}

/// A device as the bus holds it: one lock each, so that vCPUs wait only for the device they use.
pub type SharedDevice = Arc<Mutex<dyn BusDevice>>;

/// Why a range was not put on a bus.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// the range has no bytes, or its end is past the last address
    #[error("the range of {size:#x} bytes at {base:#x} is empty or wraps around")]
    BadRange {
        /// First address.
        base: u64,
        /// Length in bytes.
        size: u64,
    },
    /// another device has some of these addresses
    #[error("the range of {size:#x} bytes at {base:#x} overlaps the device at {other:#x}")]
    Overlap {
        /// First address of the range refused.
        base: u64,
        /// Length in bytes.
        size: u64,
        /// First address of the device that is there.
        other: u64,
    },
}

struct Entry {
    range: Range<u64>,
    device: SharedDevice,
}

/// One address space's devices, sorted by address and fixed before the vCPUs start.
///
/// Addresses that no device claims behave as on hardware: reads give all ones, writes are lost.
#[derive(Default)]
pub struct Bus {
    entries: Vec<Entry>,
}

impl Bus {
    /// A bus without devices.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives `size` bytes from `base` on to `device`.
    ///
    /// # Errors
    /// The range is empty, wraps around, or overlaps another device's.
    pub fn insert(&mut self, base: u64, size: u64, device: SharedDevice) -> Result<(), BusError> {
        let end = match base.checked_add(size) {
            Some(end) if size > 0 => end,
            _ => return Err(BusError::BadRange { base, size }),
        };
        let at = self.entries.partition_point(|e| e.range.start < base);
        let before = at.checked_sub(1).and_then(|i| self.entries.get(i));
        let overlapping = before
            .filter(|e| e.range.end > base)
            .or_else(|| self.entries.get(at).filter(|e| e.range.start < end));
        if let Some(other) = overlapping {
            let other = other.range.start;
            return Err(BusError::Overlap { base, size, other });
        }
        let range = base..end;
        self.entries.insert(at, Entry { range, device });
        Ok(())
    }

    /// A read of `data.len()` bytes at `address`, which need not be aligned or all inside one
    /// device: what no device answers reads as ones.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        data.fill(0xff);
        let Some((entry, offset, len)) = self.find(address, data.len()) else {
            return;
        };
        if let Some(inside) = data.get_mut(..len) {
            inside.fill(0);
            lock(&entry.device).read(offset, inside);
        }
    }

    /// A write of `data` at `address`; bytes that no device claims are lost.
    pub fn write(&self, address: u64, data: &[u8]) {
        let Some((entry, offset, len)) = self.find(address, data.len()) else {
            return;
        };
        if let Some(inside) = data.get(..len) {
            lock(&entry.device).write(offset, inside);
        }
    }

    /// The device at `address`, the offset in its range, and how many of `len` bytes are inside.
    fn find(&self, address: u64, len: usize) -> Option<(&Entry, u64, usize)> {
        let after = self.entries.partition_point(|e| e.range.start <= address);
        let entry = self.entries.get(after.checked_sub(1)?)?;
        if len == 0 || !entry.range.contains(&address) {
            return None;
        }
        let inside = usize::try_from(entry.range.end - address).unwrap_or(usize::MAX);
        Some((entry, address - entry.range.start, len.min(inside)))
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.entries.iter().map(|e| &e.range))
            .finish()
    }
}

/// A device whose lock was poisoned by a panic still answers: the panic itself ends the VM, and
/// must not take the other vCPU threads with it.
fn lock(device: &SharedDevice) -> std::sync::MutexGuard<'_, dyn BusDevice + 'static> {
    device.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads give `base + offset` of each byte; writes are recorded.
    #[derive(Default)]
    struct Recorder {
        base: u8,
        written: Vec<(u64, Vec<u8>)>,
    }

    impl BusDevice for Recorder {
        fn read(&mut self, offset: u64, data: &mut [u8]) {
            for (byte, i) in data.iter_mut().zip(offset..) {
                *byte = self.base + u8::try_from(i).unwrap();
            }
        }
        fn write(&mut self, offset: u64, data: &[u8]) {
            self.written.push((offset, data.to_vec()));
        }
    }

    fn recorder(base: u8) -> Arc<Mutex<Recorder>> {
        Arc::new(Mutex::new(Recorder {
            base,
            ..Recorder::default()
        }))
    }

    #[test]
    fn finds_devices_and_leaves_the_rest_to_the_bus() {
        let (low, high) = (recorder(0x10), recorder(0x80));
        let mut bus = Bus::new();
        bus.insert(0x100, 8, high.clone()).unwrap();
        bus.insert(0x20, 4, low.clone()).unwrap();

        let read = |address, len| {
            let mut data = vec![0xaa; len];
            bus.read(address, &mut data);
            data
        };
        assert_eq!(read(0x20, 2), [0x10, 0x11]);
        assert_eq!(read(0x104, 4), [0x84, 0x85, 0x86, 0x87]);
        assert_eq!(read(0x1f, 1), [0xff], "just below");
        assert_eq!(read(0x24, 1), [0xff], "just above");
        assert_eq!(read(u64::MAX, 8), [0xff; 8]);
        assert_eq!(read(0x23, 4), [0x13, 0xff, 0xff, 0xff], "runs past the end");
        assert_eq!(read(0x20, 0), [0u8; 0]);

        bus.write(0x106, &[1, 2, 3, 4]);
        bus.write(0x50, &[9]);
        assert_eq!(high.lock().unwrap().written, [(6, vec![1, 2])]);
        assert!(low.lock().unwrap().written.is_empty());
    }

    #[test]
    fn refuses_overlaps_and_empty_ranges() {
        let mut bus = Bus::new();
        bus.insert(0x100, 0x10, recorder(0)).unwrap();
        for (base, size) in [
            (0x100, 1),
            (0xf8, 9),
            (0x10f, 1),
            (0x80, 0x1000),
            (0x104, 4),
        ] {
            let refused = bus.insert(base, size, recorder(0)).unwrap_err();
            let other = 0x100;
            assert_eq!(refused, BusError::Overlap { base, size, other });
        }
        for (base, size) in [(0x200, 0), (u64::MAX, 2)] {
            let refused = bus.insert(base, size, recorder(0)).unwrap_err();
            assert_eq!(refused, BusError::BadRange { base, size });
        }
        bus.insert(0xf8, 8, recorder(0)).unwrap();
        bus.insert(0x110, 8, recorder(0)).unwrap();
    }

    #[test]
    fn a_poisoned_device_still_answers() {
        let device = recorder(7);
        let poisoner = device.clone();
        std::thread::spawn(move || {
            let _guard = poisoner.lock().unwrap();
            panic!("on purpose");
        })
        .join()
        .unwrap_err();
        let mut bus = Bus::new();
        bus.insert(0, 1, device).unwrap();
        let mut data = [0];
        bus.read(0, &mut data);
        assert_eq!(data, [7]);
    }
}
