//! The smallest kernel: an ELF file with a PVH entry (Xen's note 18, public/elfnote.h) that writes one character to the
//! serial port and halts.

/// What it writes, on a line of its own.
pub(crate) const SAYS: char = '!';

/// Where it is loaded and entered, and where its one segment begins in the file.
const ADDRESS: u32 = 0x10_0000;
const SEGMENT: u64 = 0x1000;

/// 32-bit protected mode, interrupts off: that is how PVH enters.
const CODE: [u8; 14] = [
    0xba, 0xf8, 0x03, 0x00, 0x00, // mov $0x3f8, %edx
    0xb0, b'!', // mov $'!', %al
    0xee, // out %al, (%dx)
    0xb0, b'\n', // mov $'\n', %al
    0xee,  // out %al, (%dx)
    0xf4,  // 1: hlt
    0xeb, 0xfd, // jmp 1b
];

const HEADER: u64 = 64;
const PROGRAM_HEADER: u64 = 56;
/// Two program headers, then the note.
const NOTE: u64 = HEADER + 2 * PROGRAM_HEADER;

/// The bytes of the file.
pub(crate) fn kernel() -> Vec<u8> {
    let note = note();
    let mut file = header();
    // PT_LOAD, readable and executable; PT_NOTE.
    let code = CODE.len() as u64;
    file.extend(program_header(1, 5, SEGMENT, u64::from(ADDRESS), code));
    file.extend(program_header(4, 4, NOTE, 0, note.len() as u64));
    file.extend(note);
    while (file.len() as u64) < SEGMENT {
        file.push(0);
    }
    file.extend(CODE);
    file
}

/// ELF64, little-endian, executable, x86-64.
fn header() -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(16, 0);
    bytes.extend(2u16.to_le_bytes());
    bytes.extend(62u16.to_le_bytes());
    bytes.extend(1u32.to_le_bytes());
    bytes.extend(u64::from(ADDRESS).to_le_bytes());
    bytes.extend(HEADER.to_le_bytes());
    bytes.extend([0; 12]);
    // Sizes of the headers, two program headers, no sections.
    for half in [64u16, 56, 2, 64, 0, 0] {
        bytes.extend(half.to_le_bytes());
    }
    bytes
}

fn program_header(kind: u32, flags: u32, offset: u64, address: u64, size: u64) -> Vec<u8> {
    let mut bytes = [kind.to_le_bytes(), flags.to_le_bytes()].concat();
    for word in [offset, address, address, size, size, 4] {
        bytes.extend(word.to_le_bytes());
    }
    bytes
}

/// XEN_ELFNOTE_PHYS32_ENTRY.
fn note() -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [4u32, 8, 18] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(b"Xen\0");
    bytes.extend(u64::from(ADDRESS).to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_where_the_headers_say() {
        let file = kernel();
        let at = usize::try_from(SEGMENT).unwrap();
        assert_eq!(header().len() as u64, HEADER);
        assert_eq!(file[at..], CODE);
        let note = usize::try_from(NOTE).unwrap();
        assert_eq!(file[note + 12..note + 16], *b"Xen\0");
    }
}
