//! By the crate net-afxdp: this is what Ringwire's own card stands on.

use std::{io, ops::ControlFlow};

use net_afxdp::{AttachMode, Port, PortConfig, Queue};

use super::End;
use crate::error::BenchError;

/// The first queue of an interface.
pub(super) struct Afxdp {
    queue: Queue,
    /// Its program is on the interface for as long as this lives.
    _port: Port,
}

impl Afxdp {
    /// With our own program on the interface, in native mode where the driver has it, or in skb mode.
    pub(super) fn open(ifname: &str, skb: bool) -> Result<Self, BenchError> {
        let mut port = Port::open(&PortConfig {
            ifname: ifname.to_owned(),
            mode: skb.then_some(AttachMode::Skb),
            ..PortConfig::default()
        })?;
        let queue = port.take_queues().into_iter().next();
        let queue = queue.ok_or_else(|| BenchError::Nothing(format!("{ifname} has no queue")))?;
        Ok(Self { queue, _port: port })
    }
}

impl End for Afxdp {
    fn room(&mut self) -> usize {
        self.queue.room()
    }

    fn send(&mut self, length: usize, fill: impl FnMut(&mut [u8])) {
        // There is room, and the lengths are those of Ethernet.
        let _ = self.queue.send(length, fill);
    }

    fn flush(&mut self) -> io::Result<()> {
        self.queue.flush()
    }

    fn receive(&mut self, budget: usize, mut take: impl FnMut(&[u8])) -> usize {
        self.queue.receive(budget, |fragments| {
            take(fragments.first().copied().unwrap_or_default());
            ControlFlow::Continue(())
        })
    }
}
