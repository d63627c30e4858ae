//! The two faces of a device: its registers as the driver of either transport reaches them.

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{pci::PciGuest, register};
use crate::{
    GuestRam,
    bus::BusDevice,
    virtio::{
        VirtioDevice,
        mmio::{MmioTransport, QUEUE_NOTIFY},
    },
};

/// The transport that a test driver uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Face {
    /// virtio over MMIO (virtio 1.2, 4.2).
    Mmio,
    /// virtio over PCI (4.1), with a vector for each queue and one for the configuration.
    Pci,
}

impl Face {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Mmio, Self::Pci];
}

/// A device behind one of them. Registers go by their MMIO offsets; on PCI each is translated to
/// its field of the same meaning.
#[derive(Debug)]
pub(super) enum Registers {
    Mmio {
        transport: Box<MmioTransport>,
        irq: EventFd,
    },
    Pci(Box<PciGuest>),
}

impl Registers {
    pub(super) fn new(face: Face, ram: GuestRam, device: Box<dyn VirtioDevice>) -> Self {
        match face {
            Face::Mmio => {
                let irq = EventFd::new(EFD_NONBLOCK).expect("an eventfd");
                let line = irq.try_clone().expect("a file descriptor");
                let transport = MmioTransport::new(ram, device, line).expect("a transport");
                let transport = Box::new(transport);
                Self::Mmio { transport, irq }
            }
            Face::Pci => Self::Pci(Box::new(PciGuest::new(ram, device))),
        }
    }

    pub(super) fn read(&mut self, offset: u64) -> u32 {
        let pci = match self {
            Self::Mmio { transport, .. } => {
                let mut data = [0; 4];
                transport.read(offset, &mut data);
                return u32::from_le_bytes(data);
            }
            Self::Pci(pci) => pci,
        };
        if offset == register::DEVICE_ID {
            return u32::from(u16::from_le_bytes(pci.config(2))).wrapping_sub(0x1040);
        }
        let (field, width) = common_field(offset).expect("a register that PCI has too");
        let mut data = [0; 4];
        pci.read(pci.common + field, &mut data[..width]);
        u32::from_le_bytes(data)
    }

    pub(super) fn write(&mut self, offset: u64, value: u32) {
        let pci = match self {
            Self::Mmio { transport, .. } => return transport.write(offset, &value.to_le_bytes()),
            Self::Pci(pci) => pci,
        };
        if offset == QUEUE_NOTIFY {
            return pci.kick(value);
        }
        let (field, width) = common_field(offset).expect("a register that PCI has too");
        let bytes = value.to_le_bytes();
        // What the field can't hold goes out as a word: a driver's mistake, for the device to ignore.
        let fits = bytes[width..].iter().all(|&byte| byte == 0);
        let data = if fits { &bytes[..width] } else { &bytes[..] };
        pci.write(pci.common + field, data);
    }

    pub(super) fn device_config(&mut self, offset: u64, data: &mut [u8]) {
        match self {
            Self::Mmio { transport, .. } => transport.read(register::CONFIG + offset, data),
            Self::Pci(pci) => {
                pci.read(pci.device + offset, data);
            }
        }
    }

    /// Once per reset: which vector tells of configuration changes.
    pub(super) fn bind_config(&mut self) {
        if let Self::Pci(pci) = self {
            pci.bind_config();
        }
    }

    /// Once per reset and queue: which vector tells of its used buffers.
    pub(super) fn bind_queue(&mut self, index: u16) {
        if let Self::Pci(pci) = self {
            pci.bind_queue(index);
        }
    }

    /// Takes the interrupts that came, as their reasons; does not wait.
    pub(super) fn take_interrupts(&self) -> Option<Reasons> {
        match self {
            Self::Mmio { irq, .. } => irq.read().ok().map(|_| Reasons::Ask),
            Self::Pci(pci) => pci.take_interrupts().map(Reasons::Known),
        }
    }
}

/// Why there was an interrupt.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reasons {
    /// InterruptStatus says.
    Ask,
    /// The vectors said: 1 = used buffer, 2 = configuration.
    Known(u32),
}

/// The field of the common configuration that an MMIO register is, and its width (4.1.4.3).
fn common_field(offset: u64) -> Option<(u64, usize)> {
    Some(match offset {
        register::DEVICE_FEATURES_SEL => (0, 4),
        register::DEVICE_FEATURES => (4, 4),
        register::DRIVER_FEATURES_SEL => (8, 4),
        register::DRIVER_FEATURES => (12, 4),
        register::STATUS => (20, 1),
        register::CONFIG_GENERATION => (21, 1),
        register::QUEUE_SEL => (22, 2),
        register::QUEUE_NUM | register::QUEUE_NUM_MAX => (24, 2),
        register::QUEUE_READY => (28, 2),
        register::QUEUE_RESET => (58, 2),
        0x80 | 0x84 => (offset - 0x80 + 32, 4),
        0x90 | 0x94 => (offset - 0x90 + 40, 4),
        0xa0 | 0xa4 => (offset - 0xa0 + 48, 4),
        _ => return None,
    })
}
