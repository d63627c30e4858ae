//! What a well-behaved driver asks for.

use devices::{
    testing::{Buffer, SEAM},
    virtio::{
        blk::{BlkDevice, Serial},
        queue::{EVENT_IDX, VERSION_1},
    },
};

use crate::driver::{
    Disk, FLUSH, GET_ID, IN, IOERR, OK, OUT, SECTOR, TempFile, UNSUPP, UNTOUCHED, header, pattern,
};

const F_SEG_MAX: u64 = 1 << 2;
const F_RO: u64 = 1 << 5;
const F_BLK_SIZE: u64 = 1 << 6;
const F_FLUSH: u64 = 1 << 9;

#[test]
fn features_and_configuration_say_what_the_disk_is() {
    let image = TempFile::new(&pattern(1, 7 * SECTOR));
    let mut disk = Disk::new(&image);
    let offered = disk.driver.offered();
    let always = F_SEG_MAX | F_BLK_SIZE | F_FLUSH;
    assert_eq!(offered & (always | F_RO), always);
    assert_eq!(disk.driver.config::<8>(0), 7u64.to_le_bytes());
    assert_eq!(disk.driver.config::<4>(12), 254u32.to_le_bytes());
    assert_eq!(disk.driver.config::<4>(20), 512u32.to_le_bytes());
    assert_eq!(disk.driver.config::<4>(0x400), [0; 4]);
}

#[test]
fn what_is_written_is_in_the_file_and_is_read_back() {
    let image = TempFile::new(&pattern(1, 64 * SECTOR));
    let mut disk = Disk::new(&image);
    let data = pattern(2, 8 * SECTOR);
    assert_eq!(disk.write(5, &data), OK);
    assert_eq!(disk.request(FLUSH, 0, &[], 0).status, OK);
    let mut expected = pattern(1, 64 * SECTOR);
    expected[5 * SECTOR..13 * SECTOR].copy_from_slice(&data);
    assert!(image.content() == expected);

    for (sector, sectors) in [(0, 1), (4, 10), (63, 1), (0, 64)] {
        let start = usize::try_from(sector).unwrap() * SECTOR;
        let answer = disk.read(sector, sectors * SECTOR);
        assert_eq!(answer.status, OK);
        assert!(answer.data == expected[start..start + sectors * SECTOR]);
        assert_eq!(answer.len, sectors * SECTOR + 1);
    }
    assert_eq!(disk.read(3, 0).status, OK, "nothing to read");
}

#[test]
fn a_disk_without_flush_negotiated_works() {
    let image = TempFile::new(&[0; 4 * SECTOR]);
    let mut disk = Disk::new(&image);
    for features in [VERSION_1, VERSION_1 | EVENT_IDX] {
        disk.restart(features);
        let data = pattern(3, 2 * SECTOR);
        assert_eq!(disk.write(2, &data), OK);
        assert!(image.content()[2 * SECTOR..] == data);
    }
}

/// 5.2.6: nothing of the host, its files, devices and numbers, is in it.
#[test]
fn the_id_is_the_disks_name_or_what_it_was_given() {
    let image = TempFile::new(&[0; SECTOR]);
    let id = |device| {
        let answer = Disk::on(device).request(GET_ID, 0, &[], 20);
        assert_eq!((answer.status, answer.len), (OK, 21));
        answer.data
    };
    let open = || BlkDevice::open(image.path(), false).unwrap();
    let padded = |text: &str| {
        let mut bytes = text.as_bytes().to_vec();
        bytes.resize(20, 0);
        bytes
    };
    assert_eq!(id(open()), padded("blk0"));
    assert_eq!(id(open().named("blk7")), padded("blk7"));
    let serial = |text: &str| text.parse::<Serial>().unwrap();
    for text in ["root-of-vm-3", "0123456789abcdefghij"] {
        let device = open().with_serial(serial(text)).named("blk7");
        assert_eq!(device.serial(), serial(text));
        assert_eq!(id(device), padded(text));
    }

    // Room for less, and for more.
    let mut disk = Disk::new(&image);
    let answer = disk.request(GET_ID, 0, &[], 3);
    assert_eq!((answer.status, &answer.data[..]), (OK, &b"blk"[..]));
    let answer = disk.request(GET_ID, 0, &[], 30);
    assert_eq!(
        (answer.status, &answer.data[..20]),
        (OK, &padded("blk0")[..])
    );
    assert_eq!(answer.data[20..], [UNTOUCHED; 10]);
    assert_eq!(answer.len, 20, "the status lies behind a gap");
}

#[test]
fn a_read_only_disk_refuses_every_change() {
    let content = pattern(4, 8 * SECTOR);
    let image = TempFile::new(&content);
    let mut disk = Disk::read_only(&image);
    assert_ne!(disk.driver.offered() & F_RO, 0);
    assert_eq!(disk.write(0, &[0; SECTOR]), IOERR);
    assert_eq!(disk.write(0, &[]), IOERR);
    for kind in [11, 13] {
        assert_eq!(disk.request(kind, 0, &[0; 16], 0).status, UNSUPP);
    }
    assert_eq!(disk.request(FLUSH, 0, &[], 0).status, OK);
    assert!(disk.read(0, 8 * SECTOR).data == content);
    // Also if the driver pretends not to know.
    disk.restart(VERSION_1);
    assert_eq!(disk.write(0, &[0; SECTOR]), IOERR);
    assert!(image.content() == content);
}

#[test]
fn unknown_requests_are_unsupported() {
    let image = TempFile::new(&[0; SECTOR]);
    let mut disk = Disk::new(&image);
    for kind in [2, 3, 5, 14, 16, 0x8000_0000, u32::MAX] {
        let answer = disk.request(kind, 0, &[7; SECTOR], SECTOR);
        assert_eq!(answer.status, UNSUPP);
        assert_eq!(answer.data, [UNTOUCHED; SECTOR]);
        assert_eq!(answer.len, 0);
    }
    assert_eq!(image.content(), [0; SECTOR]);
}

#[test]
fn header_data_and_status_may_be_split_anywhere() {
    let image = TempFile::new(&pattern(5, 4 * SECTOR));
    let mut disk = Disk::new(&image);
    for at in 1..16 + SECTOR {
        let data = pattern(at, SECTOR);
        let mut out = header(OUT, 2).to_vec();
        out.extend_from_slice(&data);
        let answer = disk.split(&out, &[at, out.len() - at], &[1]);
        assert_eq!(answer.status, OK, "split at {at}");
        assert!(image.content()[2 * SECTOR..3 * SECTOR] == data);

        let split_in = [at, SECTOR + 1 - at.min(SECTOR)];
        let answer = disk.split(&header(IN, 2), &[at.min(15), 16 - at.min(15)], &split_in);
        let total = split_in.iter().sum::<usize>() - 1;
        if total == SECTOR {
            assert_eq!(answer.status, OK, "split at {at}");
            assert!(answer.data == data);
        } else {
            assert_eq!(answer.status, IOERR, "{total} bytes are no sectors");
        }
    }
    // One byte a buffer; empty buffers in between.
    let answer = disk.split(&header(IN, 1), &[1; 16], &[0, 500, 0, 12, 1, 0]);
    assert_eq!(answer.status, OK);
    assert!(answer.data == pattern(5, 4 * SECTOR)[SECTOR..2 * SECTOR]);
}

/// Header at the start of RAM, status at its end, data in 252 pieces of 18 KiB (more than one
/// system call takes, by number and by bytes) from both sides of where two regions meet.
#[test]
fn long_requests_in_many_pieces_across_regions() {
    const PIECES: u64 = 252;
    const PIECE: usize = 36 * SECTOR;
    let total = PIECE * usize::try_from(PIECES).unwrap();
    let image = TempFile::new(&pattern(6, total));
    let mut disk = Disk::new(&image);
    let place = |number| SEAM - 2 * 1024 * 1024 - 1 + number * (PIECE as u64 + 3);
    let (head, status) = (disk.readable, disk.writable);

    disk.driver.write_memory(head, &header(IN, 0));
    disk.driver.write_memory(status, &[UNTOUCHED]);
    let mut buffers = vec![Buffer::readable(head, 16)];
    let len = u32::try_from(PIECE).unwrap();
    buffers.extend((0..PIECES).map(|number| Buffer::writable(place(number), len)));
    buffers.push(Buffer::writable(status, 1));
    let used = disk.submit(&buffers);
    assert_eq!(usize::try_from(used.len).unwrap(), total + 1);
    assert_eq!(disk.driver.read_memory(status, 1), [OK]);
    let mut read = Vec::new();
    for number in 0..PIECES {
        read.extend(disk.driver.read_memory(place(number), PIECE));
    }
    assert!(read == pattern(6, total));

    // And back, each piece to the place of its mirror image.
    disk.driver.write_memory(head, &header(OUT, 0));
    let mut buffers = vec![Buffer::readable(head, 16)];
    let mirrored = (0..PIECES).rev();
    buffers.extend(mirrored.map(|number| Buffer::readable(place(number), len)));
    buffers.push(Buffer::writable(status, 1));
    assert_eq!(disk.submit(&buffers).len, 1);
    assert_eq!(disk.driver.read_memory(status, 1), [OK]);
    let mut expected = Vec::new();
    for piece in read.chunks(PIECE).rev() {
        expected.extend_from_slice(piece);
    }
    assert!(image.content() == expected);
}

#[test]
fn a_full_ring_of_requests_completes_with_an_interrupt() {
    let image = TempFile::new(&pattern(7, 128 * SECTOR));
    let mut disk = Disk::new(&image);
    for features in [VERSION_1, VERSION_1 | EVENT_IDX] {
        disk.restart(features);
        let (head, data) = (disk.readable, disk.writable);
        for number in 0..85u64 {
            let place = head + 16 * number;
            disk.driver.write_memory(place, &header(IN, number));
            disk.queue.add(&[
                Buffer::readable(place, 16),
                Buffer::writable(data + 513 * number, 512),
                Buffer::writable(data + 513 * number + 512, 1),
            ]);
        }
        disk.driver.kick_if_wanted(&mut disk.queue);
        for _ in 0..85 {
            assert_eq!(disk.queue.wait_used().len, 513);
        }
        assert_eq!(disk.driver.wait_interrupt(), 1);
        let content = image.content();
        for number in 0..85 {
            let read = disk.driver.read_memory(data + 513 * number as u64, 513);
            assert!(read[..512] == content[512 * number..][..512]);
            assert_eq!(read[512], OK);
        }
    }
}

#[test]
fn a_last_sector_that_is_not_full_counts() {
    let content = pattern(8, SECTOR + 100);
    let image = TempFile::new(&content);
    let mut disk = Disk::new(&image);
    assert_eq!(disk.driver.config::<8>(0), 2u64.to_le_bytes());
    let answer = disk.read(0, 2 * SECTOR);
    assert_eq!((answer.status, answer.len), (OK, 2 * SECTOR + 1));
    assert!(answer.data[..SECTOR + 100] == content);
    assert_eq!(answer.data[SECTOR + 100..], [0; SECTOR - 100]);
    assert_eq!(
        image.content().len(),
        SECTOR + 100,
        "reading changes nothing"
    );

    let data = pattern(9, SECTOR);
    assert_eq!(disk.write(1, &data), OK);
    assert!(image.content()[SECTOR..] == data);
    assert!(disk.read(1, SECTOR).data == data);
    assert_eq!(disk.read(2, SECTOR).status, IOERR);
}
