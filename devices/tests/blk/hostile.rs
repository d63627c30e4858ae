//! What a driver must not do: it gets an error, or DEVICE_NEEDS_RESET, and nothing else happens.

use std::{thread, time::Duration};

use devices::{
    testing::{Buffer, Descriptor, HOLE, RAM_END, status, wait_for},
    virtio::queue::VERSION_1,
};

use crate::driver::{
    Disk, FLUSH, GET_ID, IN, IOERR, OK, OUT, SECTOR, TempFile, UNTOUCHED, header, pattern,
};

#[test]
fn reads_and_writes_past_the_end_fail_and_change_nothing() {
    let content = pattern(1, 8 * SECTOR);
    let image = TempFile::new(&content);
    let mut disk = Disk::new(&image);
    let sectors = [
        (8, 1),
        (7, 2),
        (0, 9),
        (u64::MAX, 1),
        (u64::MAX / 512, 1),
        (u64::MAX / 512 + 1, 1),
        (1 << 55, 2),
    ];
    for (sector, count) in sectors {
        let answer = disk.read(sector, count * SECTOR);
        assert_eq!((answer.status, answer.len), (IOERR, 0));
        assert!(answer.data.iter().all(|&byte| byte == UNTOUCHED));
        assert_eq!(disk.write(sector, &vec![0; count * SECTOR]), IOERR);
    }
    for odd in [1, 511, 513, 1000] {
        assert_eq!(disk.read(0, odd).status, IOERR);
        assert_eq!(disk.write(0, &vec![0; odd]), IOERR);
    }
    assert!(image.content() == content);
}

#[test]
fn a_short_header_is_an_io_error() {
    let image = TempFile::new(&pattern(2, SECTOR));
    let mut disk = Disk::new(&image);
    for len in 1..16 {
        let answer = disk.split(&header(OUT, 0), &[len], &[1]);
        assert_eq!((answer.status, answer.len), (IOERR, 1));
    }
    let answer = disk.split(&[], &[], &[1]);
    assert_eq!(answer.status, IOERR, "no header at all");
    disk.assert_works();
    assert!(image.content() == pattern(2, SECTOR));
}

#[test]
fn data_of_the_wrong_direction_is_ignored() {
    let image = TempFile::new(&pattern(3, 2 * SECTOR));
    let mut disk = Disk::new(&image);
    // A read with readable data, a write with writable data, a flush with both.
    let answer = disk.request(IN, 1, &[9; 100], SECTOR);
    assert_eq!(answer.status, OK);
    assert!(answer.data == pattern(3, 2 * SECTOR)[SECTOR..]);
    for kind in [OUT, FLUSH] {
        let answer = disk.request(kind, 0, &[9; SECTOR], SECTOR);
        assert_eq!((answer.status, answer.len), (OK, 0));
        assert_eq!(answer.data, [UNTOUCHED; SECTOR]);
    }
    assert_eq!(image.content()[..SECTOR], [9; SECTOR]);
    assert_eq!(disk.request(GET_ID, u64::MAX, &[9; 5], 20).status, OK);
}

/// Breaks the queue with `wrong`, checks that nothing more is taken, and that a reset heals.
fn breaks(disk: &mut Disk, wrong: impl FnOnce(&mut Disk)) {
    disk.restart(VERSION_1);
    let used = disk.queue.used_idx();
    wrong(disk);
    disk.driver.kick(0);
    disk.driver.wait_needs_reset();
    assert_eq!(disk.driver.wait_interrupt() & 2, 2, "configuration change");
    // A storm of kicks for a queue that is out of order.
    for _ in 0..1000 {
        disk.driver.kick(0);
    }
    assert_eq!(disk.queue.used_idx(), used);
    disk.restart(VERSION_1);
    disk.assert_works();
}

#[test]
fn a_chain_without_a_place_for_the_status_breaks_the_queue() {
    let content = pattern(4, SECTOR);
    let image = TempFile::new(&content);
    let mut disk = Disk::new(&image);
    breaks(&mut disk, |disk| {
        let mut out = header(OUT, 0).to_vec();
        out.extend_from_slice(&[0; SECTOR]);
        let buffers = disk.buffers(&out, &[16, SECTOR], &[]);
        disk.queue.add(&buffers);
    });
    breaks(&mut disk, |disk| {
        let buffers = disk.buffers(&header(FLUSH, 0), &[16], &[0]);
        disk.queue.add(&buffers);
    });
    assert!(image.content() == content);
}

/// Only a reset ends the wait: not even a ring that is right again.
#[test]
fn a_broken_queue_stays_broken_until_the_reset() {
    let image = TempFile::new(&pattern(10, SECTOR));
    let mut disk = Disk::new(&image);
    disk.queue.set_avail_idx(1000);
    disk.driver.kick(0);
    disk.driver.wait_needs_reset();
    disk.queue.set_avail_idx(0);
    let buffers = disk.buffers(&header(IN, 0), &[16], &[512, 1]);
    disk.queue.add(&buffers);
    disk.driver.kick(0);
    // Time to do what must not be done.
    thread::sleep(Duration::from_millis(50));
    assert_eq!(disk.queue.used_idx(), 0);
    disk.restart(VERSION_1);
    disk.assert_works();
}

#[test]
fn loops_bad_addresses_and_lengths_of_4_gib_break_the_queue() {
    let image = TempFile::new(&pattern(5, SECTOR));
    let mut disk = Disk::new(&image);
    breaks(&mut disk, |disk| {
        let (address, flags) = (disk.readable, Descriptor::NEXT);
        let itself = Descriptor {
            address,
            len: 16,
            flags,
            next: 0,
        };
        disk.queue.set_descriptor(0, itself);
        disk.queue.offer(0);
    });
    breaks(&mut disk, |disk| disk.queue.offer(256));
    breaks(&mut disk, |disk| disk.queue.set_avail_idx(1000));
    let places = [
        (HOLE, 512),
        (RAM_END - 511, 512),
        (u64::MAX - 10, 512),
        (0, u32::MAX),
        (0x1000, u32::MAX - 16),
    ];
    for (address, len) in places {
        breaks(&mut disk, |disk| {
            let mut buffers = disk.buffers(&header(IN, 0), &[16], &[1]);
            buffers.insert(1, Buffer::writable(address, len));
            disk.queue.add(&buffers);
        });
    }
    // Readable after writable.
    breaks(&mut disk, |disk| {
        let mut buffers = disk.buffers(&header(IN, 0), &[16], &[512, 1]);
        buffers.swap(0, 1);
        disk.queue.add(&buffers);
    });
}

/// 254 buffers that are all the same 16 MiB: 4 GiB less a little, in a machine of 32 MiB.
#[test]
fn a_request_of_nearly_4_gib_is_longer_than_the_disk() {
    let image = TempFile::new(&pattern(6, SECTOR));
    let mut disk = Disk::new(&image);
    for kind in [IN, OUT] {
        let mut buffers = disk.buffers(&header(kind, 0), &[16], &[1]);
        let data = |_| match kind {
            IN => Buffer::writable(0, 0x100_0000),
            _ => Buffer::readable(0, 0x100_0000),
        };
        buffers.splice(1..1, (0..254).map(data));
        disk.submit(&buffers);
        assert_eq!(disk.driver.read_memory(disk.writable, 1), [IOERR]);
    }
    assert!(image.content() == pattern(6, SECTOR));
}

#[test]
fn kicks_without_requests_and_of_other_queues_are_ignored() {
    let image = TempFile::new(&pattern(7, SECTOR));
    let mut disk = Disk::new(&image);
    for queue in [0, 0, 1, 0xffff] {
        disk.driver.kick(queue);
    }
    disk.assert_works();
}

/// The same sequence in every run (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn below_u16(&mut self, limit: u64) -> u16 {
        u16::try_from(self.below(limit)).unwrap()
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }

    /// Mostly what makes sense, so that some of it gets past the first check.
    fn descriptor(&mut self, memory: u64) -> Descriptor {
        let flags = [0, 1, 1, 2, 3, 4, self.below_u16(1 << 16)];
        let (address, len, next) = if self.below(40) == 0 {
            let len = self.below(1 << 32);
            (self.below(u64::MAX), len, self.below_u16(1 << 16))
        } else {
            (memory, self.pick(&[0, 1, 16, 512]), self.below_u16(256))
        };
        Descriptor {
            address,
            len: u32::try_from(len).unwrap(),
            flags: self.pick(&flags),
            next,
        }
    }
}

/// Whatever lies in the rings: the thread lives, the file keeps its size, a reset heals.
#[test]
fn random_rings_do_no_harm() {
    let image = TempFile::new(&pattern(9, 64 * SECTOR));
    let mut disk = Disk::new(&image);
    let features = disk.driver.offered();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut answered, mut broken) = (0, 0);
    for _ in 0..500 {
        disk.restart(features);
        let header = header(
            random.pick(&[IN, OUT, FLUSH, GET_ID, 11, 13, 77]),
            random.below(80),
        );
        disk.driver.write_memory(disk.readable, &header);
        for index in 0..256 {
            let descriptor = random.descriptor(disk.readable);
            disk.queue.set_descriptor(index, descriptor);
        }
        for _ in 0..random.below(64) {
            disk.queue.offer(random.below_u16(257));
        }
        disk.driver.kick(0);
        let (queue, driver) = (&disk.queue, &mut disk.driver);
        broken += wait_for("all requests done, or the queue broken", || {
            let broken = driver.status() & status::NEEDS_RESET != 0;
            (broken || queue.used_idx() == queue.avail_idx()).then_some(u32::from(broken))
        });
        answered += u32::from(disk.queue.used_idx());
    }
    assert!(
        answered > 100 && broken > 100,
        "{answered} answered, {broken} broken"
    );
    disk.restart(features);
    disk.assert_works();
    assert_eq!(image.content().len(), 64 * SECTOR);
}

#[test]
fn an_image_that_shrinks_gives_io_errors() {
    let image = TempFile::new(&pattern(8, 8 * SECTOR));
    let mut disk = Disk::new(&image);
    image.set_len(4 * SECTOR as u64);
    assert_eq!(disk.read(6, SECTOR).status, IOERR);
    // What there was is counted, from the start.
    let answer = disk.read(2, 4 * SECTOR);
    assert_eq!((answer.status, answer.len), (IOERR, 2 * SECTOR));
    assert!(answer.data[..2 * SECTOR] == pattern(8, 8 * SECTOR)[2 * SECTOR..4 * SECTOR]);
    assert_eq!(disk.read(3, SECTOR).status, OK);
}
