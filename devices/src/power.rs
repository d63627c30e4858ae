//! Power-off and reset, as stock kernels ask for them.
//!
//! - [`AcpiPower`]: ACPI's fixed registers (ACPI 6.5, 4.8.3): the PM1 event and control registers, of which a
//!   guest powers off by the second, and the PM timer. Where QEMU's PC has them.
//! - [`ResetControl`]: the reset control register of a PC's chipset, port 0xcf9, which is also ACPI's.
//! - [`KeyboardReset`]: the 8042's "pulse the reset line" command, for kernels that know neither.

use std::fmt;

use crate::bus::BusDevice;

mod timer;

use timer::PmTimer;

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

/// The PM1 registers and the PM timer. No fixed event ever happens, so nothing raises ACPI's interrupt.
pub struct AcpiPower {
    on_event: PowerHandler,
    /// PM1 enable, which only has to read back.
    enable: [u8; 2],
    /// SLP_TYP and what else the guest wrote to the upper half of PM1 control.
    control: u8,
    timer: PmTimer,
}

impl AcpiPower {
    /// Size in bytes of the register block.
    pub const SIZE: u64 = 12;
    /// Offset of PM1a_EVT_BLK: status and enable register, 4 bytes.
    pub const EVENT: u64 = 0;
    /// Offset of PM1a_CNT_BLK, 2 bytes.
    pub const CONTROL: u64 = 4;
    /// Offset of PM_TMR_BLK, 4 bytes.
    pub const TIMER: u64 = 8;
    /// SLP_TYP of S5: what the `_S5` package of the DSDT says. QEMU's value, which small kernels write
    /// without a look at the tables.
    pub const S5_SLEEP_TYPE: u8 = 0;

    /// SCI_EN, in the lower half of PM1 control: there is no mode but ACPI's.
    const SCI_ENABLE: u8 = 1 << 0;
    /// SLP_TYPx, bits 10 to 12 of PM1 control, as they are in its upper half.
    const SLEEP_TYPE_SHIFT: u8 = 2;
    const SLEEP_TYPE_MASK: u8 = 7;
    /// SLP_EN, bit 13: it reads as zero.
    const SLEEP_ENABLE: u8 = 1 << 5;

    /// The registers; `on_event` hears what they are told.
    pub fn new(on_event: PowerHandler) -> Self {
        Self {
            on_event,
            enable: [0; 2],
            control: 0,
            timer: PmTimer::new(),
        }
    }

    fn write_register(&mut self, register: u64, value: u8) {
        match register {
            // The status register before it has nothing to clear.
            2 => self.enable[0] = value,
            3 => self.enable[1] = value,
            // BM_RLD and GBL_RLS: there is neither bus master nor firmware to tell.
            Self::CONTROL => {}
            5 => self.write_sleep(value),
            _ => {}
        }
    }

    fn write_sleep(&mut self, value: u8) {
        self.control = value & !Self::SLEEP_ENABLE;
        let sleep_type = value >> Self::SLEEP_TYPE_SHIFT & Self::SLEEP_TYPE_MASK;
        // Other sleep states are not offered.
        if value & Self::SLEEP_ENABLE != 0 && sleep_type == Self::S5_SLEEP_TYPE {
            (self.on_event)(PowerEvent::Off);
        }
    }
}

impl BusDevice for AcpiPower {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let [a, b] = self.enable;
        let [t0, t1, t2, t3] = self.timer.value().to_le_bytes();
        let registers = [
            0,
            0,
            a,
            b,
            Self::SCI_ENABLE,
            self.control,
            0,
            0,
            t0,
            t1,
            t2,
            t3,
        ];
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let registers = registers.get(start..).unwrap_or_default();
        for (byte, register) in data.iter_mut().zip(registers) {
            *byte = *register;
        }
    }

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

/// The reset control register (RST_CNT of Intel's chipsets since the PIIX3).
pub struct ResetControl {
    on_event: PowerHandler,
    value: u8,
}

impl ResetControl {
    /// Size in bytes of the register.
    pub const SIZE: u64 = 1;
    /// What to write to it: a hard reset (SYS_RST), now (RST_CPU).
    pub const RESET_VALUE: u8 = 1 << 1 | Self::RESET_CPU;
    const RESET_CPU: u8 = 1 << 2;

    /// The register; `on_event` hears the reset.
    pub fn new(on_event: PowerHandler) -> Self {
        Self { on_event, value: 0 }
    }
}

impl BusDevice for ResetControl {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        if let Some(byte) = data.first_mut() {
            *byte = self.value;
        }
    }

    fn write(&mut self, _offset: u64, data: &[u8]) {
        let Some(&value) = data.first() else { return };
        self.value = value & !Self::RESET_CPU;
        if value & Self::RESET_CPU != 0 {
            (self.on_event)(PowerEvent::Reset);
        }
    }
}

impl fmt::Debug for ResetControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResetControl")
    }
}

/// Port 0x64 of a keyboard controller that has no keyboard: only its reset line is there.
///
/// Its status always says that the input buffer is empty, so that a kernel that waits for that before the
/// reset command does not wait, and that the output buffer is full. So a kernel that looks for a controller by
/// emptying that (Linux does, without ACPI, which says that there is none) gives up at once, and not after the time that
/// an answer may take.
pub struct KeyboardReset {
    on_event: PowerHandler,
}

impl KeyboardReset {
    /// The command that pulses output bit 0, the reset line.
    const PULSE_RESET: u8 = 0xfe;
    /// The status: OBF, and not IBF.
    const OUTPUT_FULL: u8 = 1 << 0;

    /// The port; `on_event` hears the reset.
    pub fn new(on_event: PowerHandler) -> Self {
        Self { on_event }
    }
}

impl BusDevice for KeyboardReset {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        if let Some(status) = data.first_mut() {
            *status = Self::OUTPUT_FULL;
        }
    }

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
mod tests;
