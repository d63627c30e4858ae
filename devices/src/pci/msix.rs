//! MSI-X (PCI 3.0, 6.8.2): a message per vector, masked singly or all at once, remembered while
//! masked.
//!
//! Two sides: registers ([`Msix`], under the function's lock) and threads that raise ([`Vectors`],
//! without any lock). An interrupt that meets a masked vector leaves a pending bit ([`super::gate`]).

use std::{
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::{
    ConfigSpace, exact,
    gate::{Gate, State},
};

/// Most vectors that a function can have.
pub const MAX_VECTORS: u16 = 2048;

/// Capability ID.
const CAPABILITY: u8 = 0x11;
/// Message Control: all vectors are masked.
const FUNCTION_MASK: u16 = 1 << 14;
/// Message Control: MSI-X is in use.
const ENABLE: u16 = 1 << 15;
/// Vector Control: this vector is masked. The other bits are reserved.
const MASKED: u32 = 1;
/// Bytes of a table entry: address (8), data (4), control (4).
const ENTRY: u64 = 16;
/// Table and pending bits are on pages of their own.
const PAGE: u64 = 0x1000;

/// What a vector writes where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MsiMessage {
    /// Guest physical address; on x86 it names the destination's local APIC.
    pub address: u64,
    /// What is written: on x86 the interrupt vector and delivery mode.
    pub data: u32,
}

/// Where the machine learns of a function's messages: for KVM, its GSI routing table.
///
/// Called with the function's lock held, by the thread of the vCPU that changed it.
pub trait MsiSink: Send {
    /// From now on the eventfd of `vector` stands for `message`. While `masked` nothing is written
    /// to it, so a machine may leave the old route in place until that changes.
    fn set_route(&mut self, vector: u16, message: MsiMessage, masked: bool);
}

#[derive(Debug)]
struct Vector {
    gate: Gate,
    event: Arc<EventFd>,
}

impl Vector {
    fn new() -> io::Result<Self> {
        Ok(Self {
            gate: Gate::new(),
            event: Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?),
        })
    }

    fn send_if(&self, send: bool) {
        if send {
            // Can only fail when 2^64 - 2 are pending: then an interrupt is on its way anyhow.
            let _ = self.event.write(1);
        }
    }

    fn raise(&self) {
        self.send_if(self.gate.raise());
    }

    fn set_state(&self, state: State) {
        self.send_if(self.gate.set(state));
    }
}

/// A function's vectors, for the threads that raise them.
#[derive(Debug)]
pub struct Vectors {
    enabled: AtomicBool,
    vectors: Box<[Vector]>,
}

impl Vectors {
    /// Sends the message of `vector`, or remembers it while that is masked. No such vector: nothing.
    pub fn raise(&self, vector: u16) {
        if let Some(vector) = self.vectors.get(usize::from(vector)) {
            vector.raise();
        }
    }

    /// Whether the driver uses MSI-X.
    pub fn enabled(&self) -> bool {
        self.enabled.load(Ordering::SeqCst)
    }

    /// Number of vectors.
    pub fn count(&self) -> u16 {
        u16::try_from(self.vectors.len()).unwrap_or(MAX_VECTORS)
    }

    /// One eventfd a vector, written once an interrupt, for the machine to bind to its interrupt
    /// controller (for KVM: an irqfd).
    pub fn events(&self) -> impl Iterator<Item = &Arc<EventFd>> {
        self.vectors.iter().map(|vector| &vector.event)
    }
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    message: MsiMessage,
    masked: bool,
    /// What the sink was told last.
    told: Option<(MsiMessage, bool)>,
}

/// The registers: capability, table, pending bits.
pub struct Msix {
    capability: u16,
    bar_size: u64,
    entries: Vec<Entry>,
    /// No vector is sent: the function's mask is set, or it is no bus master.
    held: bool,
    vectors: Arc<Vectors>,
    sink: Box<dyn MsiSink>,
}

impl Msix {
    /// Gives a function `count` vectors (1 to [`MAX_VECTORS`], cut to that), with the capability in
    /// `config`, and table and pending bits in its BAR `bar` at `address`, which must be a multiple of
    /// [`Self::bar_size_for`].
    ///
    /// # Errors
    /// The system has no more eventfds.
    pub fn new(
        config: &mut ConfigSpace,
        bar: u8,
        address: u64,
        count: u16,
        sink: Box<dyn MsiSink>,
    ) -> io::Result<Self> {
        let count = count.clamp(1, MAX_VECTORS);
        let bar_size = Self::bar_size_for(count);
        config.add_bar(bar, bar_size, address);
        let pending = u32::try_from(pending_offset(count)).unwrap_or(0) | u32::from(bar);
        let mut body = (count - 1).to_le_bytes().to_vec();
        body.extend(u32::from(bar).to_le_bytes());
        body.extend(pending.to_le_bytes());
        let capability = config.add_capability(CAPABILITY, &body);
        let control = (ENABLE | FUNCTION_MASK).to_le_bytes();
        config.make_writable(usize::from(capability) + 2, &control);
        let vectors = (0..count).map(|_| Vector::new());
        let entry = Entry {
            message: MsiMessage::default(),
            // 6.8.2.9: masked after reset.
            masked: true,
            told: None,
        };
        Ok(Self {
            capability,
            bar_size,
            entries: vec![entry; usize::from(count)],
            held: true,
            vectors: Arc::new(Vectors {
                enabled: AtomicBool::new(false),
                vectors: vectors.collect::<io::Result<_>>()?,
            }),
            sink,
        })
    }

    /// Bytes of the BAR for so many vectors.
    pub fn bar_size_for(count: u16) -> u64 {
        (pending_offset(count) + PAGE).next_power_of_two()
    }

    /// Bytes of the BAR.
    pub fn bar_size(&self) -> u64 {
        self.bar_size
    }

    /// The threads' side.
    pub fn vectors(&self) -> &Arc<Vectors> {
        &self.vectors
    }

    /// To be called after a write to the configuration space.
    pub fn config_written(&mut self, config: &ConfigSpace) {
        let control = u16::from_le_bytes(config.get(self.capability + 2));
        let enabled = control & ENABLE != 0;
        // A message is a write to memory (6.8): one that may not be made now is not lost, but waits.
        let held = control & FUNCTION_MASK != 0 || !config.is_bus_master();
        if enabled == self.vectors.enabled() && held == self.held {
            return;
        }
        self.held = held;
        self.vectors.enabled.store(enabled, Ordering::SeqCst);
        for index in 0..self.entries.len() {
            self.refresh(index);
        }
    }

    /// Reads table or pending bits, at any width.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        for (byte, at) in data.iter_mut().zip(0..) {
            *byte = self.byte(offset.wrapping_add(at));
        }
    }

    fn byte(&self, at: u64) -> u8 {
        let count = self.vectors.count();
        let (entry, within) = (at / ENTRY, at % ENTRY);
        let index = usize::try_from(entry).unwrap_or(usize::MAX);
        if let Some(entry) = self.entries.get(index) {
            let MsiMessage { address, data } = entry.message;
            let control = u32::from(entry.masked);
            let words = u128::from(control) << 96 | u128::from(data) << 64 | u128::from(address);
            let within = usize::try_from(within).unwrap_or(usize::MAX);
            return words.to_le_bytes().get(within).copied().unwrap_or(0);
        }
        let Some(at) = at.checked_sub(pending_offset(count)) else {
            return 0;
        };
        let first = usize::try_from(at).unwrap_or(usize::MAX).saturating_mul(8);
        let vectors = self.vectors.vectors.iter().skip(first).take(8);
        (0..).zip(vectors).fold(0, |bits, (bit, vector)| {
            bits | u8::from(vector.gate.is_pending()) << bit
        })
    }

    /// Writes the table. Aligned double and quad words, as 6.8.2 asks of drivers; anything else is
    /// ignored, and so are writes of pending bits.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        if let Some(word) = exact(data).filter(|_| offset.is_multiple_of(4)) {
            self.write_word(offset, u32::from_le_bytes(word));
        } else if let Some(words) = exact::<8>(data).filter(|_| offset.is_multiple_of(8)) {
            let [a, b, c, d, e, f, g, h] = words;
            self.write_word(offset, u32::from_le_bytes([a, b, c, d]));
            self.write_word(offset + 4, u32::from_le_bytes([e, f, g, h]));
        }
    }

    fn write_word(&mut self, offset: u64, value: u32) {
        let index = usize::try_from(offset / ENTRY).unwrap_or(usize::MAX);
        let Some(entry) = self.entries.get_mut(index) else {
            return;
        };
        let message = &mut entry.message;
        match offset % ENTRY {
            0 => message.address = message.address >> 32 << 32 | u64::from(value & !3),
            4 => message.address = message.address << 32 >> 32 | u64::from(value) << 32,
            8 => message.data = value,
            _ => entry.masked = value & MASKED != 0,
        }
        self.refresh(index);
    }

    /// Tells both the machine and the threads what is true of a vector now; the route before the
    /// state, so that a pending interrupt goes the new way.
    fn refresh(&mut self, index: usize) {
        let (Some(entry), Some(vector)) =
            (self.entries.get_mut(index), self.vectors.vectors.get(index))
        else {
            return;
        };
        if !self.vectors.enabled() {
            return vector.set_state(State::Off);
        }
        let masked = entry.masked || self.held;
        if masked {
            vector.set_state(State::Held);
        }
        let now = Some((entry.message, masked));
        if std::mem::replace(&mut entry.told, now) != now {
            let number = u16::try_from(index).unwrap_or(MAX_VECTORS);
            self.sink.set_route(number, entry.message, masked);
        }
        if !masked {
            vector.set_state(State::Open);
        }
    }
}

impl fmt::Debug for Msix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Msix")
            .field("entries", &self.entries)
            .field("vectors", &self.vectors)
            .finish_non_exhaustive()
    }
}

fn pending_offset(count: u16) -> u64 {
    (u64::from(count) * ENTRY).next_multiple_of(PAGE)
}
