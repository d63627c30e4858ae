//! The control queue (virtio 1.2, 5.1.6.5): what the driver asks of the card besides frames.
//!
//! Served by a small thread of its own: no vCPU waits for io-threads, and no io-thread has commands
//! between its frames. A command whose feature was not negotiated, of the wrong length, or that asks for
//! what is not possible, changes nothing and is answered by VIRTIO_NET_ERR.

mod coalescing;
mod receive;
mod statistics;

use std::{
    io,
    sync::{Arc, Mutex},
};

use virtio_bindings::virtio_net::{
    VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK, VIRTIO_NET_CTRL_GUEST_OFFLOADS,
    VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET,
    VIRTIO_NET_CTRL_MAC_TABLE_SET, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET,
    VIRTIO_NET_CTRL_NOTF_COAL, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_ALLMULTI,
    VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_ERR, VIRTIO_NET_OK,
};

use super::{
    NetBackend,
    counters::PairCounters,
    features::{
        CTRL_GUEST_OFFLOADS, CTRL_MAC_ADDR, CTRL_RX, CTRL_RX_EXTRA, CTRL_VLAN, DEVICE_STATS,
        GUEST_ANNOUNCE, MQ,
    },
    pairs::{Pairs, UseError},
    shared::{Shared, lock},
};
use crate::{
    threads::ThreadKind,
    virtio::{
        queue::{Chain, Reader, Writer},
        quiet::Quiet,
        requests::{RequestError, RequestHandler},
        worker::StopSignal,
    },
};
use receive::{ReceiveControl, exactly};

/// Largest size of the control queue: a driver has one command under way.
pub(super) const CONTROL_QUEUE_SIZE: u16 = 64;

const OK: u8 = byte(VIRTIO_NET_OK);
const ERR: u8 = byte(VIRTIO_NET_ERR);

const fn byte(value: u32) -> u8 {
    let [low, rest @ ..] = value.to_le_bytes();
    assert!(matches!(rest, [0, 0, 0]));
    low
}

/// Carries commands out, on the control queue's thread.
pub(super) struct Control<B> {
    pairs: Arc<Mutex<Pairs<B>>>,
    shared: Arc<Shared>,
    counters: Arc<PairCounters>,
    /// The negotiated features.
    features: u64,
    log_lines: LogLines,
    receive: ReceiveControl,
    /// Why the thread can't go on.
    broken: Option<RequestError>,
}

/// How often the driver caused a log line, over all resets.
#[derive(Debug, Clone, Default)]
pub(super) struct LogLines {
    /// It used fewer pairs than there are.
    fewer: Arc<Quiet>,
    /// The system had no thread for a pair.
    refusals: Arc<Quiet>,
}

/// A command was not carried out.
#[derive(Debug)]
struct Refused;

/// What became of a command.
type Outcome = Result<(), Refused>;

impl<B: NetBackend> RequestHandler for Control<B> {
    const KIND: ThreadKind = ThreadKind::NetControl;

    fn handle(&mut self, chain: &Chain, _stop: &StopSignal) -> Result<u32, RequestError> {
        self.counters.control_commands.add(1);
        let mut answer = chain.writer();
        if answer.remaining() == 0 {
            // It can't be told what became of it, so nothing does.
            self.counters.control_refused.add(1);
            return Ok(0);
        }
        let mut result = chain.writer();
        result.skip(1);
        let room = result.remaining();
        let outcome = self.obey(chain.reader(), &mut result);
        if let Some(error) = self.broken.take() {
            return Err(error);
        }
        let ack = if outcome.is_ok() {
            OK
        } else {
            self.counters.control_refused.add(1);
            ERR
        };
        answer.write(&[ack]);
        // Bounded by the chain's length, which is a u32.
        Ok(u32::try_from(1 + room - result.remaining()).unwrap_or(1))
    }
}

impl<B: NetBackend> Control<B> {
    pub(super) fn new(
        pairs: &Arc<Mutex<Pairs<B>>>,
        shared: &Arc<Shared>,
        features: u64,
        log_lines: &LogLines,
    ) -> Self {
        Self {
            pairs: Arc::clone(pairs),
            shared: Arc::clone(shared),
            counters: Arc::clone(&shared.control_counters),
            features,
            log_lines: log_lines.clone(),
            receive: ReceiveControl::new(shared),
            broken: None,
        }
    }

    /// Carries one command out: its class, its number in the class, and data. What it has to say
    /// besides its acknowledgement goes to `result`.
    fn obey(&mut self, mut command: Reader<'_>, result: &mut Writer<'_>) -> Outcome {
        let [class, number] = command.read_array().ok_or(Refused)?;
        let data = command;
        match (u32::from(class), u32::from(number)) {
            (VIRTIO_NET_CTRL_RX, mode) => {
                let basic = mode <= VIRTIO_NET_CTRL_RX_ALLMULTI;
                self.needs(if basic { CTRL_RX } else { CTRL_RX_EXTRA })?;
                self.receive.mode(number, data)
            }
            (VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET) => {
                self.needs(CTRL_RX)?;
                self.receive.table(data)
            }
            (VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET) => {
                self.needs(CTRL_MAC_ADDR)?;
                self.receive.address(data)
            }
            (VIRTIO_NET_CTRL_VLAN, _) => {
                self.needs(CTRL_VLAN)?;
                self.receive.vlan(number, data)
            }
            (VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK) => {
                self.needs(GUEST_ANNOUNCE)?;
                self.announced(data)
            }
            (VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET) => {
                self.needs(MQ)?;
                self.set_pairs(data)
            }
            (VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET) => {
                self.needs(CTRL_GUEST_OFFLOADS)?;
                self.set_guest_offloads(data)
            }
            (VIRTIO_NET_CTRL_NOTF_COAL, number) => {
                self.needs(coalescing::feature_of(number))?;
                coalescing::obey(&self.shared, number, data, result)
            }
            (statistics::CLASS, number) => {
                self.needs(DEVICE_STATS)?;
                statistics::obey(&self.shared, self.features, number, data, result)
            }
            _ => Err(Refused),
        }
    }

    fn needs(&self, feature: u64) -> Outcome {
        if self.features & feature == 0 {
            return Err(Refused);
        }
        Ok(())
    }

    /// 5.1.6.5.4: the driver has announced itself, as it was asked to.
    fn announced(&self, data: Reader<'_>) -> Outcome {
        let [] = exactly(data)?;
        if self.shared.end_announcement() {
            Ok(())
        } else {
            Err(Refused)
        }
    }

    /// 5.1.6.5.6: the feature bits of all that are to be on, 64 bits. Frames of the burst that is under way
    /// may still be as they were to be before.
    fn set_guest_offloads(&self, data: Reader<'_>) -> Outcome {
        let wanted = u64::from_le_bytes(exactly(data)?);
        let done = self.shared.guest_offloads.set(wanted, self.features);
        done.then_some(()).ok_or(Refused)
    }

    /// 5.1.6.5.5: the number of pairs, 16 bits, and nothing more.
    fn set_pairs(&mut self, data: Reader<'_>) -> Outcome {
        let count = u16::from_le_bytes(exactly(data)?);
        let pairs = self.shared.counters.len();
        match lock(&self.pairs).use_pairs(usize::from(count)) {
            Ok(()) => {
                if usize::from(count) < pairs {
                    self.log_fewer(count, pairs);
                }
                Ok(())
            }
            Err(UseError::Count { .. } | UseError::Dead) => Err(Refused),
            Err(UseError::Thread(error)) => {
                self.log_no_thread(count, &error);
                Err(Refused)
            }
            Err(error @ UseError::Lost(_)) => {
                self.broken = Some(RequestError::Host(io::Error::other(error)));
                Err(Refused)
            }
        }
    }

    fn log_no_thread(&self, count: u16, error: &io::Error) {
        if let Some(number) = self.log_lines.refusals.count() {
            tracing::warn!(
                "{}: the guest wants to use {count} queue pairs, but the system refused a thread for one \
                 of them ({error}); it goes on as before (message {number}). Limits on threads are \
                 `ulimit -u` and the pids.max of the control group",
                self.shared.name
            );
        }
    }

    fn log_fewer(&self, count: u16, pairs: usize) {
        if let Some(number) = self.log_lines.fewer.count() {
            tracing::info!(
                "{}: the guest uses {count} of {pairs} queue pairs (message {number}); it gets what the \
                 other interface queues receive through these. As many queues as the guest has \
                 vCPUs are enough",
                self.shared.name
            );
        }
    }
}
