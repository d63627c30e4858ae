//! One descriptor chain as it was when the device took it, and cursors over its bytes.

use std::sync::Arc;

use vm_memory::VolatileSlice;

use super::{
    QueueFault,
    map::{GuestMap, Place},
};

/// The snapshot of a descriptor chain: buffers in host terms, no descriptor is read again.
///
/// Made once per thread with [`LiveQueue::new_chain`](super::LiveQueue::new_chain) and refilled by
/// [`LiveQueue::pop`](super::LiveQueue::pop), so that taking a chain allocates nothing. The guest
/// may still change the *bytes* of its buffers at any time.
#[derive(Debug)]
pub struct Chain {
    map: Arc<GuestMap>,
    head: u16,
    /// Readable places first, then writable ones. A buffer that crosses regions is two places.
    places: Vec<Place>,
    readable: usize,
    readable_len: u32,
    writable_len: u32,
}

impl Chain {
    pub(super) fn new(map: Arc<GuestMap>, queue_size: u16) -> Self {
        Self {
            map,
            head: 0,
            places: Vec::with_capacity(usize::from(queue_size)),
            readable: 0,
            readable_len: 0,
            writable_len: 0,
        }
    }

    pub(super) fn begin(&mut self, head: u16) {
        self.head = head;
        self.places.clear();
        self.readable = 0;
        self.readable_len = 0;
        self.writable_len = 0;
    }

    /// Adds one buffer. Empty ones are legal and vanish here.
    pub(super) fn add(&mut self, address: u64, len: u32, writable: bool) -> Result<(), QueueFault> {
        let total = self.readable_len.checked_add(self.writable_len);
        if total.and_then(|total| total.checked_add(len)).is_none() {
            return Err(QueueFault::ChainTooBig(self.head));
        }
        if !writable && self.places.len() > self.readable {
            return Err(QueueFault::Order(self.head));
        }
        let outside = QueueFault::BufferNotInRam { address, len };
        let mut left = usize::try_from(len).map_err(|_| outside)?;
        let mut at = address;
        while left > 0 {
            let place = self.map.locate(at, left).ok_or(outside)?;
            self.places.push(place);
            left -= place.len();
            // Can't wrap: `locate` refused ranges past the address space.
            at = at.wrapping_add(place.len() as u64);
        }
        if writable {
            self.writable_len += len;
        } else {
            self.readable_len += len;
            self.readable = self.places.len();
        }
        Ok(())
    }

    /// Index of the chain's first descriptor: what [`LiveQueue::push_used`](super::LiveQueue::push_used) wants back.
    pub fn head(&self) -> u16 {
        self.head
    }

    /// Bytes of the device-readable part.
    pub fn readable_len(&self) -> u32 {
        self.readable_len
    }

    /// Bytes of the device-writable part.
    pub fn writable_len(&self) -> u32 {
        self.writable_len
    }

    /// A cursor at the start of the readable part.
    pub fn reader(&self) -> Reader<'_> {
        let (readable, _) = self.places.split_at(self.readable);
        Reader(Cursor::new(&self.map, readable, self.readable_len))
    }

    /// A cursor at the start of the writable part.
    pub fn writer(&self) -> Writer<'_> {
        let (_, writable) = self.places.split_at(self.readable);
        Writer(Cursor::new(&self.map, writable, self.writable_len))
    }
}

/// Reads the device-readable part of a [`Chain`] in order.
#[derive(Debug, Clone)]
pub struct Reader<'a>(Cursor<'a>);

impl<'a> Reader<'a> {
    /// Bytes not yet read.
    pub fn remaining(&self) -> usize {
        self.0.left
    }

    /// Copies the next bytes to `buffer`, as many as there are; returns how many.
    pub fn read(&mut self, buffer: &mut [u8]) -> usize {
        let mut done = 0;
        while let Some(slice) = self.0.next(buffer.len() - done) {
            done += slice.copy_to(&mut buffer[done..]);
        }
        done
    }

    /// Takes the next `N` bytes as a value of its own: a header that is to be checked and then
    /// used. `None`, and nothing read, if fewer remain.
    pub fn read_array<const N: usize>(&mut self) -> Option<[u8; N]> {
        if self.remaining() < N {
            return None;
        }
        let mut value = [0; N];
        // In pieces of at most 8 bytes, which vm-memory copies by volatile loads: the compiler
        // can't fold the copy away and read guest memory a second time.
        for piece in value.chunks_mut(8) {
            self.read(piece);
        }
        Some(value)
    }

    /// Passes over up to `count` bytes; returns how many.
    pub fn skip(&mut self, count: usize) -> usize {
        self.0.skip(count)
    }

    /// Where the next contiguous piece of guest memory is, and its bytes, which count as read; `None`
    /// at the end. Offsets count through the regions of guest RAM as if they were one.
    pub fn next_place(&mut self) -> Option<(u64, usize)> {
        let (place, start, count) = self.0.step(usize::MAX)?;
        Some((self.0.map.linear(place, start), count))
    }

    /// The next contiguous piece of guest memory, at most `limit` bytes; `None` at the end. For
    /// system calls that read from guest memory directly.
    pub fn next_slice(&mut self, limit: usize) -> Option<VolatileSlice<'a>> {
        self.0.next(limit)
    }
}

/// Writes the device-writable part of a [`Chain`] in order.
#[derive(Debug, Clone)]
pub struct Writer<'a>(Cursor<'a>);

impl<'a> Writer<'a> {
    /// Bytes that still fit.
    pub fn remaining(&self) -> usize {
        self.0.left
    }

    /// Copies `bytes` to the guest, as many as fit; returns how many.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        let mut done = 0;
        while let Some(slice) = self.0.next(bytes.len() - done) {
            slice.copy_from(&bytes[done..]);
            done += slice.len();
        }
        done
    }

    /// Passes over up to `count` bytes without writing them; returns how many.
    pub fn skip(&mut self, count: usize) -> usize {
        self.0.skip(count)
    }

    /// The next contiguous piece of guest memory, at most `limit` bytes; `None` at the end. For
    /// system calls that write to guest memory directly.
    pub fn next_slice(&mut self, limit: usize) -> Option<VolatileSlice<'a>> {
        self.0.next(limit)
    }
}

#[derive(Debug, Clone)]
struct Cursor<'a> {
    map: &'a GuestMap,
    places: std::slice::Iter<'a, Place>,
    current: Option<Place>,
    /// Bytes of `current` that were passed.
    offset: usize,
    left: usize,
}

impl<'a> Cursor<'a> {
    fn new(map: &'a GuestMap, places: &'a [Place], len: u32) -> Self {
        let mut places = places.iter();
        Self {
            map,
            current: places.next().copied(),
            places,
            offset: 0,
            left: len as usize,
        }
    }

    /// Steps over the rest of the current place, at most `limit` bytes; `None` when there is
    /// nothing to step over.
    fn step(&mut self, limit: usize) -> Option<(Place, usize, usize)> {
        let place = self.current?;
        if limit == 0 {
            return None;
        }
        let start = self.offset;
        let count = (place.len() - start).min(limit);
        self.left -= count;
        self.offset += count;
        if self.offset == place.len() {
            self.current = self.places.next().copied();
            self.offset = 0;
        }
        Some((place, start, count))
    }

    fn next(&mut self, limit: usize) -> Option<VolatileSlice<'a>> {
        let (place, start, count) = self.step(limit)?;
        self.map.slice(place, start).subslice(0, count).ok()
    }

    fn skip(&mut self, count: usize) -> usize {
        let mut done = 0;
        while let Some((_, _, stepped)) = self.step(count - done) {
            done += stepped;
        }
        done
    }
}
