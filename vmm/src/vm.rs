//! A machine that runs: the control loop and the end.

use std::{
    fmt::Display,
    io,
    os::fd::{AsRawFd, RawFd},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
    time::{Duration, Instant},
};

use devices::{
    GuestRam,
    placement::Placement,
    virtio::{mmio::MmioTransport, pci::PciTransport},
};
use event_manager::{
    EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberId, SubscriberOps,
};
use kvm_ioctls::VmFd;

use crate::{
    builder::{self, BuildError},
    config::VmConfig,
    confine::{ConfineConfig, ConfineError, Confinement, ThreadKind},
    console::{ConsoleConfig, Input, Output},
    exit::{ExitReason, ExitRequest},
    network::{NetdevReport, Network},
    signals::Signals,
    terminal::RawMode,
    vcpu::{self, HaltWatch, Vcpu, VcpuThread},
};

/// The target of log lines with counters that SIGUSR1 asks for: level INFO, to be shown always.
pub const COUNTERS: &str = "ringwire::counters";

/// How often the XDP programs are looked at, as not everything that befalls them is announced, and a guest without ACPI,
/// as its end is not.
const LOOK_ROUND: Duration = Duration::from_secs(5);

/// How long the console's reader may take for what is left after a signal.
const URGENT_END: Duration = Duration::from_millis(500);

/// A virtual machine, built and loaded, not running yet.
///
/// [`run`](Self::run) is the whole of its life; what it holds of the host (interfaces, files,
/// memory, the terminal's mode) is given back when it returns or when the VM is dropped.
#[derive(Debug)]
pub struct Vm {
    pub(crate) vcpus: Vec<Vcpu>,
    pub(crate) console: ConsoleConfig,
    pub(crate) exit: ExitRequest,
    /// Set when everything has to come to its end.
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) signals: Option<Signals>,
    /// Where the threads run.
    pub(crate) placement: Placement,
    /// What they and the process may do, if that is limited.
    pub(crate) confine: Option<ConfineConfig>,
    pub(crate) confinement: Arc<Confinement>,
    /// The virtio devices' registers, for the reset at the end.
    pub(crate) transports: Vec<Registers>,
    pub(crate) networks: Vec<Network>,
    /// Whether the guest has halted for good, where that is its way to power off.
    pub(crate) halt: Option<Arc<HaltWatch>>,
    // Last, so that KVM's VM and the memory go after everything that uses them.
    pub(crate) _vm: Arc<VmFd>,
    pub(crate) _ram: GuestRam,
}

/// A virtio device's registers, on either transport.
#[derive(Debug)]
pub(crate) enum Registers {
    /// An MMIO window.
    Mmio(Arc<Mutex<MmioTransport>>),
    /// A PCI function.
    Pci(Arc<Mutex<PciTransport>>),
}

impl Registers {
    /// Stops the device: nothing of it touches guest memory afterwards.
    fn reset(&self) {
        match self {
            Self::Mmio(window) => lock(window).reset(),
            Self::Pci(function) => lock(function).reset(),
        }
    }
}

/// A panic of another thread ends the VM, and that needs the devices.
fn lock<T>(device: &Mutex<T>) -> MutexGuard<'_, T> {
    device.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How a VM ended.
#[derive(Debug, Clone)]
pub struct ExitReport {
    /// Why.
    pub reason: ExitReason,
    /// What each network card did, in the configuration's order.
    pub netdevs: Vec<NetdevReport>,
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

/// What was started.
#[derive(Debug, Default)]
struct Running {
    vcpus: Vec<VcpuThread>,
    input: Option<Input>,
    output: Option<Output>,
}

fn failed(what: &str, error: &dyn Display) -> String {
    format!("could not {what}: {error}")
}

impl Vm {
    /// Builds the machine that `config` describes and loads its kernel.
    ///
    /// # Errors
    /// What is wrong with the configuration, or what the host refused; nothing is left behind.
    pub fn new(config: &VmConfig) -> Result<Self, BuildError> {
        builder::build(config)
    }

    /// Makes the VM end on the signals that `signals` delivers, except SIGCONT, SIGUSR1, on which it
    /// logs the counters of its network cards ([`COUNTERS`]), and SIGUSR2, on which it asks the guest
    /// to announce these on the wire.
    pub fn end_on(&mut self, signals: Signals) {
        self.signals = Some(signals);
    }

    /// For ending it from another thread.
    pub fn stop_handle(&self) -> StopHandle {
        StopHandle(self.exit.clone())
    }

    /// Runs the guest until it ends, or is ended. The calling thread is the control loop.
    pub fn run(mut self) -> ExitReport {
        let mut running = Running::default();
        // Also after a panic the guest is stopped before its memory goes. What was half done then is only dropped.
        let threads = catch_unwind(AssertUnwindSafe(|| self.run_threads(&mut running)));
        let outcome = threads.unwrap_or_else(|panic| {
            let what = vcpu::panic_message(panic.as_ref());
            Err(format!(
                "the control loop panicked, a bug in ringwire: {what}"
            ))
        });
        if let Err(sentence) = outcome {
            self.exit.request(ExitReason::Host(sentence));
        }
        if let Some(output) = &running.output {
            output.hurry();
        }
        vcpu::stop(running.vcpus, &self.stop);
        // After the vCPUs: whatever they sent is to be seen.
        drop(running.input);
        if let Some(output) = running.output {
            self.finish_output(output);
        }
        self.reset_devices();
        self.confinement.end();
        let netdevs = self.networks.iter().map(Network::report).collect();
        let reason = self.exit.reason().cloned();
        ExitReport {
            reason: reason.unwrap_or_else(|| ExitReason::Host("the VM ended by itself".to_owned())),
            netdevs,
        }
    }

    /// Starts what runs and serves events until the end is asked for. `running` gets what was
    /// started, also when this fails half-way.
    fn run_threads(&mut self, running: &mut Running) -> Result<(), String> {
        self.placement.enter("main");
        let raw = self.enter_raw_mode();
        self.begin_confinement()?;
        self.start_console(running)
            .map_err(|e| failed("start the console's threads", &e))?;
        let mut events = EventManager::new().map_err(|e| failed("create the event loop", &e))?;
        // For ever, if there is nothing to check.
        let patience = if self.networks.is_empty() && self.halt.is_none() {
            -1
        } else {
            i32::try_from(LOOK_ROUND.as_millis()).unwrap_or(i32::MAX)
        };
        let id = events.add_subscriber(Control {
            exit: self.exit.clone(),
            signals: self.signals.take(),
            raw,
            networks: std::mem::take(&mut self.networks),
        });
        let outcome = self
            .start_vcpus(&mut running.vcpus)
            .and_then(|()| self.serve(&mut events, id, patience, &running.vcpus));
        if let Ok(control) = events.remove_subscriber(id) {
            self.networks = control.networks;
            // A second signal must not end the process in the middle of its clean-up.
            self.signals = control.signals;
        }
        outcome
    }

    fn start_console(&mut self, running: &mut Running) -> io::Result<()> {
        if let Some(config) = self.console.input.take() {
            let input = Input::start(config, &self.placement, &self.confinement)?;
            running.input = Some(input);
        }
        if let Some((config, port)) = self.console.output.take() {
            let exit = self.exit.clone();
            let output = config.start(port, exit, &self.placement, &self.confinement)?;
            running.output = Some(output);
        }
        Ok(())
    }

    /// Lets the reader of the console take what is left, unless somebody wants the end at once.
    fn finish_output(&self, output: Output) {
        let started = Instant::now();
        let mut urgent = matches!(self.exit.reason(), Some(ExitReason::Signal(_)));
        output.finish(|| {
            let signal = self.signals.as_ref().and_then(Signals::next);
            urgent |= signal.is_some_and(Signals::ends);
            !urgent || started.elapsed() < URGENT_END
        });
    }

    fn start_vcpus(&mut self, threads: &mut Vec<VcpuThread>) -> Result<(), String> {
        for vcpu in std::mem::take(&mut self.vcpus) {
            let thread = vcpu.start(self.stop.clone(), &self.placement, &self.confinement);
            threads.push(thread.map_err(|e| failed("start a vCPU's thread", &e))?);
        }
        // The last one, as it starts no further threads. All are confined before the guest runs.
        let confined = self.confinement.enter(ThreadKind::Main, "main");
        confined.map_err(|e| self.not_confined(&e))?;
        threads.iter_mut().for_each(VcpuThread::go);
        Ok(())
    }

    fn begin_confinement(&self) -> Result<(), String> {
        let Some(config) = self.confine else {
            return Ok(());
        };
        let begun = self.confinement.begin(config);
        let what = begun.map_err(|e| self.not_confined(&e))?;
        tracing::info!("confined: {what}");
        Ok(())
    }

    fn not_confined(&self, error: &ConfineError) -> String {
        let reason = ExitReason::not_confined(error);
        let sentence = reason.to_string();
        self.exit.request(reason);
        sentence
    }

    /// Handles events until somebody asks for the end. `patience`: how long to sleep at most, in
    /// milliseconds, or -1.
    fn serve(
        &self,
        events: &mut EventManager<Control>,
        control: SubscriberId,
        patience: i32,
        vcpus: &[VcpuThread],
    ) -> Result<(), String> {
        let mut checked = Instant::now();
        while self.exit.reason().is_none() {
            // Panics, if a test wants it.
            #[cfg(debug_assertions)]
            let _ = devices::sabotage::turn();
            match events.run_with_timeout(patience) {
                Ok(_) => {}
                Err(event_manager::Error::Epoll(e)) if e.errno() == libc::EINTR => {}
                Err(e) => return Err(failed("wait for events", &e)),
            }
            if checked.elapsed() >= LOOK_ROUND {
                checked = Instant::now();
                if let Ok(control) = events.subscriber_mut(control) {
                    control.check_programs();
                }
                self.check_halt(vcpus);
            }
        }
        Ok(())
    }

    fn check_halt(&self, vcpus: &[VcpuThread]) {
        let Some(halt) = &self.halt else { return };
        if halt.has_stopped() {
            self.exit.request(ExitReason::Halted);
        }
        vcpus.iter().for_each(VcpuThread::kick);
    }

    /// Raw mode, if a person is at the console.
    fn enter_raw_mode(&self) -> Option<RawMode> {
        let input = self.console.input.as_ref();
        if !input.is_some_and(|input| input.escape) {
            return None;
        }
        let raw = RawMode::enter().map_err(io::Error::from);
        raw.inspect_err(|e| tracing::warn!("the terminal stays in its mode: {e}"))
            .ok()
    }

    /// Ends the devices' threads. No vCPU runs any more, so nobody holds the locks.
    fn reset_devices(&self) {
        for transport in &self.transports {
            transport.reset();
        }
    }
}

/// What the main thread listens to.
#[derive(Debug)]
struct Control {
    exit: ExitRequest,
    signals: Option<Signals>,
    raw: Option<RawMode>,
    networks: Vec<Network>,
}

impl Control {
    fn take_signals(&self, signals: &Signals) {
        while let Some(number) = signals.next() {
            match (number, &self.raw) {
                (libc::SIGCONT, Some(raw)) => raw.renew(),
                (libc::SIGCONT, None) => {}
                (libc::SIGUSR1, _) => self.log_counters(),
                (libc::SIGUSR2, _) => self.networks.iter().for_each(Network::announce),
                (number, _) => self.exit.request(ExitReason::Signal(number)),
            }
        }
    }

    /// Somebody asked for it, so it is logged whatever the level.
    fn log_counters(&self) {
        for network in &self.networks {
            for line in network.live_report().lines() {
                tracing::info!(target: COUNTERS, "{line}");
            }
        }
    }

    fn check_programs(&mut self) {
        for network in &mut self.networks {
            network.check_program();
        }
    }

    fn watch_links(&mut self, fd: RawFd, ops: &mut EventOps<'_>) {
        let mut networks = self.networks.iter_mut();
        let Some(network) = networks.find(|network| network.link_fd() == Some(fd)) else {
            return;
        };
        if !network.watch() {
            // Its descriptor is closed, and so out of epoll; only the bookkeeping may complain.
            let _ = ops.remove(Events::empty_raw(fd));
        }
    }

    fn listen(&self, ops: &mut EventOps<'_>, fd: RawFd) {
        if let Err(e) = ops.add(Events::new_raw(fd, EventSet::IN)) {
            let sentence = failed("listen for events", &e);
            self.exit.request(ExitReason::Host(sentence));
        }
    }
}

impl MutEventSubscriber for Control {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        self.listen(ops, self.exit.as_raw_fd());
        if let Some(signals) = &self.signals {
            self.listen(ops, signals.as_raw_fd());
        }
        for fd in self.networks.iter().filter_map(Network::link_fd) {
            self.listen(ops, fd);
        }
    }

    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        // The end itself needs no reading: the loop looks at the reason.
        match &self.signals {
            Some(signals) if signals.as_raw_fd() == events.fd() => self.take_signals(signals),
            _ => self.watch_links(events.fd(), ops),
        }
    }
}
