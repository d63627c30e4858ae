//! A limit on the size of files (RLIMIT_FSIZE, `ulimit -f`), which is the whole process's: so this test is alone in its own.
#![expect(clippy::unwrap_used, reason = "a panic is the failure report")]

#[expect(dead_code, reason = "other tests use more of it")]
#[path = "blk/driver.rs"]
mod driver;

use devices::testing::Face;
use rustix::process::{Resource, getrlimit, setrlimit};

use driver::{Disk, IOERR, OK, SECTOR, TempFile, pattern};

const FACE: Face = Face::Mmio;

/// Past it the kernel sends SIGXFSZ, which ends a process that does nothing about it.
#[test]
fn a_write_behind_the_limit_on_file_sizes_is_an_error_of_the_disk() {
    let image = TempFile::new(&[0; 64 * SECTOR]);
    let mut disk = Disk::new(&image);
    let data = pattern(1, 8 * SECTOR);
    assert_eq!(disk.write(40, &data), OK);
    let before = getrlimit(Resource::Fsize);
    let mut limit = before;
    limit.current = Some(32 * SECTOR as u64);
    setrlimit(Resource::Fsize, limit).unwrap();
    for _ in 0..3 {
        assert_eq!(disk.write(40, &pattern(2, 8 * SECTOR)), IOERR);
    }
    assert_eq!(disk.write(8, &data), OK, "before it all is well");
    setrlimit(Resource::Fsize, before).unwrap();
    assert_eq!(disk.read(40, 8 * SECTOR).data, data);
    assert_eq!(disk.write(40, &data), OK);
}
