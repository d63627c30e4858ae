//! The state in which the first vCPU enters a kernel, one for each boot protocol.

use devices::GuestRam;
use kvm_bindings::{CpuId, Msrs, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs, kvm_xcrs};
use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes, GuestAddress};

use super::{
    layout::{BOOT_STACK, GDT, PVH_START_INFO, ZERO_PAGE},
    paging,
};

/// How a kernel is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// The 64-bit Linux boot protocol: long mode, `boot_params` in RSI.
    Linux64 {
        /// Guest physical address of the 64-bit entry point.
        address: u64,
    },
    /// PVH: 32-bit protected mode without paging, `hvm_start_info` in EBX.
    Pvh {
        /// Guest physical address of the entry point, below 4 GiB.
        address: u64,
    },
}

/// Why a vCPU could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// the tables do not fit into guest memory
    #[error("could not write the boot tables into guest memory: {0}")]
    Memory(#[from] vm_memory::GuestMemoryError),
    /// KVM refused
    #[error("could not {what} the registers of the first vCPU: {source}")]
    Kvm {
        /// "read" or "set".
        what: &'static str,
        /// What KVM said.
        source: kvm_ioctls::Error,
    },
}

const CR0_PE: u64 = 1 << 0;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// Bit 1 of RFLAGS always reads as one.
const RFLAGS_RESERVED: u64 = 1 << 1;

/// `__BOOT_CS` and `__BOOT_DS` of the Linux boot protocol.
const BOOT_CS: u16 = 0x10;
const BOOT_DS: u16 = 0x18;
const BOOT_TSS: u16 = 0x20;

/// Segment types (Intel SDM 3A, 3.4.5.1, 3.5): code execute/read, data read/write, busy TSS.
const TYPE_CODE: u8 = 0xb;
const TYPE_DATA: u8 = 0x3;
const TYPE_TSS: u8 = 0xb;

/// A flat segment of 4 GiB; `long` for 64-bit code.
fn flat(selector: u16, type_: u8, long: bool) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector,
        type_,
        present: 1,
        dpl: 0,
        db: u8::from(!long),
        s: 1,
        l: u8::from(long),
        g: 1,
        ..Default::default()
    }
}

fn task_state() -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: 0x67,
        selector: BOOT_TSS,
        type_: TYPE_TSS,
        present: 1,
        ..Default::default()
    }
}

/// The 8 bytes of a segment as a descriptor table has them (Intel SDM 3A, figure 3-8).
fn descriptor(segment: &kvm_segment) -> u64 {
    let limit = if segment.g == 1 {
        segment.limit >> 12
    } else {
        segment.limit
    };
    let access = u64::from(segment.type_)
        | u64::from(segment.s) << 4
        | u64::from(segment.dpl) << 5
        | u64::from(segment.present) << 7;
    let flags = u64::from(segment.l) << 1 | u64::from(segment.db) << 2 | u64::from(segment.g) << 3;
    u64::from(limit & 0xffff)
        | (segment.base & 0xff_ffff) << 16
        | access << 40
        | u64::from(limit >> 16 & 0xf) << 48
        | flags << 52
        | (segment.base >> 24 & 0xff) << 56
}

/// Puts flat segments into `sregs`, and the table that holds them into guest memory.
fn set_segments(sregs: &mut kvm_sregs, ram: &GuestRam, long: bool) -> Result<(), RegisterError> {
    let code = flat(BOOT_CS, TYPE_CODE, long);
    // Data segments have no L bit; D/B is set in both modes.
    let data = flat(BOOT_DS, TYPE_DATA, false);
    let tss = task_state();
    let table = [0, 0, descriptor(&code), descriptor(&data), descriptor(&tss)];
    ram.write_obj(table, GuestAddress(GDT))?;
    sregs.gdt.base = GDT;
    sregs.gdt.limit = u16::try_from(size_of_val(&table) - 1).unwrap_or(u16::MAX);
    sregs.idt.base = 0;
    sregs.idt.limit = 0;
    sregs.cs = code;
    sregs.ds = data;
    sregs.es = data;
    sregs.fs = data;
    sregs.gs = data;
    sregs.ss = data;
    sregs.tr = tss;
    Ok(())
}

/// Long mode with paging on, as the 64-bit Linux entry wants it.
///
/// # Errors
/// The tables do not fit into guest memory.
pub fn long_mode(sregs: &mut kvm_sregs, ram: &GuestRam) -> Result<(), RegisterError> {
    set_segments(sregs, ram, true)?;
    sregs.cr3 = paging::write(ram)?;
    sregs.cr4 |= CR4_PAE;
    sregs.efer |= EFER_LME | EFER_LMA;
    sregs.cr0 |= CR0_PE | CR0_ET | CR0_PG;
    Ok(())
}

/// 32-bit protected mode, paging off (xen, docs/misc/pvh.pandoc).
fn protected_mode(sregs: &mut kvm_sregs, ram: &GuestRam) -> Result<(), RegisterError> {
    set_segments(sregs, ram, false)?;
    sregs.cr0 = CR0_PE | CR0_ET;
    sregs.cr4 = 0;
    sregs.efer = 0;
    Ok(())
}

/// Makes `vcpu`, the first one, start at `entry`.
///
/// # Errors
/// KVM refuses the state, or guest memory has no room for the tables.
pub fn set(vcpu: &VcpuFd, ram: &GuestRam, entry: Entry) -> Result<(), RegisterError> {
    let refused = |what| move |source| RegisterError::Kvm { what, source };
    let mut sregs = vcpu.get_sregs().map_err(refused("read"))?;
    let mut regs = kvm_regs {
        rflags: RFLAGS_RESERVED,
        ..Default::default()
    };
    match entry {
        Entry::Linux64 { address } => {
            long_mode(&mut sregs, ram)?;
            regs.rip = address;
            regs.rsi = ZERO_PAGE;
            regs.rsp = BOOT_STACK;
            regs.rbp = BOOT_STACK;
        }
        Entry::Pvh { address } => {
            protected_mode(&mut sregs, ram)?;
            regs.rip = address;
            regs.rbx = PVH_START_INFO;
        }
    }
    vcpu.set_sregs(&sregs).map_err(refused("set"))?;
    vcpu.set_regs(&regs).map_err(refused("set"))
}

/// What firmware leaves in model-specific registers on every CPU: fast strings on, and memory
/// types enabled with write-back as the default, without which Linux leaves PAT off.
///
/// A KVM that lacks one of them is no reason to stop: returns how many were taken.
///
/// # Errors
/// KVM refuses the call as such.
pub fn set_firmware_msrs(vcpu: &VcpuFd) -> Result<usize, RegisterError> {
    const IA32_MISC_ENABLE: u32 = 0x1a0;
    const FAST_STRINGS: u64 = 1;
    const IA32_MTRR_DEF_TYPE: u32 = 0x2ff;
    const MTRR_ENABLE_WRITE_BACK: u64 = 1 << 11 | 6;
    let entry = |index, data| kvm_msr_entry {
        index,
        data,
        ..Default::default()
    };
    let msrs = Msrs::from_entries(&[
        entry(IA32_MTRR_DEF_TYPE, MTRR_ENABLE_WRITE_BACK),
        entry(IA32_MISC_ENABLE, FAST_STRINGS),
    ]);
    let refused = |source| RegisterError::Kvm {
        what: "set",
        source,
    };
    // Two entries are far from the limit of the structure.
    let Ok(msrs) = msrs else { return Ok(0) };
    vcpu.set_msrs(&msrs).map_err(refused)
}

/// Lets a vCPU use x87, SSE and AVX state from its start on, as far as its CPUID has them (leaf 0xd).
///
/// A kernel sets XCR0 itself, with XSETBV, which KVM intercepts. The SVM that QEMU emulates up to
/// version 7.2 does not: KVM then runs the guest with the XCR0 that it knows, 1, and XSAVE in the
/// guest silently leaves out its SSE registers. Where XSETBV is intercepted this changes nothing.
///
/// # Errors
/// KVM refuses.
pub fn set_extended_state(vcpu: &VcpuFd, cpuid: &CpuId) -> Result<(), RegisterError> {
    const X87_SSE_AVX: u32 = 0b111;
    let leaf = cpuid
        .as_slice()
        .iter()
        .find(|leaf| leaf.function == 0xd && leaf.index == 0);
    let Some(leaf) = leaf.filter(|leaf| leaf.eax != 0) else {
        return Ok(());
    };
    let mut xcrs = kvm_xcrs {
        nr_xcrs: 1,
        ..Default::default()
    };
    xcrs.xcrs[0].value = u64::from(leaf.eax & X87_SSE_AVX);
    let refused = |source| RegisterError::Kvm {
        what: "set",
        source,
    };
    vcpu.set_xcrs(&xcrs).map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_those_of_linux() {
        // GDT_ENTRY_BOOT_CS and _DS of arch/x86, 64-bit and 32-bit code.
        assert_eq!(
            descriptor(&flat(BOOT_CS, TYPE_CODE, true)),
            0x00af_9b00_0000_ffff
        );
        assert_eq!(
            descriptor(&flat(BOOT_CS, TYPE_CODE, false)),
            0x00cf_9b00_0000_ffff
        );
        assert_eq!(
            descriptor(&flat(BOOT_DS, TYPE_DATA, false)),
            0x00cf_9300_0000_ffff
        );
        assert_eq!(descriptor(&task_state()), 0x0000_8b00_0000_0067);
    }

    #[test]
    fn the_modes_differ_where_they_should() {
        let ram = GuestRam::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        let mut long = kvm_sregs::default();
        long_mode(&mut long, &ram).unwrap();
        assert_eq!((long.cs.l, long.cs.db), (1, 0));
        assert_eq!(long.cr0 & (CR0_PE | CR0_PG), CR0_PE | CR0_PG);
        assert_eq!(long.gdt.limit, 39);
        let mut protected = kvm_sregs {
            efer: EFER_LME,
            ..kvm_sregs::default()
        };
        protected_mode(&mut protected, &ram).unwrap();
        assert_eq!((protected.cs.l, protected.cs.db), (0, 1));
        assert_eq!((protected.cr0 & CR0_PG, protected.efer), (0, 0));
    }
}
