//! The virtio devices of a machine, entropy, disks, network cards, each on its transport.

use std::sync::{Arc, Mutex};

use devices::{
    pci::{ECAM_SIZE, Ecam},
    virtio::{
        VirtioDevice,
        blk::BlkDevice,
        mmio::{MMIO_WINDOW, MmioTransport, QUEUE_NOTIFY},
        rng::RngDevice,
    },
};
use kvm_ioctls::IoEventAddress;

use super::{BuildError, Machine, system};
use crate::{
    config::{ConfigError, Transport, TransportError, disk_name},
    kvm::KvmError,
    network::{Network, end_vm},
    pci::PciHost,
    vm::Registers,
    x86_64::layout::{PCI_ECAM, virtio_slot},
};

/// What the steps add to a machine.
#[derive(Debug)]
pub(super) struct VirtioDevices {
    /// The transports still to be used, the next device's last.
    plan: Vec<Transport>,
    /// How many windows are taken.
    windows: usize,
    /// The PCI bus, if there is one.
    pci: Option<PciHost>,
    /// Their registers.
    pub(super) transports: Vec<Registers>,
    /// The control loop's part of the network cards.
    pub(super) networks: Vec<Network>,
}

impl Machine<'_> {
    /// All of them. Network cards come last, so that nothing on an interface changes before
    /// everything else was found to be possible.
    pub(super) fn add_virtio_devices(&mut self) -> Result<VirtioDevices, BuildError> {
        let mut devices = self.plan_virtio_devices()?;
        let rng = RngDevice::new()
            .placed(self.placement.clone())
            .on_fault(end_vm(&self.exit));
        self.add_virtio(&mut devices, Box::new(rng))?;
        let config = self.config;
        for (i, disk) in config.disks.iter().enumerate() {
            let mut device = BlkDevice::open(&disk.path, disk.readonly)?
                .named(disk_name(i))
                .placed(self.placement.clone())
                .on_fault(end_vm(&self.exit));
            if let Some(serial) = disk.serial {
                device = device.with_serial(serial);
            }
            self.add_virtio(&mut devices, Box::new(device))?;
        }
        for netdev in &config.netdevs {
            let (network, device) = Network::open(netdev, &self.ram, &self.placement, &self.exit)?;
            self.add_virtio(&mut devices, Box::new(device))?;
            devices.networks.push(network);
        }
        Ok(devices)
    }

    /// A PCI bus if a device will be on it: a guest without one needs not look for devices there.
    fn plan_virtio_devices(&mut self) -> Result<VirtioDevices, BuildError> {
        let mut plan = self.config.transports();
        plan.reverse();
        let pci = if plan.contains(&Transport::Pci) {
            let host = PciHost::new(&self.kvm, &self.vm)?;
            let ecam = Arc::new(Mutex::new(Ecam(Arc::clone(host.bus()))));
            self.buses.mmio.insert(PCI_ECAM, ECAM_SIZE, ecam)?;
            self.buses.pci = Some(Arc::clone(host.bus()));
            Some(host)
        } else {
            None
        };
        Ok(VirtioDevices {
            plan,
            windows: 0,
            pci,
            transports: Vec::new(),
            networks: Vec::new(),
        })
    }

    fn add_virtio(
        &mut self,
        devices: &mut VirtioDevices,
        device: Box<dyn VirtioDevice>,
    ) -> Result<(), BuildError> {
        let registers = match (devices.plan.pop(), &mut devices.pci) {
            (Some(Transport::Pci), Some(pci)) => Registers::Pci(pci.plug(&self.ram, device)?),
            _ => Registers::Mmio(self.add_window(&mut devices.windows, device)?),
        };
        devices.transports.push(registers);
        Ok(())
    }

    /// Gives a device its window, its interrupt line, and a direct way for its kicks.
    fn add_window(
        &mut self,
        taken: &mut usize,
        device: Box<dyn VirtioDevice>,
    ) -> Result<Arc<Mutex<MmioTransport>>, BuildError> {
        let slot = virtio_slot(*taken);
        *taken += 1;
        let (count, transport) = (*taken, Transport::Mmio);
        let slot = slot.ok_or(TransportError::TooMany { count, transport });
        let slot = slot.map_err(ConfigError::from)?;
        let irq = self.interrupt(slot.irq)?;
        let transport = MmioTransport::new(self.ram.clone(), device, irq)
            .map_err(system("create an eventfd"))?;
        let notify = IoEventAddress::Mmio(slot.base + QUEUE_NOTIFY);
        for (queue, kick) in (0u32..).zip(transport.queue_kicks()) {
            self.vm
                .register_ioevent(kick, &notify, queue)
                .map_err(KvmError::call("attach a queue's kicks to an eventfd"))?;
        }
        let transport = Arc::new(Mutex::new(transport));
        self.buses
            .mmio
            .insert(slot.base, MMIO_WINDOW, transport.clone())?;
        Ok(transport)
    }
}
