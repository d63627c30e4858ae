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
