//! Tiny guests: 32-bit code at 1 MiB, entered by PVH in ring 0 with paging off.

use std::io::Write;

use vmm_sys_util::tempfile::TempFile;

const COM1: u16 = 0x3f8;
const COM1_MCR: u16 = COM1 + 4;
const COM1_LSR: u16 = COM1 + 5;
const ADDRESS: u32 = 0x10_0000;
/// Where a pattern is made in memory.
const PATTERN: u32 = 0x20_0000;
/// Where the code is in the file.
const CODE: usize = 0x200;

/// Instructions one after the other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Code(Vec<u8>);

impl Code {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// mov dx, port
    fn port(self, port: u16) -> Self {
        self.bytes(&[0x66, 0xba]).bytes(&port.to_le_bytes())
    }

    /// mov dx, port; mov al, value; out dx, al
    pub(crate) fn out(self, port: u16, value: u8) -> Self {
        self.port(port).bytes(&[0xb0, value, 0xee])
    }

    /// What a port reads as, sent to the serial port as a letter: 0xff is a `y`, each less the letter before.
    pub(crate) fn print_port(self, port: u16) -> Self {
        // in al, dx; sub al, 0xff - 'y'; mov dx, COM1; out dx, al
        self.port(port)
            .bytes(&[0xec, 0x2c, 0xff - b'y'])
            .port(COM1)
            .bytes(&[0xee])
    }

    /// A byte to a port, so many times; mov ecx, times; out dx, al; dec ecx; jnz -4
    pub(crate) fn out_often(self, times: u32, port: u16, value: u8) -> Self {
        if times == 0 {
            return self;
        }
        self.port(port)
            .bytes(&[0xb0, value, 0xb9])
            .bytes(&times.to_le_bytes())
            .bytes(&[0xee, 0x49, 0x75, 0xfc])
    }

    /// So many equal bytes to the serial port.
    pub(crate) fn repeat(self, times: u32, byte: u8) -> Self {
        self.out_often(times, COM1, byte)
    }

    /// For ever: a byte to the serial port.
    pub(crate) fn forever(self, byte: u8) -> Self {
        self.out(COM1, byte).bytes(&[0xee, 0xeb, 0xfd])
    }

    /// So many times the same 64 KiB to the serial port, by string instructions: byte `i` is `7 * i + i / 256`.
    pub(crate) fn pattern_of_64k(self, times: u32) -> Self {
        self.bytes(&[0xfc, 0xbf])
            .bytes(&PATTERN.to_le_bytes()) // cld; mov edi, PATTERN
            .bytes(&[0x31, 0xc9]) // xor ecx, ecx
            .bytes(&[0x6b, 0xc1, 7]) // imul eax, ecx, 7
            .bytes(&[0x00, 0xe8, 0xaa]) // add al, ch; stosb
            .bytes(&[0x41, 0x81, 0xf9, 0, 0, 1, 0]) // inc ecx; cmp ecx, 65536
            .bytes(&[0x75, 0xf1]) // jne to the imul
            .bytes(&[0xbb])
            .bytes(&times.to_le_bytes()) // mov ebx, times
            .port(COM1)
            .bytes(&[0xbe])
            .bytes(&PATTERN.to_le_bytes()) // mov esi, PATTERN
            .bytes(&[0xb9, 0, 0, 1, 0, 0xf3, 0x6e]) // mov ecx, 65536; rep outsb
            .bytes(&[0x4b, 0x75, 0xf1]) // dec ebx; jnz to the mov esi
    }

    /// Text to the serial port, byte by byte.
    pub(crate) fn print(self, text: &str) -> Self {
        text.bytes().fold(self, |code, byte| code.out(COM1, byte))
    }

    /// Text to the serial port by one string instruction: the text lies behind a jump over it.
    pub(crate) fn print_string(self, text: &str) -> Self {
        let length = u8::try_from(text.len()).unwrap();
        let code = self.bytes(&[0xeb, length]);
        let at = ADDRESS + u32::try_from(code.0.len()).unwrap();
        code.bytes(text.as_bytes())
            .bytes(&[0xbe])
            .bytes(&at.to_le_bytes()) // mov esi, at
            .bytes(&[0xb9, length, 0, 0, 0]) // mov ecx, length
            .port(COM1)
            .bytes(&[0xfc, 0xf3, 0x6e]) // cld; rep outsb
    }

    /// Sends back what comes in on the serial port, until a `q`.
    pub(crate) fn echo(self) -> Self {
        let listening = self.out(COM1_MCR, 3);
        listening
            .port(COM1_LSR)
            .bytes(&[0xec, 0xa8, 0x01, 0x74, 0xfb]) // in al, dx; test al, 1; jz -5
            .port(COM1)
            .bytes(&[0xec, 0xee]) // in al, dx; out dx, al
            .bytes(&[0x3c, b'q', 0x75, 0xed]) // cmp al, 'q'; jne to the first line
    }

    /// mov ax, [address]; then al and ah to the serial port
    pub(crate) fn print_word(self, address: u32) -> Self {
        self.bytes(&[0x66, 0xa1])
            .bytes(&address.to_le_bytes())
            .port(COM1)
            .bytes(&[0xee, 0x88, 0xe0, 0xee])
    }

    /// mov dword [address], value
    pub(crate) fn store(self, address: u32, value: u32) -> Self {
        self.bytes(&[0xc7, 0x05])
            .bytes(&address.to_le_bytes())
            .bytes(&value.to_le_bytes())
    }

    /// For ever: hlt; jmp to it. Interrupts are off, so the vCPU sleeps.
    pub(crate) fn sleep(self) -> Self {
        self.bytes(&[0xfa, 0xf4, 0xeb, 0xfd])
    }

    /// For ever: jmp to itself.
    pub(crate) fn spin(self) -> Self {
        self.bytes(&[0xeb, 0xfe])
    }

    /// ACPI S5 by the upper half of the PM1 control register.
    pub(crate) fn power_off(self) -> Self {
        self.out(0x605, 0x20).sleep()
    }

    /// The ELF file.
    pub(crate) fn kernel(&self) -> TempFile {
        let length = u64::try_from(self.0.len()).unwrap();
        let mut image = vec![0; CODE];
        let mut put = |offset: usize, bytes: &[u8]| {
            image[offset..offset + bytes.len()].copy_from_slice(bytes);
        };
        put(0, b"\x7fELF\x02\x01\x01");
        put(16, &[2, 0, 62, 0]); // executable, x86-64
        put(24, &ADDRESS.to_le_bytes());
        put(32, &[64]); // program headers
        put(54, &[56, 0, 2, 0]); // of 56 bytes, 2 of them
        let code = u64::try_from(CODE).unwrap();
        put(64, &[1]); // PT_LOAD
        put(72, &code.to_le_bytes());
        put(88, &ADDRESS.to_le_bytes());
        put(96, &length.to_le_bytes());
        put(104, &length.to_le_bytes());
        put(120, &[4]); // PT_NOTE
        put(128, &[0xc0]);
        put(152, &[20]);
        put(160, &[20]);
        put(0xc0, &[4, 0, 0, 0, 4, 0, 0, 0, 18]); // XEN_ELFNOTE_PHYS32_ENTRY
        put(0xcc, b"Xen\0");
        put(0xd0, &ADDRESS.to_le_bytes());
        image.extend_from_slice(&self.0);
        let file = TempFile::new().unwrap();
        file.as_file().write_all(&image).unwrap();
        file
    }
}
