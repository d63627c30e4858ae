//! How the guest finds its virtio devices.

use std::fmt;

use devices::pci::SLOTS;

use super::VmConfig;
use crate::{cmdline::acpi_is_off, x86_64::layout::MAX_VIRTIO_DEVICES};

/// How the guest finds a virtio device, and how the device interrupts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A PCI function (virtio 1.2, 4.1): found by ACPI's MCFG, an MSI-X message for each queue.
    Pci,
    /// A register window (virtio 1.2, 4.2): found by ACPI or the kernel command line, one interrupt
    /// line for the whole device, which the driver must ask for the reason.
    Mmio,
}

impl Transport {
    /// Most devices that a machine can have on it.
    pub const fn room(self) -> usize {
        match self {
            // The host bridge has the first slot.
            Self::Pci => SLOTS as usize - 1,
            Self::Mmio => MAX_VIRTIO_DEVICES,
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pci => "pci",
            Self::Mmio => "mmio",
        })
    }
}

/// Why devices can't be on their transports.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// PCI can't be found without ACPI
    #[error(
        "{what} is asked for, but the kernel command line has acpi=off, and a guest finds PCI by ACPI: leave one of them out, or use mmio"
    )]
    PciWithoutAcpi {
        /// The option.
        what: String,
    },
    /// more devices than the machine has places for
    #[error(
        "{count} virtio devices on {transport} are more than the {} that the machine has room for", transport.room()
    )]
    TooMany {
        /// What was asked for; one of them may be the entropy device, which is always there.
        count: usize,
        /// Where.
        transport: Transport,
    },
}

impl VmConfig {
    /// The transport of each virtio device, in the order in which the guest finds them: entropy, disks,
    /// network cards.
    pub fn transports(&self) -> Vec<Transport> {
        let own = self.netdevs.iter().map(|netdev| netdev.transport);
        let others = std::iter::repeat_n(None, 1 + self.disks.len());
        let all = others.chain(own);
        all.map(|own| own.unwrap_or(self.usual_transport()))
            .collect()
    }

    /// That of devices for which nothing else is said.
    fn usual_transport(&self) -> Transport {
        let possible = if acpi_is_off(&self.cmdline) {
            Transport::Mmio
        } else {
            Transport::Pci
        };
        self.transport.unwrap_or(possible)
    }

    pub(super) fn check_transports(&self) -> Result<(), TransportError> {
        if acpi_is_off(&self.cmdline) {
            let pci = Some(Transport::Pci);
            let mut netdevs = self.netdevs.iter();
            let card = netdevs.find(|netdev| netdev.transport == pci);
            let what = if self.transport == pci {
                Some("--transport pci".to_owned())
            } else {
                card.map(|netdev| format!("virtio-net-pci for netdev '{}'", netdev.id))
            };
            if let Some(what) = what {
                return Err(TransportError::PciWithoutAcpi { what });
            }
        }
        let transports = self.transports();
        for transport in [Transport::Pci, Transport::Mmio] {
            let count = transports.iter().filter(|&&t| t == transport).count();
            if count > transport.room() {
                return Err(TransportError::TooMany { count, transport });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DiskConfig, NetdevConfig};

    fn config() -> VmConfig {
        let mut config = VmConfig::new("vmlinuz");
        config.disks.push(DiskConfig {
            path: "a".into(),
            readonly: false,
            serial: None,
        });
        for id in ["net0", "net1"] {
            config.netdevs.push(NetdevConfig::new(id, id));
        }
        config
    }

    #[test]
    fn pci_unless_there_is_no_acpi_or_something_else_is_said() {
        use Transport::{Mmio, Pci};
        let mut config = config();
        assert_eq!(config.transports(), [Pci; 4]);
        config.netdevs[0].transport = Some(Mmio);
        assert_eq!(config.transports(), [Pci, Pci, Mmio, Pci]);
        config.transport = Some(Mmio);
        config.netdevs[1].transport = Some(Pci);
        assert_eq!(config.transports(), [Mmio, Mmio, Mmio, Pci]);
        config.transport = None;
        config.netdevs[1].transport = None;
        config.cmdline = "acpi=off".to_owned();
        assert_eq!(config.transports(), [Mmio; 4]);
        config.check_transports().unwrap();
    }

    #[test]
    fn pci_needs_acpi() {
        let refused = |change: fn(&mut VmConfig)| {
            let mut config = config();
            change(&mut config);
            config.check_transports().unwrap();
            config.cmdline = "quiet acpi=off".to_owned();
            config.check_transports().unwrap_err().to_string()
        };
        let sentence = refused(|config| config.transport = Some(Transport::Pci));
        assert!(
            sentence.starts_with("--transport pci is asked for, but the kernel command line has")
        );
        let sentence = refused(|config| config.netdevs[1].transport = Some(Transport::Pci));
        assert!(sentence.starts_with("virtio-net-pci for netdev 'net1' is asked for"));
    }

    #[test]
    fn the_machine_has_room_for_some_devices() {
        for (transport, sentence) in [
            (None, "32 virtio devices on pci are more than the 31"),
            (
                Some(Transport::Mmio),
                "18 virtio devices on mmio are more than the 17",
            ),
        ] {
            let mut config = VmConfig::new("vmlinuz");
            config.transport = transport;
            let room = transport.unwrap_or(Transport::Pci).room();
            for i in 1..room {
                let netdev = NetdevConfig::new(format!("n{i}"), format!("eth{i}"));
                config.netdevs.push(netdev);
            }
            config.check_transports().unwrap();
            config.netdevs.push(NetdevConfig::new("more", "more"));
            let refused = config.check_transports().unwrap_err().to_string();
            assert!(refused.starts_with(sentence), "{refused}");
        }
    }
}
