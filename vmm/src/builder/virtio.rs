//! The virtio-mmio devices of a machine: entropy, disks, network cards.

use std::sync::{Arc, Mutex};

use devices::virtio::{
    VirtioDevice,
    blk::BlkDevice,
    mmio::{MMIO_WINDOW, MmioTransport, QUEUE_NOTIFY},
    rng::RngDevice,
};
use kvm_ioctls::IoEventAddress;

use super::{BuildError, Machine, system};
use crate::{
    config::ConfigError,
    kvm::KvmError,
    network::{Network, end_vm},
    x86_64::layout::{VirtioSlot, virtio_slot},
};

/// What the steps add to a machine.
#[derive(Debug, Default)]
pub(super) struct VirtioDevices {
    /// Where the devices are, in order.
    pub(super) slots: Vec<VirtioSlot>,
    /// Their registers.
    pub(super) transports: Vec<Arc<Mutex<MmioTransport>>>,
    /// The control loop's part of the network cards.
    pub(super) networks: Vec<Network>,
}

impl Machine<'_> {
    /// All of them. Network cards come last, so that nothing on an interface changes before
    /// everything else was found to be possible.
    pub(super) fn add_virtio_devices(&mut self) -> Result<VirtioDevices, BuildError> {
        let mut devices = VirtioDevices::default();
        let rng = RngDevice::new().on_fault(end_vm(&self.exit));
        self.add_virtio(&mut devices, Box::new(rng))?;
        let config = self.config;
        for (i, disk) in config.disks.iter().enumerate() {
            let disk = BlkDevice::open(&disk.path, disk.readonly)?
                .named(format!("blk{i}"))
                .on_fault(end_vm(&self.exit));
            self.add_virtio(&mut devices, Box::new(disk))?;
        }
        for netdev in &config.netdevs {
            let (network, device) = Network::open(netdev, &self.exit)?;
            self.add_virtio(&mut devices, Box::new(device))?;
            devices.networks.push(network);
        }
        Ok(devices)
    }

    /// Gives a device its window, its interrupt line, and a direct way for its kicks.
    fn add_virtio(
        &mut self,
        devices: &mut VirtioDevices,
        device: Box<dyn VirtioDevice>,
    ) -> Result<(), BuildError> {
        let index = devices.slots.len();
        let slot = virtio_slot(index).ok_or(ConfigError::TooManyDevices { count: index + 1 })?;
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
        devices.slots.push(slot);
        devices.transports.push(transport);
        Ok(())
    }
}
