//! A worker in an event loop: what wakes it up.

use std::{io, os::fd::AsRawFd, sync::Arc};

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};

use super::{NetBackend, Side, Worker, notify::ports};
use crate::virtio::{net::carrier::Carrier, worker::StopSignal};

/// A worker while a thread has it.
pub(in crate::virtio::net) struct Shift<B> {
    pub(in crate::virtio::net) worker: Worker<B>,
    pub(in crate::virtio::net) stop: Arc<StopSignal>,
}

impl<B: NetBackend> MutEventSubscriber for Shift<B> {
    /// Only takes note: the work is done in [`Worker::turn`], which looks at all queues anyway.
    fn process(&mut self, events: Events, _ops: &mut EventOps<'_>) {
        let fd = events.fd();
        let worker = &mut self.worker;
        if let Some(port) =
            ports(&mut worker.rx, &mut worker.tx).find(|port| port.kick.as_raw_fd() == fd)
        {
            // Kicks are level triggered; "nothing there" is no error.
            if let Ok(kicks) = port.kick.read() {
                let counter = match port.side() {
                    Side::Rx => &worker.counters.rx_kicks,
                    Side::Tx => &worker.counters.tx_kicks,
                };
                counter.add(kicks);
            }
            return;
        }
        if let Some(alarm) = worker
            .alarm
            .as_mut()
            .filter(|alarm| alarm.as_raw_fd() == fd)
        {
            // It is readable, so this does not wait. What is due is sent by the turn that follows.
            let _ = alarm.wait();
            return;
        }
        let mut carriers = worker.carriers.iter_mut();
        let Some(carrier) = carriers.find(|carrier| carrier.fd() == Some(fd)) else {
            // The stop signal: looked at between any two bursts.
            return;
        };
        if !carrier.announced(events.event_set()) {
            let what =
                "its connection to the wire is broken (the file descriptor reports an error)";
            worker.failure = Some(io::Error::other(what));
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        let worker = &mut self.worker;
        let kicks = ports(&mut worker.rx, &mut worker.tx).map(|port| port.kick.as_raw_fd());
        let alarm = worker.alarm.as_ref().map(AsRawFd::as_raw_fd);
        let own = kicks.chain(alarm).chain([self.stop.as_raw_fd()]);
        let own = own.map(|fd| Events::new_raw(fd, EventSet::IN));
        let carriers = worker.carriers.iter_mut();
        let all = own.chain(carriers.filter_map(Carrier::first_interest));
        for events in all {
            if let Err(error) = ops.add(events) {
                worker.failure = Some(io::Error::other(format!(
                    "could not wait for events: {error}"
                )));
            }
        }
    }
}

pub(in crate::virtio::net) fn host_error(error: event_manager::Error) -> io::Error {
    match error {
        event_manager::Error::Epoll(errno) => errno.into(),
        other => io::Error::other(other.to_string()),
    }
}
