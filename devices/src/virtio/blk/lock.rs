//! Keeps two virtual machines from writing the same image, QEMU's included.
//!
//! The locks are advisory "open file description" locks (fcntl(2)), which the kernel drops when the
//! process dies. A writer locks the whole file. A reader locks one byte, in QEMU's scheme (its
//! docs/devel, "image locking", block/file-posix.c): there, byte 100 + n held shared says "I use
//! permission n", byte 200 + n "I don't let others use it", with n = 1 for writing.

use std::{fs::File, io};

use super::sys::{LockKind, is_locked, try_lock};

/// Held by each QEMU that writes.
const QEMU_WRITES: i64 = 101;
/// Held by all who want no writer.
const NO_WRITERS: i64 = 201;

/// Takes the lock for the file's life. False: another process has it.
pub(super) fn acquire(file: &File, read_only: bool) -> io::Result<bool> {
    if !read_only {
        return try_lock(file, LockKind::Exclusive, 0, 0);
    }
    // First our wish, then the look: of two that come at once, at least one sees the other.
    Ok(try_lock(file, LockKind::Shared, NO_WRITERS, 1)? && !is_locked(file, QEMU_WRITES)?)
}

#[cfg(test)]
mod tests {
    use std::{
        env, fs, process,
        sync::atomic::{AtomicU32, Ordering},
    };

    use super::*;

    /// Two independent openings of one new file, which has no name any more.
    fn two() -> [File; 2] {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("ringwire-lock-test-{}-{number}", process::id());
        let path = env::temp_dir().join(name);
        fs::write(&path, [0]).unwrap();
        let files = [(); 2].map(|()| File::options().read(true).write(true).open(&path));
        fs::remove_file(&path).unwrap();
        files.map(Result::unwrap)
    }

    #[test]
    fn ours_exclude_each_other_as_they_must() {
        for (first, second, both) in [
            (true, true, true),
            (true, false, false),
            (false, true, false),
            (false, false, false),
        ] {
            let [one, other] = two();
            assert!(acquire(&one, first).unwrap());
            assert_eq!(acquire(&other, second).unwrap(), both);
            drop(one);
            assert!(acquire(&other, second).unwrap());
        }
    }

    #[test]
    fn qemus_readers_and_writers_count() {
        // What QEMU holds for a drive of a guest: 100 + permissions used, 200 + those not shared.
        let reader = [100, 201, 203];
        let writer = [100, 101, 201, 203];
        for (bytes, reading_is_fine) in [(&reader[..], true), (&writer[..], false)] {
            let [qemu, ours] = two();
            for &byte in bytes {
                assert!(try_lock(&qemu, LockKind::Shared, byte, 1).unwrap());
            }
            assert_eq!(acquire(&ours, true).unwrap(), reading_is_fine);
            assert!(!acquire(&ours, false).unwrap());
        }
    }
}
