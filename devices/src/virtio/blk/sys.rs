//! The few system calls of a disk that no safe wrapper offers: vectored I/O between a file and
//! guest memory, byte-range locks that belong to an open file, a block device's write protection.
#![expect(
    unsafe_code,
    reason = "raw system calls: iovecs of guest memory must not become Rust slices"
)]

use std::{
    fs::File,
    io,
    os::fd::AsRawFd,
    ptr::{from_mut, null_mut},
};

use vm_memory::VolatileSlice;

/// Most pieces of guest memory that one call moves; further ones are left for the next call.
const MAX_PIECES: usize = 64;

/// Pieces of guest memory as the kernel wants them. Borrows them, so that they stay mapped.
struct Iovecs<'a> {
    vectors: [libc::iovec; MAX_PIECES],
    count: libc::c_int,
    _memory: std::marker::PhantomData<VolatileSlice<'a>>,
}

impl<'a> Iovecs<'a> {
    fn new(pieces: impl Iterator<Item = VolatileSlice<'a>>) -> Self {
        let mut vectors = [libc::iovec {
            iov_base: null_mut(),
            iov_len: 0,
        }; MAX_PIECES];
        let mut count = 0;
        for (vector, piece) in vectors.iter_mut().zip(pieces) {
            vector.iov_base = piece.ptr_guard_mut().as_ptr().cast();
            vector.iov_len = piece.len();
            count += 1;
        }
        Self {
            vectors,
            count,
            _memory: std::marker::PhantomData,
        }
    }
}

/// Reads at byte `offset` of `file` into `pieces`: one `preadv`. Returns how many bytes, 0 at the
/// end of the file.
pub(super) fn read_at<'a>(
    file: &File,
    pieces: impl Iterator<Item = VolatileSlice<'a>>,
    offset: u64,
) -> io::Result<usize> {
    let offset = file_offset(offset)?;
    let iovecs = Iovecs::new(pieces);
    retry(|| {
        // SAFETY: each iovec is a VolatileSlice, whose memory is mapped and may be written at any
        // time by anyone for its lifetime, which `iovecs` holds; `count` of them are filled in.
        unsafe {
            libc::preadv64(
                file.as_raw_fd(),
                iovecs.vectors.as_ptr(),
                iovecs.count,
                offset,
            )
        }
    })
}

/// Writes `pieces` at byte `offset` of `file`: one `pwritev`. Returns how many bytes.
pub(super) fn write_at<'a>(
    file: &File,
    pieces: impl Iterator<Item = VolatileSlice<'a>>,
    offset: u64,
) -> io::Result<usize> {
    let offset = file_offset(offset)?;
    let iovecs = Iovecs::new(pieces);
    retry(|| {
        // SAFETY: as in `read_at`; the memory is only read.
        unsafe {
            libc::pwritev64(
                file.as_raw_fd(),
                iovecs.vectors.as_ptr(),
                iovecs.count,
                offset,
            )
        }
    })
}

/// What is locked: by one process at a time, or by any number that all only share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LockKind {
    Exclusive,
    Shared,
}

/// Takes a lock on `len` bytes from `start` (0: up to the end of all files), if nobody else has a
/// conflicting one; false if somebody has. It goes when the open file is closed.
pub(super) fn try_lock(file: &File, kind: LockKind, start: i64, len: i64) -> io::Result<bool> {
    let mut lock = flock(kind, start, len);
    match lock_call(file, libc::F_OFD_SETLK, &mut lock) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => {
            Ok(false)
        }
        result => result.map(|()| true),
    }
}

/// Whether somebody else has any lock on the byte `at`.
pub(super) fn is_locked(file: &File, at: i64) -> io::Result<bool> {
    let mut lock = flock(LockKind::Exclusive, at, 1);
    lock_call(file, libc::F_OFD_GETLK, &mut lock)?;
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "F_RDLCK, F_WRLCK and SEEK_SET are 0 or 1"
)]
fn flock(kind: LockKind, start: i64, len: i64) -> libc::flock64 {
    let l_type = match kind {
        LockKind::Exclusive => libc::F_WRLCK,
        LockKind::Shared => libc::F_RDLCK,
    };
    libc::flock64 {
        l_type: l_type as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start,
        l_len: len,
        l_pid: 0,
    }
}

fn lock_call(file: &File, command: libc::c_int, lock: &mut libc::flock64) -> io::Result<()> {
    retry(|| {
        // SAFETY: both commands take a pointer to a `struct flock`, which lives for the call.
        let result = unsafe { libc::fcntl(file.as_raw_fd(), command, from_mut(lock)) };
        result as isize
    })
    .map(drop)
}

/// Whether a block device was made read-only (`blockdev --setro`): it can be opened for writing
/// all the same, and then every write fails.
pub(super) fn block_device_is_read_only(file: &File) -> io::Result<bool> {
    /// `BLKROGET` of linux/fs.h: `_IO(0x12, 94)`.
    const BLKROGET: libc::Ioctl = 0x125e;
    let mut read_only: libc::c_int = 0;
    retry(|| {
        // SAFETY: BLKROGET writes one int to where the argument points, which lives for the call.
        let result = unsafe { libc::ioctl(file.as_raw_fd(), BLKROGET, from_mut(&mut read_only)) };
        result as isize
    })?;
    Ok(read_only != 0)
}

fn file_offset(offset: u64) -> io::Result<libc::off64_t> {
    libc::off64_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Repeats a call for as long as signals interrupt it.
fn retry(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        match usize::try_from(call()) {
            Ok(value) => return Ok(value),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}
