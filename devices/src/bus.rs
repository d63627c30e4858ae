//! Address range -> device, for port I/O and for memory-mapped I/O.

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
