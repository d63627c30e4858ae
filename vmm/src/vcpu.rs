//! vCPU threads: KVM_RUN, and register accesses of devices; nothing else.

use std::{
    any::Any,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use devices::{bus::Bus, pci::PciBus, placement::Placement};
use kvm_ioctls::{VcpuExit, VcpuFd};
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

use crate::{
    confine::{Confinement, ThreadKind},
    exit::{ExitReason, ExitRequest},
    x86_64::layout::PCI_APERTURE,
};

mod halt;
mod run_state;

pub(crate) use halt::HaltWatch;
use run_state::PortIo;

/// The address spaces that vCPUs reach devices through.
#[derive(Debug, Default)]
pub(crate) struct Buses {
    /// Port I/O.
    pub(crate) pio: Bus,
    /// Memory-mapped I/O.
    pub(crate) mmio: Bus,
    /// The BARs of PCI functions. Not a device of `mmio`, which would have one lock for all of them.
    pub(crate) pci: Option<Arc<PciBus>>,
}

impl Buses {
    fn read(&self, address: u64, data: &mut [u8]) {
        if !PCI_APERTURE.contains(&address) {
            return self.mmio.read(address, data);
        }
        data.fill(0);
        if !self.pci.as_ref().is_some_and(|pci| pci.read(address, data)) {
            // Nobody there.
            data.fill(0xff);
        }
    }

    fn write(&self, address: u64, data: &[u8]) {
        if !PCI_APERTURE.contains(&address) {
            self.mmio.write(address, data);
        } else if let Some(pci) = &self.pci {
            pci.write(address, data);
        }
    }
}

/// A vCPU that does not run yet.
#[derive(Debug)]
pub(crate) struct Vcpu {
    /// Its number and APIC ID.
    pub(crate) index: u8,
    /// KVM's handle.
    pub(crate) fd: VcpuFd,
    /// The devices.
    pub(crate) buses: Arc<Buses>,
    /// Where to say that the VM must stop.
    pub(crate) exit: ExitRequest,
    /// Where to say that it has stopped by itself, if anybody wants to know.
    pub(crate) halt: Option<Arc<HaltWatch>>,
}

/// A vCPU that waits for [`go`](Self::go), or runs; dropping it without [`stop`] leaves the thread to itself.
#[derive(Debug)]
pub(crate) struct VcpuThread {
    thread: JoinHandle<()>,
    go: Option<mpsc::Sender<()>>,
}

impl VcpuThread {
    /// Brings it out of KVM_RUN once, which it enters again.
    pub(crate) fn kick(&self) {
        // Fails only if it has just gone.
        let _ = self.thread.kill(kick_signal());
    }

    /// Lets it enter the guest.
    pub(crate) fn go(&mut self) {
        if let Some(go) = self.go.take() {
            // Fails only if it has ended.
            let _ = go.send(());
        }
    }
}

/// How long a kicked thread gets before the next kick.
const KICK_INTERVAL: Duration = Duration::from_millis(2);

/// The signal that brings a vCPU's thread, or the console's, out of KVM_RUN and any other system call.
pub(crate) fn kick_signal() -> i32 {
    SIGRTMIN()
}

extern "C" fn ignore(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

/// Installs the handler of the kick signal (SIGRTMIN), for the whole process: it does nothing, and
/// without SA_RESTART that is enough to end a system call with EINTR.
///
/// # Errors
/// The system refuses.
pub(crate) fn install_kick_handler() -> io::Result<()> {
    register_signal_handler(kick_signal(), ignore).map_err(io::Error::from)
}

impl Vcpu {
    /// Starts its thread, `vcpuN`, confined. When it is let [go](VcpuThread::go) it runs until `stop` is set
    /// and it is kicked, or until it asks for the end of the VM.
    ///
    /// # Errors
    /// The system has no thread left.
    pub(crate) fn start(
        self,
        stop: Arc<AtomicBool>,
        placement: &Placement,
        confinement: &Arc<Confinement>,
    ) -> io::Result<VcpuThread> {
        let name = format!("vcpu{}", self.index);
        let (placement, confinement) = (placement.clone(), Arc::clone(confinement));
        let (go, wait) = mpsc::channel();
        let thread = thread::Builder::new().name(name.clone()).spawn(move || {
            placement.enter(&name);
            if let Err(error) = confinement.enter(ThreadKind::Vcpu, &name) {
                self.exit.request(ExitReason::not_confined(&error));
                return;
            }
            if wait.recv().is_ok() {
                self.run_guarded(&stop);
            }
        })?;
        let go = Some(go);
        Ok(VcpuThread { thread, go })
    }

    fn run_guarded(mut self, stop: &AtomicBool) {
        let (index, exit) = (self.index, self.exit.clone());
        let run = AssertUnwindSafe(|| self.run(stop));
        if let Err(panic) = catch_unwind(run) {
            let what = panic_message(panic.as_ref());
            let sentence =
                format!("the thread of vCPU {index} panicked, a bug in ringwire: {what}");
            exit.request(ExitReason::Host(sentence));
        }
    }

    fn run(&mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Acquire) {
            // Panics, if a test wants it.
            #[cfg(debug_assertions)]
            let _ = devices::sabotage::turn();
            if let Some(reason) = self.step() {
                self.exit.request(reason);
                // Others must still see `stop`; this one has nothing more to run.
                return;
            }
        }
    }

    /// Enters the guest once and serves what it came out for.
    fn step(&mut self) -> Option<ExitReason> {
        let vcpu = self.index;
        match self.fd.run() {
            Ok(VcpuExit::MmioRead(address, data)) => self.buses.read(address, data),
            Ok(VcpuExit::MmioWrite(address, data)) => self.buses.write(address, data),
            Ok(VcpuExit::IoIn(..) | VcpuExit::IoOut(..)) => self.port_io(),
            // Interrupted, or a wake-up of a vCPU that still waits for its start (EAGAIN).
            Ok(VcpuExit::Intr) => self.look(),
            Err(e) if matches!(e.errno(), libc::EINTR | libc::EAGAIN) => self.look(),
            Ok(VcpuExit::Shutdown) => return Some(ExitReason::TripleFault { vcpu }),
            Ok(VcpuExit::InternalError) => {
                if run_state::no_event_was_lost(&mut self.fd) {
                    return None;
                }
                let what = run_state::internal_error(&mut self.fd);
                return Some(ExitReason::Kvm { vcpu, what });
            }
            Ok(VcpuExit::FailEntry(reason, cpu)) => {
                let what = format!(
                    "the CPU refused to enter the guest (reason {reason:#x}, host CPU {cpu})"
                );
                return Some(ExitReason::Kvm { vcpu, what });
            }
            Ok(other) => {
                let what = format!("it left the guest for an unknown reason ({other:?})");
                return Some(ExitReason::Kvm { vcpu, what });
            }
            Err(e) => {
                let what = format!("KVM_RUN failed: {}", io::Error::from(e));
                return Some(ExitReason::Kvm { vcpu, what });
            }
        }
        None
    }

    /// It was kicked.
    fn look(&self) {
        if let Some(watch) = &self.halt {
            watch.look(self.index, &self.fd);
        }
    }

    /// Port I/O, also of string instructions: that many accesses of the given size to one port.
    fn port_io(&mut self) {
        let Some(PortIo {
            port,
            size,
            write,
            data,
        }) = run_state::port_io(&mut self.fd)
        else {
            return;
        };
        for access in data.chunks_mut(size.max(1)) {
            if write {
                self.buses.pio.write(u64::from(port), access);
            } else {
                self.buses.pio.read(u64::from(port), access);
            }
        }
    }
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

/// Stops all threads and waits for them. Kicks are repeated until a thread has gone: one that
/// arrives between the check of `stop` and KVM_RUN has no effect.
pub(crate) fn stop(threads: Vec<VcpuThread>, stop: &AtomicBool) {
    stop.store(true, Ordering::Release);
    let mut running = threads;
    // Those that still wait to begin.
    running.iter_mut().for_each(|vcpu| vcpu.go = None);
    while !running.is_empty() {
        running.retain(|vcpu| !vcpu.thread.is_finished());
        running.iter().for_each(VcpuThread::kick);
        if !running.is_empty() {
            thread::sleep(KICK_INTERVAL);
        }
    }
}
