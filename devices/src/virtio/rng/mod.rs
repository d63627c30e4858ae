//! virtio-rng, the entropy device (virtio 1.2, section 5.4): the host's `getrandom`, on a thread of
//! its own.

use std::{io, sync::Arc};

use rustix::{
    io::Errno,
    rand::{GetRandomFlags, getrandom},
};

use super::{
    ActivateError, Activation, VirtioDevice,
    queue::{Chain, Writer},
    quiet::Quiet,
    requests::{RequestError, RequestHandler, RequestThread, Worker},
    worker::{OnFault, StopSignal, log_fault},
};
use crate::{placement::Placement, threads::ThreadKind};

/// Device ID of the entropy device (virtio 1.2, section 5).
const DEVICE_ID: u32 = 4;
const QUEUE_SIZE: u16 = 64;
/// Most bytes that one request gets; its used length says how many these were. Bounds the work
/// that a driver can ask for in one go.
pub const MAX_REQUEST: usize = 64 << 10;
/// Bytes drawn from the kernel at a time.
const BLOCK: usize = 1024;

/// The entropy device.
pub struct RngDevice {
    name: String,
    placement: Placement,
    on_fault: OnFault,
    faults: Arc<Quiet>,
    worker: Option<RequestThread<Entropy>>,
}

impl RngDevice {
    /// A device whose thread is called `rng0`.
    pub fn new() -> Self {
        Self {
            name: "rng0".to_owned(),
            placement: Placement::default(),
            on_fault: log_fault(),
            faults: Arc::default(),
            worker: None,
        }
    }

    /// Sets which CPUs the device's thread runs on.
    #[must_use]
    pub fn placed(mut self, placement: Placement) -> Self {
        self.placement = placement;
        self
    }

    /// Sets who is told when the device's thread dies.
    #[must_use]
    pub fn on_fault(mut self, on_fault: OnFault) -> Self {
        self.on_fault = on_fault;
        self
    }
}

impl Default for RngDevice {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for RngDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RngDevice")
            .field("worker", &self.worker)
            .finish_non_exhaustive()
    }
}

impl VirtioDevice for RngDevice {
    fn device_id(&self) -> u32 {
        DEVICE_ID
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn read_config(&self, _offset: u64, _data: &mut [u8]) {}

    fn activate(&mut self, mut activation: Activation) -> Result<(), ActivateError> {
        let queue = activation.queues.get_mut(0).and_then(Option::take);
        let queue = queue.ok_or(ActivateError::QueueMissing(0))?;
        let worker = Worker {
            name: self.name.clone(),
            placement: self.placement.clone(),
            faults: Arc::clone(&self.faults),
            on_fault: Arc::clone(&self.on_fault),
            handler: Entropy([0; BLOCK]),
        };
        let what = "start the thread of the entropy device";
        let worker = worker
            .spawn(queue, activation.interrupt)
            .map_err(|source| ActivateError::System { what, source })?;
        self.worker = Some(worker);
        Ok(())
    }

    fn reset(&mut self) {
        // Stops and joins.
        self.worker = None;
    }

    fn pause(&mut self) {
        if let Some(worker) = &mut self.worker {
            worker.pause();
        }
    }

    fn resume(&mut self) -> Result<(), ActivateError> {
        self.worker.as_mut().map_or(Ok(()), RequestThread::resume)
    }
}

/// Fills the writable part of each chain; a readable part, which no driver should send (5.4.6.1),
/// is ignored.
struct Entropy([u8; BLOCK]);

impl RequestHandler for Entropy {
    const KIND: ThreadKind = ThreadKind::Rng;

    fn handle(&mut self, chain: &Chain, _stop: &StopSignal) -> Result<u32, RequestError> {
        let mut to = chain.writer();
        let mut written = 0;
        while written < MAX_REQUEST && to.remaining() > 0 {
            written += self.draw(&mut to, MAX_REQUEST - written)?;
        }
        // At most MAX_REQUEST.
        Ok(u32::try_from(written).unwrap_or(u32::MAX))
    }
}

impl Entropy {
    /// Moves up to a block's worth from the kernel to the guest. Through a block of our own, as
    /// the kernel's interface for Rust takes no guest memory; the copy is nothing against the
    /// cost of the random bytes.
    fn draw(&mut self, to: &mut Writer<'_>, limit: usize) -> io::Result<usize> {
        let want = BLOCK.min(limit).min(to.remaining());
        let (block, _) = self.0.split_at_mut(want);
        loop {
            match getrandom(&mut *block, GetRandomFlags::empty()) {
                Ok(got) if got > 0 => {
                    let (random, _) = block.split_at(got.min(want));
                    return Ok(to.write(random));
                }
                Ok(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
                // A signal came before the first byte.
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
