//! Power-off and reset, as stock kernels ask for them.
//!
//! - [`AcpiPower`]: the sleep control, sleep status and reset registers of hardware-reduced ACPI
//!   (ACPI 6.5, sections 4.8.3.6, 4.8.3.7), three I/O ports that the FADT names.
//! - [`KeyboardReset`]: the 8042's "pulse the reset line" command, for kernels without ACPI.

use std::fmt;

use crate::bus::BusDevice;

/// What the guest asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerEvent {
    /// ACPI S5 (soft off).
    Off,
    /// A reset of the machine.
    Reset,
}

/// Called on a vCPU thread, once a request; must not block.
pub type PowerHandler = Box<dyn Fn(PowerEvent) + Send>;

/// Sleep control, sleep status and reset registers: one byte each.
pub struct AcpiPower {
    on_event: PowerHandler,
}

impl AcpiPower {
    /// Size in bytes of the register block.
    pub const SIZE: u64 = 3;
    /// Offset of the sleep control register.
    pub const SLEEP_CONTROL: u64 = 0;
    /// Offset of the sleep status register.
    pub const SLEEP_STATUS: u64 = 1;
    /// Offset of the reset register.
    pub const RESET: u64 = 2;
    /// What to write to the reset register.
    pub const RESET_VALUE: u8 = 1;
    /// SLP_TYP of S5: what the `_S5` package of the DSDT says.
    pub const S5_SLEEP_TYPE: u8 = 5;

    /// SLP_TYPx, bits 2 to 4 of sleep control.
    const SLEEP_TYPE_SHIFT: u8 = 2;
    const SLEEP_TYPE_MASK: u8 = 7;
    /// SLP_EN of sleep control.
    const SLEEP_ENABLE: u8 = 1 << 5;

    /// The registers; `on_event` hears what they are told.
    pub fn new(on_event: PowerHandler) -> Self {
        Self { on_event }
    }

    fn write_register(&self, register: u64, value: u8) {
        let sleep_type = (value >> Self::SLEEP_TYPE_SHIFT) & Self::SLEEP_TYPE_MASK;
        match register {
            Self::SLEEP_CONTROL
                if value & Self::SLEEP_ENABLE != 0 && sleep_type == Self::S5_SLEEP_TYPE =>
            {
                (self.on_event)(PowerEvent::Off);
            }
            Self::RESET if value == Self::RESET_VALUE => (self.on_event)(PowerEvent::Reset),
            // Other sleep states are not offered, and WAK_STS has nothing to clear.
            _ => {}
        }
    }
}

impl BusDevice for AcpiPower {
    fn read(&mut self, _offset: u64, _data: &mut [u8]) {}

    fn write(&mut self, offset: u64, data: &[u8]) {
        for (&value, i) in data.iter().zip(0u64..) {
            self.write_register(offset.saturating_add(i), value);
        }
    }
}

impl fmt::Debug for AcpiPower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AcpiPower")
    }
}

/// Port 0x64 of a keyboard controller that has no keyboard: only its reset line is there.
///
/// Reads give 0 ("input buffer empty"), so that a kernel that waits for that before the reset
/// command does not wait long.
pub struct KeyboardReset {
    on_event: PowerHandler,
}

impl KeyboardReset {
    /// The command that pulses output bit 0, the reset line.
    const PULSE_RESET: u8 = 0xfe;

    /// The port; `on_event` hears the reset.
    pub fn new(on_event: PowerHandler) -> Self {
        Self { on_event }
    }
}

impl BusDevice for KeyboardReset {
    fn read(&mut self, _offset: u64, _data: &mut [u8]) {}

    fn write(&mut self, offset: u64, data: &[u8]) {
        if offset == 0 && data == [Self::PULSE_RESET] {
            (self.on_event)(PowerEvent::Reset);
        }
    }
}

impl fmt::Debug for KeyboardReset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyboardReset")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    fn handler() -> (PowerHandler, Receiver<PowerEvent>) {
        let (tx, rx) = channel();
        (Box::new(move |event| tx.send(event).unwrap()), rx)
    }

    #[test]
    fn only_s5_with_sleep_enable_powers_off() {
        let (on_event, events) = handler();
        let mut power = AcpiPower::new(on_event);
        for value in 0..=u8::MAX {
            power.write(AcpiPower::SLEEP_CONTROL, &[value]);
            let off = value & 0x20 != 0 && (value >> 2) & 7 == 5;
            assert_eq!(events.try_recv().ok(), off.then_some(PowerEvent::Off));
        }
        power.write(AcpiPower::SLEEP_STATUS, &[0x80]);
        assert!(events.try_recv().is_err());
    }

    #[test]
    fn the_reset_register_takes_its_value_only() {
        let (on_event, events) = handler();
        let mut power = AcpiPower::new(on_event);
        power.write(AcpiPower::RESET, &[0]);
        power.write(AcpiPower::RESET, &[0xff]);
        assert!(events.try_recv().is_err());
        power.write(AcpiPower::RESET, &[AcpiPower::RESET_VALUE]);
        assert_eq!(events.try_recv(), Ok(PowerEvent::Reset));
        let mut status = [0];
        power.read(AcpiPower::SLEEP_STATUS, &mut status);
        assert_eq!(status, [0]);
    }

    #[test]
    fn the_keyboard_controller_resets() {
        let (on_event, events) = handler();
        let mut keyboard = KeyboardReset::new(on_event);
        keyboard.write(0, &[0xd1]);
        keyboard.write(0, &[0xfe, 0]);
        assert!(events.try_recv().is_err());
        keyboard.write(0, &[0xfe]);
        assert_eq!(events.try_recv(), Ok(PowerEvent::Reset));
    }
}
