//! The machine's side of PCI: places for functions, their messages as KVM's GSI routes, and their
//! kicks as ioeventfds that follow the BARs.

mod kicks;
mod routes;

use std::{
    io,
    sync::{Arc, Mutex},
};

use devices::{
    GuestRam,
    pci::{PciBus, PciError},
    virtio::{
        VirtioDevice,
        pci::{BarAddresses, PciMachine, PciTransport},
    },
};
use kvm_ioctls::{Cap, Kvm, VmFd};

use crate::{
    kvm::KvmError,
    x86_64::layout::{IO_APIC_PINS, PCI_APERTURE},
};
use kicks::{Kicks, KicksFollow};
use routes::{MAX_GSIS, Routes};

/// Why there is no PCI bus, or a function is not on it.
#[derive(Debug, thiserror::Error)]
pub enum PciHostError {
    /// a message can't become an interrupt
    #[error(
        "this host's KVM lacks interrupt routing, which the messages of PCI devices need: use --transport mmio"
    )]
    NoRouting,
    /// the bus
    #[error(transparent)]
    Bus(#[from] PciError),
    /// more vectors than GSIs
    #[error(
        "the PCI devices want more than the {} interrupt vectors that KVM can route, one for each queue: give the network cards fewer queues", MAX_GSIS - IO_APIC_PINS
    )]
    TooManyVectors,
    /// more or larger BARs than there is room for
    #[error("the PCI devices want more address space than there is ({:#x} bytes): give fewer devices", PCI_APERTURE.end - PCI_APERTURE.start)]
    NoSpace,
    /// KVM
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// no more eventfds
    #[error("could not create an eventfd for a PCI device's queues and vectors: {0}")]
    EventFd(#[source] io::Error),
}

/// The bus, and what is free on it.
#[derive(Debug)]
pub(crate) struct PciHost {
    vm: Arc<VmFd>,
    bus: Arc<PciBus>,
    routes: Arc<Routes>,
    next_slot: u8,
    next_address: u64,
}

impl PciHost {
    /// An empty bus.
    ///
    /// # Errors
    /// KVM can't route messages.
    pub(crate) fn new(kvm: &Kvm, vm: &Arc<VmFd>) -> Result<Self, PciHostError> {
        if !kvm.check_extension(Cap::IrqRouting) {
            return Err(PciHostError::NoRouting);
        }
        Ok(Self {
            vm: Arc::clone(vm),
            bus: PciBus::new(PCI_APERTURE)?,
            routes: Arc::new(Routes::new(Arc::clone(vm))),
            next_slot: 1,
            next_address: PCI_APERTURE.start,
        })
    }

    /// For the address spaces.
    pub(crate) fn bus(&self) -> &Arc<PciBus> {
        &self.bus
    }

    /// Puts `device` into the next slot.
    ///
    /// # Errors
    /// No slot, no room for its BARs or vectors, or KVM refuses.
    pub(crate) fn plug(
        &mut self,
        ram: &GuestRam,
        device: Box<dyn VirtioDevice>,
    ) -> Result<Arc<Mutex<PciTransport>>, PciHostError> {
        let queues = device.queue_max_sizes().len();
        let slot = self.next_slot;
        let vectors = PciTransport::vector_count(queues);
        let (messages, first_gsi) = Routes::reserve(&self.routes, vectors)?;
        let kicks = Arc::new(Kicks::default());
        let machine = PciMachine {
            bars: BarAddresses {
                registers: self.place(PciTransport::register_bar_size(queues))?,
                msix: self.place(PciTransport::msix_bar_size(queues))?,
            },
            space: Box::new(KicksFollow::new(
                self.bus.bar_space(slot),
                Arc::clone(&self.vm),
                Arc::clone(&kicks),
            )),
            msi: Box::new(messages),
        };
        let transport =
            PciTransport::new(ram.clone(), device, machine).map_err(PciHostError::EventFd)?;
        kicks.set(transport.queue_kicks());
        for (gsi, event) in (first_gsi..).zip(transport.vectors().events()) {
            self.vm
                .register_irqfd(event, gsi)
                .map_err(KvmError::call("attach an interrupt message to an eventfd"))?;
        }
        let transport = Arc::new(Mutex::new(transport));
        self.bus.plug(slot, transport.clone())?;
        self.next_slot += 1;
        Ok(transport)
    }

    /// The next address for a BAR of `size` bytes, a power of two.
    fn place(&mut self, size: u64) -> Result<u64, PciHostError> {
        let address = self.next_address.next_multiple_of(size);
        let end = address + size;
        if end > PCI_APERTURE.end {
            return Err(PciHostError::NoSpace);
        }
        self.next_address = end;
        Ok(address)
    }
}
