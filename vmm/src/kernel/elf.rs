//! Checks of an ELF kernel before it is loaded: what linux-loader takes on trust.

use super::{Image, KernelError};
use crate::x86_64::layout::HIGH_RAM_START;

/// The first bytes of an ELF file.
pub(super) const MAGIC: &[u8] = b"\x7fELF";

/// Fields of the ELF64 header (System V ABI, figure 4-3).
mod header {
    use std::ops::Range;
    pub(super) const SIZE: u64 = 64;
    pub(super) const CLASS: usize = 4;
    pub(super) const MACHINE: Range<usize> = 18..20;
    pub(super) const PHOFF: Range<usize> = 32..40;
    pub(super) const PHENTSIZE: Range<usize> = 54..56;
    pub(super) const PHNUM: Range<usize> = 56..58;
    pub(super) const CLASS_64: u8 = 2;
    pub(super) const MACHINE_X86_64: u64 = 62;
}

/// Fields of a program header (figure 5-1).
mod program {
    use std::ops::Range;
    pub(super) const SIZE: u64 = 56;
    pub(super) const TYPE: Range<usize> = 0..4;
    pub(super) const OFFSET: Range<usize> = 8..16;
    pub(super) const PADDR: Range<usize> = 24..32;
    pub(super) const FILESZ: Range<usize> = 32..40;
    pub(super) const MEMSZ: Range<usize> = 40..48;
    pub(super) const LOAD: u64 = 1;
    pub(super) const NOTE: u64 = 4;
}

/// More program headers than any kernel has.
const MAX_PROGRAM_HEADERS: u64 = 128;

/// How far the segments reach.
#[derive(Debug, Default)]
pub(super) struct Segments {
    /// Bytes that the file must have.
    pub(super) file_end: u64,
    /// First guest address after the last segment.
    pub(super) memory_end: u64,
}

fn field(bytes: &[u8], range: std::ops::Range<usize>) -> u64 {
    let bytes = bytes.get(range).unwrap_or_default();
    bytes
        .iter()
        .rev()
        .fold(0, |n, &byte| n << 8 | u64::from(byte))
}

/// Checks the headers; the segments' bytes are not looked at.
///
/// # Errors
/// Not a 64-bit x86 file, headers that are cut off or senseless, segments below 1 MiB.
pub(super) fn check(image: &Image<'_>) -> Result<Segments, KernelError> {
    image.require(header::SIZE)?;
    let mut buffer = vec![0; 64];
    let start = image.read_prefix(&mut buffer)?;
    if start.get(header::CLASS) != Some(&header::CLASS_64)
        || field(start, header::MACHINE) != header::MACHINE_X86_64
    {
        return Err(image.unusable("it is not a 64-bit x86 ELF file"));
    }
    let (offset, count) = (field(start, header::PHOFF), field(start, header::PHNUM));
    if field(start, header::PHENTSIZE) != program::SIZE
        || count == 0
        || count > MAX_PROGRAM_HEADERS
        || offset > 1 << 20
    {
        return Err(image.unusable("its ELF program headers make no sense"));
    }
    let end = offset + count * program::SIZE;
    image.require(end)?;
    let mut buffer = vec![0; usize::try_from(end).unwrap_or_default()];
    let prefix = image.read_prefix(&mut buffer)?;
    let headers = prefix
        .get(usize::try_from(offset).unwrap_or_default()..)
        .unwrap_or_default();
    let mut segments = Segments::default();
    for header in headers.chunks_exact(usize::try_from(program::SIZE).unwrap_or(56)) {
        add(image, header, &mut segments)?;
    }
    if segments.memory_end == 0 {
        return Err(image.unusable("it has nothing to load"));
    }
    Ok(segments)
}

fn add(image: &Image<'_>, header: &[u8], segments: &mut Segments) -> Result<(), KernelError> {
    let kind = field(header, program::TYPE);
    if kind != program::LOAD && kind != program::NOTE {
        return Ok(());
    }
    let (offset, filesz) = (
        field(header, program::OFFSET),
        field(header, program::FILESZ),
    );
    segments.file_end = segments.file_end.max(offset.saturating_add(filesz));
    if kind == program::LOAD {
        let (start, memsz) = (field(header, program::PADDR), field(header, program::MEMSZ));
        if start < HIGH_RAM_START && memsz > 0 {
            return Err(image.unusable(format!("it wants to be loaded at {start:#x}, below 1 MiB")));
        }
        if memsz < filesz {
            return Err(image.unusable("a segment of it is larger in the file than in memory"));
        }
        segments.memory_end = segments.memory_end.max(start.saturating_add(memsz));
    }
    Ok(())
}
