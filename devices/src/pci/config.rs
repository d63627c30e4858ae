//! A function's configuration space: type 0 header, BARs, capabilities (PCI 3.0, chapter 6).

use super::bars::{Bar, BarRange, BarSpace, Settled};
use crate::virtio::quiet::Quiet;

/// Bytes of the space that a function without extended capabilities has.
const LEN: usize = 256;

/// Offsets in the type 0 header (6.1).
mod offset {
    pub(super) const VENDOR: usize = 0x00;
    pub(super) const DEVICE: usize = 0x02;
    pub(super) const COMMAND: usize = 0x04;
    pub(super) const STATUS: usize = 0x06;
    pub(super) const REVISION: usize = 0x08;
    /// Three bytes: programming interface, subclass, class.
    pub(super) const CLASS: usize = 0x09;
    pub(super) const CACHE_LINE: usize = 0x0c;
    pub(super) const BARS: usize = 0x10;
    pub(super) const SUBSYSTEM_VENDOR: usize = 0x2c;
    pub(super) const SUBSYSTEM: usize = 0x2e;
    pub(super) const CAPABILITIES: usize = 0x34;
    pub(super) const INTERRUPT_LINE: usize = 0x3c;
    /// Where capabilities start.
    pub(super) const HEADER_END: usize = 0x40;
}

/// Command: the function answers at its memory BARs.
const MEMORY: u16 = 1 << 1;
/// Command: the function may read and write memory by itself, so also send messages.
const BUS_MASTER: u16 = 1 << 2;
/// Command: no INTx; there is none anyway.
const INTX_DISABLE: u16 = 1 << 10;
/// Status: there is a capability list.
const CAPABILITY_LIST: u8 = 1 << 4;
/// A memory BAR's fixed bits: 64 bits wide, not prefetchable.
const BAR_64: u8 = 0b0100;
/// BAR registers of a type 0 header.
const BAR_REGISTERS: u8 = 6;

/// What a function says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Revision ID.
    pub revision: u8,
    /// Class, subclass and programming interface, in the order of their bits in the register.
    pub class: u32,
    /// Subsystem vendor ID.
    pub subsystem_vendor: u16,
    /// Subsystem ID.
    pub subsystem: u16,
}

/// A configuration space with its BARs.
#[derive(Debug)]
pub struct ConfigSpace {
    bytes: [u8; LEN],
    /// Bits that the driver can write.
    writable: [u8; LEN],
    /// Where the byte is that points at the next capability.
    link: usize,
    /// First byte after the last capability.
    end: usize,
    bars: Vec<Bar>,
    refusals: Quiet,
}

impl ConfigSpace {
    /// A space without BARs and capabilities, which decodes nothing. The interrupt pin reads 0: the
    /// function has no INTx.
    pub fn new(identity: &Identity) -> Self {
        let mut space = Self {
            bytes: [0; LEN],
            writable: [0; LEN],
            link: offset::CAPABILITIES,
            end: offset::HEADER_END,
            bars: Vec::new(),
            refusals: Quiet::default(),
        };
        let [interface, subclass, class, _] = identity.class.to_le_bytes();
        space.put(offset::VENDOR, &identity.vendor.to_le_bytes());
        space.put(offset::DEVICE, &identity.device.to_le_bytes());
        space.put(offset::REVISION, &[identity.revision]);
        space.put(offset::CLASS, &[interface, subclass, class]);
        let vendor = identity.subsystem_vendor.to_le_bytes();
        space.put(offset::SUBSYSTEM_VENDOR, &vendor);
        space.put(offset::SUBSYSTEM, &identity.subsystem.to_le_bytes());
        let command = MEMORY | BUS_MASTER | INTX_DISABLE;
        space.make_writable(offset::COMMAND, &command.to_le_bytes());
        // Scratch for software, without a meaning here.
        space.make_writable(offset::CACHE_LINE, &[0xff]);
        space.make_writable(offset::INTERRUPT_LINE, &[0xff]);
        space
    }

    /// Adds a 64-bit memory BAR in registers `index` and `index + 1`, at `address` until the
    /// driver moves it, as firmware would have left it.
    ///
    /// # Panics
    /// `size` is no power of two from 16 bytes to 2 GiB, `address` not a multiple of it, or a register
    /// is taken or does not exist: a mistake of the device's author.
    pub fn add_bar(&mut self, index: u8, size: u64, address: u64) {
        let fits = size.is_power_of_two() && (16..=1 << 31).contains(&size);
        assert!(fits && address.is_multiple_of(size), "a BAR of {size:#x}");
        let free = |bar: &Bar| bar.range.index.abs_diff(index) > 1;
        let exists = index + 1 < BAR_REGISTERS;
        assert!(exists && self.bars.iter().all(free), "BAR {index}");
        let mut bar = Bar::new(BarRange { index, size });
        bar.good = address;
        let at = bar_offset(index);
        self.make_writable(at, &bar.address_mask().to_le_bytes());
        self.put_bar(at, address);
        self.bars.push(bar);
    }

    /// Appends a capability (6.7) whose bytes after ID and next pointer are `body`; its offset.
    ///
    /// # Panics
    /// The space is full: a mistake of the device's author.
    pub fn add_capability(&mut self, id: u8, body: &[u8]) -> u16 {
        let at = self.end;
        // Capabilities start on double words.
        self.end = (at + 2 + body.len()).next_multiple_of(4);
        assert!(self.end <= LEN, "no room for capability {id:#x}");
        let pointer = u8::try_from(at).expect("below 256");
        self.put(self.link, &[pointer]);
        self.link = at + 1;
        self.put(at, &[id, 0]);
        self.put(at + 2, body);
        self.put(offset::STATUS, &[CAPABILITY_LIST]);
        u16::from(pointer)
    }

    /// Lets the driver write the bits of `mask` from `offset` on.
    pub fn make_writable(&mut self, offset: usize, mask: &[u8]) {
        for (byte, &mask) in self.writable.iter_mut().skip(offset).zip(mask) {
            *byte |= mask;
        }
    }

    /// Sets bytes, also read-only ones: the device's own way. What is past the end is lost.
    pub fn put(&mut self, offset: usize, value: &[u8]) {
        for (byte, &value) in self.bytes.iter_mut().skip(offset).zip(value) {
            *byte = value;
        }
    }

    /// `N` bytes from `offset` on; zeros past the end.
    pub fn get<const N: usize>(&self, offset: u16) -> [u8; N] {
        let mut bytes = [0; N];
        self.read(offset, &mut bytes);
        bytes
    }

    /// Reads, at any width.
    pub fn read(&self, offset: u16, data: &mut [u8]) {
        let bytes = self.bytes.get(usize::from(offset)..);
        super::fill(data, bytes.unwrap_or_default());
    }

    /// Writes, at any width, and moves BARs if that is what it says. A refused move is undone: the
    /// registers read as before.
    pub fn write(&mut self, offset: u16, data: &[u8], space: &mut dyn BarSpace) {
        let at = usize::from(offset);
        let bytes = self.bytes.iter_mut().zip(&self.writable).skip(at);
        for ((byte, &mask), &new) in bytes.zip(data) {
            *byte = *byte & !mask | new & mask;
        }
        let moves = |range: std::ops::Range<usize>| at < range.end && at + data.len() > range.start;
        let bars = offset::BARS..bar_offset(BAR_REGISTERS);
        if moves(offset::COMMAND..offset::STATUS) || moves(bars) {
            self.settle_bars(space);
        }
    }

    /// Whether the function answers at its BARs.
    pub fn decodes_memory(&self) -> bool {
        self.command() & MEMORY != 0
    }

    /// Whether the function may read and write memory, and send messages (6.2.2).
    pub fn is_bus_master(&self) -> bool {
        self.command() & BUS_MASTER != 0
    }

    fn command(&self) -> u16 {
        u16::from_le_bytes(self.get(offset::COMMAND.try_into().unwrap_or(0)))
    }

    fn settle_bars(&mut self, space: &mut dyn BarSpace) {
        let before: Vec<_> = self.bars.iter().map(|bar| bar.good).collect();
        let decode = self.decodes_memory();
        if self.settle_each(decode, space) {
            return;
        }
        // One took the place that another can't do without: all go back to where they were.
        self.settle_each(false, space);
        let mut bars = std::mem::take(&mut self.bars);
        for (bar, good) in bars.iter_mut().zip(before) {
            bar.good = good;
            self.put_bar(bar_offset(bar.range.index), good);
        }
        self.bars = bars;
        if !self.settle_each(true, space) {
            let command = self.command() & !MEMORY;
            self.put(offset::COMMAND, &command.to_le_bytes());
            self.settle_each(false, space);
        }
    }

    /// Moves each BAR to where its registers say, or those back; `false` if one is nowhere now.
    fn settle_each(&mut self, decode: bool, space: &mut dyn BarSpace) -> bool {
        let mut all = true;
        let mut bars = std::mem::take(&mut self.bars);
        for bar in &mut bars {
            let at = bar_offset(bar.range.index);
            let register = u64::from_le_bytes(self.get(at.try_into().unwrap_or(0)));
            let refused = match bar.settle(register & bar.address_mask(), decode, space) {
                Settled::Kept => continue,
                Settled::RolledBack(refused) => refused,
                Settled::Nowhere(refused) => {
                    all = false;
                    refused
                }
            };
            self.put_bar(at, bar.good);
            if let Some(number) = self.refusals.count() {
                let index = bar.range.index;
                tracing::warn!("BAR {index} was not moved (time {number}): {refused}");
            }
        }
        self.bars = bars;
        all
    }

    fn put_bar(&mut self, at: usize, address: u64) {
        let register = address | u64::from(BAR_64);
        self.put(at, &register.to_le_bytes());
    }
}

fn bar_offset(index: u8) -> usize {
    offset::BARS + 4 * usize::from(index)
}
