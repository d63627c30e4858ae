//! Whether this host's KVM can boot Linux, found out by running what Linux needs.
//!
//! A KVM that emulates guest ring 0 in software may lack instructions that every Linux uses while
//! it boots. No CPU flag tells: a few instructions in ring 0 of a small VM do, in milliseconds.

use std::{
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
    thread,
    time::{Duration, Instant},
};

use devices::{GuestRam, bus::BusDevice, placement::Placement};
use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use kvm_ioctls::{Kvm, VmFd};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use crate::{
    exit::{ExitReason, ExitRequest},
    kvm::{self, KvmError},
    vcpu::{self, Buses, Vcpu},
    x86_64::{
        cpuid::{self, Topology},
        registers::{self, Entry, RegisterError},
    },
};

/// Why nothing could be found out.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// KVM itself
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// the probe's memory
    #[error("could not set up the probe's memory: {0}")]
    Memory(#[from] GuestMemoryError),
    /// the probe's memory
    #[error("could not map the probe's memory: {0}")]
    Map(#[from] vm_memory::mmap::FromRangesError),
    /// the probe's registers
    #[error(transparent)]
    Registers(#[from] RegisterError),
    /// a system call
    #[error("could not start the probe: {0}")]
    System(#[from] std::io::Error),
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Everything ran.
    CanBoot,
    /// KVM works, and does not run this.
    Lacks {
        /// The instruction.
        instruction: &'static str,
        /// What happened instead.
        what: String,
    },
}

/// The port that the probe reports its steps to.
const STEP_PORT: u16 = 0xf4;
const MEMORY: usize = 1 << 20;
const CODE: u64 = 0x2_0000;
const IDT: u64 = 0x3_0000;
/// How long the probe may take: it needs milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// Steps, in the order in which the code takes them; it reports each one that is behind it.
const STEPS: [&str; 4] = [
    "entering 64-bit mode",
    "int3 with a handler",
    "lock cmpxchg16b",
    "xrstor",
];

/// The probe: 64-bit code at [`CODE`], entered in ring 0. Its operands are at 0x4_0000 (16 bytes for
/// cmpxchg16b) and 0x4_0040 (an empty XSAVE area).
///
/// Reports step n by writing n to [`STEP_PORT`] after it. `xrstor` runs only if CPUID offers XSAVE,
/// as in Linux.
const PROBE: &[u8] = &[
    // Step 1: we are here. mov al, 1; out 0xf4, al
    0xb0, 0x01, 0xe6, 0xf4, //
    // lidt [0x3_0f00]
    0x0f, 0x01, 0x1c, 0x25, 0x00, 0x0f, 0x03, 0x00, //
    // Step 2: int3, whose handler is one iretq. mov al, 2; out 0xf4, al
    0xcc, 0xb0, 0x02, 0xe6, 0xf4, //
    // Step 3: lock cmpxchg16b [0x4_0000]. mov al, 3; out 0xf4, al
    0xf0, 0x48, 0x0f, 0xc7, 0x0c, 0x25, 0x00, 0x00, 0x04, 0x00, //
    0xb0, 0x03, 0xe6, 0xf4, //
    // mov eax, 1; cpuid; bt ecx, 26 (XSAVE); jnc to the last report, 38 bytes on
    0xb8, 0x01, 0x00, 0x00, 0x00, 0x0f, 0xa2, 0x0f, 0xba, 0xe1, 0x1a, 0x73, 0x26, //
    // mov rax, cr4; or eax, 0x4_0600 (OSXSAVE, OSFXSR, OSXMMEXCPT); mov cr4, rax
    0x0f, 0x20, 0xe0, 0x0d, 0x00, 0x06, 0x04, 0x00, 0x0f, 0x22, 0xe0, //
    // xor ecx, ecx; xor edx, edx; mov eax, 3; xsetbv (x87 and SSE)
    0x31, 0xc9, 0x31, 0xd2, 0xb8, 0x03, 0x00, 0x00, 0x00, 0x0f, 0x01, 0xd1, //
    // Step 4: mov eax, 3; xor edx, edx; xrstor [0x4_0040]
    0xb8, 0x03, 0x00, 0x00, 0x00, 0x31, 0xd2, //
    0x0f, 0xae, 0x2c, 0x25, 0x40, 0x00, 0x04, 0x00, //
    // mov al, 4; out 0xf4, al
    0xb0, 0x04, 0xe6, 0xf4, //
    // Stay: hlt; jmp to it
    0xf4, 0xeb, 0xfd,
];

/// Where the breakpoint's handler is, and its code: iretq.
const HANDLER: u64 = CODE + 0x800;
const IRETQ: [u8; 2] = [0x48, 0xcf];
/// Where `lidt` finds the table's limit and address.
const IDT_POINTER: u64 = IDT + 0xf00;

/// Runs the probe.
///
/// # Errors
/// KVM can't be used at all.
pub fn kvm() -> Result<Verdict, ProbeError> {
    let kvm = kvm::open()?;
    let ram = GuestRam::from_ranges(&[(GuestAddress(0), MEMORY)])?;
    write_probe(&ram)?;
    let vm = kvm::create_vm(&kvm, &ram)?;
    kvm::create_interrupt_controllers(&vm)?;
    vcpu::install_kick_handler()?;
    let exit = ExitRequest::new()?;
    let steps = Arc::new(Mutex::new(Steps::new(exit.clone())));
    let mut buses = Buses::default();
    // The only device: it can't overlap another.
    let _ = buses.pio.insert(u64::from(STEP_PORT), 1, steps.clone());
    let vcpu = first_vcpu(&kvm, &vm, &ram, buses, exit.clone())?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut thread = vcpu.start(stop.clone(), &Placement::default(), &Arc::default())?;
    thread.go();
    let started = Instant::now();
    while exit.reason().is_none() && started.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(1));
    }
    vcpu::stop(vec![thread], &stop);
    let done = steps.lock().unwrap_or_else(PoisonError::into_inner).done;
    Ok(verdict(done, exit.reason()))
}

fn verdict(done: usize, reason: Option<&ExitReason>) -> Verdict {
    let Some(instruction) = STEPS.get(done) else {
        return Verdict::CanBoot;
    };
    let what = match reason {
        Some(ExitReason::Kvm { what, .. }) => what.clone(),
        Some(ExitReason::TripleFault { .. }) => "the guest shuts down".to_owned(),
        Some(other) => other.to_string(),
        None => "it does not come back".to_owned(),
    };
    Verdict::Lacks { instruction, what }
}

fn first_vcpu(
    kvm: &Kvm,
    vm: &VmFd,
    ram: &GuestRam,
    buses: Buses,
    exit: ExitRequest,
) -> Result<Vcpu, ProbeError> {
    let fd = vm.create_vcpu(0).map_err(KvmError::call("create a vCPU"))?;
    let supported = kvm
        .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .map_err(KvmError::call("tell the CPUID that it supports"))?;
    let topology = Topology {
        index: 0,
        cpus: 1,
        tsc_deadline: false,
    };
    fd.set_cpuid2(&cpuid::adapt(&supported, topology))
        .map_err(KvmError::call("set a vCPU's CPUID"))?;
    registers::set(&fd, ram, Entry::Linux64 { address: CODE })?;
    Ok(Vcpu {
        index: 0,
        fd,
        buses: Arc::new(buses),
        exit,
        halt: None,
    })
}

fn write_probe(ram: &GuestRam) -> Result<(), GuestMemoryError> {
    ram.write_slice(PROBE, GuestAddress(CODE))?;
    ram.write_slice(&IRETQ, GuestAddress(HANDLER))?;
    // A 64-bit interrupt gate (Intel SDM 3A, figure 6-8) for vector 3, __BOOT_CS.
    const INTERRUPT_GATE: u64 = 0x8e00;
    const BREAKPOINT: u64 = 3;
    const CODE_SELECTOR: u64 = 0x10;
    let gate = HANDLER & 0xffff
        | CODE_SELECTOR << 16
        | INTERRUPT_GATE << 32
        | (HANDLER >> 16 & 0xffff) << 48;
    ram.write_obj(gate, GuestAddress(IDT + BREAKPOINT * 16))?;
    ram.write_obj(0xfffu16, GuestAddress(IDT_POINTER))?;
    ram.write_obj(IDT, GuestAddress(IDT_POINTER + 2))
}

/// Hears the probe's reports.
struct Steps {
    done: usize,
    exit: ExitRequest,
}

impl Steps {
    fn new(exit: ExitRequest) -> Self {
        Self { done: 0, exit }
    }
}

impl BusDevice for Steps {
    fn read(&mut self, _offset: u64, _data: &mut [u8]) {}

    fn write(&mut self, _offset: u64, data: &[u8]) {
        self.done = data.first().copied().map_or(0, usize::from);
        if self.done >= STEPS.len() {
            self.exit.request(ExitReason::PowerOff);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_names_the_first_instruction_that_failed() {
        assert_eq!(verdict(4, Some(&ExitReason::PowerOff)), Verdict::CanBoot);
        let lacks = |done, reason: Option<&ExitReason>| match verdict(done, reason) {
            Verdict::Lacks { instruction, what } => (instruction, what),
            Verdict::CanBoot => ("", String::new()),
        };
        assert_eq!(lacks(0, None).0, "entering 64-bit mode");
        assert_eq!(
            lacks(1, None),
            ("int3 with a handler", "it does not come back".to_owned())
        );
        let error = ExitReason::Kvm {
            vcpu: 0,
            what: "no".to_owned(),
        };
        assert_eq!(lacks(2, Some(&error)), ("lock cmpxchg16b", "no".to_owned()));
    }

    #[test]
    fn the_jump_over_xrstor_lands_on_the_last_report() {
        let jump = PROBE.windows(2).position(|code| code[0] == 0x73).unwrap();
        let target = jump + 2 + usize::from(PROBE[jump + 1]);
        assert_eq!(PROBE[target..], [0xb0, 0x04, 0xe6, 0xf4, 0xf4, 0xeb, 0xfd]);
    }
}
