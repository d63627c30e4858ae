//! Base address registers (PCI 3.0, 6.2.5): where a function's memory is, sized and moved by the
//! driver, and never where it could hurt.

/// A 64-bit memory BAR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BarRange {
    /// Number of its first register, 0 to 4; the next one is its upper half.
    pub index: u8,
    /// Bytes: a power of two, and the BAR's alignment.
    pub size: u64,
}

/// Why a BAR can't be where the driver wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BarRefused {
    /// the address lies outside of what the bus decodes: on RAM, for example
    #[error("{address:#x} and the {size:#x} bytes after it are not all in the bus's window")]
    Outside {
        /// Where the BAR was to start.
        address: u64,
        /// Its bytes.
        size: u64,
    },
    /// another BAR has some of these addresses
    #[error("the {size:#x} bytes at {address:#x} overlap the BAR at {other:#x}")]
    Overlap {
        /// Where the BAR was to start.
        address: u64,
        /// Its bytes.
        size: u64,
        /// Where the other one starts.
        other: u64,
    },
    /// the machine could not move what belongs to the BAR, an ioeventfd for example
    #[error("the machine could not follow to {address:#x}")]
    Machine {
        /// Where the BAR was to start.
        address: u64,
    },
}

/// The address space that a function's BARs lie in: a VMM's side of moving them.
///
/// Called with the function's lock held, by the thread of the vCPU that wrote the register: it must
/// not call the function.
pub trait BarSpace: Send {
    /// Makes a BAR answer at `to` and no longer at `from`, all or nothing; `None` is nowhere.
    ///
    /// # Errors
    /// It can't lie there, and stays where it is. Going nowhere is never refused.
    fn relocate(
        &mut self,
        bar: BarRange,
        from: Option<u64>,
        to: Option<u64>,
    ) -> Result<(), BarRefused>;
}

/// One BAR: its registers' address bits are in the configuration space, the rest is here.
#[derive(Debug)]
pub(super) struct Bar {
    pub(super) range: BarRange,
    /// The last address that it could have: what a refused one is rolled back to.
    pub(super) good: u64,
    /// Where it answers.
    mapped: Option<u64>,
}

/// What came of looking at a BAR's registers.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// The registers stay as the driver wrote them.
    Kept,
    /// The registers go back to [`Bar::good`], because the address was refused.
    RolledBack(BarRefused),
    /// Not even the last good address is free any more.
    Nowhere(BarRefused),
}

impl Bar {
    pub(super) fn new(range: BarRange) -> Self {
        Self {
            range,
            good: 0,
            mapped: None,
        }
    }

    /// The register's bits that hold the address; the others are fixed.
    pub(super) fn address_mask(&self) -> u64 {
        !(self.range.size - 1)
    }

    /// Whether the driver seems to ask for the size: all ones in either half. A BAR that decodes
    /// stays where it is meanwhile, and I/O that is under way goes on. (A real address can look so,
    /// just below a multiple of 4 GiB; to move a BAR there, decoding must be off, as 6.2.5.1 and the
    /// PCI Firmware Specification want it anyway.)
    fn is_sizing(&self, address: u64) -> bool {
        let mask = self.address_mask();
        let (low, high) = (u64::from(u32::MAX), u64::from(u32::MAX) << 32);
        address & high == high || address & low == mask & low
    }

    /// Does what the registers and Memory Space Enable say, as far as it is allowed.
    pub(super) fn settle(
        &mut self,
        address: u64,
        decode: bool,
        space: &mut dyn BarSpace,
    ) -> Settled {
        if !decode {
            let from = self.mapped.take();
            if from.is_some() {
                // Never refused.
                let _ = space.relocate(self.range, from, None);
            }
            return Settled::Kept;
        }
        let stays = self.mapped == Some(address);
        if stays || self.mapped.is_some() && self.is_sizing(address) {
            return Settled::Kept;
        }
        match self.go(address, space) {
            Ok(()) => Settled::Kept,
            Err(refused) if self.mapped.is_some() => Settled::RolledBack(refused),
            Err(refused) => match self.go(self.good, space) {
                Ok(()) => Settled::RolledBack(refused),
                Err(refused) => Settled::Nowhere(refused),
            },
        }
    }

    fn go(&mut self, to: u64, space: &mut dyn BarSpace) -> Result<(), BarRefused> {
        space.relocate(self.range, self.mapped, Some(to))?;
        self.mapped = Some(to);
        self.good = to;
        Ok(())
    }
}
