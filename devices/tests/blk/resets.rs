//! Resets while the disk works.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use devices::{
    testing::{Buffer, register, status, wait_for},
    virtio::queue::{EVENT_IDX, VERSION_1},
};

use crate::driver::{Disk, IN, OUT, SECTOR, TempFile, header, pattern};

/// VIRTIO_BLK_F_FLUSH.
const FLUSH: u64 = 1 << 9;

/// Asks for the same `data` in each of the first sectors.
fn write_all(disk: &mut Disk, sectors: u64, data: &[u8]) {
    disk.driver.write_memory(disk.readable + 4096, data);
    for sector in 0..sectors {
        let place = disk.readable + 16 * sector;
        disk.driver.write_memory(place, &header(OUT, sector));
        disk.queue.add(&[
            Buffer::readable(place, 16),
            Buffer::readable(disk.readable + 4096, 512),
            Buffer::writable(disk.writable + sector, 1),
        ]);
    }
    disk.driver.kick(0);
}

/// The driver writes a sector whole, or not at all, and after the reset nothing is completed.
#[test]
fn resets_in_the_middle_of_writes_leave_whole_sectors() {
    const SECTORS: u64 = 32;
    let image = TempFile::new(&pattern(0, SECTOR * 32));
    let mut before = image.content();
    let mut disk = Disk::new(&image);
    for round in 1..=300usize {
        let features = if round % 2 == 0 { EVENT_IDX } else { 0 };
        // With FLUSH: otherwise each write is one to the host's disk, and the test waits for it.
        disk.restart(VERSION_1 | FLUSH | features);
        let data = pattern(round, SECTOR);
        write_all(&mut disk, SECTORS, &data);
        if round % 3 == 0 {
            disk.queue.wait_used();
        }
        disk.driver.write(register::STATUS, 0);
        assert_eq!(disk.driver.status(), 0);

        // What was completed is in the file, the rest is as it was, nothing is half done.
        let completed = disk.queue.used_idx();
        let content = image.content();
        let mut written = 0;
        for (new, old) in content.chunks(SECTOR).zip(before.chunks(SECTOR)) {
            written += u16::from(new == data);
            assert!(new == data || new == old, "round {round}");
        }
        assert_eq!(written, completed, "round {round}");
        before = content;
        thread::yield_now();
        assert_eq!(disk.queue.used_idx(), completed);
    }
}

/// The same by resets of its queue (VIRTIO_F_RING_RESET), which has another size each time.
#[test]
fn resets_of_the_queue_leave_whole_sectors() {
    const SECTORS: u64 = 8;
    let image = TempFile::new(&[0; 8 * SECTOR]);
    let mut before = image.content();
    let mut disk = Disk::new(&image);
    for round in 1..=100usize {
        let data = pattern(round, SECTOR);
        write_all(&mut disk, SECTORS, &data);
        disk.driver.reset_queue(0);
        let completed = disk.queue.used_idx();
        let content = image.content();
        let mut written = 0;
        for (new, old) in content.chunks(SECTOR).zip(before.chunks(SECTOR)) {
            written += u16::from(new == data);
            assert!(new == data || new == old, "round {round}");
        }
        assert_eq!(written, completed, "round {round}");
        before = content;
        disk.queue = disk.driver.queue(0, 32 << (round % 4));
    }
    disk.assert_works();
    assert_eq!(disk.driver.status(), 15);
}

/// A driver on another CPU gives every buffer back at once; a reset must get through all the same.
#[test]
fn a_driver_that_never_ends_does_not_hold_up_the_reset() {
    let image = TempFile::new(&pattern(1, 8 * SECTOR));
    let mut disk = Disk::new(&image);
    let kick = disk.driver.kick_fd(0);
    disk.driver.write_memory(disk.readable, &header(IN, 0));
    let chain = [
        Buffer::readable(disk.readable, 16),
        Buffer::writable(disk.writable, 512),
        Buffer::writable(disk.writable + 512, 1),
    ];
    let done = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&done);
    let (sender, receiver) = std::sync::mpsc::channel();
    // Its rings stay where they are: after the reset the device has no business there.
    let mut queue = disk.queue;
    let guest = thread::spawn(move || {
        let mut given_back = 0u64;
        while !flag.load(Ordering::Acquire) {
            while queue.room() >= chain.len() {
                queue.add(&chain);
            }
            kick.write(1).unwrap();
            while queue.take_used().is_some() {
                given_back += 1;
            }
            let _ = sender.send(given_back);
        }
    });
    wait_for("a thousand requests", || {
        receiver.try_iter().last().filter(|&count| count > 1000)
    });
    disk.driver.write(register::STATUS, 0);
    assert_eq!(disk.driver.status(), 0, "the reset is complete");
    done.store(true, Ordering::Release);
    guest.join().unwrap();
    assert!(disk.driver.negotiate(VERSION_1));
    assert_eq!(disk.driver.status() & status::NEEDS_RESET, 0);
}

#[test]
fn starting_without_the_queue_is_refused() {
    let image = TempFile::new(&pattern(2, SECTOR));
    let mut disk = Disk::new(&image);
    assert!(disk.driver.negotiate(VERSION_1));
    disk.driver.start();
    disk.driver.wait_needs_reset();
    disk.restart(VERSION_1);
    disk.assert_works();
}
