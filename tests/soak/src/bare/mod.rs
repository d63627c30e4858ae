//! The hostile bare guest, and a far end that sends its frames back.

mod reflector;
mod vm;

use std::{
    process::ExitStatus,
    sync::Arc,
    time::{Duration, Instant},
};

use ringwire_tests::Wire;

use crate::{
    end,
    problem::{Outcome, wrong},
    process::Ending,
    random::Random,
    resident::{Programs, Resident, Tally},
    setting::Setting,
    station::{PATIENCE, Station},
};

use reflector::Reflector;
use vm::Vm;

/// Frames that must come through after each event, in either direction.
const PROGRESS: u64 = 10;

/// Both.
#[derive(Debug)]
pub(crate) struct Bare {
    reflector: Reflector,
    vm: Vm,
}

impl Resident for Bare {
    const NAME: &'static str = "bare";
    const POWERS_OFF: bool = false;

    /// The reflector sends by its first one, whatever the near end opens.
    fn channels(setting: &Setting) -> u32 {
        setting.link.queues()
    }

    fn start(
        programs: &Programs,
        wire: &Arc<Wire>,
        setting: &Setting,
        random: &mut Random,
    ) -> Outcome<Self> {
        let reflector = Reflector::start(wire);
        let vm = Vm::start(programs, wire, setting, random.next())?;
        Ok(Self { reflector, vm })
    }

    fn id(&self) -> u32 {
        self.vm.id()
    }

    fn log(&self) -> String {
        self.vm.log()
    }

    fn check(&mut self) -> Outcome {
        if let Some(problem) = self.reflector.problem() {
            return wrong(problem);
        }
        self.vm.check()
    }

    fn tally(&self) -> Tally {
        Tally {
            entries: self.vm.entries(),
            frames: self.reflector.frames(),
            floods: self.reflector.flooded(),
            ..Tally::default()
        }
    }

    /// The guest never rests.
    fn begin(_: &mut Station<Self>, _: &mut Random, _: bool) -> Outcome {
        Ok(())
    }

    /// The far end takes and sends nothing for a while, or as much as it can.
    fn happen(station: &mut Station<Self>, random: &mut Random) -> Outcome<&'static str> {
        let pause = random.pause(50);
        if random.one_of([true, false]) {
            station.resident.reflector.pause(true);
            station.watch(pause)?;
            station.resident.reflector.pause(false);
            return Ok("Pause");
        }
        station.resident.reflector.flood(true);
        station.watch(pause)?;
        station.resident.reflector.flood(false);
        Ok("Flood")
    }

    fn settle(station: &mut Station<Self>, after: &str) -> Outcome {
        let wanted = station.resident.reflector.frames() + PROGRESS;
        let deadline = Instant::now() + PATIENCE;
        while station.resident.reflector.frames() < wanted {
            station.watch(Duration::from_millis(5))?;
            if Instant::now() > deadline {
                return wrong(format!("no frames come through after: {after}"));
            }
            if end::is_asked() {
                break;
            }
        }
        Ok(())
    }

    /// Each line that it said was judged.
    fn before_end(&mut self, _: Ending) -> Outcome {
        Ok(())
    }

    fn wait(&mut self) -> Outcome<(ExitStatus, String)> {
        let end = self.vm.wait()?;
        // The next one opens the far end's queue.
        self.reflector.stop();
        Ok(end)
    }
}
