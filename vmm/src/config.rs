//! What a VM is to be: plain data, and the checks that need no host resources.

use std::{path::PathBuf, thread};

use crate::{
    confine::ConfineConfig,
    memory::{self, MemoryError},
    size::human,
};

mod disk;
mod netdev;
mod pins;
mod transport;

pub use disk::{DiskConfig, DiskError};
pub(crate) use disk::{check_apart, name as disk_name};
pub(crate) use netdev::check as check_netdevs;
pub use netdev::{NetdevConfig, NetdevConfigError, SourceConfig};
pub use pins::{PinConfig, PinError};
pub use transport::{Transport, TransportError};

/// A whole VM. Start from [`VmConfig::new`] and change what you want otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmConfig {
    /// A bzImage, or an ELF file with a PVH entry.
    pub kernel: PathBuf,
    /// The initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// Kernel command line, put after our defaults (see [`crate::cmdline`]).
    pub cmdline: String,
    /// Number of vCPUs: 1 to the number of the host's CPUs.
    pub cpus: u32,
    /// Guest memory in bytes, a multiple of 4096, at least 64 MiB.
    pub memory: u64,
    /// Take it from the huge pages that were set aside on this host, all of it at once.
    pub hugepages: bool,
    /// Where the serial console goes.
    pub serial: SerialConfig,
    /// virtio-blk devices, in the order in which the guest finds them.
    pub disks: Vec<DiskConfig>,
    /// virtio-net devices, in the order in which the guest finds them.
    pub netdevs: Vec<NetdevConfig>,
    /// The transport of all virtio devices that have none of their own; `None`: PCI, or MMIO if the
    /// command line switches off ACPI, without which a guest does not find PCI.
    pub transport: Option<Transport>,
    /// Threads that run on one CPU each. Those that are not here may use all that the thread may which
    /// builds the VM.
    pub pins: Vec<PinConfig>,
    /// Whether, and how, the process is confined before the guest runs: for good, and also the thread that
    /// calls [`Vm::run`](crate::Vm::run). For a process that does nothing else, such as the `ringwire` command.
    pub confine: Option<ConfineConfig>,
}

/// The host's end of the serial console.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SerialConfig {
    /// Standard input and output; raw mode while standard input is a terminal.
    #[default]
    Stdio,
    /// Output is lost, there is no input.
    Null,
    /// Output goes to a file; there is no input.
    File {
        /// The file, which is made or emptied.
        path: PathBuf,
        /// How many bytes a regular file may have. When it would get longer, it is cut to the newer half of
        /// that.
        limit: Option<u64>,
    },
}

/// The limit of a serial console's file in bytes, where none is given.
pub const SERIAL_LIMIT: u64 = 16 << 20;

/// The smallest one in bytes.
pub const MIN_SERIAL_LIMIT: u64 = 64 << 10;

/// Most vCPUs: APIC IDs of 8 bits, the last of which means all.
const MAX_CPUS: u32 = 254;

/// Why a configuration is not one.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// no vCPU at all
    #[error("a guest needs at least one vCPU: give --cpus 1 or more")]
    NoCpus,
    /// more vCPUs than the host has CPUs
    #[error("{cpus} vCPUs are more than this host can run at a time: give --cpus {max} or less")]
    TooManyCpus {
        /// What was asked for.
        cpus: u32,
        /// What is possible.
        max: u32,
    },
    /// guest memory
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// disks
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// a network card
    #[error(transparent)]
    Netdev(#[from] NetdevConfigError),
    /// how the guest is to find its devices
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// memory that frames are sent from in place
    #[error(
        "netdev '{0}': zero-copy-tx=on is not possible with guest memory of huge pages yet: leave it or hugepages=on out"
    )]
    HugePages(String),
    /// too little for the serial console's file
    #[error("a serial console's file of {} is too small: give it at least {}", human(*.0), human(MIN_SERIAL_LIMIT))]
    SerialLimit(u64),
    /// pinned threads
    #[error(transparent)]
    Pin(#[from] PinError),
}

impl VmConfig {
    /// One vCPU, 256 MiB, the console on standard input and output, no disks, no network; not confined.
    pub fn new(kernel: impl Into<PathBuf>) -> Self {
        Self {
            kernel: kernel.into(),
            initrd: None,
            cmdline: String::new(),
            cpus: 1,
            memory: 256 << 20,
            hugepages: false,
            serial: SerialConfig::default(),
            disks: Vec::new(),
            netdevs: Vec::new(),
            transport: None,
            pins: Vec::new(),
            confine: None,
        }
    }

    /// Checks everything that can be checked without touching the host.
    ///
    /// # Errors
    /// The first thing that is not possible.
    pub fn validate(&self) -> Result<(), ConfigError> {
        check_cpus(self.cpus, host_cpus())?;
        memory::check_size(self.memory, memory::host_memory())?;
        if let SerialConfig::File {
            limit: Some(limit), ..
        } = &self.serial
            && *limit < MIN_SERIAL_LIMIT
        {
            return Err(ConfigError::SerialLimit(*limit));
        }
        disk::check_serials(&self.disks)?;
        check_netdevs(&self.netdevs)?;
        if let Some(netdev) = self.netdevs.iter().find(|it| it.zero_copy_tx)
            && self.hugepages
        {
            return Err(ConfigError::HugePages(netdev.id.clone()));
        }
        self.check_transports()?;
        pins::check(self)?;
        Ok(())
    }
}

fn host_cpus() -> u32 {
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(cpus).unwrap_or(u32::MAX)
}

fn check_cpus(cpus: u32, host: u32) -> Result<(), ConfigError> {
    let max = host.min(MAX_CPUS);
    match cpus {
        0 => Err(ConfigError::NoCpus),
        cpus if cpus > max => Err(ConfigError::TooManyCpus { cpus, max }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut VmConfig)) -> String {
        let mut config = VmConfig::new("vmlinuz");
        config.validate().unwrap();
        change(&mut config);
        config.validate().unwrap_err().to_string()
    }

    #[test]
    fn cpus_are_between_one_and_the_hosts() {
        assert!(check_cpus(1, 1).is_ok() && check_cpus(254, 300).is_ok());
        let sentence = |cpus, host| check_cpus(cpus, host).unwrap_err().to_string();
        assert!(sentence(0, 4).contains("at least one vCPU"));
        assert!(sentence(5, 4).contains("give --cpus 4 or less"));
        assert!(sentence(255, 300).contains("give --cpus 254 or less"));
        assert!(refused(|c| c.cpus = 0).contains("at least one"));
        assert!(refused(|c| c.memory = 0).contains("too small"));
        let huge = refused(|c| {
            c.hugepages = true;
            c.netdevs.push(NetdevConfig::new("net0", "eth1"));
            c.netdevs[0].zero_copy_tx = true;
        });
        assert!(huge.starts_with("netdev 'net0': zero-copy-tx=on is not possible with"));
    }
}
