//! Guest physical addresses to host memory, without a search tree per access.

use std::sync::Arc;

use vm_memory::{
    GuestMemoryBackend, GuestMemoryRegion, MmapRegion, VolatileMemory, VolatileSlice,
    volatile_memory,
};

use super::prefetch::prefetch;
use crate::GuestRam;

/// Guest RAM flattened: a machine has one or two regions, so a scan is the whole search.
#[derive(Debug)]
pub(super) struct GuestMap {
    regions: Box<[Region]>,
}

#[derive(Debug)]
struct Region {
    start: u64,
    len: u64,
    /// Bytes of all regions before this one.
    before: u64,
    mapping: Arc<MmapRegion<()>>,
}

/// A range that was found to lie in one region; valid for the map that made it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    region: usize,
    offset: usize,
    len: usize,
}

impl Place {
    /// Bytes in the range; never zero.
    pub(super) fn len(self) -> usize {
        self.len
    }
}

impl GuestMap {
    pub(super) fn new(ram: &GuestRam) -> Self {
        let mut before = 0;
        let region = |r: &vm_memory::GuestRegionMmap<()>| {
            let region = Region {
                start: r.start_addr().0,
                len: r.len(),
                before,
                mapping: r.get_mmap(),
            };
            before += region.len;
            region
        };
        Self {
            regions: ram.iter().map(region).collect(),
        }
    }

    /// The longest part of `[address, address + len)` from its start that lies in one region.
    /// `None` for no bytes, for a start outside RAM, and for a range past the address space.
    pub(super) fn locate(&self, address: u64, len: usize) -> Option<Place> {
        let want = u64::try_from(len).ok().filter(|&want| want > 0)?;
        address.checked_add(want - 1)?;
        self.regions.iter().enumerate().find_map(|(index, region)| {
            let offset = address
                .checked_sub(region.start)
                .filter(|&offset| offset < region.len)?;
            Some(Place {
                region: index,
                offset: usize::try_from(offset).ok()?,
                len: usize::try_from(want.min(region.len - offset)).ok()?,
            })
        })
    }

    /// The same, only if one region holds the whole range.
    pub(super) fn locate_whole(&self, address: u64, len: usize) -> Option<Place> {
        self.locate(address, len).filter(|place| place.len == len)
    }

    /// The host memory behind a place, from byte `skip` of it.
    ///
    /// Empty if `skip` is past its end. A place is only made by [`locate`](Self::locate), so its
    /// range exists; were it of another map, the result would be empty, never out of bounds.
    pub(super) fn slice(&self, place: Place, skip: usize) -> VolatileSlice<'_> {
        let left = place.len.saturating_sub(skip);
        self.regions
            .get(place.region)
            .and_then(|r| {
                r.mapping
                    .get_slice(place.offset + skip.min(place.len), left)
                    .ok()
            })
            .unwrap_or_else(|| VolatileSlice::from(&mut [][..]))
    }

    /// Fetches what is at `address` into the cache, if that is RAM.
    pub(super) fn prefetch(&self, address: u64) {
        if let Some(place) = self.locate(address, 1) {
            prefetch(&self.slice(place, 0));
        }
    }

    /// Where byte `skip` of a place is if the regions count as one behind the other.
    pub(super) fn linear(&self, place: Place, skip: usize) -> u64 {
        let before = self.regions.get(place.region).map_or(0, |r| r.before);
        before + (place.offset + skip) as u64
    }

    /// Reads a `u64` that the guest may be writing, once: a volatile load is never repeated.
    pub(super) fn read_u64(&self, address: u64) -> Option<u64> {
        if let Some(place) = self.locate_whole(address, 8) {
            let value = self.slice(place, 0).get_ref::<u64>(0).ok()?.load();
            return Some(u64::from_le(value));
        }
        // Only an unaligned indirect table at a region's edge gets here.
        let mut bytes = [0; 8];
        for (byte, position) in bytes.iter_mut().zip(0u64..) {
            let place = self.locate(address.checked_add(position)?, 1)?;
            *byte = self.slice(place, 0).get_ref::<u8>(0).ok()?.load();
        }
        Some(u64::from_le_bytes(bytes))
    }
}

/// One of the three rings: a range whose bounds and host alignment were checked when it was made,
/// so that the accessors below can't fail for offsets inside it.
#[derive(Debug)]
pub(super) struct Ring {
    mapping: Arc<MmapRegion<()>>,
    base: usize,
    len: usize,
}

impl Ring {
    /// `None` if the range is not in one region, or the host address lacks the alignment.
    pub(super) fn new(map: &GuestMap, address: u64, len: usize, align: u64) -> Option<Self> {
        let place = map.locate_whole(address, len)?;
        let region = map.regions.get(place.region)?;
        // Mappings are page aligned, so this says that the host address is aligned as well.
        let aligned = region.start.is_multiple_of(align) && address.is_multiple_of(align);
        aligned.then(|| Self {
            mapping: Arc::clone(&region.mapping),
            base: place.offset,
            len,
        })
    }

    fn slice(&self) -> Result<VolatileSlice<'_>, volatile_memory::Error> {
        self.mapping.get_slice(self.base, self.len)
    }

    fn atomic<T: vm_memory::AtomicInteger>(&self, offset: usize) -> Option<&T> {
        let slice = self
            .mapping
            .get_atomic_ref::<T>(self.base.checked_add(offset)?);
        debug_assert!(slice.is_ok(), "ring access at {offset} of {}", self.len);
        slice.ok().filter(|_| offset < self.len)
    }

    pub(super) fn load_u16(&self, offset: usize, order: std::sync::atomic::Ordering) -> u16 {
        self.atomic::<std::sync::atomic::AtomicU16>(offset)
            .map_or(0, |cell| u16::from_le(cell.load(order)))
    }

    pub(super) fn store_u16(&self, offset: usize, value: u16, order: std::sync::atomic::Ordering) {
        if let Some(cell) = self.atomic::<std::sync::atomic::AtomicU16>(offset) {
            cell.store(value.to_le(), order);
        }
    }

    pub(super) fn store_u32(&self, offset: usize, value: u32) {
        if let Some(cell) = self.atomic::<std::sync::atomic::AtomicU32>(offset) {
            cell.store(value.to_le(), std::sync::atomic::Ordering::Relaxed);
        }
    }

    /// One volatile load: what the guest does to the field afterwards is not seen.
    pub(super) fn read_u64(&self, offset: usize) -> u64 {
        self.slice()
            .and_then(|slice| slice.get_ref::<u64>(offset).map(|cell| cell.load()))
            .map_or(0, u64::from_le)
    }
}
