#![expect(
    unsafe_code,
    reason = "the model writes to frame memory, as the kernel does"
)]
//! A model of the kernel's side of a queue: plain memory, no system calls, and every misfortune on
//! demand.

use std::{
    cell::RefCell,
    collections::VecDeque,
    mem,
    ptr::NonNull,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
};

use rustix::io::Errno;

use super::Path;
use crate::{
    frame::FramePool,
    handle::Rings,
    multi_buffer::{FrameLimits, PACKET_CONTINUES},
    plain_rings::Memory,
    ring::{Consumer, Descriptor, NEED_WAKEUP, Producer},
    shared_memory::SharedMemory,
    socket::{Kernel, Socket},
    tx_metadata,
    umem::{CHUNK_SIZE, RX_HEADROOM, Umem},
};

/// What a kick of the tx ring comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Luck {
    /// Up to 32 descriptors are sent; EAGAIN if there are more.
    Good,
    /// One frame is taken and lost: EBUSY.
    Lost,
    /// Nothing happens, and this is why.
    Refused(Errno),
    /// Descriptors are taken, and completed when the test says so.
    Slow,
    /// Nothing happens until the driver is woken.
    Apart,
}

/// The kernel, as the rings see it; the test has another handle on it.
#[derive(Debug, Clone)]
pub(super) struct Model(pub(super) Rc<RefCell<State>>);

#[derive(Debug)]
pub(super) struct State {
    fill: Consumer<u64>,
    completion: Producer<u64>,
    rx: Producer<Descriptor>,
    tx: Consumer<Descriptor>,
    umem: NonNull<u8>,
    pub(super) luck: Luck,
    /// Chunks taken from the fill ring and not yet received into.
    receiving: Vec<u64>,
    /// Descriptors of a frame that are not yet in the rx ring.
    tail: VecDeque<Descriptor>,
    /// Chunks taken from the tx ring and not yet completed.
    transmitting: Vec<u64>,
    /// The beginning of a frame whose end is still in the tx ring.
    beginning: Vec<u8>,
    /// Whether metadata may come with a frame: no descriptor begins where it would be.
    metadata: bool,
    /// The metadata of frames that came with it.
    pub(super) requests: Vec<Vec<u8>>,
    /// Frames that were sent, or lost.
    pub(super) gone: Vec<Vec<u8>>,
    pub(super) kicks: u32,
    /// What the rings are in.
    fill_memory: Arc<Memory<u64>>,
    tx_memory: Arc<Memory<Descriptor>>,
    _others: (Arc<Memory<u64>>, Arc<Memory<Descriptor>>),
}

/// A queue of `frames` chunks on a model, and the model.
pub(super) fn queue(frames: u32, limits: FrameLimits, start: u32) -> (Path<Model>, Model) {
    queue_sharing(frames, limits, start, None)
}

/// The same with memory to send from in place.
pub(super) fn queue_sharing(
    frames: u32,
    limits: FrameLimits,
    start: u32,
    shared: Option<&SharedMemory>,
) -> (Path<Model>, Model) {
    let (umem, pool) = Umem::new(frames, shared).unwrap();
    queue_on(umem, pool, limits, start)
}

/// The same with room for TX metadata.
pub(super) fn queue_with_metadata(frames: u32, start: u32) -> (Path<Model>, Model) {
    let (mut umem, pool) = Umem::new(frames, None).unwrap();
    umem.reserve_tx_metadata();
    let limits = FrameLimits::several_chunks(9000, None, umem.tx_metadata_len());
    queue_on(umem, pool, limits, start)
}

fn queue_on(umem: Umem, pool: FramePool, limits: FrameLimits, start: u32) -> (Path<Model>, Model) {
    let (frames, metadata) = (pool.total(), umem.tx_metadata_len() > 0);
    let ring_size = frames / 2;
    let (fill, completion) = (Memory::new(frames, start), Memory::new(ring_size, start));
    let (rx, tx) = (Memory::new(ring_size, start), Memory::new(ring_size, start));
    let (our_fill, kernel_fill) = fill.sides();
    let (kernel_completion, our_completion) = completion.sides();
    let (kernel_rx, our_rx) = rx.sides();
    let (our_tx, kernel_tx) = tx.sides();
    let model = Model(Rc::new(RefCell::new(State {
        fill: kernel_fill,
        completion: kernel_completion,
        rx: kernel_rx,
        tx: kernel_tx,
        umem: umem.base(),
        luck: Luck::Good,
        receiving: Vec::new(),
        tail: VecDeque::new(),
        transmitting: Vec::new(),
        beginning: Vec::new(),
        metadata,
        requests: Vec::new(),
        gone: Vec::new(),
        kicks: 0,
        fill_memory: fill,
        tx_memory: tx,
        _others: (completion, rx),
    })));
    model.0.borrow().want_wakeups(true);
    let rings = Rings {
        fill: our_fill,
        completion: our_completion,
        rx: our_rx,
        tx: our_tx,
        kernel: model.clone(),
    };
    let socket = Socket {
        rings,
        umem,
        zero_copy: false,
        tx_checksum: metadata,
    };
    (Path::new(socket, pool, limits), model)
}

impl Kernel for Model {
    fn kick_tx(&self) -> Result<(), Errno> {
        let mut state = self.0.borrow_mut();
        state.kicks += 1;
        match state.luck {
            Luck::Good => {
                state.transmit(32);
                state.complete(u32::MAX);
                match state.tx.available() {
                    0 => Ok(()),
                    _ => Err(Errno::AGAIN),
                }
            }
            Luck::Lost => {
                let frames = state.gone.len();
                while state.gone.len() == frames && state.tx.available() != 0 {
                    state.transmit(1);
                }
                state.complete(u32::MAX);
                Err(Errno::BUSY)
            }
            Luck::Refused(error) => Err(error),
            Luck::Apart => Ok(()),
            Luck::Slow => {
                state.transmit(8);
                Ok(())
            }
        }
    }

    fn kick_rx(&self) -> Result<(), Errno> {
        self.0.borrow_mut().kicks += 1;
        Ok(())
    }

    fn wake_driver(&self) {
        let mut state = self.0.borrow_mut();
        state.kicks += 1;
        state.transmit(u32::MAX);
        state.complete(u32::MAX);
    }
}

impl State {
    /// Whether the kernel asks for system calls.
    pub(super) fn want_wakeups(&self, want: bool) {
        let flags = if want { NEED_WAKEUP } else { 0 };
        self.fill_memory.flags.store(flags, Ordering::Relaxed);
        self.tx_memory.flags.store(flags, Ordering::Relaxed);
    }

    /// A frame arrives, in fragments of up to `fragment` bytes, and is published up to and including
    /// its `first` descriptors. False: it is dropped, as there is no room for all of it.
    pub(super) fn deliver(&mut self, frame: &[u8], fragment: usize, first: usize) -> bool {
        assert!(self.tail.is_empty() && fragment <= (CHUNK_SIZE - RX_HEADROOM) as usize);
        let count = frame.len().div_ceil(fragment);
        while self.receiving.len() < count {
            let mut burst = self.fill.peek(1);
            let Some(address) = burst.get(0) else {
                return false;
            };
            burst.release(1);
            self.receiving.push(address);
        }
        if self.rx.room(u32::MAX) < u32::try_from(count).unwrap() {
            return false;
        }
        for (number, bytes) in (1..).zip(frame.chunks(fragment)) {
            let address = self.receiving.remove(0) + u64::from(RX_HEADROOM);
            self.write(address, bytes);
            self.tail.push_back(Descriptor {
                address,
                length: u32::try_from(bytes.len()).unwrap(),
                options: if number < count { PACKET_CONTINUES } else { 0 },
            });
        }
        self.publish(first);
        true
    }

    /// Puts up to `count` more descriptors of the frame that arrived last into the rx ring.
    pub(super) fn publish(&mut self, count: usize) {
        for _ in 0..count.min(self.tail.len()) {
            let descriptor = self.tail.pop_front().unwrap();
            self.inject(descriptor);
        }
    }

    /// Makes the next descriptor of the frame that arrives say this length.
    pub(super) fn lengthen_the_tail(&mut self, length: u32) {
        self.tail.front_mut().unwrap().length = length;
    }

    pub(super) fn is_amid_a_frame(&self) -> bool {
        !self.tail.is_empty()
    }

    /// Puts a descriptor into the rx ring.
    pub(super) fn inject(&mut self, descriptor: Descriptor) {
        let mut slot = self.rx.reserve(1).unwrap();
        slot.push(descriptor);
        slot.commit();
        self.rx.publish();
    }

    /// Takes up to `count` descriptors from the tx ring and sends their frames.
    pub(super) fn transmit(&mut self, count: u32) {
        for _ in 0..count {
            let mut burst = self.tx.peek(1);
            let Some(descriptor) = burst.get(0) else {
                return;
            };
            burst.release(1);
            self.look_at_metadata(&descriptor);
            let bytes = self.read(descriptor.address, descriptor.length);
            self.beginning.extend(bytes);
            self.transmitting.push(descriptor.address);
            if descriptor.options & PACKET_CONTINUES == 0 {
                let frame = mem::take(&mut self.beginning);
                self.gone.push(frame);
            }
        }
    }

    /// As `xp_aligned_validate_desc` and `xsk_skb_metadata` do (net/xdp).
    fn look_at_metadata(&mut self, descriptor: &Descriptor) {
        let before = if self.metadata {
            tx_metadata::LENGTH
        } else {
            0
        };
        let offset = descriptor.address % u64::from(CHUNK_SIZE);
        assert!(offset >= u64::from(before), "no room for metadata");
        if descriptor.options & tx_metadata::HAS_METADATA != 0 {
            assert!(self.metadata && self.beginning.is_empty());
            let at = descriptor.address - u64::from(before);
            self.requests.push(self.read(at, before));
        }
    }

    /// Completes up to `count` of the chunks that were sent.
    pub(super) fn complete(&mut self, count: u32) {
        for _ in 0..count {
            let Some(address) = self.transmitting.pop() else {
                break;
            };
            let mut slot = self.completion.reserve(1).expect("room for all chunks");
            slot.push(address);
            slot.commit();
        }
        self.completion.publish();
    }

    /// The chunks that the kernel has, wherever.
    pub(super) fn chunks(&mut self) -> Vec<u64> {
        let fill = peek(&mut self.fill).into_iter();
        let tx = peek(&mut self.tx).into_iter().map(|it| it.address);
        let held = self.receiving.iter().chain(&self.transmitting).copied();
        let tail = self.tail.iter().map(|it| it.address);
        let all = fill.chain(tx).chain(held).chain(tail);
        all.map(|address| address / u64::from(CHUNK_SIZE)).collect()
    }

    fn write(&self, address: u64, bytes: &[u8]) {
        let place = self.place(address, bytes.len());
        // SAFETY: inside the chunk, which the queue has lent to the kernel and does not touch.
        unsafe { place.copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
    }

    fn read(&self, address: u64, length: u32) -> Vec<u8> {
        let place = self.place(address, length as usize);
        // SAFETY: as in `write`.
        unsafe { std::slice::from_raw_parts(place.as_ptr(), length as usize) }.to_vec()
    }

    fn place(&self, address: u64, length: usize) -> NonNull<u8> {
        let offset = usize::try_from(address).unwrap();
        assert!(offset % CHUNK_SIZE as usize + length <= CHUNK_SIZE as usize);
        // SAFETY: the queue has checked its addresses; the memory lives as long as the queue.
        unsafe { self.umem.add(offset) }
    }
}

fn peek<T: Copy>(ring: &mut Consumer<T>) -> Vec<T> {
    let burst = ring.peek(u32::MAX);
    (0..burst.len()).map_while(|it| burst.get(it)).collect()
}
