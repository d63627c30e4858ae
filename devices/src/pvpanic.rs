//! pvpanic: how a guest says that it panicked (QEMU, docs/specs/pvpanic).
//!
//! One I/O port. Reading it tells the events it knows; writing an event's bit reports it. Linux has
//! the driver in `pvpanic-mmio`, bound by the ACPI ID `QEMU0001`.

use std::fmt;

use crate::bus::BusDevice;

/// What the guest reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PanicEvent {
    /// The kernel panicked.
    Panicked,
    /// The kernel crashed and has loaded a crash kernel, which now runs; the guest goes on.
    CrashLoaded,
}

/// The pvpanic port.
pub struct PvPanic {
    on_event: Box<dyn Fn(PanicEvent) + Send>,
}

impl PvPanic {
    /// Size in bytes of the register.
    pub const SIZE: u64 = 1;

    /// PVPANIC_PANICKED.
    const PANICKED: u8 = 1 << 0;
    /// PVPANIC_CRASH_LOADED.
    const CRASH_LOADED: u8 = 1 << 1;

    /// The port; `on_event` hears what is reported, on a vCPU thread.
    pub fn new(on_event: Box<dyn Fn(PanicEvent) + Send>) -> Self {
        Self { on_event }
    }
}

impl BusDevice for PvPanic {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        if let Some(events) = data.first_mut() {
            *events = Self::PANICKED | Self::CRASH_LOADED;
        }
    }

    fn write(&mut self, _offset: u64, data: &[u8]) {
        let events = data.first().copied().unwrap_or_default();
        // A guest that sets both has a crash kernel: as in QEMU, the panic counts.
        if events & Self::PANICKED != 0 {
            (self.on_event)(PanicEvent::Panicked);
        } else if events & Self::CRASH_LOADED != 0 {
            (self.on_event)(PanicEvent::CrashLoaded);
        }
    }
}

impl fmt::Debug for PvPanic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PvPanic")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn reports_what_the_guest_writes() {
        let (tx, events) = channel();
        let mut port = PvPanic::new(Box::new(move |event| tx.send(event).unwrap()));
        let mut offered = [0];
        port.read(0, &mut offered);
        assert_eq!(offered, [3]);
        port.write(0, &[0]);
        port.write(0, &[0xfc]);
        assert!(events.try_recv().is_err());
        port.write(0, &[2]);
        assert_eq!(events.try_recv(), Ok(PanicEvent::CrashLoaded));
        port.write(0, &[3]);
        assert_eq!(events.try_recv(), Ok(PanicEvent::Panicked));
    }
}
