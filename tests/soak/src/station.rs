//! A wire with a VM at its near end, and what befalls them.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use ringwire_tests::Wire;
use rustix::process::Signal;

use crate::{
    costs::Costs,
    end,
    problem::{Outcome, wrong},
    process::{self, Ending, judge_end},
    random::Random,
    resident::{Programs, Resident, Tally},
    setting::Setting,
};

/// Longer than anything takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// How often costs are looked at.
const SAMPLE: Duration = Duration::from_millis(50);

/// The whole.
#[derive(Debug)]
pub(crate) struct Station<R> {
    programs: Programs,
    pub(crate) wire: Arc<Wire>,
    pub(crate) setting: Setting,
    pub(crate) resident: R,
    /// Of those that were here before.
    before: Tally,
    /// VMs whose UMEM frames were all accounted for at their end, and those that were killed.
    pub(crate) exact: u64,
    pub(crate) killed: u64,
    /// What the VM costs.
    pub(crate) costs: Costs,
}

impl<R: Resident> Station<R> {
    /// Makes the wire and starts both ends.
    pub(crate) fn start(
        programs: &Programs,
        setting: Setting,
        random: &mut Random,
    ) -> Outcome<Self> {
        let wire = setting.link.lay();
        let resident = R::start(programs, &wire, &setting, random)?;
        Ok(Self {
            programs: programs.clone(),
            wire,
            setting,
            resident,
            before: Tally::default(),
            exact: 0,
            killed: 0,
            costs: Costs::default(),
        })
    }

    /// What came through since the start.
    pub(crate) fn tally(&self) -> Tally {
        let mut tally = self.before;
        tally += self.resident.tally();
        tally
    }

    /// Lets time go by, and looks at what the VM costs; less of it if all is to end.
    pub(crate) fn watch(&mut self, time: Duration) -> Outcome {
        let end = Instant::now() + time;
        loop {
            self.resident.check()?;
            if let Some(cost) = process::cost(self.resident.id()) {
                self.costs.see(cost);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || end::is_asked() {
                return Ok(());
            }
            thread::sleep(left.min(SAMPLE));
        }
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

    /// Sends a signal to the VM.
    pub(crate) fn signal(&self, signal: Signal) -> Outcome {
        process::signal(self.resident.id(), signal)
    }

    /// Another VM takes the place of this one; `between` has the wire meanwhile, and may do with it what it wants.
    pub(crate) fn replace(
        &mut self,
        ending: Ending,
        random: &mut Random,
        between: impl FnOnce(&mut Self) -> Outcome,
    ) -> Outcome {
        between(self)?;
        // The interface must be free: the old one has to be gone before the new one starts.
        self.end(ending)?;
        self.before += self.resident.tally();
        self.setting = Setting::random(random, self.setting.link, self.programs.metadata);
        self.resident = R::start(&self.programs, &self.wire, &self.setting, random)?;
        self.costs.restart();
        Ok(())
    }

    /// Ends it; all must add up.
    pub(crate) fn end(&mut self, ending: Ending) -> Outcome {
        self.resident.check()?;
        self.resident.before_end(ending)?;
        match ending {
            Ending::Terminate => self.signal(Signal::TERM)?,
            Ending::Kill => self.signal(Signal::KILL)?,
            Ending::PowerOff => {}
        }
        let (status, log) = self.resident.wait()?;
        judge_end(ending, status, &log, self.setting.frames)?;
        if ending == Ending::Kill {
            self.killed += 1;
        } else {
            self.exact += 1;
        }
        if self.wire.has_program() {
            return wrong(format!(
                "a program is left on the interface after {ending:?}"
            ));
        }
        Ok(())
    }
}
