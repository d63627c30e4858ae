//! What kvm-ioctls leaves out of an exit: the size of a port access, the details of an error.
#![expect(unsafe_code, reason = "fields of a union that KVM shares with us")]

use std::fmt::Write as _;

use kvm_bindings::{
    KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_IO, KVM_EXIT_IO_OUT, KVM_INTERNAL_ERROR_DELIVERY_EV,
    KVM_INTERNAL_ERROR_EMULATION, KVM_INTERNAL_ERROR_SIMUL_EX,
    KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON,
};
use kvm_ioctls::VcpuFd;

/// One exit for port I/O: `data` holds one or more accesses of `size` bytes to `port`.
pub(super) struct PortIo<'a> {
    pub(super) port: u16,
    pub(super) size: usize,
    pub(super) write: bool,
    pub(super) data: &'a mut [u8],
}

/// The port access that `vcpu` has just left the guest for.
pub(super) fn port_io(vcpu: &mut VcpuFd) -> Option<PortIo<'_>> {
    let run = vcpu.get_kvm_run();
    if run.exit_reason != KVM_EXIT_IO {
        return None;
    }
    // SAFETY: the exit reason says that this member of the union is the valid one.
    let io = unsafe { run.__bindgen_anon_1.io };
    let length = usize::from(io.size) * usize::try_from(io.count).ok()?;
    let offset = usize::try_from(io.data_offset).ok()?;
    let base = std::ptr::from_mut(run).cast::<u8>();
    // SAFETY: KVM puts the data into the area of this vCPU that is mapped behind `run` (KVM API,
    // KVM_GET_VCPU_MMAP_SIZE), at `data_offset`.
    let start = unsafe { base.add(offset) };
    // SAFETY: `length` bytes from there on are in that area, and the borrow of `vcpu` keeps it from
    // being run, the only thing that changes them, or dropped.
    let data = unsafe { std::slice::from_raw_parts_mut(start, length) };
    Some(PortIo {
        port: io.port,
        size: usize::from(io.size),
        write: u32::from(io.direction) == KVM_EXIT_IO_OUT,
        data,
    })
}

/// Whether KVM gave up because an access to a device would have interrupted the delivery of an event
/// (KVM_INTERNAL_ERROR_DELIVERY_EV), although it knows of no such event (KVM_GET_VCPU_EVENTS). The guest
/// has lost nothing then, and can be entered again.
///
/// Since Linux 6.15 KVM on AMD asks whether EXITINTINFO has a type, not whether it is valid
/// (`svm_check_emulate_instruction`). CPUs clear the field; an emulated one (QEMU's TCG) leaves the type of
/// the last exception that the guest had, so there a kick after a page fault ends up here. A guest that comes
/// here again and again spends its own vCPU's time, as with any other exit.
pub(super) fn no_event_was_lost(vcpu: &mut VcpuFd) -> bool {
    let run = vcpu.get_kvm_run();
    if run.exit_reason != KVM_EXIT_INTERNAL_ERROR {
        return false;
    }
    // SAFETY: the exit reason says that this member of the union is the valid one.
    let internal = unsafe { run.__bindgen_anon_1.internal };
    internal.suberror == KVM_INTERNAL_ERROR_DELIVERY_EV
        && vcpu.get_vcpu_events().is_ok_and(|events| {
            events.exception.injected | events.interrupt.injected | events.nmi.injected == 0
        })
}

/// KVM_EXIT_INTERNAL_ERROR in words, with the guest's instruction if KVM tells it.
pub(super) fn internal_error(vcpu: &mut VcpuFd) -> String {
    const INSTRUCTION_BYTES: u64 = 1;
    let rip = vcpu.get_regs().map(|regs| regs.rip).unwrap_or_default();
    let run = vcpu.get_kvm_run();
    if run.exit_reason != KVM_EXIT_INTERNAL_ERROR {
        return "internal error".to_owned();
    }
    // SAFETY: the exit reason says that this member of the union is the valid one.
    let internal = unsafe { run.__bindgen_anon_1.internal };
    match internal.suberror {
        KVM_INTERNAL_ERROR_EMULATION => {
            let mut what = format!("it can't emulate the instruction at {rip:#x}");
            // SAFETY: with this suberror the extended structure is the valid one; all of its
            // fields are plain integers, of which old kernels leave `ndata` at 0.
            let failure = unsafe { run.__bindgen_anon_1.emulation_failure };
            if failure.ndata >= 1 && failure.flags & INSTRUCTION_BYTES != 0 {
                // SAFETY: the flag says that the bytes are there; they are plain integers.
                let bytes = unsafe { failure.__bindgen_anon_1.__bindgen_anon_1 };
                let count = usize::from(bytes.insn_size).min(bytes.insn_bytes.len());
                what.push_str(" (bytes");
                for byte in bytes.insn_bytes.iter().take(count) {
                    // Writing to a String can't fail.
                    let _ = write!(what, " {byte:02x}");
                }
                what.push(')');
            }
            what
        }
        KVM_INTERNAL_ERROR_SIMUL_EX => format!("simultaneous exceptions at {rip:#x}"),
        KVM_INTERNAL_ERROR_DELIVERY_EV => format!("it can't deliver an event at {rip:#x}"),
        KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON => {
            format!("an exit that it does not know, at {rip:#x}")
        }
        other => format!("internal error {other} at {rip:#x}"),
    }
}
