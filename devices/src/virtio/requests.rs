//! The io-thread of a queue of independent requests (virtio-blk, virtio-rng, the control queue of
//! virtio-net).
//!
//! Each turn takes a bounded burst of chains, lets the device's [`RequestHandler`] carry each out,
//! and publishes and signals once. Between two turns, and between two requests, the stop signal is
//! looked at: a driver that re-adds descriptors for ever does not hold up a reset.

mod thread;

use std::{io, sync::Arc};

use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};

use super::{
    ActiveQueue,
    interrupt::Interrupt,
    queue::{Chain, QueueFault},
    quiet::Quiet,
    worker::{OnFault, StopSignal},
};
use crate::{placement::Placement, threads::ThreadKind};
pub(super) use thread::RequestThread;
use thread::{Start, Work};

/// Most requests of one burst.
const BURST: usize = 32;
/// A burst ends after this many bytes: the driver needn't wait for the end of a long queue to see
/// its first request completed.
const BURST_BYTES: u64 = 1 << 20;

/// Carries out the requests of a device. Lives on the device's thread from DRIVER_OK to reset.
pub(super) trait RequestHandler: Send + 'static {
    /// What its thread does.
    const KIND: ThreadKind;

    /// Carries out the request in `chain`; returns how many bytes were written to its writable
    /// part, counted from the start (2.7.8.2). A request that can take long looks at `stop`, and may
    /// be given up as [`Stopped`](RequestError::Stopped).
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
    /// Nobody's: the thread is to end. The request goes back into its queue, and will be done from the start if
    /// the queue is worked on again.
    #[error("the device was stopped")]
    Stopped,
}

/// Who works, for whom.
pub(super) struct Worker<H> {
    /// The thread's name, also for the log.
    pub(super) name: String,
    /// Where it runs.
    pub(super) placement: Placement,
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
    ) -> io::Result<RequestThread<H>> {
        let stop = StopSignal::new()?;
        let (broken, embedder) = (interrupt.clone(), self.on_fault);
        // Of an error or of a panic the driver hears as well.
        let on_fault: OnFault = Arc::new(move |reason| {
            broken.needs_reset();
            embedder(reason);
        });
        let start = Start {
            name: self.name.clone(),
            placement: self.placement,
            stop: Arc::clone(&stop),
            on_fault,
        };
        let turns = Turns {
            chain: queue.queue.new_chain(),
            queue,
            interrupt,
            handler: self.handler,
            name: self.name,
            faults: self.faults,
            stop,
            waits_for_reset: false,
            setup: Ok(()),
        };
        let mut events = EventManager::new_with_capacity(2).map_err(io::Error::other)?;
        let id = events.add_subscriber(turns);
        let turns = events.subscriber_mut(id).map_err(io::Error::other)?;
        std::mem::replace(&mut turns.setup, Ok(())).map_err(io::Error::other)?;
        RequestThread::new(start, Work { events, id })
    }
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
            Err(RequestError::Stopped) => Ok(false),
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
            let before = queue.mark();
            if !queue.pop(&mut self.chain)? {
                return Ok(queue.enable_kicks()?);
            }
            match self.handler.handle(&self.chain, &self.stop) {
                Ok(written) => queue.push_used(self.chain.head(), written),
                Err(stopped @ RequestError::Stopped) => {
                    queue.rewind(before);
                    return Err(stopped);
                }
                Err(error) => return Err(error),
            }
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::{
        testing::{Buffer, DriverQueue, TestDriver, status, wait_for},
        virtio::{ActivateError, Activation, VirtioDevice, queue::VERSION_1},
    };

    /// Does with each request what its first byte says.
    struct Obedient;

    impl RequestHandler for Obedient {
        const KIND: ThreadKind = ThreadKind::Blk;

        fn handle(&mut self, chain: &Chain, _: &StopSignal) -> Result<u32, RequestError> {
            match chain.reader().read_array() {
                Some([b'f']) => Err(io::Error::other("the host has failed").into()),
                Some([b'p']) => panic!("as told"),
                _ => Ok(0),
            }
        }
    }

    struct Device {
        said: Arc<Mutex<Vec<String>>>,
        worker: Option<RequestThread<Obedient>>,
    }

    impl VirtioDevice for Device {
        fn device_id(&self) -> u32 {
            42
        }
        fn features(&self) -> u64 {
            0
        }
        fn queue_max_sizes(&self) -> &[u16] {
            &[256]
        }
        fn read_config(&self, _: u64, _: &mut [u8]) {}
        fn activate(&mut self, mut activation: Activation) -> Result<(), ActivateError> {
            let said = Arc::clone(&self.said);
            let worker = Worker {
                name: "test0".to_owned(),
                placement: Placement::default(),
                faults: Arc::default(),
                on_fault: Arc::new(move |reason| said.lock().unwrap().push(reason.to_owned())),
                handler: Obedient,
            };
            let queue = activation.queues.remove(0).unwrap();
            self.worker = Some(worker.spawn(queue, activation.interrupt).unwrap());
            Ok(())
        }
        fn reset(&mut self) {
            self.worker = None;
        }
        fn pause(&mut self) {
            self.worker.as_mut().unwrap().pause();
        }
        fn resume(&mut self) -> Result<(), ActivateError> {
            self.worker.as_mut().unwrap().resume()
        }
    }

    fn start() -> (TestDriver, DriverQueue, Arc<Mutex<Vec<String>>>) {
        let said = Arc::new(Mutex::new(Vec::new()));
        let mut driver = TestDriver::new(Device {
            said: Arc::clone(&said),
            worker: None,
        });
        assert!(driver.negotiate(VERSION_1));
        let queue = driver.queue(0, 256);
        driver.start();
        (driver, queue, said)
    }

    #[test]
    fn an_error_and_a_panic_are_told_to_driver_and_embedder() {
        let deaths = [
            (b"f", "the io-thread test0 can't go on: the host has failed"),
            (b"p", "the io-thread test0 panicked: as told"),
        ];
        for (order, sentence) in deaths {
            let (mut driver, mut queue, said) = start();
            let memory = driver.allocate(2, 1);
            driver.write_memory(memory, b"x");
            driver.write_memory(memory + 1, order);
            queue.add(&[Buffer::readable(memory, 1)]);
            queue.add(&[Buffer::readable(memory + 1, 1)]);
            driver.kick(0);
            driver.wait_needs_reset();
            wait_for("the sentence", || {
                said.lock().unwrap().pop().filter(|said| said == sentence)
            });
            assert!(said.lock().unwrap().is_empty(), "told once");
            if order == b"f" {
                queue.wait_used();
            }
            assert_eq!(queue.take_used(), None, "only what was done is given back");
        }
    }

    #[test]
    fn a_full_ring_is_many_bursts_and_one_kick() {
        let (mut driver, mut queue, _) = start();
        let memory = driver.allocate(1, 1);
        for _ in 0..256 {
            queue.add(&[Buffer::readable(memory, 1)]);
        }
        driver.kick(0);
        for _ in 0..256 {
            queue.wait_used();
        }
        assert_eq!(driver.status() & status::NEEDS_RESET, 0);
        wait_for("the wish for kicks", || {
            (queue.used_flags() == 0).then_some(())
        });
    }
}
