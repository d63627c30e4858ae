//! What a network card is to be.

use std::{collections::HashSet, os::fd::RawFd, path::PathBuf};

use devices::virtio::net::{BusyPoll, Offloads, RateLimit};
use net_afxdp::{AttachMode, Interface, PortConfig, Require, TxMetadata};

use super::Transport;

/// One `--netdev af-xdp` with its virtio-net device. Meanings and defaults are QEMU's where QEMU has
/// the option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetdevConfig {
    /// Name in messages and for `--device`.
    pub id: String,
    /// Interface, mode, queues and frames.
    pub port: PortConfig,
    /// Where the XDP program and the sockets come from.
    pub source: SourceConfig,
    /// How much the card may carry; `None`: all that it can.
    pub rate: Option<RateLimit>,
    /// How long the card's threads look for more work before they sleep.
    pub busy_poll: BusyPoll,
    /// What the card offers to do for the guest.
    pub offloads: Offloads,
    /// Frames of the guest are sent from where they lie in its memory (`zero-copy-tx`). All of that is
    /// locked then, once for each queue.
    pub zero_copy_tx: bool,
    /// The guest's MAC address; `None`: a locally administered one made from the interface's.
    pub mac: Option<[u8; 6]>,
    /// How the guest finds the card; `None`: as all devices ([`VmConfig::transport`]).
    ///
    /// [`VmConfig::transport`]: super::VmConfig::transport
    pub transport: Option<Transport>,
}

/// Where the XDP program and the sockets come from, as plain data: file descriptors are those that
/// the process inherited, by their numbers. See [`net_afxdp::Source`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SourceConfig {
    /// We load our own program and open the sockets.
    #[default]
    OwnProgram,
    /// Open AF_XDP sockets, not set up, one per queue (`sock-fds`).
    SockFds(Vec<RawFd>),
    /// The same, to be put into the XSKMAP when they are bound (`sock-fds` with `xsks-map-fd`).
    SockFdsForMap {
        /// The sockets.
        sockets: Vec<RawFd>,
        /// The map.
        map: RawFd,
    },
    /// The XSKMAP of a program that is there (`xsks-map-fd`).
    XsksMapFd(RawFd),
    /// The same as a file in a bpffs (`map-path`).
    MapPath {
        /// The file.
        path: PathBuf,
        /// Slot of the first queue (`map-start-index`).
        start_index: u32,
    },
    /// The socket of the Kubernetes AF_XDP device plugin (`plugin-socket`).
    PluginSocket(PathBuf),
}

/// Why network cards are not possible.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetdevConfigError {
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
    /// one queue for two
    #[error(
        "queue {queue} of interface {ifname} is used by netdev '{first}' and by netdev '{second}': set start-queue and queues so that they have different ones"
    )]
    DuplicateQueue {
        /// The queue.
        queue: u32,
        /// The interface.
        ifname: String,
        /// One id.
        first: String,
        /// The other.
        second: String,
    },
    /// nothing to receive from
    #[error("netdev '{0}': 0 queues are not possible: give queues=1 or more")]
    NoQueues(String),
    /// more or fewer sockets than queues
    #[error(
        "netdev '{id}': {sockets} in sock-fds, but queues={queues}: give one socket for each queue, the first queue's first"
    )]
    Sockets {
        /// The netdev.
        id: String,
        /// How many sockets there are.
        sockets: usize,
        /// How many queues there are to be.
        queues: u32,
    },
    /// one descriptor for two
    #[error("netdev '{id}': the file descriptor {fd} is given twice")]
    DuplicateFd {
        /// The netdev.
        id: String,
        /// The descriptor.
        fd: RawFd,
    },
    /// what is required can't be reached
    #[error("netdev '{id}': require={require} can't be reached with {with}: leave one of them out")]
    Contradiction {
        /// The netdev.
        id: String,
        /// What is required.
        require: Require,
        /// What excludes it.
        with: &'static str,
    },
    /// no room for metadata before what is sent in place
    #[error(
        "netdev '{0}': tx-metadata=on is not possible with zero-copy-tx=on, whose frames have no room for it before them: leave one of them out"
    )]
    MetadataInPlace(String),
}

impl NetdevConfig {
    /// One queue of `ifname`, everything else as QEMU has it.
    pub fn new(id: impl Into<String>, ifname: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            port: PortConfig {
                ifname: ifname.into(),
                ..PortConfig::default()
            },
            source: SourceConfig::default(),
            rate: None,
            busy_poll: BusyPoll::Adaptive,
            offloads: Offloads::default(),
            zero_copy_tx: false,
            mac: None,
            transport: None,
        }
    }

    /// What the interface is to be opened with.
    pub(crate) fn port_config(&self) -> PortConfig {
        PortConfig {
            // Guests' frames cross pages.
            scattered: self.zero_copy_tx,
            ..self.port.clone()
        }
    }

    /// The first interface queue, and the one after the last.
    fn queues(&self) -> (u64, u64) {
        let start = u64::from(self.port.start_queue);
        (start, start + u64::from(self.port.queues))
    }

    fn check(&self) -> Result<(), NetdevConfigError> {
        let id = || self.id.clone();
        let PortConfig {
            queues, require, ..
        } = self.port;
        if queues == 0 {
            return Err(NetdevConfigError::NoQueues(id()));
        }
        if let Some(fds) = self.source.sockets()
            && u32::try_from(fds.len()) != Ok(queues)
        {
            let (id, sockets) = (id(), fds.len());
            return Err(NetdevConfigError::Sockets {
                id,
                sockets,
                queues,
            });
        }
        if self.zero_copy_tx && self.port.tx_metadata == TxMetadata::On {
            return Err(NetdevConfigError::MetadataInPlace(id()));
        }
        let with = match require {
            Require::ZeroCopy if self.port.force_copy => "force-copy=on",
            Require::Native | Require::ZeroCopy if self.port.mode == Some(AttachMode::Skb) => {
                "mode=skb"
            }
            _ => return Ok(()),
        };
        Err(NetdevConfigError::Contradiction {
            id: id(),
            require,
            with,
        })
    }

    /// Two netdevs on one interface: only where others have put the program there, and on queues
    /// of their own.
    fn check_with(&self, other: &Self) -> Result<(), NetdevConfigError> {
        if !are_one_interface(&self.port.ifname, &other.port.ifname) {
            return Ok(());
        }
        let (ifname, first, second) = (self.port.ifname.clone(), other.id.clone(), self.id.clone());
        let owns = |netdev: &Self| netdev.source == SourceConfig::OwnProgram;
        if owns(self) || owns(other) {
            return Err(NetdevConfigError::DuplicateInterface {
                ifname,
                first,
                second,
            });
        }
        let (mine, its) = (self.queues(), other.queues());
        let (shared, end) = (mine.0.max(its.0), mine.1.min(its.1));
        if shared >= end {
            return Ok(());
        }
        Err(NetdevConfigError::DuplicateQueue {
            queue: u32::try_from(shared).unwrap_or(u32::MAX),
            ifname,
            first,
            second,
        })
    }
}

impl SourceConfig {
    /// The sockets that it names, if they are to be named.
    fn sockets(&self) -> Option<&[RawFd]> {
        match self {
            Self::SockFds(sockets) | Self::SockFdsForMap { sockets, .. } => Some(sockets),
            _ => None,
        }
    }

    /// All file descriptors that it names.
    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        let map = match self {
            Self::XsksMapFd(map) | Self::SockFdsForMap { map, .. } => Some(*map),
            _ => None,
        };
        let sockets = self.sockets().unwrap_or_default();
        sockets.iter().copied().chain(map).collect()
    }
}

/// Whether both are names of one interface, which can have several. One that is not there is no other's.
fn are_one_interface(name: &str, other: &str) -> bool {
    let index = |name| Interface::by_name(name).map(|it| it.index()).ok();
    name == other || index(name).is_some_and(|it| index(other) == Some(it))
}

/// Checks all network cards of a VM.
///
/// # Errors
/// The first thing that is not possible.
pub(crate) fn check(netdevs: &[NetdevConfig]) -> Result<(), NetdevConfigError> {
    let (mut ids, mut fds) = (HashSet::new(), HashSet::new());
    for (i, netdev) in netdevs.iter().enumerate() {
        netdev.check()?;
        if !ids.insert(&netdev.id) {
            return Err(NetdevConfigError::DuplicateId(netdev.id.clone()));
        }
        for other in netdevs.iter().take(i) {
            netdev.check_with(other)?;
        }
        // A map, on the other hand, may be filled by several.
        let mut sockets = netdev.source.sockets().unwrap_or_default().iter();
        if let Some(&fd) = sockets.find(|fd| !fds.insert(**fd)) {
            let id = netdev.id.clone();
            return Err(NetdevConfigError::DuplicateFd { id, fd });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(netdevs: &[NetdevConfig]) -> String {
        check(netdevs).unwrap_err().to_string()
    }

    fn with(change: impl FnOnce(&mut NetdevConfig)) -> NetdevConfig {
        let mut netdev = NetdevConfig::new("net0", "eth1");
        change(&mut netdev);
        netdev
    }

    #[test]
    fn netdevs_are_distinct() {
        let new = NetdevConfig::new;
        assert_eq!(
            refused(&[new("a", "eth1"), new("a", "eth2")]),
            "the netdev id 'a' is used twice"
        );
        assert_eq!(
            refused(&[new("a", "eth1"), new("b", "eth1")]),
            "interface eth1 is used by netdev 'a' and by netdev 'b'"
        );
        check(&[new("a", "eth1"), new("b", "eth2")]).unwrap();
    }

    #[test]
    fn netdevs_share_an_interface_by_queues_under_a_program_of_others() {
        let on = |id: &str, start_queue, queues, source| NetdevConfig {
            id: id.to_owned(),
            source,
            ..with(|netdev| {
                netdev.port.start_queue = start_queue;
                netdev.port.queues = queues;
            })
        };
        let map = || SourceConfig::XsksMapFd(5);
        check(&[on("a", 0, 2, map()), on("b", 2, 1, map())]).unwrap();
        assert_eq!(
            refused(&[on("a", 0, 2, map()), on("b", 1, 4, map())]),
            "queue 1 of interface eth1 is used by netdev 'a' and by netdev 'b': set start-queue and \
             queues so that they have different ones"
        );
        let own = on("b", 2, 1, SourceConfig::OwnProgram);
        let sentence = refused(&[on("a", 0, 2, map()), own]);
        assert!(
            sentence.starts_with("interface eth1 is used by"),
            "{sentence}"
        );
    }

    #[test]
    fn there_is_at_least_one_queue() {
        assert_eq!(
            refused(&[with(|netdev| netdev.port.queues = 0)]),
            "netdev 'net0': 0 queues are not possible: give queues=1 or more"
        );
    }

    #[test]
    fn each_queue_has_a_socket_of_its_own() {
        let sockets = |fds: &[RawFd], queues| {
            with(|netdev| {
                netdev.source = SourceConfig::SockFds(fds.to_vec());
                netdev.port.queues = queues;
            })
        };
        check(&[sockets(&[3, 4], 2)]).unwrap();
        assert_eq!(
            refused(&[sockets(&[3], 2)]),
            "netdev 'net0': 1 in sock-fds, but queues=2: give one socket for each queue, the first \
             queue's first"
        );
        assert_eq!(
            refused(&[sockets(&[3, 3], 2)]),
            "netdev 'net0': the file descriptor 3 is given twice"
        );
    }

    #[test]
    fn metadata_has_no_room_before_what_is_sent_in_place() {
        let netdev = |tx_metadata| {
            with(|netdev| {
                netdev.zero_copy_tx = true;
                netdev.port.tx_metadata = tx_metadata;
            })
        };
        assert_eq!(
            refused(&[netdev(TxMetadata::On)]),
            "netdev 'net0': tx-metadata=on is not possible with zero-copy-tx=on, whose frames have no \
             room for it before them: leave one of them out"
        );
        check(&[netdev(TxMetadata::Auto)]).unwrap();
    }

    #[test]
    fn what_is_required_must_be_possible() {
        let text = refused(&[with(|netdev| {
            netdev.port.require = Require::ZeroCopy;
            netdev.port.force_copy = true;
        })]);
        assert_eq!(
            text,
            "netdev 'net0': require=zerocopy can't be reached with force-copy=on: leave one of them \
             out"
        );
        for require in [Require::Native, Require::ZeroCopy] {
            let text = refused(&[with(|netdev| {
                netdev.port.require = require;
                netdev.port.mode = Some(AttachMode::Skb);
            })]);
            assert!(text.contains("can't be reached with mode=skb"), "{text}");
        }
    }
}
