//! A machine that runs: the control loop and the end.

use std::{
    io,
    os::fd::AsRawFd,
    sync::{Arc, atomic::AtomicBool},
};

use devices::GuestRam;
use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};
use kvm_ioctls::VmFd;

use crate::{
    builder::{self, BuildError},
    config::VmConfig,
    console::{Input, InputConfig},
    exit::{ExitReason, ExitRequest},
    signals::Signals,
    terminal::RawMode,
    vcpu::{self, Vcpu, VcpuThread},
};

/// A virtual machine, built and loaded, not running yet.
///
/// [`run`](Self::run) is the whole of its life; what it holds of the host (interfaces, files,
/// memory, the terminal's mode) is given back when it returns or when the VM is dropped.
#[derive(Debug)]
pub struct Vm {
    pub(crate) vcpus: Vec<Vcpu>,
    pub(crate) input: Option<InputConfig>,
    pub(crate) exit: ExitRequest,
    /// Set when everything has to come to its end.
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) signals: Option<Signals>,
    // Last, so that KVM's VM and the memory go after everything that uses them.
    pub(crate) _vm: VmFd,
    pub(crate) _ram: GuestRam,
}

/// How a VM ended.
#[derive(Debug, Clone)]
pub struct ExitReport {
    /// Why.
    pub reason: ExitReason,
}

/// Ends a VM from another thread.
#[derive(Debug, Clone)]
pub struct StopHandle(ExitRequest);

impl StopHandle {
    /// Makes [`Vm::run`] return `reason`, unless it already has another.
    pub fn stop(&self, reason: ExitReason) {
        self.0.request(reason);
    }
}

impl Vm {
    /// Builds the machine that `config` describes and loads its kernel.
    ///
    /// # Errors
    /// What is wrong with the configuration, or what the host refused; nothing is left behind.
    pub fn new(config: &VmConfig) -> Result<Self, BuildError> {
        builder::build(config)
    }

    /// Makes the VM end on the signals that `signals` delivers.
    pub fn end_on(&mut self, signals: Signals) {
        self.signals = Some(signals);
    }

    /// For ending it from another thread.
    pub fn stop_handle(&self) -> StopHandle {
        StopHandle(self.exit.clone())
    }

    /// Runs the guest until it ends, or is ended. The calling thread is the control loop.
    pub fn run(mut self) -> ExitReport {
        let mut threads = Vec::new();
        let outcome = self.run_threads(&mut threads);
        if let Err(error) = outcome {
            self.exit.request(ExitReason::Host(error));
        }
        vcpu::stop(threads, &self.stop);
        let reason = self.exit.reason().cloned();
        ExitReport {
            reason: reason.unwrap_or_else(|| ExitReason::Host("the VM ended by itself".to_owned())),
        }
    }

    /// Starts what runs and serves events until the end is asked for. `threads` gets the vCPUs
    /// also when this fails half-way.
    fn run_threads(&mut self, threads: &mut Vec<VcpuThread>) -> Result<(), String> {
        let failed =
            |what: &str, error: &dyn std::fmt::Display| format!("could not {what}: {error}");
        let raw = self.enter_raw_mode();
        let input = self.input.take().map(Input::start).transpose();
        let _input = input.map_err(|e| failed("start the console's thread", &e))?;
        let control = Control {
            exit: self.exit.clone(),
            signals: self.signals.take(),
            raw,
        };
        let mut events = EventManager::new().map_err(|e| failed("create the event loop", &e))?;
        events.add_subscriber(control);
        for vcpu in std::mem::take(&mut self.vcpus) {
            let thread = vcpu.start(self.stop.clone());
            threads.push(thread.map_err(|e| failed("start a vCPU's thread", &e))?);
        }
        while self.exit.reason().is_none() {
            match events.run() {
                Ok(_) => {}
                Err(event_manager::Error::Epoll(e)) if e.errno() == libc::EINTR => {}
                Err(e) => return Err(failed("wait for events", &e)),
            }
        }
        // The console stops with the vCPUs' threads still running: a vCPU that waits for a slow
        // output sees the flag.
        self.stop.store(true, std::sync::atomic::Ordering::Release);
        Ok(())
    }

    /// Raw mode, if a person is at the console.
    fn enter_raw_mode(&self) -> Option<RawMode> {
        if !self.input.as_ref().is_some_and(|input| input.escape) {
            return None;
        }
        let raw = RawMode::enter().map_err(io::Error::from);
        raw.inspect_err(|e| tracing::warn!("the terminal stays in its mode: {e}"))
            .ok()
    }
}

/// What the main thread listens to.
#[derive(Debug)]
struct Control {
    exit: ExitRequest,
    signals: Option<Signals>,
    raw: Option<RawMode>,
}

impl Control {
    fn take_signals(&self, signals: &Signals) {
        while let Some(number) = signals.next() {
            match (number, &self.raw) {
                (libc::SIGCONT, Some(raw)) => raw.renew(),
                (libc::SIGCONT, None) => {}
                (number, _) => self.exit.request(ExitReason::Signal(number)),
            }
        }
    }

    fn listen(&self, ops: &mut EventOps<'_>, fd: &impl AsRawFd) {
        if let Err(e) = ops.add(Events::new(fd, EventSet::IN)) {
            let sentence = format!("could not listen for events: {e}");
            self.exit.request(ExitReason::Host(sentence));
        }
    }
}

impl MutEventSubscriber for Control {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        self.listen(ops, &self.exit);
        if let Some(signals) = &self.signals {
            self.listen(ops, signals);
        }
    }

    fn process(&mut self, events: Events, _ops: &mut EventOps<'_>) {
        // The end itself needs no reading: the loop looks at the reason.
        if let Some(signals) = &self.signals
            && events.fd() == signals.as_raw_fd()
        {
            self.take_signals(signals);
        }
    }
}
