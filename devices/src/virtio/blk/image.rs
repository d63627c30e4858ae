//! A raw disk image: a regular file or a block device, as a row of sectors.

use std::{
    fs::{File, Metadata, OpenOptions},
    io::{self, Seek, SeekFrom},
    os::unix::fs::{FileExt, FileTypeExt, PermissionsExt},
    path::Path,
};

use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
};
use vm_memory::VolatileSlice;

use super::{
    BlkError,
    format::{Format, LOOKED_AT},
    lock, sys,
    wire::{SECTOR, SECTOR_LEN},
};
use crate::virtio::queue::{Reader, Writer};

/// An open image, locked against other virtual machines for as long as it lives.
///
/// Reads and writes go through the host's page cache (QEMU's cache=writeback): what a flush has
/// not confirmed can be lost with the host, not with the process.
#[derive(Debug)]
pub(super) struct Image {
    file: File,
    read_only: bool,
    /// Bytes when it was opened.
    len: u64,
    sectors: u64,
    /// The file system can give space back.
    discards: bool,
    /// The file system can zero a range without being sent the zeros.
    zeroes: bool,
}

impl Image {
    /// Opens a raw image.
    ///
    /// A last sector that is not full counts, as in QEMU: what it lacks reads as zeros, and a
    /// write to it makes the file longer.
    ///
    /// # Errors
    /// See [`BlkError`].
    pub(super) fn open(path: &Path, read_only: bool) -> Result<Self, BlkError> {
        let system = |what| {
            move |source| BlkError::System {
                path: path.to_owned(),
                what,
                source,
            }
        };
        let metadata = checked_kind(path)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(!read_only)
            .open(path)
            .map_err(|error| not_opened(path, read_only, error))?;
        if !read_only {
            check_writable(path, &file, &metadata)?;
        }
        if !locked(path, &file, read_only) {
            let path = path.to_owned();
            return Err(BlkError::InUse { path, read_only });
        }
        // The end, not the metadata's size: a block device has none there.
        let len = file
            .seek(SeekFrom::End(0))
            .map_err(system("find its size"))?;
        if len == 0 {
            let path = path.to_owned();
            return Err(BlkError::Empty { path });
        }
        let mut image = Self {
            file,
            read_only,
            len,
            sectors: len.div_ceil(SECTOR),
            discards: false,
            zeroes: false,
        };
        image.warn_of_oddities(path);
        if !read_only && metadata.is_file() {
            image.probe();
        }
        Ok(image)
    }

    /// Says what a user may not have meant: a file in another format, and a last sector that is not full.
    fn warn_of_oddities(&self, path: &Path) {
        let path = path.display();
        let mut start = [0; LOOKED_AT];
        // What can't be read now, the guest hears of.
        let read = self.file.read_at(&mut start, 0).unwrap_or(0);
        if let Some(format) = Format::of(start.get(..read).unwrap_or_default()) {
            let Format { name, remedy, .. } = format;
            tracing::warn!(
                "disk {path}: this looks like {name} file, and the guest gets it byte by byte, as a raw image: \
                 if that is not what you want, make one of it by {remedy}"
            );
        }
        let missing = self.sectors.saturating_mul(SECTOR).saturating_sub(self.len);
        if missing > 0 {
            let (len, whole) = (self.len, self.len + missing);
            tracing::warn!(
                "disk {path}: {len} bytes are no whole sectors of {SECTOR}: the guest sees {whole}, of which the \
                 last {missing} read as zeros{}. `truncate -s {whole} FILE` makes it whole",
                if self.read_only {
                    ""
                } else {
                    ", and what it writes there makes the file longer"
                }
            );
        }
    }

    /// Finds out what the file system can do, past the end of the file, where it has no effect.
    fn probe(&mut self) {
        let Some(end) = self.sectors.checked_mul(SECTOR) else {
            return;
        };
        self.zeroes = self.zero_range(end, SECTOR).is_ok();
        // After the other: it takes back what that has reserved.
        self.discards = self.punch_hole(end, SECTOR).is_ok();
        self.zeroes &= self.discards;
    }

    pub(super) fn sectors(&self) -> u64 {
        self.sectors
    }

    pub(super) fn is_read_only(&self) -> bool {
        self.read_only
    }

    pub(super) fn discards(&self) -> bool {
        self.discards
    }

    pub(super) fn zeroes(&self) -> bool {
        self.zeroes
    }

    /// Byte offset of `sector`, if `bytes` from there on lie on the disk.
    pub(super) fn range(&self, sector: u64, bytes: u64) -> Option<u64> {
        let start = sector.checked_mul(SECTOR)?;
        let end = start.checked_add(bytes)?;
        (end.is_multiple_of(SECTOR) && end / SECTOR <= self.sectors).then_some(start)
    }

    /// Reads at most `limit` bytes from byte `offset` on into the next guest buffers; returns how
    /// many, at least one.
    pub(super) fn read_at(
        &self,
        offset: u64,
        to: &mut Writer<'_>,
        limit: usize,
    ) -> io::Result<usize> {
        let mut ahead = to.clone();
        let pieces = pieces(limit, |limit| ahead.next_slice(limit));
        match sys::read_at(&self.file, pieces, offset)? {
            0 if offset >= self.len => Ok(zero(to, limit)),
            0 => Err(truncated()),
            count => Ok(to.skip(count)),
        }
    }

    /// Writes at most `limit` bytes of the next guest buffers at byte `offset`; returns how many,
    /// at least one.
    pub(super) fn write_at(
        &self,
        offset: u64,
        from: &mut Reader<'_>,
        limit: usize,
    ) -> io::Result<usize> {
        let mut ahead = from.clone();
        let pieces = pieces(limit, |limit| ahead.next_slice(limit));
        match sys::write_at(&self.file, pieces, offset)? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            count => Ok(from.skip(count)),
        }
    }

    /// Makes all that was written durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Gives `len` bytes back to the host; they read as zeros then.
    pub(super) fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()> {
        self.allocate(FallocateFlags::PUNCH_HOLE, offset, len)
    }

    /// Makes `len` bytes zero, their space stays reserved.
    pub(super) fn zero_range(&self, offset: u64, len: u64) -> io::Result<()> {
        self.allocate(FallocateFlags::ZERO_RANGE, offset, len)
    }

    fn allocate(&self, flags: FallocateFlags, offset: u64, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        let flags = flags | FallocateFlags::KEEP_SIZE;
        loop {
            match fallocate(&self.file, flags, offset, len) {
                Err(Errno::INTR) => {}
                result => return result.map_err(io::Error::from),
            }
        }
    }
}

/// Iterates over guest memory, `limit` bytes in all.
fn pieces<'a>(
    mut limit: usize,
    mut next: impl FnMut(usize) -> Option<VolatileSlice<'a>>,
) -> impl Iterator<Item = VolatileSlice<'a>> {
    std::iter::from_fn(move || {
        let piece = next(limit)?;
        limit -= piece.len();
        Some(piece)
    })
}

/// What a last sector lacks: less than a sector.
fn zero(to: &mut Writer<'_>, limit: usize) -> usize {
    const ZEROS: [u8; SECTOR_LEN as usize] = [0; SECTOR_LEN as usize];
    let (zeros, _) = ZEROS.split_at(limit.min(ZEROS.len()));
    to.write(zeros)
}

fn truncated() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the file has become shorter since it was opened",
    )
}

/// Takes the lock; false if another process has it. Some network file systems have no locks: like
/// QEMU, we say so and go on.
fn locked(path: &Path, file: &File, read_only: bool) -> bool {
    lock::acquire(file, read_only).unwrap_or_else(|error| {
        let path = path.display();
        tracing::warn!("disk {path}: can't lock it ({error}); take care that only one writes it");
        true
    })
}

/// Before it is opened: opening a pipe would wait for its other end.
fn checked_kind(path: &Path) -> Result<Metadata, BlkError> {
    let owned = path.to_owned();
    let metadata = match path.metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(BlkError::Missing { path: owned });
        }
        Err(source) => {
            let what = "find it";
            return Err(BlkError::System {
                path: owned,
                what,
                source,
            });
        }
    };
    let kind = metadata.file_type();
    if kind.is_dir() {
        return Err(BlkError::Directory { path: owned });
    }
    if !kind.is_file() && !kind.is_block_device() {
        return Err(BlkError::NotADisk { path: owned });
    }
    Ok(metadata)
}

fn not_opened(path: &Path, read_only: bool, source: io::Error) -> BlkError {
    let path = path.to_owned();
    let forbidden = matches!(
        source.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
    );
    if forbidden && !read_only {
        let reason = source.to_string();
        return BlkError::ReadOnly { path, reason };
    }
    let what = "open it";
    BlkError::System { path, what, source }
}

/// What opening does not refuse: root may write a file that is write-protected for everyone, but
/// whoever protected it meant it; and a write-protected block device opens, and fails later.
fn check_writable(path: &Path, file: &File, metadata: &Metadata) -> Result<(), BlkError> {
    let mode = metadata.permissions().mode() & 0o7777;
    let reason = if metadata.is_file() && mode & 0o222 == 0 {
        format!("it is write-protected for everyone, mode {mode:04o}")
    } else if metadata.file_type().is_block_device()
        && sys::block_device_is_read_only(file).unwrap_or(false)
    {
        "the block device is set read-only".to_owned()
    } else {
        return Ok(());
    };
    let path = path.to_owned();
    Err(BlkError::ReadOnly { path, reason })
}
