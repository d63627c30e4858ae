//! PCI as far as virtual devices need it: one bus behind an ECAM window, functions with memory BARs
//! and MSI-X (PCI Local Bus Specification 3.0, PCI Express Base Specification 7.2.2 for ECAM).
//!
//! Nothing here knows of KVM. A VMM puts [`Ecam`] and [`Aperture`] where its firmware tables say,
//! implements [`MsiSink`] to route messages, and binds each vector's eventfd
//! ([`Vectors::events`]) to the interrupt controller. A function calls [`BarSpace`] when the driver
//! moves a BAR; [`PciBus::bar_space`] is one that keeps BARs inside the aperture and apart, and a VMM
//! wraps it to move its ioeventfds along.
//!
//! What is not there, because nothing of ours needs it: I/O BARs, INTx, bridges, hot-plug, extended
//! capabilities.
//!
//! While Bus Master Enable is clear (PCI 3.0, 6.2.2) a function must not touch memory, and its messages
//! wait: [`Msix`] sees to the latter, the function itself ([`ConfigSpace::is_bus_master`]) to the former.

mod bars;
mod bus;
mod config;
mod gate;
mod msix;
mod sync;

#[cfg(test)]
mod tests;

pub use bars::{BarRange, BarRefused, BarSpace};
pub use bus::{APERTURE_ALIGN, Aperture, ECAM_SIZE, Ecam, PciBus, PciError, SLOTS};
pub use config::{ConfigSpace, Identity};
pub use msix::{MAX_VECTORS, MsiMessage, MsiSink, Msix, Vectors};

use std::sync::{Arc, Mutex};

/// One function of a PCI device: its configuration space and its BARs.
///
/// Called by vCPU threads, one at a time, so an access must be short.
pub trait PciFunction: Send {
    /// Reads configuration space, 1 to 8 bytes. What is not there reads as zero.
    fn read_config(&mut self, offset: u16, data: &mut [u8]);

    /// Writes configuration space, 1 to 8 bytes. Read-only bits are kept.
    fn write_config(&mut self, offset: u16, data: &[u8]);

    /// Reads memory BAR `bar` (the number of its first register). What is not there reads as zero.
    fn read_bar(&mut self, bar: u8, offset: u64, data: &mut [u8]);

    /// Writes memory BAR `bar`.
    fn write_bar(&mut self, bar: u8, offset: u64, data: &[u8]);
}

/// A function as the bus holds it.
pub type SharedFunction = Arc<Mutex<dyn PciFunction>>;

/// The `N` bytes of a little-endian field that an access has, if it is that wide.
pub(crate) fn exact<const N: usize>(data: &[u8]) -> Option<[u8; N]> {
    data.try_into().ok()
}

/// Puts as much of `value` into `data` as there is room for, and zeros after it.
pub(crate) fn fill(data: &mut [u8], value: &[u8]) {
    let mut value = value.iter();
    for byte in data {
        *byte = value.next().copied().unwrap_or(0);
    }
}
