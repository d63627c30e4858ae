//! What a VM is to be: plain data, and the checks that need no host resources.

use std::{collections::HashSet, path::PathBuf, thread};

use net_afxdp::AttachMode;

use crate::{
    memory::{self, MemoryError},
    x86_64::layout::MAX_VIRTIO_DEVICES,
};

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
    /// Where the serial console goes.
    pub serial: SerialConfig,
    /// virtio-blk devices, in the order in which the guest finds them.
    pub disks: Vec<DiskConfig>,
    /// virtio-net devices, in the order in which the guest finds them.
    pub netdevs: Vec<NetdevConfig>,
}

/// The host's end of the serial console.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SerialConfig {
    /// Standard input and output; raw mode while standard input is a terminal.
    #[default]
    Stdio,
    /// Output is lost, there is no input.
    Null,
    /// Output goes to this file, which is made or emptied; there is no input.
    File(PathBuf),
}

/// A raw disk image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskConfig {
    /// A file or a block device.
    pub path: PathBuf,
    /// The guest can't write to it.
    pub readonly: bool,
}

/// One `--netdev af-xdp` with its virtio-net device. Meanings and defaults are QEMU's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetdevConfig {
    /// Name in messages and for `--device`.
    pub id: String,
    /// The host's interface.
    pub ifname: String,
    /// XDP attach mode; `None`: native if it works, else skb.
    pub mode: Option<AttachMode>,
    /// Copy mode even where the driver has zero-copy.
    pub force_copy: bool,
    /// Number of interface queues, one virtqueue pair each.
    pub queues: u32,
    /// The first interface queue.
    pub start_queue: u32,
    /// UMEM frames per queue, a power of two.
    pub frames: u32,
    /// The guest's MAC address; `None`: a locally administered one made from the interface's.
    pub mac: Option<[u8; 6]>,
}

/// Interface queues that this version serves.
pub const MAX_QUEUES: u32 = 1;

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
    /// two with one name
    #[error("the netdev id '{0}' is used twice")]
    DuplicateId(String),
    /// two on one interface
    #[error("interface {ifname} is used by netdev '{first}' and by netdev '{second}'")]
    DuplicateInterface {
        /// The interface.
        ifname: String,
        /// One id.
        first: String,
        /// The other.
        second: String,
    },
    /// no queue, or more than this version serves
    #[error(
        "netdev '{id}': {queues} queues are not possible: this version of ringwire serves one queue pair per netdev (queues=1)"
    )]
    Queues {
        /// The netdev.
        id: String,
        /// What was asked for.
        queues: u32,
    },
    /// more devices than the machine has places for
    #[error(
        "{count} virtio devices are more than the {MAX_VIRTIO_DEVICES} that the machine has room for"
    )]
    TooManyDevices {
        /// What was asked for, with the entropy device.
        count: usize,
    },
}

impl VmConfig {
    /// One vCPU, 256 MiB, the console on standard input and output, no disks, no network.
    pub fn new(kernel: impl Into<PathBuf>) -> Self {
        Self {
            kernel: kernel.into(),
            initrd: None,
            cmdline: String::new(),
            cpus: 1,
            memory: 256 << 20,
            serial: SerialConfig::default(),
            disks: Vec::new(),
            netdevs: Vec::new(),
        }
    }

    /// How many virtio devices the machine has: an entropy device is always there.
    pub fn virtio_devices(&self) -> usize {
        1 + self.disks.len() + self.netdevs.len()
    }

    /// Checks everything that can be checked without touching the host.
    ///
    /// # Errors
    /// The first thing that is not possible.
    pub fn validate(&self) -> Result<(), ConfigError> {
        check_cpus(self.cpus, host_cpus())?;
        memory::check_size(self.memory, memory::host_memory())?;
        check_netdevs(&self.netdevs)?;
        let count = self.virtio_devices();
        if count > MAX_VIRTIO_DEVICES {
            return Err(ConfigError::TooManyDevices { count });
        }
        Ok(())
    }
}

impl NetdevConfig {
    /// One queue of `ifname`, everything else as QEMU has it.
    pub fn new(id: impl Into<String>, ifname: impl Into<String>) -> Self {
        let defaults = net_afxdp::PortConfig::default();
        Self {
            id: id.into(),
            ifname: ifname.into(),
            mode: defaults.mode,
            force_copy: defaults.force_copy,
            queues: defaults.queues,
            start_queue: defaults.start_queue,
            frames: defaults.frames,
            mac: None,
        }
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

fn check_netdevs(netdevs: &[NetdevConfig]) -> Result<(), ConfigError> {
    let mut ids = HashSet::new();
    for (i, netdev) in netdevs.iter().enumerate() {
        let (id, queues) = (netdev.id.clone(), netdev.queues);
        if queues == 0 || queues > MAX_QUEUES {
            return Err(ConfigError::Queues { id, queues });
        }
        if !ids.insert(&netdev.id) {
            return Err(ConfigError::DuplicateId(id));
        }
        let earlier = netdevs.iter().take(i);
        if let Some(first) = earlier.into_iter().find(|n| n.ifname == netdev.ifname) {
            return Err(ConfigError::DuplicateInterface {
                ifname: netdev.ifname.clone(),
                first: first.id.clone(),
                second: id,
            });
        }
    }
    Ok(())
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
    }

    #[test]
    fn netdevs_are_distinct() {
        let add = |c: &mut VmConfig, id: &str, ifname: &str| {
            c.netdevs.push(NetdevConfig::new(id, ifname));
        };
        let twice = refused(|c| {
            add(c, "a", "eth1");
            add(c, "a", "eth2");
        });
        assert_eq!(twice, "the netdev id 'a' is used twice");
        let shared = refused(|c| {
            add(c, "a", "eth1");
            add(c, "b", "eth1");
        });
        assert_eq!(
            shared,
            "interface eth1 is used by netdev 'a' and by netdev 'b'"
        );
        let many = refused(|c| {
            for i in 0..MAX_VIRTIO_DEVICES {
                add(c, &format!("n{i}"), &format!("eth{i}"));
            }
        });
        assert!(many.contains("18 virtio devices are more than the 17"));
    }

    #[test]
    fn one_queue_pair_for_now() {
        for queues in [0, 2] {
            let sentence = refused(|c| {
                c.netdevs.push(NetdevConfig {
                    queues,
                    ..NetdevConfig::new("net0", "eth1")
                });
            });
            assert!(sentence.contains("this version of ringwire serves one queue pair"));
        }
    }
}
