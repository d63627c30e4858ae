//! What a virtual machine costs before a frame has moved: time to its first instruction, memory, CPU when idle.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use ringwire_tests::{TempDir, Wire};

use crate::{
    cli::GuestArgs,
    contestant::{Running, Vmm},
    cpu,
    error::BenchError,
    report::{Columns, Report},
    rounds::{self, Plan, Sample, Unit},
    suite, tiny,
};

/// Until a guest speaks.
const START: Duration = Duration::from_secs(20);
/// How long an idle guest is watched.
const IDLE: Duration = Duration::from_secs(20);
/// Rounds of that, at most.
const IDLE_ROUNDS: u32 = 2;
/// From the start of a guest until it is idle, and all that starting allocates is allocated.
const SETTLE: Duration = Duration::from_millis(500);

/// `ringwire-bench footprint`.
pub(crate) fn run(args: &GuestArgs) -> Result<(), BenchError> {
    let vmms = suite::vmms(args);
    let names: Vec<_> = vmms.iter().map(|it| it.name().to_owned()).collect();
    let directory = TempDir::new();
    let tiny = directory.path().join("tiny");
    fs::write(&tiny, tiny::kernel()).map_err(BenchError::system("writing a kernel"))?;
    let mut report = Report::begin(
        &args.name,
        "A virtual machine with one AF_XDP card: start, memory, idle CPU",
        Columns::Program,
        &args.suite.command,
        &args.suite.out,
    );
    let all = [
        (
            "process start to first guest instruction",
            MILLISECONDS,
            args.suite.rounds,
        ),
        (
            "memory besides guest RAM and frames",
            MIB,
            args.suite.rounds.min(3),
        ),
        (
            "CPU of all but the vCPU, 20 s of an idle card",
            PERCENT,
            args.suite.rounds.min(IDLE_ROUNDS),
        ),
    ];
    for (case, unit, rounds) in all {
        if !suite::is_wanted(&args.suite.only, case, &all.map(|it| it.0)) {
            continue;
        }
        let plan = Plan {
            rounds,
            ..args.suite.plan(all.len())
        };
        let outcome = rounds::alternate(case.to_owned(), unit, &names, plan, |index| {
            let vmm = vmms
                .get(index)
                .ok_or_else(|| BenchError::Nothing("no such contestant".into()))?;
            let wire = Wire::new();
            let machine = Machine {
                wire: &wire,
                vmm,
                case,
            };
            let value = match unit {
                MILLISECONDS => machine.start(&tiny),
                MIB => machine.memory(&tiny),
                _ => machine.idle(&args.guest),
            };
            value.map(Sample::of)
        });
        report.add(outcome);
    }
    report.finish()
}

const MILLISECONDS: Unit = Unit {
    name: "ms",
    less: true,
};
const MIB: Unit = Unit {
    name: "MiB",
    less: true,
};
const PERCENT: Unit = Unit {
    name: "%",
    less: true,
};

struct Machine<'a> {
    wire: &'a Wire,
    vmm: &'a Vmm,
    case: &'a str,
}

impl Machine<'_> {
    /// Milliseconds from before the process exists to the first byte that the guest writes, with its first instructions.
    fn start(&self, kernel: &Path) -> Result<f64, BenchError> {
        let start = Instant::now();
        let mut running = self.boot(kernel, "")?;
        let spoke = self.wait_for(&mut running, &tiny::SAYS.to_string())?;
        Ok((spoke - start).as_secs_f64() * 1e3)
    }

    /// MiB that are resident, without guest RAM (which is shared memory) and the frames of the card.
    fn memory(&self, kernel: &Path) -> Result<f64, BenchError> {
        let mut running = self.boot(kernel, "")?;
        self.wait_for(&mut running, &tiny::SAYS.to_string())?;
        thread::sleep(SETTLE);
        let status = format!("/proc/{}/status", running.id());
        let text =
            fs::read_to_string(&status).map_err(BenchError::system(format!("reading {status}")))?;
        let own: f64 = ["RssAnon:", "RssFile:"]
            .iter()
            .filter_map(|it| kib(&text, it))
            .sum();
        Ok(own / 1024.0 - self.vmm.frame_memory())
    }

    /// Per cent of a CPU that all threads but the vCPU's use while the card is driven and nothing moves.
    fn idle(&self, guest: &Path) -> Result<f64, BenchError> {
        let patience = (IDLE + START).as_secs();
        let words = format!("mode=rx packets=1000000 patience={patience}");
        let mut running = self.boot(guest, &words)?;
        self.wait_for(&mut running, "ready")?;
        thread::sleep(SETTLE * 4);
        let (before, start) = (self.used(&running), Instant::now());
        thread::sleep(IDLE);
        let used = self.used(&running).saturating_sub(before);
        running.check()?;
        Ok(used.as_secs_f64() / start.elapsed().as_secs_f64() * 100.0)
    }

    fn used(&self, running: &Running) -> Duration {
        cpu::used_by(running.id(), |name| !self.vmm.is_vcpu(name))
    }

    /// Without `ip netns exec`, which takes longer to start than what it starts.
    fn boot(&self, kernel: &Path, words: &str) -> Result<Running, BenchError> {
        let mut command = Command::new(PathBuf::from(self.vmm.program()));
        self.vmm.arguments(&mut command, kernel, words);
        let spawn = || {
            self.wire.enter(true);
            Running::start(self.vmm.name(), self.case, command)
        };
        let joined = thread::scope(|scope| scope.spawn(spawn).join());
        joined.map_err(|_| BenchError::Nothing("the near end can't be entered".into()))?
    }

    /// When the line came.
    fn wait_for(&self, running: &mut Running, text: &str) -> Result<Instant, BenchError> {
        let deadline = Instant::now() + START;
        loop {
            let lines = running.lines();
            if let Some(line) = lines.iter().find(|it| it.text.trim_end() == text) {
                return Ok(line.at);
            }
            running.check()?;
            if Instant::now() > deadline {
                return Err(running.failure("the guest said nothing"));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Of a line "NAME:   123 kB".
fn kib(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|it| it.strip_prefix(name))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}
