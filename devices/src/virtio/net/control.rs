//! The control queue (virtio 1.2, 5.1.6.5): what the driver asks of the card besides frames.
//!
//! Served by a small thread of its own: no vCPU waits for io-threads, and no io-thread has commands
//! between its frames. The commands are VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET and
//! VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET; all else is answered by VIRTIO_NET_ERR, as its feature was not offered.

use std::{
    io,
    sync::{Arc, Mutex},
};

use virtio_bindings::virtio_net::{
    VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET, VIRTIO_NET_CTRL_MQ,
    VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, VIRTIO_NET_ERR, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS,
    VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_MQ, VIRTIO_NET_OK,
};

use super::{
    NetBackend,
    counters::PairCounters,
    pairs::{Pairs, UseError},
    shared::{Shared, lock},
};
use crate::virtio::{
    queue::{Chain, Reader},
    quiet::Quiet,
    requests::{RequestError, RequestHandler},
    worker::StopSignal,
};

/// Feature bit: there is a control queue.
pub(super) const CTRL_VQ: u64 = 1 << VIRTIO_NET_F_CTRL_VQ;
/// Feature bit: the driver can switch receive offloads on and off.
pub(super) const CTRL_GUEST_OFFLOADS: u64 = 1 << VIRTIO_NET_F_CTRL_GUEST_OFFLOADS;
/// Feature bit: the driver can use several queue pairs.
pub(super) const MQ: u64 = 1 << VIRTIO_NET_F_MQ;

/// Largest size of the control queue: a driver has one command under way.
pub(super) const CONTROL_QUEUE_SIZE: u16 = 64;

/// Class and command of VQ_PAIRS_SET, as the two bytes that a command starts with.
const VQ_PAIRS_SET: [u8; 2] = [
    byte(VIRTIO_NET_CTRL_MQ),
    byte(VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET),
];
/// The same of GUEST_OFFLOADS_SET.
const GUEST_OFFLOADS_SET: [u8; 2] = [
    byte(VIRTIO_NET_CTRL_GUEST_OFFLOADS),
    byte(VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET),
];
const OK: u8 = byte(VIRTIO_NET_OK);
const ERR: u8 = byte(VIRTIO_NET_ERR);

const fn byte(value: u32) -> u8 {
    let [low, rest @ ..] = value.to_le_bytes();
    assert!(matches!(rest, [0, 0, 0]));
    low
}

/// Carries commands out, on the control queue's thread.
pub(super) struct Control<B> {
    pub(super) pairs: Arc<Mutex<Pairs<B>>>,
    pub(super) shared: Arc<Shared>,
    pub(super) counters: Arc<PairCounters>,
    /// The negotiated features.
    pub(super) features: u64,
    /// How often the driver used fewer pairs than there are, for the log.
    pub(super) fewer: Arc<Quiet>,
    /// How often the system had no thread for a pair, for the log.
    pub(super) refusals: Arc<Quiet>,
}

/// A command was not carried out.
struct Refused;

impl<B: NetBackend> RequestHandler for Control<B> {
    fn handle(&mut self, chain: &Chain, _stop: &StopSignal) -> Result<u32, RequestError> {
        self.counters.control_commands.add(1);
        let mut answer = chain.writer();
        if answer.remaining() == 0 {
            // It can't be told what became of it, so nothing does.
            self.counters.control_refused.add(1);
            return Ok(0);
        }
        let ack = if self.obey(chain.reader())?.is_ok() {
            OK
        } else {
            self.counters.control_refused.add(1);
            ERR
        };
        answer.write(&[ack]);
        Ok(1)
    }
}

impl<B: NetBackend> Control<B> {
    fn obey(&self, mut command: Reader<'_>) -> Result<Result<(), Refused>, RequestError> {
        match command.read_array::<2>() {
            Some(VQ_PAIRS_SET) if self.features & MQ != 0 => self.set_pairs(command),
            Some(GUEST_OFFLOADS_SET) if self.features & CTRL_GUEST_OFFLOADS != 0 => {
                Ok(self.set_guest_offloads(command))
            }
            _ => Ok(Err(Refused)),
        }
    }

    /// 5.1.6.5.6: the feature bits of all that are to be on, 64 bits. Frames of the burst that is under way
    /// may still be as they were to be before.
    fn set_guest_offloads(&self, mut data: Reader<'_>) -> Result<(), Refused> {
        let wanted = data.read_array().map(u64::from_le_bytes);
        let wanted = wanted.filter(|_| data.remaining() == 0).ok_or(Refused)?;
        let done = self.shared.guest_offloads.set(wanted, self.features);
        done.then_some(()).ok_or(Refused)
    }

    /// 5.1.6.5.5: the number of pairs, 16 bits, and nothing more.
    fn set_pairs(&self, mut data: Reader<'_>) -> Result<Result<(), Refused>, RequestError> {
        let Some(count) = data.read_array().map(u16::from_le_bytes) else {
            return Ok(Err(Refused));
        };
        if data.remaining() > 0 {
            return Ok(Err(Refused));
        }
        let pairs = self.shared.counters.len();
        match lock(&self.pairs).use_pairs(usize::from(count)) {
            Ok(()) => {
                if usize::from(count) < pairs {
                    self.log_fewer(count, pairs);
                }
                Ok(Ok(()))
            }
            Err(UseError::Count { .. } | UseError::Dead) => Ok(Err(Refused)),
            Err(UseError::Thread(error)) => {
                self.log_no_thread(count, &error);
                Ok(Err(Refused))
            }
            Err(error @ UseError::Lost(_)) => Err(RequestError::Host(io::Error::other(error))),
        }
    }

    fn log_no_thread(&self, count: u16, error: &io::Error) {
        if let Some(number) = self.refusals.count() {
            tracing::warn!(
                "{}: the guest wants to use {count} queue pairs, but the system refused a thread for one \
                 of them ({error}); it goes on as before (message {number}). Limits on threads are \
                 `ulimit -u` and the pids.max of the control group",
                self.shared.name
            );
        }
    }

    fn log_fewer(&self, count: u16, pairs: usize) {
        if let Some(number) = self.fewer.count() {
            tracing::info!(
                "{}: the guest uses {count} of {pairs} queue pairs (message {number}); it gets what the \
                 other interface queues receive through these. As many queues as the guest has \
                 vCPUs are enough",
                self.shared.name
            );
        }
    }
}
