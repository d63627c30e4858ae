#![expect(
    unsafe_code,
    reason = "the entry code, and structures that the VMM left in memory"
)]
//! Entry: from PVH's 32-bit protected mode to 64-bit code in ring 3.
//!
//! The page tables are data, so nothing is computed here: 4 GiB mapped one to one in pages of 2 MiB, for ring 3.

use core::{
    ffi::{CStr, c_char},
    ptr::with_exposed_provenance,
};

use crate::cmdline::Cmdline;

#[cfg(not(test))]
core::arch::global_asm!(
    r#"
    // Where to enter (xen, docs/misc/pvh.pandoc): XEN_ELFNOTE_PHYS32_ENTRY.
    .section .note.Xen, "a", @note
    .align 4
    .long 4, 8, 18
    .asciz "Xen"
    .long _start, 0

    .text
    .code32
    .global _start
_start:
    // EBX: hvm_start_info. Paging is off.
    cli
    cld
    mov $stack_end, %esp
    mov %cr4, %eax
    or $0x620, %eax             // PAE, OSFXSR, OSXMMEXCPT
    mov %eax, %cr4
    mov $pml4, %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx       // EFER
    rdmsr
    or $0x100, %eax             // LME
    wrmsr
    mov %cr0, %eax
    and $~0xc, %eax             // not EM, not TS: SSE works
    or $0x80000002, %eax        // PG, MP
    mov %eax, %cr0
    lgdt gdt_pointer
    ljmp $0x08, $long_mode

    .code64
long_mode:
    mov %ebx, %ebx
    mov %rbx, %rdi
    // KVM's clock, if there is one: it tells how fast the TSC runs (Documentation/virt/kvm/x86/msr.rst).
    mov $0x40000000, %eax
    cpuid
    cmp $0x4b4d564b, %ebx       // "KVMK"
    jne 1f
    mov $0x40000001, %eax
    cpuid
    test $0x8, %eax             // KVM_FEATURE_CLOCKSOURCE2
    jz 1f
    mov $kvm_clock + 1, %eax    // the address, enabled
    xor %edx, %edx
    mov $0x4b564d01, %ecx       // MSR_KVM_SYSTEM_TIME_NEW
    wrmsr
1:
    // IOPL 3 is enough on a CPU. Where ring 3 runs without hardware virtualization it is not seen, the bitmap is.
    mov $tss, %eax
    mov %ax, tss_descriptor + 2
    shr $16, %eax
    mov %al, tss_descriptor + 4
    mov %ah, tss_descriptor + 7
    mov $0x28, %eax
    ltr %ax
    mov $0x1b, %eax
    mov %eax, %ds
    mov %eax, %es
    push $0x1b                  // SS
    push $stack_end - 8         // RSP, as after a call
    push $0x3002                // RFLAGS: IOPL 3, interrupts off
    push $0x23                  // CS
    push $guest_main
    xor %ebp, %ebp
    iretq

    .data
    .align 8
gdt:
    .quad 0
    .quad 0x00af9b000000ffff    // 0x08: ring 0, 64-bit code
    .quad 0x00cf93000000ffff    // 0x10: ring 0, data
    .quad 0x00cff3000000ffff    // 0x18: ring 3, data
    .quad 0x00affb000000ffff    // 0x20: ring 3, 64-bit code
tss_descriptor:
    .quad 0x0000890000000167    // 0x28: task state, limit; its address is put in
    .quad 0
gdt_pointer:
    .word . - gdt - 1
    .long gdt

    .align 4096
pml4:
    .quad pdpt + 7              // present, writable, ring 3
    .fill 511, 8, 0
pdpt:
    .quad directories + 0x0007
    .quad directories + 0x1007
    .quad directories + 0x2007
    .quad directories + 0x3007
    .fill 508, 8, 0
directories:
    .set page, 0
    .rept 2048
    .quad page + 0x87           // the same, 2 MiB
    .set page, page + 0x200000
    .endr

    // Task state (Intel SDM 3A, 8.7): nothing of it is used but the bitmap, ports 0 to 0x7f7 allowed.
    .align 8
tss:
    .fill 102, 1, 0
    .word 104                   // where the bitmap is
    .fill 255, 1, 0
    .byte 0xff

    .bss
    .align 4096
    .skip 0x10000
stack_end:
    .global kvm_clock
    .align 64
kvm_clock:
    .skip 64
"#,
    options(att_syntax)
);

/// Offset of `magic` in `hvm_start_info` (xen, public/arch-x86/hvm/start_info.h).
const MAGIC: usize = 0;
/// Offset of `cmdline_paddr`.
const CMDLINE: usize = 24;
/// What `magic` is.
const MAGIC_VALUE: u32 = 0x336e_c578;

/// The command line, as PVH hands it over. Empty if there is none.
pub fn cmdline(start_info: u64) -> Cmdline<'static> {
    let text = text(start_info).unwrap_or_default();
    Cmdline::new(text)
}

fn text(start_info: u64) -> Option<&'static str> {
    let info: *const u8 = pointer(start_info)?;
    let magic = info.wrapping_add(MAGIC).cast::<u32>();
    // SAFETY: the entry code passes on what the VMM put into EBX: the structure, mapped one to one.
    let magic = unsafe { magic.read_unaligned() };
    if magic != MAGIC_VALUE {
        return None;
    }
    let address = info.wrapping_add(CMDLINE).cast::<u64>();
    // SAFETY: as above; version 0 of the structure has this field already.
    let text: *const c_char = pointer(unsafe { address.read_unaligned() })?;
    // SAFETY: it is a string with a final NUL, in memory that nothing here writes to.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().ok()
}

fn pointer<T>(address: u64) -> Option<*const T> {
    let address = usize::try_from(address).ok().filter(|&it| it != 0)?;
    Some(with_exposed_provenance(address))
}
