//! The walk of a split virtqueue over memory that the script writes, also while the device is at it.

use arbitrary::{Arbitrary, Result, Unstructured};
use devices::{
    GuestRam,
    virtio::queue::{Chain, EVENT_IDX, INDIRECT_DESC, LiveQueue, QueueState, VERSION_1},
};
use vm_memory::{Bytes, GuestAddress};

const DESC: u64 = 0x1000;
const AVAIL: u64 = 0x2000;
const USED: u64 = 0x3000;
/// Indirect tables and buffers.
const TABLE: u64 = 0x4000;
/// Two regions meet here; RAM ends at twice that.
const SEAM: u64 = 0x8000;
const LAST: u64 = 2 * SEAM;

/// One thing that the driver or the device does.
#[derive(Debug, Arbitrary)]
enum Step {
    Descriptor {
        table: bool,
        index: u8,
        value: Descriptor,
    },
    Offer(u16),
    Index(u16),
    Poke {
        at: u16,
        value: u16,
    },
    Pop,
    Give {
        which: u8,
        written: u32,
    },
    Rewind,
    Publish,
    Kicks {
        beyond: u8,
    },
    Quiet,
}

/// A descriptor whose fields are mostly near something.
#[derive(Debug, Arbitrary)]
struct Descriptor {
    place: u8,
    offset: u16,
    len: u16,
    flags: u8,
    next: u8,
}

impl Descriptor {
    fn bytes(&self) -> [u8; 16] {
        let offset = u64::from(self.offset);
        let address = match self.place % 8 {
            0 | 1 => TABLE,
            2 | 3 => offset,
            4 => SEAM - offset % 64,
            5 => LAST - offset % 64,
            6 => 0x10_0000 + offset,
            _ => u64::MAX - offset,
        };
        let len = match self.len >> 12 {
            14 => u32::MAX - u32::from(self.len & 0xfff),
            15 => u32::from(self.len & 0xf) * 16,
            _ => u32::from(self.len),
        };
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&address.to_le_bytes());
        bytes[8..12].copy_from_slice(&len.to_le_bytes());
        bytes[12] = self.flags & 7;
        bytes[14] = self.next & 31;
        bytes
    }
}

/// Runs a script of driver and device on one queue.
pub fn run(data: &[u8]) {
    let _ = script(&mut Unstructured::new(data));
}

struct Device {
    ram: GuestRam,
    queue: LiveQueue,
    chain: Chain,
    avail: u16,
    /// Heads that were taken and not given back.
    taken: Vec<u16>,
    /// How many were given back since the used index was last written.
    unpublished: u16,
    /// The used index as last written.
    visible: u16,
}

fn script(u: &mut Unstructured<'_>) -> Result<()> {
    let regions = [(GuestAddress(0), 0x8000), (GuestAddress(SEAM), 0x8000)];
    let ram = GuestRam::from_ranges(&regions).expect("64 KiB of memory");
    let start = *u.choose(&[0, 0xfff8, 0x7fff])?;
    let honest = u.ratio(15, 16)?;
    let state = QueueState {
        max_size: 32,
        size: if honest {
            *u.choose(&[8, 1, 32])?
        } else {
            u.arbitrary()?
        },
        ready: true,
        desc_table: if honest { DESC } else { u.arbitrary()? },
        avail_ring: if honest { AVAIL } else { u.arbitrary()? },
        used_ring: USED,
        next_avail: start,
        next_used: start,
        ..QueueState::default()
    };
    let features = *u.choose(&[0, EVENT_IDX, INDIRECT_DESC, EVENT_IDX | INDIRECT_DESC])?;
    let Ok(queue) = LiveQueue::new(&state, &ram, VERSION_1 | features) else {
        return Ok(());
    };
    let mut device = Device {
        chain: queue.new_chain(),
        queue,
        ram,
        avail: start,
        taken: Vec::new(),
        unpublished: 0,
        visible: start,
    };
    device.put(AVAIL + 2, &start.to_le_bytes());
    while !u.is_empty() {
        let step = Step::arbitrary(u)?;
        if device.step(&step, &state).is_none() {
            // A fault: the queue is used no more.
            break;
        }
    }
    Ok(())
}

impl Device {
    fn put(&self, address: u64, bytes: &[u8]) {
        let written = self.ram.write_slice(bytes, GuestAddress(address));
        written.expect("an address in RAM");
    }

    fn used_idx(&self) -> u16 {
        let index = self.ram.read_obj(GuestAddress(USED + 2));
        index.expect("an address in RAM")
    }

    fn show(&mut self, index: u16) {
        self.avail = index;
        self.put(AVAIL + 2, &index.to_le_bytes());
    }

    /// `None` after a fault.
    fn step(&mut self, step: &Step, state: &QueueState) -> Option<()> {
        match step {
            Step::Descriptor {
                table,
                index,
                value,
            } => {
                let base = if *table { TABLE } else { DESC };
                self.put(base + 16 * u64::from(index & 31), &value.bytes());
            }
            Step::Offer(head) => {
                let slot = AVAIL + 4 + 2 * u64::from(self.avail % state.size);
                // Mostly one that exists.
                let head = if head >> 12 == 0xf {
                    *head
                } else {
                    head % state.size
                };
                self.put(slot, &head.to_le_bytes());
                self.show(self.avail.wrapping_add(1));
            }
            Step::Index(ahead) => self.show(self.avail.wrapping_add(*ahead)),
            Step::Poke { at, value } => {
                // Anywhere but in the used ring's index, by which the script checks the device.
                let at = u64::from(*at & 0xfffe);
                if !(USED..USED + 4).contains(&at) {
                    self.put(at, &value.to_le_bytes());
                }
            }
            Step::Pop => self.pop(state)?,
            Step::Give { which, written } => {
                if !self.taken.is_empty() {
                    let at = usize::from(*which) % self.taken.len();
                    self.queue.push_used(self.taken.swap_remove(at), *written);
                    self.unpublished += 1;
                }
            }
            Step::Rewind => self.rewind()?,
            Step::Publish => self.publish(),
            Step::Kicks { beyond } => {
                let known = u16::from(beyond % 8);
                let more = self.queue.enable_kicks_beyond(known).ok()?;
                assert_eq!(self.queue.available().ok()? > known, more);
            }
            Step::Quiet => self.queue.disable_kicks(),
        }
        Some(())
    }

    /// A chain that was taken has as many bytes as it says, and all of them can be reached.
    fn pop(&mut self, state: &QueueState) -> Option<()> {
        if !self.queue.pop(&mut self.chain).ok()? {
            return Some(());
        }
        self.taken.push(self.chain.head());
        let outstanding = self.taken.len() + usize::from(self.unpublished);
        assert!(
            outstanding <= usize::from(state.size),
            "more than the ring has"
        );
        let mut reader = self.chain.reader();
        assert_eq!(reader.remaining(), self.chain.readable_len() as usize);
        let first = reader.read_array::<12>().map_or(0, |_| 12);
        let mut bytes = [0; 0x1000];
        let mut read = first + reader.read(&mut bytes);
        read += reader.skip(usize::MAX);
        assert_eq!(read, self.chain.readable_len() as usize);
        assert!(reader.next_place().is_none() && reader.remaining() == 0);
        let mut slices = self.chain.writer();
        let mut room = 0;
        while let Some(slice) = slices.next_slice(0x7ff) {
            room += slice.len();
        }
        assert_eq!(room, self.chain.writable_len() as usize);
        Some(())
    }

    /// Takes what there is, puts it back, and finds the same number again.
    fn rewind(&mut self) -> Option<()> {
        let before = self.queue.available().ok()?;
        let mark = self.queue.mark();
        let mut chain = self.queue.new_chain();
        for _ in 0..before {
            if !self.queue.pop(&mut chain).ok()? {
                break;
            }
        }
        self.queue.rewind(mark);
        assert_eq!(self.queue.available().ok()?, before);
        Some(())
    }

    fn publish(&mut self) {
        assert_eq!(self.queue.publish(), self.unpublished > 0);
        let after = self.visible.wrapping_add(self.unpublished);
        if self.unpublished > 0 {
            assert_eq!(self.used_idx(), after);
        }
        let wanted = self.queue.needs_interrupt();
        assert!(!wanted || self.unpublished > 0, "an interrupt for nothing");
        self.visible = after;
        self.unpublished = 0;
    }
}
