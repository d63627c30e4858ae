//! Memory of the caller's from which frames are sent where they lie.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::param::page_size;

/// A part of a file whose pages are to be sent from.
#[derive(Debug)]
pub struct FileRange {
    /// A file in memory (memfd, or in a tmpfs), open for reading and writing. Who makes it shorter
    /// later than it was when it was given, gets SIGBUS.
    pub file: OwnedFd,
    /// Where the part begins, in bytes: at a page.
    pub offset: u64,
    /// Bytes of it: whole pages.
    pub length: u64,
}

/// Memory from which a queue can send frames without copying them into its own: see
/// [`Queue::send_in_place`](crate::Queue::send_in_place).
///
/// It is given as files, which each queue maps for itself, next to its own frames: an AF_XDP socket has
/// one region of memory, contiguous, and a queue of an interface has one socket. So nothing depends on
/// how, where and for how long the caller has it mapped. Nobody writes there through a queue; it is
/// mapped writable because the kernel asks for that.
///
/// All of it is allocated and locked, for each queue: it can't be swapped out, and counts against
/// RLIMIT_MEMLOCK without CAP_IPC_LOCK. The kernel needs some 4 % of it besides, for its tables.
///
/// The ranges count as one after the other: offset 0 is the start of the first one.
#[derive(Debug)]
pub struct SharedMemory {
    ranges: Vec<FileRange>,
}

impl SharedMemory {
    /// # Errors
    /// There is nothing in it, or a range is not of whole pages.
    pub fn new(ranges: Vec<FileRange>) -> io::Result<Self> {
        let page = page_size() as u64;
        let whole = |range: &FileRange| {
            range.length != 0
                && range.length.is_multiple_of(page)
                && range.offset.is_multiple_of(page)
        };
        if ranges.is_empty() || !ranges.iter().all(whole) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "memory to send from must be in whole pages, and some",
            ));
        }
        Ok(Self { ranges })
    }

    /// Bytes of it.
    #[must_use]
    pub fn length(&self) -> u64 {
        let lengths = self.ranges.iter().map(|range| range.length);
        lengths.fold(0, u64::saturating_add)
    }

    /// File, offset and length of each range.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = (BorrowedFd<'_>, u64, u64)> {
        let ranges = self.ranges.iter();
        ranges.map(|range| (range.file.as_fd(), range.offset, range.length))
    }
}

/// A range of a [`SharedMemory`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Where it starts, in bytes from the memory's start.
    pub offset: u64,
    /// Its bytes.
    pub length: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_of_whole_pages() {
        let range = |offset, length| {
            let (file, _) = io::pipe().unwrap();
            FileRange {
                file: file.into(),
                offset,
                length,
            }
        };
        assert!(SharedMemory::new(Vec::new()).is_err());
        for (offset, length) in [(0, 0), (1, 4096), (0, 4095)] {
            let refused = SharedMemory::new(vec![range(0, 4096), range(offset, length)]);
            assert!(refused.unwrap_err().to_string().contains("whole pages"));
        }
        let memory = SharedMemory::new(vec![range(0, 8192), range(4096, 4096)]);
        assert_eq!(memory.unwrap().length(), 12288);
    }
}
