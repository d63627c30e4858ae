//! What the guest has sent and the host's end of the console has not taken yet.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use devices::serial::{SerialOutput, TRANSMIT_FIFO};

/// How many bytes wait for a slow reader. What the pipe or the terminal holds comes on top.
pub(super) const CAPACITY: usize = 64 << 10;

/// The transmitter is busy when there is less room than this: some drivers send without looking, and all do so
/// after having waited for a while (Linux's console waits for 10 ms).
const RESERVE: usize = 4 << 10;
const _: () = assert!(RESERVE >= TRANSMIT_FIFO);

/// Most bytes that are handed to the host at once: what a pipe takes as a whole (PIPE_BUF, pipe(7)).
const CHUNK: usize = 4096;

/// How soon to try again to tell the driver, whose vCPU has the port just now.
const TELL_AGAIN: Duration = Duration::from_millis(1);

/// A bounded buffer between the port, on a vCPU's thread, and the thread `console.out`.
///
/// A reader that takes something now and then loses nothing: the guest waits for it. One that took nothing for
/// `patience`, although the buffer was full, is stalled: until it takes again the guest's output is dropped, and counted.
#[derive(Debug)]
pub(super) struct Buffer {
    patience: Duration,
    state: Mutex<State>,
    /// Bytes came, or went, or the end did.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    bytes: VecDeque<u8>,
    /// Since when the transmitter has been busy and the reader has taken nothing.
    full_since: Option<Instant>,
    /// All bytes that never got to the host.
    dropped: u64,
    /// All that did.
    taken: u64,
    /// A driver found the transmitter busy, and was not told yet that it is not any more.
    awaited: bool,
    /// The VM ends: nobody waits for the reader any more.
    ending: bool,
    closed: bool,
}

impl State {
    fn has_room(&self) -> bool {
        CAPACITY - self.bytes.len() >= RESERVE
    }

    fn is_stalled(&self, patience: Duration) -> bool {
        self.full_since.is_some_and(|it| it.elapsed() >= patience)
    }

    fn push(&mut self, byte: u8) {
        self.bytes.push_back(byte);
        if self.full_since.is_none() && !self.has_room() {
            self.full_since = Some(Instant::now());
        }
    }

    /// The first `count` bytes are gone. What a reader took ends its stall.
    fn remove(&mut self, count: usize) {
        self.bytes.drain(..count.min(self.bytes.len()));
        self.full_since = (!self.has_room()).then(Instant::now);
    }
}

/// What there is to do for the thread `console.out`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// To write these bytes, and to say what became of them.
    Write,
    /// To tell the driver that the transmitter is not busy.
    Tell,
    /// Nothing any more.
    End,
}

impl Buffer {
    /// An empty one.
    pub(super) fn new(patience: Duration) -> Self {
        Self {
            patience,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, most: Duration) -> MutexGuard<'a, State> {
        let waited = self.changed.wait_timeout(state, most);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Takes a byte of the guest's. Waits for room, as long as the reader is not stalled.
    fn send(&self, byte: u8) {
        let mut state = self.state();
        while state.bytes.len() >= CAPACITY {
            if state.ending || state.is_stalled(self.patience) {
                state.dropped = state.dropped.saturating_add(1);
                return;
            }
            state = self.wait(state, self.patience);
        }
        state.push(byte);
        if state.bytes.len() == 1 {
            self.changed.notify_all();
        }
    }

    /// Whether the transmitter is empty, for the driver. Nobody waits for a reader that is stalled.
    fn is_ready(&self) -> bool {
        let mut state = self.state();
        let ready = state.has_room() || state.ending || state.is_stalled(self.patience);
        state.awaited = !ready;
        ready
    }

    /// Waits for something to do. Bytes to write come into `chunk`; they stay here too until they are
    /// [`taken`](Self::taken) or [`lost`](Self::lost).
    pub(super) fn next(&self, chunk: &mut Vec<u8>) -> Next {
        let mut state = self.state();
        loop {
            if state.closed {
                return Next::End;
            }
            if !state.bytes.is_empty() {
                chunk.clear();
                chunk.extend(state.bytes.iter().take(CHUNK));
                return Next::Write;
            }
            if state.awaited {
                let _waited = self.wait(state, TELL_AGAIN);
                return Next::Tell;
            }
            let waited = self.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The host took the first `count` bytes.
    pub(super) fn taken(&self, count: usize) {
        let mut state = self.state();
        state.remove(count);
        state.taken = state.taken.saturating_add(count as u64);
        self.changed.notify_all();
    }

    /// The reader took something of what the host holds for it, which ends a stall, but makes no room yet.
    pub(super) fn goes_on(&self) {
        self.state().remove(0);
        self.changed.notify_all();
    }

    /// The host will never take the first `count` bytes.
    pub(super) fn lost(&self, count: usize) {
        let mut state = self.state();
        state.remove(count);
        state.dropped = state.dropped.saturating_add(count as u64);
        self.changed.notify_all();
    }

    /// Whether the driver is to be told that the transmitter is not busy any more.
    pub(super) fn is_awaited(&self) -> bool {
        let state = self.state();
        state.awaited && (state.has_room() || state.is_stalled(self.patience))
    }

    /// How many bytes were dropped until now, if the reader is stalled.
    pub(super) fn stalled(&self) -> Option<u64> {
        let state = self.state();
        state.is_stalled(self.patience).then_some(state.dropped)
    }

    /// How many bytes were dropped until now.
    pub(super) fn dropped(&self) -> u64 {
        self.state().dropped
    }

    /// The VM ends: no vCPU waits for the reader any more.
    pub(super) fn hurry(&self) {
        self.state().ending = true;
        self.changed.notify_all();
    }

    /// Waits until the reader has taken all, as long as it takes something in every span of `patience`, and as `go_on`
    /// says, which is asked now and then.
    pub(super) fn drain(&self, patience: Duration, mut go_on: impl FnMut() -> bool) {
        let mut state = self.state();
        let (mut taken, mut since) = (state.taken, Instant::now());
        while !state.bytes.is_empty() && since.elapsed() < patience && go_on() {
            state = self.wait(state, patience / 10);
            if state.taken != taken {
                (taken, since) = (state.taken, Instant::now());
            }
        }
    }

    /// Nothing is written any more; what is left is dropped.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        let left = state.bytes.len();
        state.remove(left);
        state.dropped = state.dropped.saturating_add(left as u64);
        self.changed.notify_all();
    }

    /// Whether it was [closed](Self::close).
    pub(super) fn is_closed(&self) -> bool {
        self.state().closed
    }
}

/// The port's end.
#[derive(Debug)]
pub(super) struct Sender(pub(super) Arc<Buffer>);

impl SerialOutput for Sender {
    fn send(&mut self, byte: u8) {
        self.0.send(byte);
    }

    fn is_ready(&mut self) -> bool {
        self.0.is_ready()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn fill(buffer: &Buffer, bytes: usize) {
        (0..bytes).for_each(|_| buffer.send(b'x'));
    }

    #[test]
    fn the_transmitter_is_busy_before_there_is_no_room_at_all() {
        let buffer = Buffer::new(LONG);
        assert!(buffer.is_ready());
        fill(&buffer, CAPACITY - RESERVE);
        assert!(buffer.is_ready());
        fill(&buffer, 1);
        assert!(!buffer.is_ready());
        assert!(!buffer.is_awaited(), "there is no room yet");
        // Who does not look loses nothing of this.
        fill(&buffer, RESERVE - 1);
        buffer.taken(RESERVE - 1);
        assert!(!buffer.is_awaited());
        buffer.taken(1);
        assert!(buffer.is_awaited());
        assert!(buffer.is_ready() && !buffer.is_awaited());
        assert_eq!(buffer.dropped(), 0);
    }

    #[test]
    fn a_guest_waits_for_a_reader_that_takes_something() {
        let buffer = Buffer::new(LONG);
        fill(&buffer, CAPACITY);
        thread::scope(|scope| {
            let guest = scope.spawn(|| fill(&buffer, 2 * CAPACITY));
            for _ in 0..2 * CAPACITY / 64 {
                // What was taken before has come again.
                while buffer.state().bytes.len() < CAPACITY {
                    thread::yield_now();
                }
                assert!(!guest.is_finished());
                let mut chunk = vec![];
                assert_eq!(buffer.next(&mut chunk), Next::Write);
                assert_eq!(chunk, vec![b'x'; CHUNK]);
                buffer.taken(64);
            }
            guest.join().unwrap();
        });
        assert_eq!(buffer.dropped(), 0);
    }

    #[test]
    fn what_a_stalled_reader_does_not_take_is_dropped_until_it_takes_again() {
        let buffer = Buffer::new(Duration::ZERO);
        fill(&buffer, CAPACITY + 10);
        assert_eq!(buffer.stalled(), Some(10));
        assert!(buffer.is_ready(), "nobody waits for it");
        let buffer = Buffer::new(LONG);
        fill(&buffer, CAPACITY);
        assert_eq!(buffer.stalled(), None);
        buffer.taken(RESERVE);
        assert_eq!(buffer.stalled(), None);
        assert!(buffer.is_ready());
    }

    #[test]
    fn nobody_waits_at_the_end() {
        let buffer = Buffer::new(LONG);
        fill(&buffer, CAPACITY);
        thread::scope(|scope| {
            let guest = scope.spawn(|| fill(&buffer, 1));
            thread::sleep(Duration::from_millis(5));
            assert!(!guest.is_finished());
            buffer.hurry();
            guest.join().unwrap();
        });
        assert_eq!(buffer.dropped(), 1);
        let mut asked = 0;
        buffer.drain(LONG, || {
            asked += 1;
            false
        });
        assert_eq!(asked, 1);
        buffer.drain(Duration::from_millis(20), || true);
        buffer.close();
        assert_eq!(buffer.next(&mut vec![]), Next::End);
        assert_eq!(buffer.dropped(), 1 + CAPACITY as u64);
    }
}
