//! Network cards: a host interface opened for AF_XDP, the virtio-net device on it, and its link.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, RawFd},
    sync::Arc,
};

use devices::virtio::net::{
    NetConfig, NetControl, NetCounters, NetDevice, afxdp::AfXdpBackend, backend::BackendReport,
};
use net_afxdp::{AttachMode, Interface, LinkEvent, LinkMonitor, OpenError, Port, PortConfig};

use crate::{
    config::NetdevConfig,
    exit::{ExitReason, ExitRequest},
};

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
    Open(#[from] OpenError),
    #[error(transparent)]
    Device(#[from] devices::virtio::net::NetError),
    #[error("could not watch the link of {ifname}: {source}")]
    Watch { ifname: String, source: io::Error },
}

/// What a network card did, after the VM ended.
#[derive(Debug, Clone)]
pub struct NetdevReport {
    /// Its id.
    pub id: String,
    /// The host's interface.
    pub ifname: String,
    /// The XDP attach mode that was in use.
    pub mode: AttachMode,
    /// Frames and bytes, from the guest's side.
    pub counters: NetCounters,
    /// What each queue pair's back end reports, the whereabouts of its frames included.
    pub backends: Vec<BackendReport>,
}

impl NetdevReport {
    /// Whether every frame of UMEM is accounted for.
    pub fn frames_add_up(&self) -> bool {
        let mut accounts = self.backends.iter().filter_map(|backend| backend.frames);
        accounts.all(|account| account.adds_up())
    }
}

/// The control loop's part of a network card.
#[derive(Debug)]
pub(crate) struct Network {
    id: String,
    control: NetControl,
    /// `None` when the kernel stopped telling.
    monitor: Option<LinkMonitor>,
    /// Takes the XDP program off the interface when dropped.
    port: Port,
}

impl Network {
    /// Opens the interface and makes the device; nothing is left of them on an error.
    pub(crate) fn open(
        config: &NetdevConfig,
        exit: &ExitRequest,
    ) -> Result<(Self, NetDevice<AfXdpBackend>), NetworkError> {
        Self::try_open(config, exit).map_err(|why| NetworkError {
            id: config.id.clone(),
            why,
        })
    }

    fn try_open(
        config: &NetdevConfig,
        exit: &ExitRequest,
    ) -> Result<(Self, NetDevice<AfXdpBackend>), Why> {
        let mut port = Port::open(&PortConfig {
            ifname: config.ifname.clone(),
            mode: config.mode,
            force_copy: config.force_copy,
            queues: config.queues,
            start_queue: config.start_queue,
            frames: config.frames,
            ..PortConfig::default()
        })?;
        let monitor = LinkMonitor::open(port.interface().index()).map_err(|source| Why::Watch {
            ifname: config.ifname.clone(),
            source,
        })?;
        let link_up = monitor.state().is_some_and(|state| state.up);
        if !link_up {
            tracing::warn!(
                "netdev '{}': {} is down; the guest sees its link down until that changes",
                config.id,
                config.ifname
            );
        }
        let queues = port.take_queues();
        let zero_copy = queues.iter().all(net_afxdp::Queue::zero_copy);
        let device = NetDevice::new(
            NetConfig {
                name: config.id.clone(),
                mac: config
                    .mac
                    .unwrap_or_else(|| own_mac(port.interface(), &config.id)),
                mtu: Some(u16::try_from(port.mtu()).unwrap_or(u16::MAX)),
                link_up,
                on_fault: end_vm(exit),
            },
            queues.into_iter().map(AfXdpBackend).collect(),
        )?;
        tracing::info!(
            "netdev '{}': {}, {} mode, {}",
            config.id,
            config.ifname,
            port.mode(),
            if zero_copy { "zero-copy" } else { "copy" }
        );
        let network = Self {
            id: config.id.clone(),
            control: device.control(),
            monitor: Some(monitor),
            port,
        };
        Ok((network, device))
    }

    /// The descriptor that is readable when [`watch`](Self::watch) has something to do.
    pub(crate) fn link_fd(&self) -> Option<RawFd> {
        let monitor = self.monitor.as_ref()?;
        Some(monitor.as_fd().as_raw_fd())
    }

    /// Passes changes of the interface's link on to the guest. Returns `false` when there will be
    /// none any more.
    pub(crate) fn watch(&mut self) -> bool {
        while let Some(monitor) = &mut self.monitor {
            match monitor.next_event() {
                Ok(Some(event)) => self.link_changed(&event),
                Ok(None) => return true,
                Err(e) => {
                    tracing::warn!(
                        "netdev '{}': its link is not watched any more: {e}",
                        self.id
                    );
                    self.monitor = None;
                }
            }
        }
        false
    }

    fn link_changed(&self, event: &LinkEvent) {
        let id = &self.id;
        match event {
            LinkEvent::Up => self.control.set_link(true),
            LinkEvent::Down => self.control.set_link(false),
            LinkEvent::Gone => self.control.set_link(false),
            LinkEvent::Mtu(_) | LinkEvent::Renamed(_) | LinkEvent::Program(_) => {}
        }
        match event {
            LinkEvent::Up => tracing::info!("netdev '{id}': link up"),
            LinkEvent::Down => tracing::info!("netdev '{id}': link down"),
            LinkEvent::Gone => tracing::warn!(
                "netdev '{id}': its interface is gone; the guest sees its link down for good"
            ),
            LinkEvent::Mtu(mtu) => tracing::warn!(
                "netdev '{id}': its interface has a new MTU, {mtu}; the guest keeps the one it was started with"
            ),
            LinkEvent::Program(Some(program)) => {
                tracing::warn!("netdev '{id}': its interface has another XDP program, {program}");
            }
            LinkEvent::Program(None) => {
                tracing::warn!("netdev '{id}': its interface has no XDP program any more");
            }
            LinkEvent::Renamed(name) => {
                tracing::info!("netdev '{id}': its interface is now called {name}");
            }
        }
    }

    /// What it did; right only after the device was reset.
    pub(crate) fn report(&self) -> NetdevReport {
        NetdevReport {
            id: self.id.clone(),
            ifname: self.port.interface().name().to_owned(),
            mode: self.port.mode(),
            counters: self.control.counters(),
            backends: self.control.reports(),
        }
    }
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
    fn reports_know_whether_frames_add_up() {
        use devices::virtio::net::backend::FrameAccount;
        let report = |free| NetdevReport {
            id: "net0".to_owned(),
            ifname: "eth1".to_owned(),
            mode: AttachMode::Skb,
            counters: NetCounters::default(),
            backends: vec![
                BackendReport::default(),
                BackendReport {
                    frames: Some(FrameAccount {
                        free,
                        total: 64,
                        ..FrameAccount::default()
                    }),
                    counters: Vec::new(),
                },
            ],
        };
        assert!(report(64).frames_add_up());
        assert!(!report(63).frames_add_up());
    }
}
