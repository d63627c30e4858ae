//! Frames of a UMEM and the pool that knows where each of them is.
//!
//! A [`Frame`] is the right to touch the bytes of one chunk. It is neither `Copy` nor `Clone`, and
//! only the pool makes one, so a chunk can't be lent to the kernel twice, nor be read while the
//! kernel may write to it. What the kernel gives back is an address: the pool turns it into a
//! [`Frame`] again only if it had lent that very chunk to that very side.

use crate::umem::CHUNK_SIZE;

/// The right to touch one chunk of the UMEM.
#[derive(Debug)]
#[must_use = "a frame that is dropped is lost to the pool: put it back or lend it"]
pub(crate) struct Frame {
    chunk: u32,
}

impl Frame {
    /// Offset of the chunk in the UMEM, in bytes.
    pub(crate) fn address(&self) -> u64 {
        u64::from(self.chunk) * u64::from(CHUNK_SIZE)
    }
}

/// Who in the kernel has a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Lent through the fill ring, comes back through the rx ring.
    Receive,
    /// Lent through the tx ring, comes back through the completion ring.
    Transmit,
}

/// Where a chunk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Pool,
    /// A [`Frame`] for it exists.
    Held,
    Lent(Side),
}

/// All frames of a UMEM. Made together with it by [`Umem::new`](crate::umem::Umem::new).
#[derive(Debug)]
pub(crate) struct FramePool {
    /// Chunks in the pool. Last in, first out: the chunk used last is the one still in the cache.
    free: Vec<u32>,
    /// One entry per chunk.
    places: Box<[Place]>,
    lent_receive: u32,
    lent_transmit: u32,
}

impl FramePool {
    /// A pool that has the chunks `0..frames`.
    pub(crate) fn new(frames: u32) -> Self {
        Self {
            free: (0..frames).rev().collect(),
            places: (0..frames).map(|_| Place::Pool).collect(),
            lent_receive: 0,
            lent_transmit: 0,
        }
    }

    /// Takes a frame out of the pool, if it has one.
    pub(crate) fn take(&mut self) -> Option<Frame> {
        let chunk = self.free.pop()?;
        if let Some(place) = self.places.get_mut(chunk as usize) {
            *place = Place::Held;
        }
        Some(Frame { chunk })
    }

    /// Puts a frame back into the pool.
    pub(crate) fn put(&mut self, frame: Frame) {
        self.set(&frame, Place::Pool);
        // Never grows beyond what `new` allocated: each chunk is in it once at most.
        self.free.push(frame.chunk);
    }

    /// Lends a frame to the kernel; returns the address for the ring.
    pub(crate) fn lend(&mut self, frame: Frame, side: Side) -> u64 {
        self.set(&frame, Place::Lent(side));
        *self.lent_mut(side) += 1;
        frame.address()
    }

    /// Takes back the frame that `address` is in, as the kernel returned it through `side`'s ring.
    ///
    /// `None`: no such chunk is lent to that side. The kernel does not do that; were it to, the
    /// address is not to be touched.
    pub(crate) fn reclaim(&mut self, address: u64, side: Side) -> Option<Frame> {
        let chunk = u32::try_from(address / u64::from(CHUNK_SIZE)).ok()?;
        let place = self.places.get_mut(chunk as usize)?;
        if *place != Place::Lent(side) {
            return None;
        }
        *place = Place::Held;
        *self.lent_mut(side) -= 1;
        Some(Frame { chunk })
    }

    /// Number of frames in the pool.
    pub(crate) fn free(&self) -> u32 {
        // As many as `places` has at most, which came from a u32.
        u32::try_from(self.free.len()).unwrap_or(u32::MAX)
    }

    /// Number of frames that are lent to the kernel's `side`.
    pub(crate) fn lent(&self, side: Side) -> u32 {
        match side {
            Side::Receive => self.lent_receive,
            Side::Transmit => self.lent_transmit,
        }
    }

    /// Number of frames in all.
    pub(crate) fn total(&self) -> u32 {
        u32::try_from(self.places.len()).unwrap_or(u32::MAX)
    }

    fn lent_mut(&mut self, side: Side) -> &mut u32 {
        match side {
            Side::Receive => &mut self.lent_receive,
            Side::Transmit => &mut self.lent_transmit,
        }
    }

    fn set(&mut self, frame: &Frame, to: Place) {
        if let Some(place) = self.places.get_mut(frame.chunk as usize) {
            debug_assert_eq!(*place, Place::Held, "chunk {}", frame.chunk);
            *place = to;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compiles only if `Frame` is not `Clone`: else there were two answers to which it is.
    #[test]
    fn a_frame_can_not_be_doubled() {
        trait Doubled<Answer> {
            fn is() {}
        }
        impl<T> Doubled<()> for T {}
        impl<T: Clone> Doubled<u8> for T {}
        <Frame as Doubled<_>>::is();
    }

    #[test]
    fn a_frame_goes_round() {
        let mut pool = FramePool::new(2);
        let first = pool.take().unwrap();
        let second = pool.take().unwrap();
        assert_ne!(first.address(), second.address());
        assert!(pool.take().is_none());

        let address = pool.lend(first, Side::Receive);
        assert_eq!((pool.free(), pool.lent(Side::Receive)), (0, 1));
        // The kernel returns an address inside the chunk, behind its headroom.
        let first = pool.reclaim(address + 256, Side::Receive).unwrap();
        assert_eq!(first.address(), address);
        pool.put(first);
        pool.put(second);
        assert_eq!((pool.free(), pool.lent(Side::Receive)), (2, 0));
    }

    #[test]
    fn nothing_is_reclaimed_twice_or_from_the_other_side() {
        let mut pool = FramePool::new(4);
        let frame = pool.take().unwrap();
        let address = pool.lend(frame, Side::Transmit);
        assert!(pool.reclaim(address, Side::Receive).is_none());
        let frame = pool.reclaim(address, Side::Transmit).unwrap();
        assert!(pool.reclaim(address, Side::Transmit).is_none());
        pool.put(frame);
        assert!(pool.reclaim(address, Side::Transmit).is_none());
    }

    #[test]
    fn addresses_outside_the_region_are_refused() {
        let mut pool = FramePool::new(4);
        for address in [4 * 4096, u64::from(u32::MAX) * 4096, u64::MAX] {
            assert!(
                pool.reclaim(address, Side::Receive).is_none(),
                "{address:#x}"
            );
        }
    }

    #[test]
    fn every_frame_has_its_own_chunk() {
        let mut pool = FramePool::new(64);
        let mut addresses: Vec<u64> = Vec::new();
        while let Some(frame) = pool.take() {
            addresses.push(pool.lend(frame, Side::Receive));
        }
        addresses.sort_unstable();
        let expected: Vec<u64> = (0..64).map(|chunk| chunk * 4096).collect();
        assert_eq!(addresses, expected);
    }
}
