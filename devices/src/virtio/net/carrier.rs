//! A back end in an io-thread's hands: what was not flushed yet, and what its file descriptor is to
//! announce.

use std::{
    io,
    os::fd::{AsRawFd, RawFd},
};

use event_manager::{EventSet, Events};

use super::{NetBackend, counters::PairCounters, in_place::Lookout, shared::Shared, worker::Pause};

/// How soon to look again for room that no event announces, in milliseconds.
const ROOM_RETRY_MS: i32 = 1;
/// How soon to try again after the wire refused frames, in milliseconds.
const DOWN_RETRY_MS: i32 = 100;

/// What an event loop is to do about a back end's file descriptor.
#[derive(Debug)]
pub(super) enum Interest {
    /// Wait for these events.
    Add(Events),
    /// Wait for these events instead of others.
    Change(Events),
    /// Wait for nothing of it.
    Remove(Events),
}

/// One back end with its state towards the event loop.
#[derive(Debug)]
pub(super) struct Carrier<B> {
    /// The queue pair that it was made for, and whose transmit queue it sends for.
    pub(super) home: usize,
    pub(super) backend: B,
    /// Frames were queued that the back end has not yet flushed.
    pub(super) unflushed: bool,
    /// What is to be told by the back end's fd, and what epoll was asked for. `None`: it is not in
    /// epoll at all.
    want: Option<EventSet>,
    registered: Option<EventSet>,
    /// The fd was writable and yet nothing could be sent since: it is no help in waiting for room.
    writable_in_vain: bool,
    /// The wire took nothing at the last flush.
    down: bool,
    lookout: Lookout,
}

impl<B: NetBackend> Carrier<B> {
    pub(super) fn new(home: usize, backend: B) -> Self {
        Self {
            home,
            backend,
            unflushed: false,
            want: Some(EventSet::IN),
            registered: Some(EventSet::IN),
            writable_in_vain: false,
            down: false,
            lookout: Lookout::default(),
        }
    }

    /// What an event loop that never heard of it is to be asked for.
    pub(super) fn first_interest(&mut self) -> Option<Events> {
        self.want = Some(EventSet::IN);
        self.registered = self.want;
        let fd = self.fd()?;
        Some(Events::new_raw(fd, EventSet::IN))
    }

    /// What the event loop is to be told now, if anything changed.
    pub(super) fn changed_interest(&mut self) -> Option<Interest> {
        let fd = self.fd()?;
        let events = |set| Events::new_raw(fd, set);
        match (
            std::mem::replace(&mut self.registered, self.want),
            self.want,
        ) {
            (before, now) if before == now => None,
            (Some(_), Some(now)) => Some(Interest::Change(events(now))),
            (Some(before), None) => Some(Interest::Remove(events(before))),
            (None, now) => now.map(|now| Interest::Add(events(now))),
        }
    }

    /// There is so much to do that the thread won't sleep soon: the fd leaves epoll until it does.
    ///
    /// While anybody waits for a socket, the kernel wakes him for every single frame that it has sent
    /// (`sock_wfree`), whatever events he asked for: a tenth of what sending a small frame costs.
    pub(super) fn stay_awake(&mut self) {
        self.want = None;
    }

    pub(super) fn fd(&self) -> Option<RawFd> {
        self.backend.event_fd().map(|fd| fd.as_raw_fd())
    }

    /// Takes note of what the fd announced; false if it announced nothing but its end.
    pub(super) fn announced(&mut self, happened: EventSet) -> bool {
        self.writable_in_vain = happened.contains(EventSet::OUT);
        happened.intersects(EventSet::IN | EventSet::OUT)
    }

    /// The back end took something since its fd was writable.
    pub(super) fn had_room(&mut self) {
        self.writable_in_vain = false;
    }

    /// Gives what was queued to the wire. What it does not take stays queued.
    pub(super) fn flush(&mut self, shared: &Shared, counters: &PairCounters) {
        if !self.unflushed {
            return;
        }
        match self.backend.flush() {
            Ok(()) => {
                self.unflushed = false;
                if std::mem::take(&mut self.down) {
                    log(shared, "frames go out again");
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                counters.tx_carrier_errors.add(1);
                if !std::mem::replace(&mut self.down, true) {
                    let what = format!("frames can't be sent now and will be tried again: {error}");
                    log(shared, &what);
                }
            }
        }
    }

    /// Tells `done` which frames that were sent from guest memory are back.
    pub(super) fn take_sent(&mut self, done: impl FnMut(u16)) {
        if self.backend.take_sent(done) > 0 {
            self.lookout.success();
        }
    }

    /// Decides what the fd is to announce until the next turn, and how long to wait at most.
    ///
    /// `listen`: received frames are wanted. `blocked`: there is more to send than it had room for.
    pub(super) fn prepare_to_sleep(&mut self, listen: bool, blocked: bool) -> Pause {
        let want = if listen {
            EventSet::IN
        } else {
            EventSet::empty()
        };
        self.want = Some(want);
        let in_vain = std::mem::take(&mut self.writable_in_vain);
        let back = match self.backend.in_flight() {
            0 => Pause::Long,
            _ => Pause::Short(self.lookout.pause_ms()),
        };
        back.min(self.pause_for_room(want, blocked, in_vain))
    }

    /// The same for what is queued; `want` is asked for besides.
    fn pause_for_room(&mut self, want: EventSet, blocked: bool, in_vain: bool) -> Pause {
        if self.down {
            return Pause::Short(DOWN_RETRY_MS);
        }
        if !blocked && !self.unflushed {
            return Pause::Long;
        }
        if in_vain || self.backend.event_fd().is_none() {
            return Pause::Short(ROOM_RETRY_MS);
        }
        self.want = Some(want | EventSet::OUT);
        Pause::Long
    }
}

fn log(shared: &Shared, what: &str) {
    if let Some(number) = shared.carrier_lines.count() {
        tracing::warn!("{}: {what} (message {number})", shared.name);
    }
}
