//! A wire with a VM at its near end and a reflector at its far end.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use ringwire_tests::Wire;
use rustix::process::Signal;

use crate::{
    problem::{Outcome, wrong},
    random::Random,
    reflector::Reflector,
    table::Costs,
    vm::{PATIENCE, Programs, Vm},
};

/// Queues of both interfaces; a netdev has one or two.
pub(crate) const QUEUES: u32 = 3;

/// Frames that must come through after each event, in either direction.
const PROGRESS: u64 = 10;

/// How often costs are looked at.
const SAMPLE: Duration = Duration::from_millis(50);

/// The whole.
#[derive(Debug)]
pub(crate) struct Station {
    programs: Programs,
    pub(crate) wire: Arc<Wire>,
    pub(crate) reflector: Reflector,
    pub(crate) vm: Vm,
    /// Of what there was before: frames, entries, frames of floods.
    before: [u64; 3],
    /// VMs whose UMEM frames were all accounted for at their end, and those that were killed.
    pub(crate) exact: u64,
    pub(crate) killed: u64,
    /// What the VM costs.
    pub(crate) costs: Costs,
}

impl Station {
    /// Makes the wire and starts both ends.
    pub(crate) fn start(programs: &Programs, options: &str, seed: u64) -> Outcome<Self> {
        let wire = Arc::new(Wire::with_queues(QUEUES));
        let reflector = Reflector::start(&wire);
        let vm = Vm::start(programs, &wire, options, seed)?;
        Ok(Self {
            programs: programs.clone(),
            wire,
            reflector,
            vm,
            before: [0; 3],
            exact: 0,
            killed: 0,
            costs: Costs::default(),
        })
    }

    /// Frames that came right at the far end, entries that guests did, and frames of floods.
    pub(crate) fn totals(&self) -> [u64; 3] {
        let now = [
            self.reflector.frames(),
            self.vm.entries(),
            self.reflector.flooded(),
        ];
        std::array::from_fn(|i| self.before[i] + now[i])
    }

    /// Whether all is as it must be.
    pub(crate) fn check(&mut self) -> Outcome {
        if let Some(problem) = self.reflector.problem() {
            return wrong(problem);
        }
        self.vm.check()
    }

    /// Lets time go by, and looks at what the VM costs.
    pub(crate) fn watch(&mut self, time: Duration) -> Outcome {
        let end = Instant::now() + time;
        loop {
            self.check()?;
            if let Some(cost) = self.vm.cost() {
                self.costs.see(cost);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(SAMPLE));
        }
    }

    /// Waits until frames come through again.
    pub(crate) fn await_frames(&mut self, after: &str) -> Outcome {
        let wanted = self.reflector.frames() + PROGRESS;
        let deadline = Instant::now() + PATIENCE;
        while self.reflector.frames() < wanted {
            self.watch(SAMPLE / 10)?;
            if Instant::now() > deadline {
                return wrong(format!("no frames come through after: {after}"));
            }
        }
        Ok(())
    }

    /// Runs a tool on the near end's interface; whether it succeeded, as the kernel may refuse what is tried.
    pub(crate) fn near(&self, words: &str) -> bool {
        let mut words = words.split_whitespace();
        let tool = words.next().unwrap_or_default();
        let output = self.wire.vmm_command(tool.as_ref()).args(words).output();
        output.is_ok_and(|it| it.status.success())
    }

    /// The same at the far end.
    pub(crate) fn far(&self, words: &str) -> bool {
        let mut words = words.split_whitespace();
        let tool = words.next().unwrap_or_default();
        let output = self.wire.peer_command(tool.as_ref()).args(words).output();
        output.is_ok_and(|it| it.status.success())
    }

    /// Another VM takes the place of this one, which ends by `signal`; `between` has the wire meanwhile, and may do with it
    /// what it wants.
    pub(crate) fn replace(
        &mut self,
        signal: Signal,
        random: &mut Random,
        between: impl FnOnce(&mut Self) -> Outcome,
    ) -> Outcome {
        between(self)?;
        let entries = self.vm.entries();
        let options = options(random);
        // The interface must be free: the old one has to be gone before the new one starts.
        self.vm.signal(signal)?;
        self.vm.check_end(signal)?;
        if signal == Signal::KILL {
            self.killed += 1;
        } else {
            self.exact += 1;
        }
        if self.wire.has_program() {
            return wrong(format!(
                "a program is left on the interface after {signal:?}"
            ));
        }
        self.vm = Vm::start(&self.programs, &self.wire, &options, random.next())?;
        self.before[1] += entries;
        self.costs.restart();
        Ok(())
    }

    /// Another reflector takes the place of this one, whose interface may be gone.
    pub(crate) fn renew_reflector(&mut self) {
        let counts = [self.reflector.frames(), 0, self.reflector.flooded()];
        for (sum, count) in self.before.iter_mut().zip(counts) {
            *sum += count;
        }
        self.reflector = Reflector::start(&self.wire);
    }

    /// Ends it; all must add up.
    pub(crate) fn end(&mut self) -> Outcome {
        self.check()?;
        self.vm.signal(Signal::TERM)?;
        self.vm.check_end(Signal::TERM)?;
        self.exact += 1;
        Ok(())
    }
}

/// What a netdev may be like.
fn options(random: &mut Random) -> String {
    let queues = random.one_of(["", ",queues=2"]);
    let mode = random.one_of(["", ",mode=native", ",mode=skb"]);
    let copy = random.one_of(["", ",zero-copy-tx=on", ",force-copy=on", ",frames=512"]);
    format!("{queues}{mode}{copy}")
}
