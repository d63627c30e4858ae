//! The io-thread of a device with one queue of independent requests (virtio-blk, virtio-rng).
//!
//! Each turn takes a bounded burst of chains, lets the device's [`RequestHandler`] carry each out,
//! and publishes and signals once. Between two turns, and between two requests, the stop signal is
//! looked at: a driver that re-adds descriptors for ever does not hold up a reset.

use std::{io, sync::Arc};

use event_manager::{
    EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberId, SubscriberOps,
};

use super::{
    ActiveQueue,
    interrupt::Interrupt,
    queue::{Chain, QueueFault},
    quiet::Quiet,
    worker::{OnFault, StopSignal, WorkerThread},
};

/// Most requests of one burst.
const BURST: usize = 32;
/// A burst ends after this many bytes: the driver needn't wait for the end of a long queue to see
/// its first request completed.
const BURST_BYTES: u64 = 1 << 20;

/// Carries out the requests of a device. Lives on the device's thread from DRIVER_OK to reset.
pub(super) trait RequestHandler: Send + 'static {
    /// Carries out the request in `chain`; returns how many bytes were written to its writable
    /// part, counted from the start (2.7.8.2). A request that can take long looks at `stop`.
    fn handle(&mut self, chain: &Chain, stop: &StopSignal) -> Result<u32, RequestError>;
}

/// Why a request ended the work on its queue.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    /// The driver's fault: the queue waits for a reset.
    #[error(transparent)]
    Guest(#[from] QueueFault),
    /// The host's fault: the thread ends, the embedder is told.
    #[error(transparent)]
    Host(#[from] io::Error),
}

/// Who works, for whom.
pub(super) struct Worker<H> {
    /// The thread's name, also for the log.
    pub(super) name: String,
    /// What the driver did wrong, over all resets.
    pub(super) faults: Arc<Quiet>,
    /// Hears when the thread dies.
    pub(super) on_fault: OnFault,
    /// Does the requests.
    pub(super) handler: H,
}

impl<H: RequestHandler> Worker<H> {
    /// Starts the thread on `queue`.
    ///
    /// # Errors
    /// No more epolls, eventfds or threads.
    pub(super) fn spawn(
        self,
        queue: ActiveQueue,
        interrupt: Interrupt,
    ) -> io::Result<WorkerThread> {
        let stop = StopSignal::new()?;
        let name = self.name.clone();
        let on_fault = Arc::clone(&self.on_fault);
        let broken = interrupt.clone();
        let turns = Turns {
            chain: queue.queue.new_chain(),
            queue,
            interrupt,
            handler: self.handler,
            name: self.name,
            faults: self.faults,
            stop: Arc::clone(&stop),
            waits_for_reset: false,
            setup: Ok(()),
        };
        let mut events = EventManager::new_with_capacity(2).map_err(io::Error::other)?;
        let id = events.add_subscriber(turns);
        let turns = events.subscriber_mut(id).map_err(io::Error::other)?;
        std::mem::replace(&mut turns.setup, Ok(())).map_err(io::Error::other)?;
        WorkerThread::spawn(&name, stop, on_fault, move |stop| {
            let result = run(&mut events, id, stop);
            if result.is_err() {
                broken.needs_reset();
            }
            result
        })
    }
}

fn run<H: RequestHandler>(
    events: &mut EventManager<Turns<H>>,
    id: SubscriberId,
    stop: &StopSignal,
) -> io::Result<()> {
    while !stop.is_raised() {
        let turns = events.subscriber_mut(id).map_err(io::Error::other)?;
        let timeout = if turns.turn()? { 0 } else { -1 };
        events.run_with_timeout(timeout).map_err(io::Error::other)?;
    }
    Ok(())
}

struct Turns<H> {
    queue: ActiveQueue,
    chain: Chain,
    interrupt: Interrupt,
    handler: H,
    name: String,
    faults: Arc<Quiet>,
    stop: Arc<StopSignal>,
    /// The driver broke the queue; nothing is taken from it any more.
    waits_for_reset: bool,
    /// How registering the file descriptors went.
    setup: event_manager::Result<()>,
}

impl<H: RequestHandler> Turns<H> {
    /// One burst. True: there is more to do at once.
    fn turn(&mut self) -> io::Result<bool> {
        if self.waits_for_reset {
            return Ok(false);
        }
        let outcome = self.burst();
        // Also after an error: what was done before is the driver's.
        if self.queue.queue.publish() && self.queue.queue.needs_interrupt() {
            self.interrupt.queue(self.queue.index);
        }
        match outcome {
            Ok(more) => Ok(more),
            Err(RequestError::Host(error)) => Err(error),
            Err(RequestError::Guest(fault)) => {
                if let Some(number) = self.faults.count() {
                    let name = &self.name;
                    tracing::warn!(
                        "{name}: the driver must reset the device (time {number}): {fault}"
                    );
                }
                self.waits_for_reset = true;
                self.interrupt.needs_reset();
                Ok(false)
            }
        }
    }

    fn burst(&mut self) -> Result<bool, RequestError> {
        let queue = &mut self.queue.queue;
        let (mut requests, mut bytes) = (0, 0);
        queue.disable_kicks();
        while !self.stop.is_raised() {
            if requests == BURST || bytes >= BURST_BYTES {
                return Ok(true);
            }
            if !queue.pop(&mut self.chain)? {
                return Ok(queue.enable_kicks()?);
            }
            let written = self.handler.handle(&self.chain, &self.stop)?;
            queue.push_used(self.chain.head(), written);
            requests += 1;
            bytes += u64::from(self.chain.readable_len()) + u64::from(self.chain.writable_len());
        }
        Ok(false)
    }
}

impl<H: RequestHandler> MutEventSubscriber for Turns<H> {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        let kick = Events::new(&*self.queue.kick, EventSet::IN);
        let stop = Events::new(&*self.stop, EventSet::IN);
        self.setup = ops.add(kick).and_then(|()| ops.add(stop));
    }

    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        let kick = Events::new(&*self.queue.kick, EventSet::IN);
        if events.fd() != kick.fd() {
            // The stop signal: `run` looks at its flag.
            return;
        }
        // The work is done by the next turn; an error is "there was no kick".
        let _ = self.queue.kick.read();
        if self.waits_for_reset {
            // A storm of kicks is not our business any more. Were it not removed, it would be
            // ignored all the same.
            let _ = ops.remove(kick);
        }
    }
}
