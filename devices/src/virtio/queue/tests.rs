//! The device's side against rings written by hand.

use vm_memory::{Bytes, GuestAddress};

use super::*;

mod events;

const SIZE: u16 = 8;
const DESC: u64 = 0x1000;
const AVAIL: u64 = 0x2000;
const USED: u64 = 0x3000;
const BUFFERS: u64 = 0x8000;
/// End of the first region; the second follows at once, the third behind a hole.
const EDGE: u64 = 0x1_0000;
const END: u64 = 0x2_0000;
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

struct Rings {
    ram: GuestRam,
    avail_idx: u16,
}

impl Rings {
    fn new() -> Self {
        let regions = [
            (GuestAddress(0), 0x1_0000),
            (GuestAddress(EDGE), 0x1_0000),
            (GuestAddress(0x10_0000), 0x1000),
        ];
        Self {
            ram: GuestRam::from_ranges(&regions).unwrap(),
            avail_idx: 0,
        }
    }

    fn state() -> QueueState {
        QueueState {
            max_size: 256,
            size: SIZE,
            ready: true,
            desc_table: DESC,
            avail_ring: AVAIL,
            used_ring: USED,
            ..QueueState::default()
        }
    }

    fn live(&self, features: u64) -> LiveQueue {
        LiveQueue::new(&Self::state(), &self.ram, features).unwrap()
    }

    fn write<T: vm_memory::ByteValued>(&self, address: u64, value: T) {
        self.ram.write_obj(value, GuestAddress(address)).unwrap();
    }

    fn read<T: vm_memory::ByteValued>(&self, address: u64) -> T {
        self.ram.read_obj(GuestAddress(address)).unwrap()
    }

    fn descriptor_at(&self, at: u64, address: u64, len: u32, flags: u16, next: u16) {
        self.write(at, address);
        self.write(at + 8, len);
        self.write(at + 12, flags);
        self.write(at + 14, next);
    }

    fn descriptor(&self, index: u16, address: u64, len: u32, flags: u16, next: u16) {
        self.descriptor_at(DESC + 16 * u64::from(index), address, len, flags, next);
    }

    fn offer(&mut self, head: u16) {
        let slot = u64::from(self.avail_idx % SIZE);
        self.write(AVAIL + 4 + 2 * slot, head);
        self.set_avail(self.avail_idx.wrapping_add(1));
    }

    fn set_avail(&mut self, index: u16) {
        self.avail_idx = index;
        self.write(AVAIL + 2, index);
    }

    /// The fault that the chain at descriptor 0 is refused with.
    fn fault(&mut self, features: u64) -> QueueFault {
        self.offer(0);
        let mut queue = self.live(features);
        let mut chain = queue.new_chain();
        queue.pop(&mut chain).unwrap_err()
    }
}

#[test]
fn a_chain_is_read_written_and_given_back() {
    let mut rings = Rings::new();
    rings
        .ram
        .write_slice(b"hello ", GuestAddress(BUFFERS))
        .unwrap();
    rings
        .ram
        .write_slice(b"world", GuestAddress(BUFFERS + 64))
        .unwrap();
    rings.descriptor(3, BUFFERS, 6, NEXT, 1);
    rings.descriptor(1, BUFFERS + 64, 5, NEXT, 5);
    rings.descriptor(5, BUFFERS + 128, 0, NEXT, 6);
    rings.descriptor(6, BUFFERS + 256, 4, NEXT | WRITE, 7);
    rings.descriptor(7, BUFFERS + 512, 4, WRITE, 0);
    rings.offer(3);

    let mut queue = rings.live(VERSION_1);
    let mut chain = queue.new_chain();
    assert!(queue.pop(&mut chain).unwrap());
    assert_eq!(
        (chain.head(), chain.readable_len(), chain.writable_len()),
        (3, 11, 8)
    );
    let mut reader = chain.reader();
    assert_eq!(reader.read_array::<8>().unwrap(), *b"hello wo");
    assert_eq!(reader.read_array::<4>(), None, "and nothing was read");
    let mut rest = [0; 8];
    assert_eq!(reader.read(&mut rest), 3);
    assert_eq!(&rest[..3], b"rld");
    let mut writer = chain.writer();
    assert_eq!(writer.skip(2), 2);
    assert_eq!(writer.write(b"1234567"), 6);
    assert_eq!(rings.read::<[u8; 4]>(BUFFERS + 256), *b"\0\x0012");
    assert_eq!(rings.read::<[u8; 4]>(BUFFERS + 512), *b"3456");

    assert!(!queue.pop(&mut chain).unwrap());
    queue.push_used(3, 8);
    assert_eq!(rings.read::<u16>(USED + 2), 0, "not published yet");
    assert!(queue.publish());
    assert!(!queue.publish());
    assert_eq!(rings.read::<u16>(USED + 2), 1);
    assert_eq!(rings.read::<[u32; 2]>(USED + 4), [3, 8]);
}

#[test]
fn a_buffer_may_cross_regions_but_not_a_hole() {
    let mut rings = Rings::new();
    let data: Vec<u8> = (0..=255).collect();
    rings
        .ram
        .write_slice(&data, GuestAddress(EDGE - 100))
        .unwrap();
    rings.descriptor(0, EDGE - 100, 256, NEXT, 1);
    rings.descriptor(1, EDGE - 3, 6, WRITE, 0);
    rings.offer(0);
    let mut queue = rings.live(VERSION_1);
    let mut chain = queue.new_chain();
    assert!(queue.pop(&mut chain).unwrap());
    let mut read = vec![0; 300];
    assert_eq!(chain.reader().read(&mut read), 256);
    assert_eq!(read[..256], data);
    assert_eq!(chain.writer().write(b"abcdef"), 6);
    assert_eq!(rings.read::<[u8; 6]>(EDGE - 3), *b"abcdef");

    for (address, len) in [
        (END - 4, 8),
        (0x5_0000, 1),
        (u64::MAX - 3, 8),
        (u64::MAX, 1),
    ] {
        let mut rings = Rings::new();
        rings.descriptor(0, address, len, 0, 0);
        let fault = rings.fault(VERSION_1);
        assert_eq!(fault, QueueFault::BufferNotInRam { address, len });
    }
}

#[test]
fn loops_and_long_chains_end() {
    let mut rings = Rings::new();
    rings.descriptor(0, BUFFERS, 1, NEXT, 0);
    assert_eq!(rings.fault(VERSION_1), QueueFault::ChainTooLong(0));
    let mut rings = Rings::new();
    rings.descriptor(0, BUFFERS, 1, NEXT, 1);
    rings.descriptor(1, BUFFERS, 0, NEXT, 0);
    assert_eq!(rings.fault(VERSION_1), QueueFault::ChainTooLong(0));
}

#[test]
fn indices_outside_the_table_are_refused() {
    let mut rings = Rings::new();
    rings.descriptor(0, BUFFERS, 1, NEXT, SIZE);
    assert_eq!(rings.fault(VERSION_1), QueueFault::DescriptorIndex(SIZE));
    let mut rings = Rings::new();
    rings.offer(0xffff);
    let mut queue = rings.live(VERSION_1);
    let mut chain = queue.new_chain();
    assert_eq!(
        queue.pop(&mut chain),
        Err(QueueFault::DescriptorIndex(0xffff))
    );
}

#[test]
fn lengths_that_overflow_and_wrong_order_are_refused() {
    let mut rings = Rings::new();
    rings.descriptor(0, BUFFERS, 16, NEXT, 1);
    rings.descriptor(1, BUFFERS, u32::MAX, 0, 0);
    assert_eq!(rings.fault(VERSION_1), QueueFault::ChainTooBig(0));
    let mut rings = Rings::new();
    rings.descriptor(0, BUFFERS, 16, NEXT | WRITE, 1);
    rings.descriptor(1, BUFFERS, 16, 0, 0);
    assert_eq!(rings.fault(VERSION_1), QueueFault::Order(0));
}

#[test]
fn indirect_tables_work_and_their_rules_hold() {
    let features = VERSION_1 | INDIRECT_DESC;
    // Unaligned, behind a direct descriptor, WRITE on the reference to be ignored.
    let table = BUFFERS + 0x403;
    let mut rings = Rings::new();
    rings.descriptor(0, BUFFERS, 3, NEXT, 1);
    rings.descriptor(1, table, 48, INDIRECT | WRITE, 0);
    rings.descriptor_at(table, BUFFERS, 5, NEXT, 2);
    rings.descriptor_at(table + 32, BUFFERS, 7, WRITE, 0);
    rings.offer(0);
    let mut queue = rings.live(features);
    let mut chain = queue.new_chain();
    assert!(queue.pop(&mut chain).unwrap());
    assert_eq!((chain.readable_len(), chain.writable_len()), (8, 7));

    let broken = [(32, INDIRECT | NEXT), (0, INDIRECT), (24, INDIRECT)];
    for (len, flags) in broken {
        let mut rings = Rings::new();
        rings.descriptor(0, table, len, flags, 0);
        assert_eq!(rings.fault(features), QueueFault::Indirect(0));
    }
    let mut rings = Rings::new();
    rings.descriptor(0, table, 32, INDIRECT, 0);
    rings.descriptor_at(table, table, 32, INDIRECT, 0);
    assert_eq!(rings.fault(features), QueueFault::Indirect(0));
    assert_eq!(
        rings.fault(VERSION_1),
        QueueFault::Indirect(0),
        "not negotiated"
    );
    rings.descriptor_at(table, BUFFERS, 1, NEXT, 2);
    assert_eq!(rings.fault(features), QueueFault::DescriptorIndex(2));
    rings.descriptor_at(table, BUFFERS, 1, NEXT, 0);
    assert_eq!(rings.fault(features), QueueFault::ChainTooLong(0));
    rings.descriptor(0, END - 16, 64, INDIRECT, 0);
    rings.descriptor_at(END - 16, BUFFERS, 1, NEXT, 1);
    let fault = QueueFault::BufferNotInRam {
        address: END - 16,
        len: 64,
    };
    assert_eq!(rings.fault(features), fault);
}

/// The snapshot is what counts: the driver's later changes reach bytes, never the walk.
#[test]
fn descriptors_are_not_read_again() {
    let mut rings = Rings::new();
    let table = BUFFERS + 0x800;
    rings
        .ram
        .write_slice(b"mine", GuestAddress(BUFFERS))
        .unwrap();
    rings.descriptor(0, table, 32, INDIRECT, 0);
    rings.descriptor_at(table, BUFFERS, 4, NEXT, 1);
    rings.descriptor_at(table + 16, BUFFERS + 64, 4, WRITE, 0);
    rings.offer(0);
    let mut queue = rings.live(INDIRECT_DESC);
    let mut chain = queue.new_chain();
    assert!(queue.pop(&mut chain).unwrap());
    rings.descriptor(0, u64::MAX, u32::MAX, NEXT, 0);
    rings.descriptor_at(table, u64::MAX, u32::MAX, NEXT | WRITE, 0);
    rings.descriptor_at(table + 16, u64::MAX, u32::MAX, NEXT, 0);
    assert_eq!(chain.reader().read_array::<4>().unwrap(), *b"mine");
    assert_eq!(chain.writer().write(b"theirs"), 4);
    assert_eq!(rings.read::<[u8; 4]>(BUFFERS + 64), *b"thei");
}

#[test]
fn an_indirect_table_may_cross_regions() {
    let mut rings = Rings::new();
    for table in [EDGE - 16, EDGE - 12, EDGE - 1] {
        rings.descriptor(0, table, 32, INDIRECT, 0);
        rings.descriptor_at(table, BUFFERS, 5, NEXT, 1);
        rings.descriptor_at(table + 16, BUFFERS, 6, 0, 0);
        rings.set_avail(0);
        rings.offer(0);
        let mut queue = rings.live(INDIRECT_DESC);
        let mut chain = queue.new_chain();
        assert!(queue.pop(&mut chain).unwrap());
        assert_eq!(chain.readable_len(), 11);
    }
}

#[test]
fn the_available_index_may_not_jump_or_go_back() {
    let mut rings = Rings::new();
    rings.descriptor(0, BUFFERS, 1, 0, 0);
    let mut queue = rings.live(VERSION_1);
    let mut chain = queue.new_chain();
    rings.set_avail(SIZE + 1);
    let expected = 0;
    let fault = QueueFault::AvailIndex {
        found: SIZE + 1,
        expected,
    };
    assert_eq!(queue.pop(&mut chain), Err(fault));
    rings.set_avail(u16::MAX);
    assert!(queue.available().is_err());

    // All taken, none given back: not one more is possible, and none that was seen may vanish.
    rings.set_avail(SIZE);
    for _ in 0..SIZE {
        assert!(queue.pop(&mut chain).unwrap());
    }
    rings.set_avail(SIZE + 1);
    assert!(queue.available().is_err());
    rings.set_avail(SIZE - 1);
    assert!(queue.enable_kicks().is_err());
    queue.push_used(0, 0);
    rings.set_avail(SIZE + 1);
    assert!(
        queue.available().is_err(),
        "the driver can't know of the used entry yet"
    );
    queue.publish();
    assert_eq!(queue.available(), Ok(1));
}

#[test]
fn rewinding_puts_chains_back() {
    let mut rings = Rings::new();
    rings.descriptor(0, BUFFERS, 1, WRITE, 0);
    rings.descriptor(1, BUFFERS, 2, WRITE, 0);
    let mut queue = rings.live(VERSION_1);
    let mut chain = queue.new_chain();
    rings.offer(0);
    rings.offer(1);
    let mark = queue.mark();
    for _ in 0..2 {
        assert!(queue.pop(&mut chain).unwrap());
        queue.push_used(chain.head(), 1);
    }
    queue.rewind(mark);
    assert!(!queue.publish());
    assert_eq!(queue.available(), Ok(2));
    assert!(queue.pop(&mut chain).unwrap());
    assert_eq!((chain.head(), chain.writable_len()), (0, 1));
}
