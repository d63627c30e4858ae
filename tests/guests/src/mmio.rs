#![expect(unsafe_code, reason = "device registers")]
//! Virtio over MMIO from the driver's side (virtio 1.2, 4.2): interface version 2.

use core::ptr::with_exposed_provenance_mut;

/// Register offsets (4.2.2).
pub mod register {
    /// "virt".
    pub const MAGIC: u64 = 0x00;
    /// 2.
    pub const VERSION: u64 = 0x04;
    /// 1 is a network card.
    pub const DEVICE_ID: u64 = 0x08;
    /// 32 bits of what the device offers ...
    pub const DEVICE_FEATURES: u64 = 0x10;
    /// ... which.
    pub const DEVICE_FEATURES_SEL: u64 = 0x14;
    /// 32 bits of what the driver takes ...
    pub const DRIVER_FEATURES: u64 = 0x20;
    /// ... which.
    pub const DRIVER_FEATURES_SEL: u64 = 0x24;
    /// Which queue the next registers are of.
    pub const QUEUE_SEL: u64 = 0x30;
    /// Its largest size.
    pub const QUEUE_NUM_MAX: u64 = 0x34;
    /// Its size.
    pub const QUEUE_NUM: u64 = 0x38;
    /// 1: it may be used.
    pub const QUEUE_READY: u64 = 0x44;
    /// A queue's index: it has something new.
    pub const QUEUE_NOTIFY: u64 = 0x50;
    /// Device status.
    pub const STATUS: u64 = 0x70;
    /// Descriptor table, low half; the high half follows, as with the next two.
    pub const QUEUE_DESC: u64 = 0x80;
    /// Available ring.
    pub const QUEUE_DRIVER: u64 = 0x90;
    /// Used ring.
    pub const QUEUE_DEVICE: u64 = 0xa0;
    /// 1: resets the queue.
    pub const QUEUE_RESET: u64 = 0xc0;
    /// Device-specific configuration.
    pub const CONFIG: u64 = 0x100;
}

/// Bits of the device status (2.1).
pub mod status {
    /// We have seen the device.
    pub const ACKNOWLEDGE: u32 = 1;
    /// We can drive it.
    pub const DRIVER: u32 = 2;
    /// We drive it.
    pub const DRIVER_OK: u32 = 4;
    /// The features are agreed upon.
    pub const FEATURES_OK: u32 = 8;
    /// The device gave up on us.
    pub const NEEDS_RESET: u32 = 64;
}

const MAGIC: u32 = 0x7472_6976;
const VERSION: u32 = 2;

/// The registers of one device.
#[derive(Debug, Clone, Copy)]
pub struct Registers {
    base: u64,
}

impl Registers {
    /// The registers at `base`, if they are virtio's.
    #[must_use]
    pub fn at(base: u64) -> Option<Self> {
        let registers = Self { base };
        let known = [register::MAGIC, register::VERSION].map(|it| registers.read(it));
        (known == [MAGIC, VERSION]).then_some(registers)
    }

    /// Reads a register.
    #[must_use]
    pub fn read(&self, offset: u64) -> u32 {
        // SAFETY: an address of a device, where the VMM said that it is: no memory of ours.
        unsafe { self.pointer::<u32>(offset).read_volatile() }
    }

    /// Writes a register.
    pub fn write(&self, offset: u64, value: u32) {
        // SAFETY: as in `read`.
        unsafe { self.pointer::<u32>(offset).write_volatile(value) }
    }

    /// Where they are in the address space.
    #[must_use]
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Reads a byte of the configuration.
    #[must_use]
    pub fn config(&self, offset: u64) -> u8 {
        // SAFETY: as in `read`.
        unsafe {
            self.pointer::<u8>(register::CONFIG + offset)
                .read_volatile()
        }
    }

    /// Writes the halves of an address.
    pub fn write_address(&self, offset: u64, address: u64) {
        let [a, b, c, d, e, f, g, h] = address.to_le_bytes();
        self.write(offset, u32::from_le_bytes([a, b, c, d]));
        self.write(offset + 4, u32::from_le_bytes([e, f, g, h]));
    }

    /// What the device offers.
    #[must_use]
    pub fn device_features(&self) -> u64 {
        let half = |select| {
            self.write(register::DEVICE_FEATURES_SEL, select);
            u64::from(self.read(register::DEVICE_FEATURES))
        };
        half(0) | half(1) << 32
    }

    /// Takes `features` of them.
    pub fn set_driver_features(&self, features: u64) {
        let [a, b, c, d, e, f, g, h] = features.to_le_bytes();
        for (select, half) in [(0, [a, b, c, d]), (1, [e, f, g, h])] {
            self.write(register::DRIVER_FEATURES_SEL, select);
            self.write(register::DRIVER_FEATURES, u32::from_le_bytes(half));
        }
    }

    fn pointer<T>(&self, offset: u64) -> *mut T {
        // The machine has 64-bit addresses.
        #[expect(clippy::cast_possible_truncation, reason = "usize has 64 bits here")]
        with_exposed_provenance_mut((self.base + offset) as usize)
    }
}
