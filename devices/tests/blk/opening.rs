//! Images that can't be used, and who else uses them.

use std::{
    fs::{self, Permissions},
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::Path,
};

use devices::virtio::blk::{BlkDevice, BlkError};

use crate::driver::{SECTOR, TempFile};

/// The error, after a look at its sentence: it names the file, and each of `words` is in it.
fn refused(path: &Path, read_only: bool, words: &[&str]) -> BlkError {
    let error = BlkDevice::open(path, read_only).unwrap_err();
    let sentence = error.to_string();
    let start = format!("disk {}: ", path.display());
    assert!(sentence.starts_with(&start), "{sentence}");
    for word in words {
        assert!(sentence.contains(word), "{sentence}");
    }
    error
}

#[test]
fn what_is_no_disk_is_refused_in_words() {
    let missing = TempFile::fresh_path();
    let error = refused(&missing, false, &["no such file", "truncate -s"]);
    assert!(matches!(error, BlkError::Missing { .. }));
    assert!(!missing.exists(), "nothing is created");
    let error = refused(&std::env::temp_dir(), true, &["directory"]);
    assert!(matches!(error, BlkError::Directory { .. }));
    let error = refused(Path::new("/dev/null"), true, &["neither a regular file"]);
    assert!(matches!(error, BlkError::NotADisk { .. }));
    let below_a_file = TempFile::new(&[0; SECTOR]);
    let error = refused(&below_a_file.path().join("x"), true, &["can't find it"]);
    assert!(matches!(error, BlkError::System { .. }));

    let socket = TempFile::new(&[]);
    fs::remove_file(socket.path()).unwrap();
    let _listener = UnixListener::bind(socket.path()).unwrap();
    let error = refused(socket.path(), false, &["neither"]);
    assert!(matches!(error, BlkError::NotADisk { .. }));

    let empty = TempFile::new(&[]);
    for read_only in [true, false] {
        let error = refused(empty.path(), read_only, &["empty", "truncate -s"]);
        assert!(matches!(error, BlkError::Empty { .. }));
    }
}

#[test]
fn a_write_protected_image_opens_for_reading_only() {
    let image = TempFile::new(&[1; SECTOR]);
    fs::set_permissions(image.path(), Permissions::from_mode(0o444)).unwrap();
    // Also for root, whom the system lets write it.
    let error = refused(
        image.path(),
        false,
        &["readonly=on", "can't be opened for writing"],
    );
    assert!(matches!(error, BlkError::ReadOnly { .. }));
    assert_eq!(BlkDevice::open(image.path(), true).unwrap().size(), 512);
}

#[test]
fn one_writer_or_many_readers() {
    let image = TempFile::new(&[0; 2 * SECTOR]);
    let open = |read_only| BlkDevice::open(image.path(), read_only);
    let in_use = |read_only, words: &[&str]| {
        let error = refused(image.path(), read_only, words);
        assert!(matches!(error, BlkError::InUse { .. }));
    };
    let writer = open(false).unwrap();
    in_use(false, &["another process has it open"]);
    in_use(true, &["for writing"]);
    drop(writer);

    let readers = [open(true).unwrap(), open(true).unwrap()];
    in_use(false, &["another process has it open"]);
    drop(readers);
    open(false).unwrap();
}
