//! Frames that are being sent from where the caller has them: which of them the kernel has, and
//! which it has given back.

use std::collections::VecDeque;

use crate::frame::{FramePool, Side};

/// A descriptor that the kernel has.
#[derive(Debug)]
struct Lent {
    /// Where in the UMEM; `None`: it has come back.
    address: Option<u64>,
    length: u32,
    /// Its index in the tx ring, which runs freely.
    index: u32,
    /// Its frame, in [`InFlight::frames`].
    frame: u32,
}

/// A frame of which the kernel has something.
#[derive(Debug, Clone, Copy, Default)]
struct Sending {
    token: u32,
    /// Descriptors that are still to come back.
    left: u32,
    /// Whether somebody waits for it.
    wanted: bool,
}

/// A descriptor that now says another address than it did when the kernel may have looked at it.
#[derive(Debug)]
struct Moved {
    from: u64,
    /// Address of the chunk that its bytes were copied to.
    to: u64,
}

/// All such frames of a queue. Bounded by the size of the tx ring; allocates nothing once it is made.
#[derive(Debug)]
pub(crate) struct InFlight {
    /// The oldest first, as they come back in this order nearly always.
    lent: VecDeque<Lent>,
    /// How many of them have not come back.
    there: u32,
    frames: Box<[Sending]>,
    /// Unused places in `frames`.
    free: Vec<u32>,
    /// Places of frames that have come back and were not yet asked for.
    done: VecDeque<u32>,
    moved: Vec<Moved>,
    most: u32,
}

impl InFlight {
    /// For a tx ring of `most` entries; 0 if nothing is ever sent in place.
    pub(crate) fn new(most: u32) -> Self {
        let size = most as usize;
        Self {
            lent: VecDeque::with_capacity(size),
            there: 0,
            frames: vec![Sending::default(); size].into(),
            free: (0..most).rev().collect(),
            done: VecDeque::with_capacity(size),
            moved: Vec::with_capacity(size),
            most,
        }
    }

    /// Number of descriptors that the kernel has.
    pub(crate) fn lent(&self) -> u32 {
        self.there
    }

    /// Number of frames that the kernel has something of, or that have come back and were not yet
    /// asked for.
    pub(crate) fn frames(&self) -> u32 {
        let free = u32::try_from(self.free.len()).unwrap_or(u32::MAX);
        self.most.saturating_sub(free)
    }

    /// Whether there is room for a frame of so many descriptors.
    pub(crate) fn has_room(&self, descriptors: usize) -> bool {
        // Those that have come back out of order have a place until all before them are back.
        !self.free.is_empty() && self.lent.len() + descriptors <= self.most as usize
    }

    /// A frame goes out, in the entries of the tx ring from `index` on. False, and nothing is done: no
    /// room, so look before.
    pub(crate) fn begin(&mut self, token: u32, index: u32, descriptors: &[(u64, u32)]) -> bool {
        if !self.has_room(descriptors.len()) {
            return false;
        }
        let Some(frame) = self.free.pop() else {
            return false;
        };
        let mut left = 0;
        for &(address, length) in descriptors {
            self.lent.push_back(Lent {
                address: Some(address),
                length,
                index: index.wrapping_add(left),
                frame,
            });
            left += 1;
        }
        self.there += left;
        if let Some(place) = self.frames.get_mut(frame as usize) {
            *place = Sending {
                token,
                left,
                wanted: true,
            };
        }
        true
    }

    /// The kernel is done with a descriptor of shared memory. False: it did not have this one.
    pub(crate) fn came_back(&mut self, address: u64, pool: &mut FramePool) -> bool {
        if self.complete(address) {
            return true;
        }
        // After what is in flight: were it the other way round, one that is sent from the same place
        // as one that was moved before could be taken for that one, and its chunk for free.
        let wanted = without_lowest_bit(address);
        let mut moved = self.moved.iter();
        let moved = moved.position(|it| without_lowest_bit(it.from) == wanted);
        let Some(moved) = moved.map(|at| self.moved.swap_remove(at)) else {
            return false;
        };
        let chunk = pool.reclaim(moved.to, Side::Transmit);
        chunk.map(|frame| pool.put(frame)).is_some()
    }

    /// The kernel is done with a descriptor of a chunk. False: it did not have this one.
    pub(crate) fn chunk_came_back(&mut self, address: u64, pool: &mut FramePool) -> bool {
        let Some(frame) = pool.reclaim(address, Side::Transmit) else {
            return false;
        };
        if !self.moved.is_empty() {
            self.moved.retain(|it| it.to != frame.address());
        }
        pool.put(frame);
        true
    }

    /// The oldest descriptor of this address is back.
    fn complete(&mut self, address: u64) -> bool {
        // The first one is it, unless the interface sends out of order.
        let found = self.lent.iter().position(|it| {
            let lent = it.address.map(without_lowest_bit);
            lent == Some(without_lowest_bit(address))
        });
        let Some(lent) = found.and_then(|at| self.lent.get_mut(at)) else {
            return false;
        };
        lent.address = None;
        let frame = lent.frame;
        self.one_less(frame);
        self.sweep();
        true
    }

    /// Takes note of one descriptor of a frame.
    fn one_less(&mut self, frame: u32) {
        self.there -= 1;
        let Some(place) = self.frames.get_mut(frame as usize) else {
            return;
        };
        place.left -= 1;
        if place.left == 0 {
            if place.wanted {
                self.done.push_back(frame);
            } else {
                self.free.push(frame);
            }
        }
    }

    fn sweep(&mut self) {
        while self.lent.front().is_some_and(|it| it.address.is_none()) {
            self.lent.pop_front();
        }
    }

    /// The token of a frame that has come back whole.
    pub(crate) fn take_done(&mut self) -> Option<u32> {
        let frame = self.done.pop_front()?;
        self.free.push(frame);
        self.frames.get(frame as usize).map(|it| it.token)
    }

    /// From now on nobody waits for the frames that are out; returns how many the kernel still has
    /// something of.
    pub(crate) fn forget(&mut self) -> u32 {
        while self.take_done().is_some() {}
        let mut left = 0;
        for frame in self.frames.iter_mut().filter(|it| it.left > 0) {
            frame.wanted = false;
            left += 1;
        }
        left
    }

    /// Shows `change` those descriptors that the kernel has not taken by the time that its index is
    /// `taken`: ring index, address, length. Where it says another address, the frame's bytes are no longer needed.
    pub(crate) fn move_untaken(
        &mut self,
        taken: u32,
        mut change: impl FnMut(u32, u64, u32) -> Option<u64>,
    ) {
        for at in 0..self.lent.len() {
            let Some(lent) = self.lent.get_mut(at) else {
                break;
            };
            let Some(from) = lent.address else { continue };
            // Of the indices in the ring none is half the range away from another.
            if lent.index.wrapping_sub(taken) > u32::MAX / 2 {
                continue;
            }
            let Some(to) = change(lent.index, from, lent.length) else {
                continue;
            };
            lent.address = None;
            let frame = lent.frame;
            self.moved.push(Moved { from, to });
            self.one_less(frame);
        }
        self.sweep();
    }
}

/// What is left of an address on its way through a kernel that keeps a flag of its own in that bit, as
/// 6.18 does in copy mode (`xsk_skb_destructor_is_addr`, net/xdp/xsk.c): the completion of an odd one
/// says the even one before it.
fn without_lowest_bit(address: u64) -> u64 {
    address & !1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(table: &mut InFlight) -> Vec<u32> {
        std::iter::from_fn(|| table.take_done()).collect()
    }

    #[test]
    fn a_frame_is_done_when_all_of_it_is() {
        let mut table = InFlight::new(4);
        assert!(table.begin(7, 0, &[(100, 10), (200, 10)]));
        assert!(table.begin(8, 2, &[(300, 10)]));
        assert_eq!((table.lent(), table.frames()), (3, 2));
        assert!(table.complete(100));
        assert_eq!(done(&mut table), []);
        assert!(table.complete(300) && table.complete(200));
        assert!(!table.complete(200) && !table.complete(400));
        assert_eq!((table.lent(), table.frames()), (0, 2));
        assert_eq!(done(&mut table), [8, 7]);
        assert_eq!(table.frames(), 0);
    }

    #[test]
    fn a_kernel_may_lose_the_lowest_bit() {
        let mut table = InFlight::new(4);
        assert!(table.begin(1, 0, &[(101, 10)]) && table.begin(2, 1, &[(102, 10)]));
        assert!(table.complete(102) && table.complete(100));
        assert_eq!(done(&mut table), [2, 1]);
    }

    #[test]
    fn what_is_sent_twice_comes_back_twice() {
        let mut table = InFlight::new(4);
        for token in 0..3 {
            assert!(table.begin(token, token, &[(100, 10)]));
        }
        for token in 0..3 {
            assert!(table.complete(100));
            assert_eq!(done(&mut table), [token]);
        }
        assert!(!table.complete(100));
    }

    #[test]
    fn there_are_never_more_than_the_ring_has_entries() {
        let mut table = InFlight::new(4);
        for token in 0..4 {
            assert!(table.begin(token, token, &[(u64::from(token) * 2, 1)]));
        }
        assert!(!table.has_room(1) && !table.begin(9, 4, &[(9, 1)]));
        // Out of order: the first one keeps the places of all.
        for address in [2, 4, 6] {
            assert!(table.complete(address));
        }
        assert!(!table.has_room(1));
        assert_eq!(done(&mut table), [1, 2, 3]);
        assert!(!table.has_room(1));
        assert!(table.complete(0));
        assert!(!table.has_room(5) && table.has_room(4));
        // Who does not ask what is done gets no further.
        let mut table = InFlight::new(1);
        assert!(table.begin(0, 0, &[(0, 1)]) && table.complete(0));
        assert!(!table.has_room(1));
        assert_eq!(done(&mut table), [0]);
        assert!(table.has_room(1));
        assert!(!InFlight::new(0).has_room(1));
    }

    #[test]
    fn nobody_hears_of_what_was_forgotten() {
        let mut table = InFlight::new(4);
        assert!(table.begin(1, 0, &[(100, 10)]) && table.begin(2, 1, &[(200, 10)]));
        assert!(table.complete(100));
        assert_eq!(table.forget(), 1);
        assert!(table.begin(2, 2, &[(300, 10)]));
        assert!(table.complete(200));
        assert_eq!(done(&mut table), []);
        assert!(table.complete(300));
        assert_eq!(done(&mut table), [2]);
        assert_eq!((table.lent(), table.frames()), (0, 0));
    }

    #[test]
    fn what_the_kernel_has_not_taken_can_be_moved() {
        let mut table = InFlight::new(4);
        let start = u32::MAX;
        assert!(table.begin(1, start, &[(100, 10), (200, 20)]));
        assert!(table.begin(2, start.wrapping_add(2), &[(300, 30)]));
        let mut seen = Vec::new();
        // It has taken one.
        table.move_untaken(start.wrapping_add(1), |index, address, length| {
            seen.push((index, address, length));
            Some(address * 1000)
        });
        assert_eq!(seen, [(0, 200, 20), (1, 300, 30)]);
        assert_eq!(done(&mut table), [2], "the other one is in its hands");
        assert!(table.complete(100));
        assert_eq!(done(&mut table), [1]);
        assert_eq!(table.moved.len(), 2);
    }

    #[test]
    fn a_descriptor_that_was_moved_comes_back_by_one_of_its_addresses() {
        let mut pool = FramePool::new(4);
        let mut table = InFlight::new(4);
        assert!(table.begin(1, 0, &[(0x5000, 10)]) && table.begin(2, 1, &[(0x6000, 20)]));
        let mut chunks = Vec::new();
        table.move_untaken(0, |_, _, _| {
            let frame = pool.take().unwrap();
            let chunk = pool.lend(frame, Side::Transmit);
            chunks.push(chunk);
            Some(chunk)
        });
        assert_eq!(done(&mut table), [1, 2]);
        // The kernel had looked at one of the entries before.
        assert!(table.came_back(0x5000, &mut pool));
        assert!(!table.came_back(0x5000, &mut pool));
        // The same memory as the other's is sent from again.
        assert!(table.begin(3, 2, &[(0x6000, 10)]));
        assert!(table.came_back(0x6000, &mut pool));
        assert_eq!((done(&mut table), pool.free()), (vec![3], 3));
        assert!(table.chunk_came_back(chunks[1], &mut pool));
        assert!(!table.chunk_came_back(chunks[1], &mut pool));
        assert!(!table.came_back(0x6000, &mut pool));
        assert_eq!((done(&mut table), pool.free()), (vec![], 4));
        assert!(table.moved.is_empty());
    }
}
