//! Opening KVM, and a VM in it with guest memory and interrupt controllers.
#![expect(unsafe_code, reason = "KVM is told host addresses of guest memory")]

use std::io;

use devices::GuestRam;
use kvm_bindings::{
    KVM_API_VERSION, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_PIT_SPEAKER_DUMMY,
    kvm_irqchip, kvm_pic_state, kvm_pit_config, kvm_reinject_control, kvm_userspace_memory_region,
};
use kvm_ioctls::{Cap, Kvm, VmFd};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};
use vmm_sys_util::{errno, ioctl::ioctl_with_ref};

use crate::x86_64::layout::{KVM_IDENTITY_MAP, KVM_TSS};

/// Why there is no VM.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// the device node is not there
    #[error(
        "there is no /dev/kvm: the CPU's virtualization is off or absent, or the module kvm_intel or kvm_amd is not loaded"
    )]
    NoDevice,
    /// the device node may not be opened
    #[error("no permission to open /dev/kvm: run as root, or join the group that owns it (kvm)")]
    NoPermission,
    /// another failure to open it
    #[error("could not open /dev/kvm: {0}")]
    Open(io::Error),
    /// something else is behind the device node
    #[error("/dev/kvm speaks version {0} of KVM's interface, version {KVM_API_VERSION} is needed")]
    Version(i32),
    /// an extension is missing
    #[error("this host's KVM lacks {0}")]
    Missing(&'static str),
    /// a call failed
    #[error("KVM could not {what}: {source}")]
    Call {
        /// What was asked of it.
        what: &'static str,
        /// What it said.
        source: io::Error,
    },
}

impl KvmError {
    /// For `map_err`: what was asked of KVM.
    pub fn call(what: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Self {
        move |error| Self::Call {
            what,
            source: error.into(),
        }
    }
}

/// _IO(KVMIO, 0x71) (linux/kvm.h), which kvm-ioctls has not.
const KVM_REINJECT_CONTROL: libc::c_ulong = 0xae71;

/// Opens /dev/kvm and checks that it is what we know.
///
/// # Errors
/// It is missing, closed to us, or too old.
pub fn open() -> Result<Kvm, KvmError> {
    let kvm = Kvm::new().map_err(|error| match io::Error::from(error) {
        e if e.kind() == io::ErrorKind::NotFound => KvmError::NoDevice,
        e if e.raw_os_error() == Some(libc::ENODEV) || e.raw_os_error() == Some(libc::ENXIO) => {
            KvmError::NoDevice
        }
        e if e.kind() == io::ErrorKind::PermissionDenied => KvmError::NoPermission,
        e => KvmError::Open(e),
    })?;
    let version = kvm.get_api_version();
    if u32::try_from(version) != Ok(KVM_API_VERSION) {
        return Err(KvmError::Version(version));
    }
    let needed = [
        (Cap::UserMemory, "user memory regions"),
        (Cap::Irqchip, "an in-kernel interrupt controller"),
        (Cap::Irqfd, "irqfd"),
        (Cap::Ioeventfd, "ioeventfd"),
        (Cap::ExtCpuid, "CPUID configuration"),
    ];
    match needed.iter().find(|(cap, _)| !kvm.check_extension(*cap)) {
        Some((_, name)) => Err(KvmError::Missing(name)),
        None => Ok(kvm),
    }
}

/// Makes a VM whose memory is `ram`. The mappings must live as long as the VM runs: keep a clone
/// of `ram` with it.
///
/// # Errors
/// KVM refuses.
pub fn create_vm(kvm: &Kvm, ram: &GuestRam) -> Result<VmFd, KvmError> {
    // KVM_CREATE_VM can be interrupted while it waits for other VMs' locks.
    let vm = loop {
        match kvm.create_vm() {
            Err(e) if e.errno() == libc::EINTR => {}
            result => break result.map_err(KvmError::call("create a VM"))?,
        }
    };
    for (slot, region) in (0..).zip(ram.iter()) {
        let host = region.as_ptr() as u64;
        let memory = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: region.start_addr().0,
            memory_size: region.len(),
            userspace_addr: host,
        };
        // SAFETY: the range is a mapping that `ram` owns and that is never unmapped while a clone
        // of it lives, which the caller keeps with the VM. Guest and host access it only through
        // volatile accesses. Slots are numbered apart and regions do not overlap.
        unsafe { vm.set_user_memory_region(memory) }.map_err(KvmError::call("map guest memory"))?;
    }
    Ok(vm)
}

/// Adds the interrupt controllers (two PICs, IO-APIC, local APICs); vCPUs come after them.
///
/// # Errors
/// KVM refuses.
pub fn create_interrupt_controllers(vm: &VmFd) -> Result<(), KvmError> {
    let tss = usize::try_from(KVM_TSS).unwrap_or_default();
    vm.set_identity_map_address(KVM_IDENTITY_MAP)
        .map_err(KvmError::call("place its identity map"))?;
    vm.set_tss_address(tss)
        .map_err(KvmError::call("place its task state segment"))?;
    vm.create_irq_chip()
        .map_err(KvmError::call("create interrupt controllers"))?;
    mask_pics(vm).map_err(KvmError::call("mask the lines of its PICs"))
}

/// Masks all lines of both PICs, as firmware does before it starts an operating system.
///
/// KVM's are open at the start, and their first vector is 0: a line that is raised before the guest
/// has set them up, or if it never does, is an exception to it (COM1's, line 4, an "overflow").
fn mask_pics(vm: &VmFd) -> Result<(), kvm_ioctls::Error> {
    // Which lines have an edge/level bit: not the timer's, the keyboard's, the cascade's, the clock's
    // and the FPU's. This is what KVM has there by itself, and it takes the whole state.
    for (chip_id, elcr_mask) in [
        (KVM_IRQCHIP_PIC_MASTER, 0xf8),
        (KVM_IRQCHIP_PIC_SLAVE, 0xde),
    ] {
        let mut chip = kvm_irqchip {
            chip_id,
            ..Default::default()
        };
        chip.chip.pic = kvm_pic_state {
            imr: 0xff,
            elcr_mask,
            ..Default::default()
        };
        vm.set_irqchip(&chip)?;
    }
    Ok(())
}

/// Adds a PC's timer chip, the PIT (ports 0x40 to 0x43 and 0x61, line 0), by which guests without KVM's
/// clock find out how fast their TSC counts, and get ticks if they do not use the local APIC's timer.
///
/// Ticks that a vCPU came too late for are lost. To deliver them later KVM has to hear of each one's
/// end, and for that leaves the hardware's own interrupt delivery off (AMD's AVIC) as long as the VM runs.
///
/// # Errors
/// KVM refuses; guests that have its clock do without.
pub fn create_timer(vm: &VmFd) -> Result<(), KvmError> {
    let config = kvm_pit_config {
        flags: KVM_PIT_SPEAKER_DUMMY,
        ..Default::default()
    };
    vm.create_pit2(config)
        .map_err(KvmError::call("create a timer chip (PIT)"))?;
    let control = kvm_reinject_control {
        pit_reinject: 0,
        ..Default::default()
    };
    // SAFETY: the kernel reads a kvm_reinject_control behind the pointer and keeps none.
    match unsafe { ioctl_with_ref(vm, KVM_REINJECT_CONTROL, &control) } {
        0 => Ok(()),
        _ => Err(KvmError::call("let its timer chip lose ticks")(
            errno::Error::last(),
        )),
    }
}
