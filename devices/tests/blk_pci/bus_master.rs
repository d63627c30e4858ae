//! Bus Master Enable (PCI 3.0, 6.2.2) under a disk: requests wait, and none fails for it.

use std::{sync::Arc, thread, time::Duration};

use devices::testing::{Buffer, SEAM, bus_master, status};

use crate::driver::{Disk, IN, OK, OUT, SECTOR, TempFile, UNTOUCHED, header, pattern};

#[test]
fn requests_wait_for_it() {
    let image = TempFile::new(&pattern(1, 8 * SECTOR));
    let mut disk = Disk::new(&image);
    for sector in 0..8 {
        disk.driver.pci().set_bus_master(false);
        let buffers = disk.buffers(&header(IN, sector), &[16], &[SECTOR, 1]);
        disk.queue.add(&buffers);
        disk.driver.kick(0);
        thread::sleep(Duration::from_millis(20));
        assert_eq!(disk.queue.take_used(), None);
        let place = disk.writable;
        let untouched = vec![UNTOUCHED; SECTOR + 1];
        assert!(disk.driver.read_memory(place, SECTOR + 1) == untouched);
        disk.driver.pci().set_bus_master(true);
        disk.queue.wait_used();
        let read = disk.driver.read_memory(place, SECTOR + 1);
        let at = SECTOR * usize::try_from(sector).unwrap();
        assert_eq!(read[..SECTOR], image.content()[at..at + SECTOR]);
        assert_eq!(read[SECTOR], OK);
    }
    assert_eq!(disk.driver.status(), 15);
}

/// A request that is too long to be waited for is done once more from its start, and not failed.
#[test]
fn long_requests_survive_it() {
    const LEN: usize = 12 << 20;
    let content = pattern(5, LEN);
    let image = TempFile::new(&vec![0; LEN]);
    let mut disk = Disk::new(&image);
    let bus = Arc::clone(disk.driver.pci().bus());
    let (long, word) = (u32::try_from(LEN).unwrap(), disk.readable);
    let status_at = disk.writable;
    for round in 0..6 {
        let kind = if round % 2 == 0 { OUT } else { IN };
        let data = if kind == OUT {
            disk.driver.write_memory(SEAM, &content);
            Buffer::readable(SEAM, long)
        } else {
            disk.driver.write_memory(SEAM, &vec![0; LEN]);
            Buffer::writable(SEAM, long)
        };
        disk.driver.write_memory(word, &header(kind, 0));
        disk.driver.write_memory(status_at, &[UNTOUCHED]);
        disk.queue.add(&[
            Buffer::readable(word, 16),
            data,
            Buffer::writable(status_at, 1),
        ]);
        disk.driver.kick(0);
        for n in 0..20 {
            thread::sleep(Duration::from_micros(100 * n));
            bus_master(&bus, false);
            // When it was completed, it was completed whole.
            let state = disk.driver.read_memory(status_at, 1)[0];
            assert!(state == OK || state == UNTOUCHED, "status {state}");
            bus_master(&bus, true);
        }
        disk.queue.wait_used();
        assert_eq!(disk.driver.read_memory(status_at, 1), [OK]);
        assert!(disk.driver.read_memory(SEAM, LEN) == content);
        assert!(image.content() == content);
    }
    assert_eq!(disk.driver.status() & status::NEEDS_RESET, 0);
}
