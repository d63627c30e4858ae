//! virtio-blk: what one side writes, the other reads.

use std::fs;
use std::process::Command;

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use ringwire_tests::wirecheck::pattern;
use ringwire_tests::{Guest, Options, TempDir};

const MIB: usize = 1 << 20;

fn sha256(path: &std::path::Path) -> String {
    let output = Command::new("sha256sum")
        .arg(path)
        .output()
        .expect("sha256sum is part of every Debian");
    String::from_utf8_lossy(&output.stdout)
        .split_whitespace()
        .next()
        .unwrap_or_default()
        .to_owned()
}

fn image(directory: &TempDir, seed: u64) -> std::path::PathBuf {
    let path = directory.path().join("disk");
    let mut bytes = vec![0; 8 * MIB];
    pattern::fill(seed, 0, &mut bytes);
    fs::write(&path, bytes).expect("a file in our own directory");
    path
}

#[test]
fn reads_and_writes_reach_the_file() {
    let directory = TempDir::new();
    let path = image(&directory, 21);
    let before = sha256(&path);
    let options = Options::new()
        .arg("--disk")
        .arg(format!("path={}", path.display()));
    let mut guest = Guest::boot(options);
    assert_eq!(
        guest.ok("cat /sys/block/vda/size").trim(),
        (8 * MIB / 512).to_string()
    );
    assert!(
        guest.ok("sha256sum /dev/vda").starts_with(&before),
        "the guest reads something else than the file holds"
    );
    // A part in the middle, written past the cache, and synced.
    guest.ok("head -c 1048576 /dev/urandom >/tmp/part");
    guest.ok("dd if=/tmp/part of=/dev/vda bs=4k seek=512 conv=fsync 2>/dev/null");
    let part = guest.ok("sha256sum /tmp/part");
    assert!(guest.power_off().success());
    let bytes = fs::read(&path).unwrap();
    fs::write(directory.path().join("part"), &bytes[2 * MIB..3 * MIB]).unwrap();
    assert!(
        part.starts_with(&sha256(&directory.path().join("part"))),
        "the file holds something else than was written"
    );
    // All around it is as before.
    assert_eq!(pattern::first_difference(21, 0, &bytes[..2 * MIB]), None);
    assert_eq!(
        pattern::first_difference(21, 3 * MIB as u64, &bytes[3 * MIB..]),
        None
    );
}

/// RLIMIT_FSIZE (`ulimit -f`), past which the kernel sends SIGXFSZ to whoever writes.
#[test]
fn a_write_behind_the_limit_on_file_sizes_is_an_error_of_the_disk() {
    let directory = TempDir::new();
    let path = directory.path().join("disk");
    let file = fs::File::create(&path).expect("a file in our own directory");
    file.set_len(64 * MIB as u64).expect("a sparse file");
    let options = Options::new()
        .arg("--disk")
        .arg(format!("path={}", path.display()));
    let mut guest = Guest::boot(options);
    let limit = Rlimit {
        current: Some(8 * MIB as u64),
        maximum: None,
    };
    let id = Pid::from_raw(guest.id().try_into().expect("a process id"));
    prlimit(id, Resource::Fsize, limit).expect("our child's limit");
    let write = |seek| format!("dd if=/dev/zero of=/dev/vda bs=4k count=1 seek={seek} conv=fsync");
    assert_ne!(guest.run(&write(4096)).status, 0);
    guest.ok(&write(16));
    assert!(guest.log().contains("File too large"), "{}", guest.log());
    assert!(guest.power_off().success());
}

#[test]
fn a_read_only_disk_stays_as_it_is() {
    let directory = TempDir::new();
    let path = image(&directory, 22);
    let options = Options::new()
        .arg("--disk")
        .arg(format!("path={},readonly=on", path.display()));
    let mut guest = Guest::boot(options);
    assert_eq!(guest.ok("cat /sys/block/vda/ro").trim(), "1");
    assert_ne!(
        guest
            .run("dd if=/dev/zero of=/dev/vda bs=4k count=1 conv=fsync")
            .status,
        0
    );
    assert!(guest.power_off().success());
    assert_eq!(
        pattern::first_difference(22, 0, &fs::read(&path).unwrap()),
        None
    );
}
