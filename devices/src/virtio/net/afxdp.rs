//! AF_XDP as the back end of a queue pair: an adapter, as net-afxdp's queue has the same shape.

use std::{
    io,
    ops::ControlFlow,
    os::fd::{AsFd, BorrowedFd},
};

use net_afxdp::Queue;

use super::backend::{BackendReport, FrameAccount, NetBackend, SendError};

/// One queue of a host interface.
#[derive(Debug)]
pub struct AfXdpBackend(pub Queue);

impl NetBackend for AfXdpBackend {
    fn max_frame(&self) -> usize {
        self.0.max_frame()
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }

    fn receive(&mut self, budget: usize, take: impl FnMut(&[&[u8]]) -> ControlFlow<()>) -> usize {
        self.0.receive(budget, take)
    }

    fn discard(&mut self) -> usize {
        self.0.discard()
    }

    fn room(&mut self) -> usize {
        self.0.room()
    }

    fn send(&mut self, len: usize, fill: impl FnMut(&mut [u8])) -> Result<(), SendError> {
        self.0.send(len, fill).map_err(|error| match error {
            net_afxdp::SendError::TooLong => SendError::TooLong,
            net_afxdp::SendError::TooShort => SendError::TooShort,
            net_afxdp::SendError::Full => SendError::Full,
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        let stalls = self.0.counters().tx_stalls;
        self.0.flush()?;
        // The kernel left frames in the ring: somebody has to flush again, even if the guest has
        // nothing more to send.
        if self.0.counters().tx_stalls == stalls {
            Ok(())
        } else {
            Err(io::ErrorKind::WouldBlock.into())
        }
    }

    fn report(&mut self) -> BackendReport {
        BackendReport {
            frames: Some(frames(self.0.accounting())),
            counters: counters(&self.0),
        }
    }
}

fn frames(account: net_afxdp::FrameAccounting) -> FrameAccount {
    let sum = |places: &[u32]| places.iter().copied().map(u64::from).sum();
    FrameAccount {
        free: account.free.into(),
        fill: sum(&[account.fill, account.receiving]),
        rx: account.rx.into(),
        tx: sum(&[account.tx, account.transmitting, account.completion]),
        total: account.total.into(),
    }
}

fn counters(queue: &Queue) -> Vec<(&'static str, u64)> {
    let own = queue.counters();
    let mut named = vec![
        ("rx_packets", own.rx_packets),
        ("rx_bytes", own.rx_bytes),
        ("rx_discarded", own.rx_discarded),
        ("rx_wakeups", own.rx_wakeups),
        ("tx_packets", own.tx_packets),
        ("tx_bytes", own.tx_bytes),
        ("tx_lost", own.tx_lost),
        ("tx_wakeups", own.tx_wakeups),
        ("tx_stalls", own.tx_stalls),
        ("invalid_descriptors", own.invalid_descriptors),
    ];
    // A socket whose interface is gone has no statistics; the rest is still worth having.
    if let Ok(kernel) = queue.statistics() {
        named.extend([
            ("xdp_rx_dropped", kernel.rx_dropped),
            ("xdp_rx_invalid_descs", kernel.rx_invalid_descs),
            ("xdp_rx_ring_full", kernel.rx_ring_full),
            ("xdp_rx_fill_ring_empty", kernel.rx_fill_ring_empty_descs),
            ("xdp_tx_invalid_descs", kernel.tx_invalid_descs),
            ("xdp_tx_ring_empty", kernel.tx_ring_empty_descs),
        ]);
    }
    named
}
