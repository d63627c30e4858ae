//! What a network card did, while it runs and afterwards.

use std::os::fd::AsFd;

use devices::virtio::net::{
    NetCounters,
    backend::{BackendReport, FrameAccount},
};
use net_afxdp::AttachMode;
use rustix::net::sockopt::xdp_statistics;

use super::Network;

/// What a network card did, until now or until the VM ended.
#[derive(Debug, Clone)]
pub struct NetdevReport {
    /// Its id.
    pub id: String,
    /// The host's interface.
    pub ifname: String,
    /// The XDP attach mode that is in use.
    pub mode: AttachMode,
    /// Whether the driver reads and writes the frames in place, on every queue.
    pub zero_copy: bool,
    /// Frames and bytes, from the guest's side.
    pub counters: NetCounters,
    /// What each queue pair's back end reports: at the end all of its counters and the whereabouts
    /// of its frames, while the guest runs what the kernel counts (XDP_STATISTICS).
    pub backends: Vec<BackendReport>,
}

impl NetdevReport {
    /// Whether every frame of UMEM is accounted for.
    pub fn frames_add_up(&self) -> bool {
        let mut accounts = self.backends.iter().filter_map(|backend| backend.frames);
        accounts.all(|account| account.adds_up())
    }

    /// The report for people: a line about the card, and one for each queue pair that was in use.
    pub fn lines(&self) -> Vec<String> {
        let id = &self.id;
        let copy = if self.zero_copy { "zero-copy" } else { "copy" };
        let guest = words(self.counters.named());
        let mut lines = vec![format!(
            "netdev '{id}': guest, on {} in {} mode with {copy}:{guest}",
            self.ifname, self.mode
        )];
        for (pair, backend) in self.backends.iter().enumerate() {
            // Nothing is known of a pair that the driver never used.
            if *backend == BackendReport::default() {
                continue;
            }
            let mut counters = words(backend.counters.iter().copied());
            if let Some(frames) = &backend.frames {
                counters.push_str(&words(places(frames)));
            }
            lines.push(format!(
                "netdev '{id}': {}, pair {pair}:{counters}",
                self.ifname
            ));
        }
        lines
    }
}

/// Where frames are, by name.
fn places(frames: &FrameAccount) -> impl Iterator<Item = (&'static str, u64)> {
    [
        ("frames_free", frames.free),
        ("frames_fill", frames.fill),
        ("frames_rx", frames.rx),
        ("frames_tx", frames.tx),
        ("frames_total", frames.total),
    ]
    .into_iter()
}

fn words(counters: impl Iterator<Item = (&'static str, u64)>) -> String {
    counters
        .map(|(name, count)| format!(" {name}={count}"))
        .collect()
}

impl Network {
    /// What it did; right only after the device was reset.
    pub(crate) fn report(&self) -> NetdevReport {
        NetdevReport {
            backends: self.control.reports(),
            ..self.report_without_backends()
        }
    }

    /// What it did so far.
    pub(crate) fn live_report(&self) -> NetdevReport {
        let statistics = self.sockets.iter().map(|socket| BackendReport {
            frames: None,
            counters: kernel_counters(socket),
        });
        NetdevReport {
            backends: statistics.collect(),
            ..self.report_without_backends()
        }
    }

    fn report_without_backends(&self) -> NetdevReport {
        NetdevReport {
            id: self.id.clone(),
            ifname: self.port.interface().name().to_owned(),
            mode: self.port.mode(),
            zero_copy: self.zero_copy,
            counters: self.control.counters(),
            backends: Vec::new(),
        }
    }
}

/// XDP_STATISTICS, under the names that the back end gives them in its own report. Empty when the
/// interface is gone.
fn kernel_counters(socket: impl AsFd) -> Vec<(&'static str, u64)> {
    let Ok(kernel) = xdp_statistics(socket) else {
        return Vec::new();
    };
    let named = [
        ("xdp_rx_dropped", Some(kernel.rx_dropped)),
        ("xdp_rx_invalid_descs", Some(kernel.rx_invalid_descs)),
        ("xdp_rx_ring_full", kernel.rx_ring_full),
        ("xdp_rx_fill_ring_empty", kernel.rx_fill_ring_empty_descs),
        ("xdp_tx_invalid_descs", Some(kernel.tx_invalid_descs)),
        ("xdp_tx_ring_empty", kernel.tx_ring_empty_descs),
    ];
    named
        .into_iter()
        .filter_map(|(name, count)| Some((name, count?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(free: u64) -> NetdevReport {
        NetdevReport {
            id: "net0".to_owned(),
            ifname: "eth1".to_owned(),
            mode: AttachMode::Skb,
            zero_copy: false,
            counters: NetCounters::default(),
            backends: vec![
                BackendReport::default(),
                BackendReport {
                    frames: Some(FrameAccount {
                        free,
                        total: 64,
                        ..FrameAccount::default()
                    }),
                    counters: vec![("rx_packets", 3), ("tx_packets", 4)],
                },
            ],
        }
    }

    #[test]
    fn reports_know_whether_frames_add_up() {
        assert!(report(64).frames_add_up());
        assert!(!report(63).frames_add_up());
    }

    #[test]
    fn reports_have_a_line_for_each_queue_pair() {
        let lines = report(64).lines();
        assert_eq!(lines.len(), 2);
        let start = "netdev 'net0': guest, on eth1 in skb mode with copy: rx_frames=0 rx_bytes=0";
        assert!(lines[0].starts_with(start), "{}", lines[0]);
        assert_eq!(
            lines[1],
            "netdev 'net0': eth1, pair 1: rx_packets=3 tx_packets=4 frames_free=64 frames_fill=0 \
             frames_rx=0 frames_tx=0 frames_total=64"
        );
    }
}
