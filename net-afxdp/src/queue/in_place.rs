//! Sending frames from where the caller has them.

use super::{
    Path, Queue, SendError,
    send::{MIN_FRAME, SHORTEST_SENT},
};
use crate::{
    frame::Side, multi_buffer::PACKET_CONTINUES, ring::Descriptor, shared_memory::Piece,
    socket::Kernel, umem::CHUNK_SIZE,
};

/// Most descriptors of a frame that is sent in place. One that is scattered over more is rather copied.
const MAX_DESCRIPTORS: usize = 8;

/// Fewest bytes of the first of several descriptors of a frame. Its bytes become the linear part of the
/// kernel's packet, which must have all headers that the stack looks at without asking: it would
/// crash on less than an Ethernet header.
const MIN_FIRST: u32 = 128;

impl Queue {
    /// Whether frames can be sent in place: whether the queue was opened with memory for that.
    #[must_use]
    pub fn sends_in_place(&self) -> bool {
        self.path.socket.umem.has_shared()
    }

    /// Queues one frame, whole or not at all, that lies in these pieces of the
    /// [`SharedMemory`](crate::SharedMemory), and stays there. Nothing reaches the kernel before
    /// [`flush`](Self::flush).
    ///
    /// The kernel, or the network card, reads the bytes at any time from then on until
    /// [`take_sent`](Self::take_sent) says `token`, which is the caller's to choose and need not be
    /// unique. What is changed meanwhile is sent so, or not; nothing but these bytes is.
    ///
    /// A descriptor does not cross a boundary of 4096 bytes of the memory, so a frame that does takes
    /// two, which takes [`multi_buffer`](Self::multi_buffer).
    ///
    /// # Errors
    /// `NotInPlace`: copy it, with [`send`](Self::send); so are frames of fewer than 60 bytes, which are sent with zeros
    /// behind them. The others are as there.
    pub fn send_in_place(&mut self, pieces: &[Piece], token: u32) -> Result<(), SendError> {
        self.path.send_in_place(pieces, token)
    }

    /// Tells `done` the tokens of frames that were sent in place and are no longer read by anybody;
    /// returns how many. Nothing announces them: ask while [`in_flight`](Self::in_flight) is not 0.
    pub fn take_sent(&mut self, done: impl FnMut(u32)) -> usize {
        self.path.take_sent(done)
    }

    /// How many frames that were sent in place have not been told by [`take_sent`](Self::take_sent).
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.path.in_flight.frames() as usize
    }

    /// Copies the frames that were sent in place and that the kernel has not looked at yet into
    /// memory of the queue's own, from where they are sent later; [`take_sent`](Self::take_sent) tells
    /// those that have nothing left in the caller's memory. Returns how many pieces the kernel or the
    /// card still reads there.
    ///
    /// For a link that is down: its frames wait in the tx ring for as long as it is.
    pub fn withdraw(&mut self) -> usize {
        self.path.withdraw() as usize
    }

    /// From now on [`take_sent`](Self::take_sent) tells nothing of the frames that were sent until now;
    /// returns how many of them the kernel still has.
    pub fn forget_in_flight(&mut self) -> usize {
        self.path.in_flight.forget() as usize
    }
}

impl<K: Kernel> Path<K> {
    pub(super) fn send_in_place(&mut self, pieces: &[Piece], token: u32) -> Result<(), SendError> {
        let sizes = pieces.iter().map(|piece| piece.length);
        let length = sizes.fold(0, u32::saturating_add);
        if (length as usize) < MIN_FRAME {
            return Err(SendError::TooShort);
        }
        // Zeros go behind it, and what is there is not to be touched.
        if length < SHORTEST_SENT {
            return Err(SendError::NotInPlace);
        }
        if length > self.limits.sent() {
            return Err(SendError::TooLong);
        }
        let mut list = List::default();
        for piece in pieces {
            let address = self.socket.umem.shared_address(piece.offset, piece.length);
            if !list.add(address.ok_or(SendError::NotInPlace)?, piece.length) {
                return Err(SendError::NotInPlace);
            }
        }
        let descriptors = list.get();
        let count = u32::try_from(descriptors.len()).unwrap_or(u32::MAX);
        let short = descriptors.first().is_none_or(|it| it.1 < MIN_FIRST);
        if count > self.limits.send_fragments() || (count > 1 && short) {
            return Err(SendError::NotInPlace);
        }
        if self.free_to_send() < count || !self.in_flight.has_room(descriptors.len()) {
            self.reap();
            if self.free_to_send() < count || !self.in_flight.has_room(descriptors.len()) {
                return Err(SendError::Full);
            }
        }
        let tx = &mut self.socket.rings.tx;
        let index = tx.next_index();
        let mut slots = tx.reserve(count).ok_or(SendError::Full)?;
        for (number, &(address, length)) in (1..).zip(descriptors) {
            slots.push(Descriptor {
                address,
                length,
                options: if number < count { PACKET_CONTINUES } else { 0 },
            });
        }
        if !self.in_flight.begin(token, index, descriptors) {
            return Err(SendError::Full);
        }
        slots.commit();
        self.counters.tx_packets += 1;
        self.counters.tx_bytes += u64::from(length);
        self.counters.tx_in_place += 1;
        Ok(())
    }

    pub(super) fn take_sent(&mut self, mut done: impl FnMut(u32)) -> usize {
        if self.in_flight.frames() == 0 {
            return 0;
        }
        self.reap();
        let mut count = 0;
        while let Some(token) = self.in_flight.take_done() {
            done(token);
            count += 1;
        }
        count
    }

    pub(super) fn withdraw(&mut self) -> u32 {
        self.reap();
        let (rings, umem) = (&mut self.socket.rings, &mut self.socket.umem);
        let pool = &mut self.pool;
        let taken = rings.tx.consumed();
        self.in_flight.move_untaken(taken, |index, from, length| {
            // There is one for each descriptor: see `free_to_send`.
            let mut frame = pool.take()?;
            if !umem.copy_shared(from, length, &mut frame) {
                pool.put(frame);
                return None;
            }
            let to = pool.lend(frame, Side::Transmit);
            rings.tx.readdress(index, to);
            Some(to)
        });
        self.in_flight.lent()
    }

    /// Chunks that may be taken to send with. As many as the kernel has descriptors of other memory
    /// are kept back: so there is one for each that is withdrawn, and what the kernel has at once
    /// fits into the completion ring.
    pub(super) fn free_to_send(&self) -> u32 {
        self.pool.free().saturating_sub(self.in_flight.lent())
    }
}

/// The descriptors of a frame: pieces cut at the boundaries of chunks, and joined where they can be.
#[derive(Debug, Default)]
struct List {
    descriptors: [(u64, u32); MAX_DESCRIPTORS],
    count: usize,
}

impl List {
    /// False: there are too many.
    fn add(&mut self, mut address: u64, mut length: u32) -> bool {
        let chunk = u64::from(CHUNK_SIZE);
        while length > 0 {
            // Below the size of a chunk, so it fits.
            let offset = u32::try_from(address % chunk).unwrap_or(0);
            let part = length.min(CHUNK_SIZE - offset);
            let last = self.count.checked_sub(1);
            match last.and_then(|last| self.descriptors.get_mut(last)) {
                Some(last) if offset != 0 && last.0 + u64::from(last.1) == address => {
                    last.1 += part;
                }
                _ => match self.descriptors.get_mut(self.count) {
                    Some(slot) => {
                        *slot = (address, part);
                        self.count += 1;
                    }
                    None => return false,
                },
            }
            address += u64::from(part);
            length -= part;
        }
        true
    }

    fn get(&self) -> &[(u64, u32)] {
        self.descriptors.get(..self.count).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(pieces: &[(u64, u32)]) -> Option<Vec<(u64, u32)>> {
        let mut list = List::default();
        let fits = pieces
            .iter()
            .all(|&(address, length)| list.add(address, length));
        fits.then(|| list.get().to_vec())
    }

    #[test]
    fn descriptors_keep_within_chunks() {
        for (pieces, expected) in [
            (&[][..], &[][..]),
            (&[(5, 0)], &[]),
            (&[(0, 4096)], &[(0, 4096)]),
            (&[(1, 4096)], &[(1, 4095), (4096, 1)]),
            (&[(4095, 2)], &[(4095, 1), (4096, 1)]),
            // Joined in a chunk, not over its end.
            (&[(10, 12), (22, 100)], &[(10, 112)]),
            (&[(10, 12), (23, 100)], &[(10, 12), (23, 100)]),
            (&[(4000, 96), (4096, 100)], &[(4000, 96), (4096, 100)]),
            (&[(4000, 90), (4090, 100)], &[(4000, 96), (4096, 94)]),
            (&[(100, 9000)], &[(100, 3996), (4096, 4096), (8192, 908)]),
        ] {
            assert_eq!(list(pieces).as_deref(), Some(expected), "{pieces:?}");
        }
        assert!(list(&[(0, 8 * 4096)]).is_some());
        assert!(list(&[(1, 8 * 4096)]).is_none());
        assert!(list(&[(0, u32::MAX)]).is_none());
    }
}
