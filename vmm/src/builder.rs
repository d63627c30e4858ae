//! From a configuration to a machine that is ready to run, one named step each.
//!
//! Every step owns what it made: an error anywhere gives all of it back.

use std::{
    io,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Arc, Mutex, atomic::AtomicBool},
};

use devices::{
    GuestRam,
    bus::{BusError, SharedDevice},
    log::LogLimit,
    placement::Placement,
    power::{AcpiPower, KeyboardReset, PowerEvent, PowerHandler, ResetControl},
    pvpanic::{PanicEvent, PvPanic},
    serial::{SERIAL_SIZE, SerialPort},
};
use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use kvm_ioctls::{Cap, Kvm, VmFd};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::{
    boot::{self, BootError, BootSource},
    cmdline::{self, Cmdline},
    config::{ConfigError, SerialConfig, Transport, VmConfig, check_apart},
    confine::Confinement,
    console::{ConsoleConfig, InputConfig, OutputConfig, Place, Room},
    exit::{ExitReason, ExitRequest},
    kvm::{self, KvmError},
    memory::{self, MemoryError},
    network::NetworkError,
    pci::PciHostError,
    terminal,
    vcpu::{self, Buses, HaltWatch, Vcpu},
    vm::Vm,
    x86_64::{
        acpi::{self, AcpiError, Platform},
        cpuid::{self, Topology},
        layout::{
            self, COM1_IRQ, COM1_PORT, KEYBOARD_PORT, POWER_PORT, PVPANIC_PORT, RESET_PORT,
            VirtioSlot,
        },
        mp_table::{self, MpTableError},
        registers::{self, Entry, RegisterError},
    },
};

mod virtio;

use virtio::VirtioDevices;

/// Why a VM was not built. Nothing is left behind then.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// the configuration
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// guest memory
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// KVM
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// kernel, initrd, command line
    #[error(transparent)]
    Boot(#[from] BootError),
    /// ACPI tables
    #[error(transparent)]
    Acpi(#[from] AcpiError),
    /// MultiProcessor table
    #[error(transparent)]
    MpTable(#[from] MpTableError),
    /// the PCI bus
    #[error(transparent)]
    Pci(#[from] PciHostError),
    /// the first vCPU's registers
    #[error(transparent)]
    Registers(#[from] RegisterError),
    /// a disk
    #[error(transparent)]
    Disk(#[from] devices::virtio::blk::BlkError),
    /// a network card
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// two devices at one place: a bug
    #[error("the machine's layout is wrong: {0}")]
    Bus(#[from] BusError),
    /// the serial console's file
    #[error(
        "could not open '{path}' for the serial console: {source}{}",
        hint(source)
    )]
    Serial {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// another system call
    #[error("could not {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// What to do about it.
fn hint(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::ENXIO) => ". It is a pipe that nobody reads: start its reader first",
        _ => "",
    }
}

/// For `map_err`: a system call and what it was for.
fn system(what: &'static str) -> impl FnOnce(io::Error) -> BuildError {
    move |source| BuildError::System { what, source }
}

/// What the steps share.
struct Machine<'a> {
    config: &'a VmConfig,
    kvm: Kvm,
    vm: Arc<VmFd>,
    ram: GuestRam,
    buses: Buses,
    exit: ExitRequest,
    stop: Arc<AtomicBool>,
    placement: Placement,
    confinement: Arc<Confinement>,
}

/// Builds the machine that `config` describes and loads its kernel.
pub(crate) fn build(config: &VmConfig) -> Result<Vm, BuildError> {
    config.validate()?;
    check_apart(&config.disks).map_err(ConfigError::from)?;
    let kvm = kvm::open()?;
    let ram = memory::allocate(config.memory, config.hugepages)?;
    let vm = Arc::new(kvm::create_vm(&kvm, &ram)?);
    kvm::create_interrupt_controllers(&vm)?;
    if let Err(why) = kvm::create_timer(&vm) {
        tracing::info!("{why}: guests without KVM's clock may not start");
    }
    let confinement = Arc::<Confinement>::default();
    let mut machine = Machine {
        config,
        kvm,
        vm,
        ram,
        buses: Buses::default(),
        exit: ExitRequest::new().map_err(system("create an eventfd"))?,
        stop: Arc::new(AtomicBool::new(false)),
        placement: placement(config)?.made_by(confinement.clone()),
        confinement,
    };
    machine.add_power()?;
    // What only reads comes first; then what is given back on an error (interfaces); last what is
    // not (the serial console's file is emptied).
    let entry = machine.load_kernel()?;
    let devices = machine.add_virtio_devices()?;
    let console = machine.add_serial()?;
    machine.finish(entry, console, devices)
}

/// Where the VM's threads are to run.
fn placement(config: &VmConfig) -> Result<Placement, BuildError> {
    let pins = config.pins.iter().map(|pin| (pin.thread.clone(), pin.cpu));
    Placement::new(pins).map_err(system("ask which CPUs this thread may use"))
}

fn eventfd() -> Result<EventFd, BuildError> {
    EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(system("create an eventfd"))
}

impl Machine<'_> {
    /// An eventfd that raises interrupt line `line`, edge triggered.
    fn interrupt(&self, line: u32) -> Result<EventFd, BuildError> {
        let irq = eventfd()?;
        self.vm
            .register_irqfd(&irq, line)
            .map_err(KvmError::call("attach an interrupt line to an eventfd"))?;
        Ok(irq)
    }

    /// Power-off, reset and panic report.
    fn add_power(&mut self) -> Result<(), BuildError> {
        let on_power = |exit: &ExitRequest| -> PowerHandler {
            let exit = exit.clone();
            Box::new(move |event| {
                exit.request(match event {
                    PowerEvent::Off => ExitReason::PowerOff,
                    PowerEvent::Reset => ExitReason::Reset,
                });
            })
        };
        let exit = self.exit.clone();
        let crashes = LogLimit::default();
        let pvpanic = PvPanic::new(Box::new(move |event| match event {
            PanicEvent::Panicked => exit.request(ExitReason::GuestPanic),
            PanicEvent::CrashLoaded => {
                if let Some(left_out) = crashes.pass() {
                    tracing::info!(
                        "the guest's kernel crashed and runs its crash kernel{left_out}"
                    );
                }
            }
        }));
        let devices: [(u16, u64, SharedDevice); 4] = [
            (
                POWER_PORT,
                AcpiPower::SIZE,
                Arc::new(Mutex::new(AcpiPower::new(on_power(&self.exit)))),
            ),
            (
                RESET_PORT,
                ResetControl::SIZE,
                Arc::new(Mutex::new(ResetControl::new(on_power(&self.exit)))),
            ),
            (
                KEYBOARD_PORT,
                1,
                Arc::new(Mutex::new(KeyboardReset::new(on_power(&self.exit)))),
            ),
            (PVPANIC_PORT, PvPanic::SIZE, Arc::new(Mutex::new(pvpanic))),
        ];
        for (port, size, device) in devices {
            self.buses.pio.insert(u64::from(port), size, device)?;
        }
        Ok(())
    }

    /// COM1; returns what its threads need.
    fn add_serial(&mut self) -> Result<ConsoleConfig, BuildError> {
        let output = match &self.config.serial {
            SerialConfig::Null => None,
            SerialConfig::File { path, limit } => {
                let place = Place::create(path, *limit);
                Some(place.map_err(|source| BuildError::Serial {
                    path: path.clone(),
                    source,
                })?)
            }
            SerialConfig::Stdio => Some(Place::stream(duplicate(rustix::stdio::stdout())?)),
        };
        let output = output.map(OutputConfig::new);
        let irq = self.interrupt(COM1_IRQ)?;
        let room = Room::new().map_err(system("create an eventfd"))?;
        let signal = room.clone();
        let sender = match &output {
            Some(output) => output.sender(),
            None => Box::new(io::sink()),
        };
        let port = SerialPort::new(irq, Box::new(move || signal.signal()), sender);
        let port = Arc::new(Mutex::new(port));
        self.buses
            .pio
            .insert(u64::from(COM1_PORT), SERIAL_SIZE, port.clone())?;
        let input = match self.config.serial {
            SerialConfig::Null | SerialConfig::File { .. } => None,
            SerialConfig::Stdio => Some(InputConfig {
                source: duplicate(rustix::stdio::stdin())?,
                port: port.clone(),
                room,
                escape: terminal::is_terminal(),
                exit: self.exit.clone(),
            }),
        };
        Ok(ConsoleConfig {
            input,
            output: output.map(|output| (output, port)),
        })
    }

    /// Kernel, initrd, command line and tables into guest memory.
    fn load_kernel(&self) -> Result<Entry, BuildError> {
        let user = &self.config.cmdline;
        let console = self.config.serial != SerialConfig::Null;
        let (pci, mmio): (Vec<_>, Vec<_>) = self
            .config
            .transports()
            .into_iter()
            .partition(|transport| *transport == Transport::Pci);
        // Where the virtio-mmio devices will be.
        let slots: Vec<VirtioSlot> = (0..mmio.len()).map_while(layout::virtio_slot).collect();
        let platform = Platform {
            cpus: self.cpus(),
            virtio_mmio: &slots,
            pci: !pci.is_empty(),
        };
        // Never both: a device that is found twice would be driven twice.
        let (rsdp, described) = if cmdline::acpi_is_off(user) {
            (None, &slots[..])
        } else {
            (Some(acpi::write(&self.ram, platform)?), &[][..])
        };
        // Whatever the user says of ACPI: a kernel may also be told not to use it for interrupts only.
        mp_table::write(&self.ram, platform.cpus)?;
        let cmdline = Cmdline::new(user, console, described);
        let source = BootSource {
            kernel: &self.config.kernel,
            initrd: self.config.initrd.as_deref(),
            cmdline: &cmdline,
            rsdp,
            pci: platform.pci,
        };
        Ok(boot::load(&self.ram, &source)?)
    }

    fn cpus(&self) -> u8 {
        // `VmConfig::validate` allows fewer.
        u8::try_from(self.config.cpus).unwrap_or(u8::MAX)
    }

    /// vCPUs with their CPUID; the first one at the kernel's entry, the others waiting for it.
    fn add_vcpus(
        &self,
        entry: Entry,
        buses: &Arc<Buses>,
        halt: Option<&Arc<HaltWatch>>,
    ) -> Result<Vec<Vcpu>, BuildError> {
        let supported = self
            .kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(KvmError::call("tell the CPUID that it supports"))?;
        let tsc_deadline = self.kvm.check_extension(Cap::TscDeadlineTimer)
            && !cmdline::apic_timer_is_off(&self.config.cmdline);
        let cpus = self.cpus();
        let mut vcpus = Vec::new();
        for index in 0..cpus {
            let fd = self
                .vm
                .create_vcpu(u64::from(index))
                .map_err(KvmError::call("create a vCPU"))?;
            let topology = Topology {
                index,
                cpus,
                tsc_deadline,
            };
            let mut cpuid = cpuid::adapt(&supported, topology);
            cpuid::tell_frequencies(&mut cpuid, fd.get_tsc_khz().unwrap_or_default());
            fd.set_cpuid2(&cpuid)
                .map_err(KvmError::call("set a vCPU's CPUID"))?;
            registers::set_extended_state(&fd, &cpuid)?;
            registers::set_firmware_msrs(&fd)?;
            if index == 0 {
                registers::set(&fd, &self.ram, entry)?;
            }
            vcpus.push(Vcpu {
                index,
                fd,
                buses: buses.clone(),
                exit: self.exit.clone(),
                halt: halt.cloned(),
            });
        }
        Ok(vcpus)
    }

    fn finish(
        mut self,
        entry: Entry,
        console: ConsoleConfig,
        devices: VirtioDevices,
    ) -> Result<Vm, BuildError> {
        vcpu::install_kick_handler().map_err(system("install a signal handler"))?;
        let buses = Arc::new(std::mem::take(&mut self.buses));
        // Who has ACPI powers off by it, and what halts then may mean to.
        let halt = cmdline::acpi_is_off(&self.config.cmdline);
        let halt = halt.then(|| Arc::new(HaltWatch::new(self.cpus())));
        let vcpus = self.add_vcpus(entry, &buses, halt.as_ref())?;
        Ok(Vm {
            vcpus,
            console,
            exit: self.exit,
            stop: self.stop,
            signals: None,
            placement: self.placement,
            confine: self.config.confine,
            confinement: self.confinement,
            transports: devices.transports,
            networks: devices.networks,
            halt,
            _vm: self.vm,
            _ram: self.ram,
        })
    }
}

/// Our own descriptor of a standard stream, which can be closed.
fn duplicate(fd: std::os::fd::BorrowedFd<'_>) -> Result<OwnedFd, BuildError> {
    fd.try_clone_to_owned().map_err(system(
        "use standard input and output for the serial console",
    ))
}
