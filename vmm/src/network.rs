//! Network cards: a host interface opened for AF_XDP, the virtio-net device on it, and its link.

use std::{
    io,
    os::fd::{AsFd, OwnedFd, RawFd},
    sync::Arc,
};

use devices::{
    GuestRam,
    placement::Placement,
    virtio::net::{
        BusyPoll, LinkSpeed, NetConfig, NetControl, NetDevice,
        afxdp::{AfXdpBackend, shared_memory},
    },
};
use net_afxdp::{
    Interface, LinkMonitor, OpenError, Port, Problem, ProgramStatus, Queue, QueueError,
    SocketError, Source,
};

use crate::{
    config::{NetdevConfig, SourceConfig},
    exit::{ExitReason, ExitRequest},
};

mod report;
mod watch;

pub use report::NetdevReport;
use watch::Lines;

/// Why a network card is not there.
#[derive(Debug, thiserror::Error)]
#[error("netdev '{id}': {why}")]
pub struct NetworkError {
    /// Which.
    id: String,
    /// What happened.
    #[source]
    why: Why,
}

#[derive(Debug, thiserror::Error)]
enum Why {
    #[error(transparent)]
    Open(#[from] Box<OpenError>),
    #[error(
        "{0}. zero-copy-tx=on locks all of the guest's memory, once for each queue: leave it out, or give the guest less memory"
    )]
    TooMuchLocked(#[source] Box<OpenError>),
    #[error("zero-copy-tx=on needs guest memory that can be shared with the kernel: {0}")]
    NotShareable(#[source] io::Error),
    #[error(transparent)]
    Device(#[from] devices::virtio::net::NetError),
    #[error("could not watch the link of {ifname}: {source}")]
    Watch { ifname: String, source: io::Error },
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("could not duplicate a queue's file descriptor: {0}")]
    Duplicate(#[source] io::Error),
}

/// Why an inherited file descriptor can't be taken over.
#[derive(Debug, thiserror::Error)]
#[error(
    "the file descriptor {fd} of {option} can't be used: {source}. It must be open in ringwire, inherited from the process that started it"
)]
pub(crate) struct SourceError {
    fd: RawFd,
    option: &'static str,
    source: io::Error,
}

/// The control loop's part of a network card.
#[derive(Debug)]
pub(crate) struct Network {
    id: String,
    control: NetControl,
    /// `None` when the kernel stopped telling.
    monitor: Option<LinkMonitor>,
    /// Whether an XDP program was there at the start: ours, or that of others.
    had_program: bool,
    /// What became of it, as far as was told.
    program: ProgramStatus,
    /// A duplicate of each queue's socket, for its statistics while an io-thread has it.
    sockets: Vec<OwnedFd>,
    zero_copy: bool,
    lines: Lines,
    /// Takes the XDP program off the interface when dropped.
    port: Port,
}

impl Network {
    /// Opens the interface and makes the device; nothing is left of them on an error.
    pub(crate) fn open(
        config: &NetdevConfig,
        ram: &GuestRam,
        placement: &Placement,
        exit: &ExitRequest,
    ) -> Result<(Self, NetDevice<AfXdpBackend>), NetworkError> {
        Self::try_open(config, ram, placement, exit).map_err(|why| NetworkError {
            id: config.id.clone(),
            why,
        })
    }

    fn try_open(
        config: &NetdevConfig,
        ram: &GuestRam,
        placement: &Placement,
        exit: &ExitRequest,
    ) -> Result<(Self, NetDevice<AfXdpBackend>), Why> {
        let ifname = &config.port.ifname;
        let mut port = open_port(config, ram)?;
        let monitor = LinkMonitor::open(port.interface().index()).map_err(|source| Why::Watch {
            ifname: ifname.clone(),
            source,
        })?;
        let link_up = monitor.state().is_some_and(|state| state.up);
        let mac = config
            .mac
            .unwrap_or_else(|| own_mac(port.interface(), &config.id));
        tell_of_what_is_missing(&config.id, &port, link_up, mac);
        let mut queues = port.take_queues();
        queues.iter_mut().for_each(|queue| busy_poll(queue, config));
        let zero_copy = queues.iter().all(Queue::zero_copy);
        let tx_checksum = queues.iter().all(Queue::completes_checksums);
        let sockets = queues
            .iter()
            .map(|queue| queue.as_fd().try_clone_to_owned());
        let sockets = sockets.collect::<Result<_, _>>().map_err(Why::Duplicate)?;
        let device = NetDevice::new(
            NetConfig {
                name: config.id.clone(),
                mac,
                mtu: Some(u16::try_from(port.mtu()).unwrap_or(u16::MAX)),
                link_up,
                speed: speed(&mut port),
                rate: config.rate,
                busy_poll: config.busy_poll,
                offloads: config.offloads,
                placement: placement.clone(),
                on_fault: end_vm(exit),
            },
            queues.into_iter().map(AfXdpBackend).collect(),
        )?;
        tracing::info!(
            "netdev '{}': {ifname}, {} mode, {}{}",
            config.id,
            port.mode(),
            if zero_copy { "zero-copy" } else { "copy" },
            if tx_checksum { ", tx-checksum" } else { "" }
        );
        let network = Self {
            id: config.id.clone(),
            control: device.control(),
            monitor: Some(monitor),
            had_program: config.source == SourceConfig::OwnProgram
                || port.interface().xdp_program().is_some(),
            program: ProgramStatus::InPlace,
            sockets,
            zero_copy,
            lines: Lines::default(),
            port,
        };
        Ok((network, device))
    }
}

/// Says what the guest will not get.
fn tell_of_what_is_missing(id: &str, port: &Port, link_up: bool, mac: [u8; 6]) {
    let interface = port.interface();
    if !link_up {
        tell_of_no_link(id, interface);
    }
    let frames = Problem::of_large_frames(interface, port.mode());
    let addresses = Problem::of_other_addresses(interface, Some(mac));
    for Problem { what, fix, .. } in frames.into_iter().chain(addresses) {
        tracing::warn!("netdev '{id}': {what}: {fix}");
    }
}

/// The interface is without a link now; `interface` is what it was before it was opened.
fn tell_of_no_link(id: &str, interface: &Interface) {
    let ifname = interface.name();
    if interface.link_up() {
        // igb, for one, is up again after half a second.
        tracing::info!(
            "netdev '{id}': the driver of {ifname} restarts it, as some do for an XDP program; the guest sees its link when it is up again"
        );
    } else {
        tracing::warn!(
            "netdev '{id}': {ifname} is down; the guest sees its link down until that changes"
        );
    }
}

/// With a fixed `busy-poll`, a queue of a card that puts frames in place is polled by its io-thread all the
/// way down. (Others have no queue of their own: the thread would do the sender's work.)
fn busy_poll(queue: &mut Queue, config: &NetdevConfig) {
    let BusyPoll::For(time) = config.busy_poll else {
        return;
    };
    if time.is_zero() || !queue.zero_copy() {
        return;
    }
    if let Err(error) = queue.set_busy_poll(time) {
        tracing::info!(
            "netdev '{}': queue {} is not busy-polled in the kernel (SO_PREFER_BUSY_POLL, which needs \
             CAP_NET_ADMIN): {error}",
            config.id,
            queue.id()
        );
    }
}

/// The speed of an interface's link, for the guest to show.
fn speed(port: &mut Port) -> LinkSpeed {
    let net_afxdp::LinkSpeed { mbps, full_duplex } = port.link_speed();
    LinkSpeed { mbps, full_duplex }
}

fn open_port(config: &NetdevConfig, ram: &GuestRam) -> Result<Port, Why> {
    let source = source(&config.source)?;
    let memory = match config.zero_copy_tx {
        true => Some(shared_memory(ram).map_err(Why::NotShareable)?),
        false => None,
    };
    let opened = Port::open_sharing(&config.port_config(), source, memory.as_ref());
    opened.map_err(|error| match (&error, &memory) {
        (
            OpenError::Queue {
                source: QueueError::Socket(SocketError::LockedMemory { .. }),
                ..
            },
            Some(_),
        ) => Why::TooMuchLocked(error.into()),
        _ => Why::Open(error.into()),
    })
}

/// The sockets and maps that the configuration names, taken over.
pub(crate) fn source(config: &SourceConfig) -> Result<Source, SourceError> {
    let inherited =
        |option, fd| net_afxdp::inherited(fd).map_err(|source| SourceError { fd, option, source });
    let sockets = |fds: &[RawFd]| -> Result<Vec<_>, _> {
        fds.iter().map(|&fd| inherited("sock-fds", fd)).collect()
    };
    Ok(match config {
        SourceConfig::OwnProgram => Source::OwnProgram,
        SourceConfig::SockFds(fds) => Source::Sockets(sockets(fds)?),
        SourceConfig::SockFdsForMap { sockets: fds, map } => Source::SocketsForMap {
            sockets: sockets(fds)?,
            map: inherited("xsks-map-fd", *map)?,
        },
        SourceConfig::XsksMapFd(fd) => Source::Map(inherited("xsks-map-fd", *fd)?),
        SourceConfig::MapPath { path, start_index } => Source::PinnedMap {
            path: path.clone(),
            start_index: *start_index,
        },
        SourceConfig::PluginSocket(path) => Source::Plugin(path.clone()),
    })
}

/// What a device's thread calls when it can't go on: the VM ends, it is never half alive.
pub(crate) fn end_vm(exit: &ExitRequest) -> Arc<dyn Fn(&str) + Send + Sync> {
    let exit = exit.clone();
    Arc::new(move |sentence| exit.request(ExitReason::Host(sentence.to_owned())))
}

/// A locally administered address, the same for the same interface and id: the host's own is in
/// use on that wire already.
fn own_mac(interface: &Interface, id: &str) -> [u8; 6] {
    let mac = interface.mac().unwrap_or_default();
    local_mac(&mac, id)
}

fn local_mac(seed: &[u8], id: &str) -> [u8; 6] {
    // FNV-1a, 64 bits.
    let bytes = seed.iter().chain(id.as_bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let [a, b, c, d, e, ..] = hash.to_be_bytes();
    // Bit 1 of the first byte: locally administered; bit 0 clear: one station's.
    [0x02, a, b, c, d, e]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_addresses_are_stable_local_and_distinct() {
        let host = [0x52, 0x54, 0, 1, 2, 3];
        let mac = local_mac(&host, "net0");
        assert_eq!(mac, local_mac(&host, "net0"));
        assert_ne!(mac, local_mac(&host, "net1"));
        assert_ne!(mac, local_mac(&[0x52, 0x54, 0, 1, 2, 4], "net0"));
        assert_eq!(mac[0], 0x02);
    }

    #[test]
    fn descriptors_that_are_not_open_are_named() {
        for (config, option) in [
            (SourceConfig::SockFds(vec![1_000_000]), "sock-fds"),
            (SourceConfig::XsksMapFd(1_000_000), "xsks-map-fd"),
        ] {
            let sentence = source(&config).unwrap_err().to_string();
            assert!(
                sentence.starts_with(&format!(
                    "the file descriptor 1000000 of {option} can't be used: Bad file descriptor"
                )),
                "{sentence}"
            );
        }
    }
}
