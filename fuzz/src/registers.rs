//! Scripts of register accesses: virtio over MMIO, and a PCI function with its configuration space and BARs.

use arbitrary::{Arbitrary, Result, Unstructured};
use devices::{
    GuestRam,
    bus::BusDevice,
    pci::PciFunction,
    testing::{Face, PciGuest, TestDriver, ram, register, status},
    virtio::{
        ActivateError, Activation, VirtioDevice,
        queue::{RING_RESET, VERSION_1},
    },
};

/// A device without threads, which checks what its transport promises.
#[derive(Debug)]
struct Probe {
    active: Option<Activation>,
    /// It may not touch memory.
    paused: bool,
    config: [u8; 24],
}

impl VirtioDevice for Probe {
    fn device_id(&self) -> u32 {
        1
    }

    fn features(&self) -> u64 {
        0x3
    }

    fn check_features(&self, features: u64) -> bool {
        features & 3 != 2
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &[256, 16, 1]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = self.config.get(start..).unwrap_or_default();
        for (to, from) in data.iter_mut().zip(rest) {
            *to = *from;
        }
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = self.config.get_mut(start..).unwrap_or_default();
        for (to, from) in rest.iter_mut().zip(data) {
            *to = *from;
        }
    }

    fn activate(&mut self, activation: Activation) -> std::result::Result<(), ActivateError> {
        assert!(self.active.is_none(), "activated twice without a reset");
        assert!(!self.paused, "it may not touch memory");
        assert!(activation.features & VERSION_1 != 0, "a legacy driver");
        assert!(
            self.check_features(activation.features),
            "features that were refused"
        );
        assert_eq!(activation.queues.len(), self.queue_max_sizes().len());
        for (queue, most) in activation.queues.iter().zip(self.queue_max_sizes()) {
            assert!(queue.as_ref().is_none_or(|it| it.queue.size() <= *most));
        }
        self.active = Some(activation);
        Ok(())
    }

    fn reset(&mut self) {
        self.active = None;
        self.paused = false;
    }

    fn pause(&mut self) {
        assert!(self.active.is_some() && !self.paused, "it works");
        self.paused = true;
    }

    fn resume(&mut self) -> std::result::Result<(), ActivateError> {
        assert!(self.active.is_some() && self.paused, "it rests");
        self.paused = false;
        Ok(())
    }

    fn reset_queue(&mut self, index: u16) -> std::result::Result<(), ActivateError> {
        let active = self.active.as_mut().expect("a device at work");
        assert!(active.features & RING_RESET != 0, "it was not negotiated");
        active.queues[usize::from(index)] = None;
        Ok(())
    }

    fn enable_queue(&mut self, activation: Activation) -> std::result::Result<(), ActivateError> {
        let active = self.active.as_mut().expect("a device at work");
        assert!(active.features & RING_RESET != 0, "it was not negotiated");
        assert!(!self.paused, "it may not touch memory");
        assert_eq!(activation.features, active.features);
        let mut enabled = activation.queues.into_iter().flatten();
        if let Some(queue) = enabled.next() {
            let place = &mut active.queues[usize::from(queue.index)];
            assert!(place.is_none(), "it was enabled already");
            *place = Some(queue);
        }
        assert!(enabled.next().is_none(), "more than the one");
        Ok(())
    }
}

#[derive(Debug, Arbitrary)]
enum Step {
    /// A register by its offset, four bytes wide.
    Register {
        at: u8,
        value: Value,
    },
    /// Any access of the registers' window or BAR.
    Access {
        write: bool,
        bar: u8,
        at: u16,
        far: bool,
        width: u8,
        value: Value,
    },
    /// Configuration space of a PCI function.
    Config {
        write: bool,
        at: u8,
        width: u8,
        value: Value,
    },
    /// At a guest physical address that the function decodes, or near it.
    Bus {
        write: bool,
        at: u16,
        bar: bool,
        width: u8,
        value: Value,
    },
    /// What an honest driver does, up to here.
    Negotiate,
    Queue {
        index: u8,
        size: u8,
    },
    Start,
    Reset,
    QueueReset {
        index: u8,
    },
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Value {
    Small(u8),
    Word(u32),
    Wide(u64),
    All,
}

impl Value {
    fn number(self) -> u64 {
        match self {
            Self::Small(value) => value.into(),
            Self::Word(value) => value.into(),
            Self::Wide(value) => value,
            Self::All => u64::MAX,
        }
    }
}

thread_local! {
    static RAM: GuestRam = ram();
}

/// The script on MMIO registers.
pub fn mmio(data: &[u8]) {
    let _ = script(Face::Mmio, &mut Unstructured::new(data));
}

/// The script on a PCI function.
pub fn pci(data: &[u8]) {
    let _ = script(Face::Pci, &mut Unstructured::new(data));
}

fn script(face: Face, u: &mut Unstructured<'_>) -> Result<()> {
    let probe = Probe {
        active: None,
        paused: false,
        config: [7; 24],
    };
    let mut driver = TestDriver::in_ram(face, RAM.with(GuestRam::clone), probe);
    while !u.is_empty() {
        step(face, &mut driver, &Step::arbitrary(u)?);
    }
    // Whatever was done, a driver that starts over finds a working device.
    if face == Face::Pci {
        driver.pci().bring_up();
    }
    assert!(driver.negotiate(VERSION_1));
    driver.queue(0, 16);
    driver.start();
    assert_eq!(
        driver.status() & (status::DRIVER_OK | status::NEEDS_RESET),
        status::DRIVER_OK
    );
    Ok(())
}

fn step(face: Face, driver: &mut TestDriver, step: &Step) {
    match *step {
        Step::Register { at, value } => write_register(face, driver, at.into(), value.number()),
        Step::Access {
            write,
            bar,
            at,
            far,
            width,
            value,
        } => {
            let offset = if far {
                u64::MAX - u64::from(at)
            } else {
                at.into()
            };
            access(face, driver, (write, bar, offset), (width, value));
        }
        Step::Config { .. } | Step::Bus { .. } if face == Face::Mmio => {}
        // There is nothing so far behind: instead, what one write in a thousand would hit.
        Step::Config {
            write: true, at, ..
        } if at >= 0xc0 => {
            driver.pci().set_bus_master(at % 2 == 0);
        }
        Step::Config {
            write,
            at,
            width,
            value,
        } => {
            let bytes = value.number().to_le_bytes();
            if write {
                let width = usize::from(width % 8) + 1;
                driver.pci().set_config(at.into(), &bytes[..width]);
            } else {
                let _ = driver.pci().config::<4>(at.into());
            }
        }
        Step::Bus {
            write,
            at,
            bar,
            width,
            value,
        } => bus(driver.pci(), write, at, bar, (width, value)),
        Step::Negotiate if face == Face::Mmio => {
            driver.negotiate(VERSION_1 | RING_RESET | 1);
        }
        Step::Negotiate => {
            driver.pci().bring_up();
            driver.negotiate(VERSION_1 | RING_RESET | 1);
        }
        Step::Queue { index, size } => {
            let queue = driver.rings((index % 4).into(), 1 << (size % 5));
            driver.enable(&queue);
        }
        Step::Start => driver.start(),
        Step::Reset => driver.reset_by_vmm(),
        Step::QueueReset { index } => {
            driver.write(register::QUEUE_SEL, u32::from(index % 4));
            driver.write(register::QUEUE_RESET, 1);
            assert_eq!(driver.read(register::QUEUE_RESET), 0, "it is over");
        }
    }
}

/// Writes one of the transport's registers.
fn write_register(face: Face, driver: &mut TestDriver, at: u64, value: u64) {
    let bytes = value.to_le_bytes();
    if face == Face::Mmio {
        driver.mmio().write(at & !3, &bytes[..4]);
        return;
    }
    let common = driver.pci().common;
    let width = match at % 3 {
        0 => 1,
        1 => 2,
        _ => 4,
    };
    driver.pci().write(common + (at & 0x3f), &bytes[..width]);
}

fn access(
    face: Face,
    driver: &mut TestDriver,
    (write, bar, offset): (bool, u8, u64),
    (width, value): (u8, Value),
) {
    let mut bytes = value.number().to_le_bytes();
    let data = &mut bytes[..usize::from(width % 8) + 1];
    if face == Face::Mmio {
        let offset = offset & 0xfff;
        if write {
            driver.mmio().write(offset, data);
        } else {
            driver.mmio().read(offset, data);
        }
        return;
    }
    let mut function = driver.pci().function().lock().expect("nobody panicked");
    if write {
        function.write_bar(bar % 6, offset, data);
    } else {
        function.read_bar(bar % 6, offset, data);
    }
}

fn bus(pci: &mut PciGuest, write: bool, at: u16, second: bool, (width, value): (u8, Value)) {
    let mut bytes = value.number().to_le_bytes();
    let data = &mut bytes[..usize::from(width % 8) + 1];
    let address = pci.bar(if second { 2 } else { 0 }).wrapping_add(at.into());
    if write {
        pci.write(address, data);
    } else {
        pci.read(address, data);
    }
}
