//! What each command measures.

use std::{iter, time::Duration};

use ringwire_tests::Wire;

use crate::{
    case::{Case, Work},
    cli::{GuestArgs, SuiteArgs},
    contestant::{Bare, Contestant, Offered, Own, Testpmd, Vmm},
    cpu::Cpus,
    error::BenchError,
    further::{self, Further},
    measure::Bench,
    report::{Columns, Report},
    rounds::{self, Outcome, Plan, Sample, Unit},
    traffic::Kind,
};

/// The machine's limit.
pub(crate) fn raw(args: &SuiteArgs) -> Result<(), BenchError> {
    let mut contestants: Vec<Box<dyn Contestant>> = vec![
        Box::new(Own::udp(Kind::Afxdp)),
        Box::new(Own::udp(Kind::PacketV2)),
        Box::new(Own::udp(Kind::PacketV3)),
    ];
    if Testpmd::is_there() {
        contestants.push(Box::new(Testpmd));
    } else {
        eprintln!("    without DPDK's testpmd, which is not installed (Debian's package dpdk-dev)");
    }
    let suite = Suite::new(args, contestants)?;
    let cases = suite.cases();
    if cases.is_empty() {
        return nothing_wanted("raw");
    }
    let mut report = Report::begin(
        "raw",
        "Frames a second at one end of a veth pair",
        Columns::Program,
        &args.command,
        &args.out,
    );
    let plan = args.plan(cases.len());
    for case in cases {
        report.add(suite.measure(case, case.to_string(), plan));
    }
    report.finish()
}

/// A guest of our own, beside the machine's limit and others' virtual machines.
pub(crate) fn guest(args: &GuestArgs) -> Result<(), BenchError> {
    let contestants = vmms(args)
        .into_iter()
        .map(|vmm| Box::new(Bare::new(vmm, args.guest.clone())) as Box<dyn Contestant>)
        .chain([Box::new(Own::like_guest(Kind::Afxdp)) as Box<dyn Contestant>]);
    let suite = Suite::new(&args.suite, contestants.collect())?;
    let cases = suite.cases();
    let further = if args.qemu.is_none() {
        Further::wanted(&args.suite.only)
    } else {
        Vec::new()
    };
    if cases.is_empty() && further.is_empty() {
        return nothing_wanted(&args.name);
    }
    let mut report = Report::begin(
        &args.name,
        "Frames a second of a bare guest, and of net-afxdp without a guest",
        Columns::IoThreads,
        &args.suite.command,
        &args.suite.out,
    );
    let plan = args.suite.plan(cases.len() + Further::parts(&further));
    for case in cases {
        report.add(suite.measure(case, case.to_string(), plan));
    }
    for it in further {
        for outcome in it.measure(args, plan)? {
            report.add(outcome);
        }
    }
    report.finish()
}

/// Files of before stay as they are.
fn nothing_wanted(name: &str) -> Result<(), BenchError> {
    eprintln!("    {name}: nothing of it is wanted");
    Ok(())
}

/// Ringwire, and QEMU if there is one.
pub(crate) fn vmms(args: &GuestArgs) -> Vec<Vmm> {
    let ours = Vmm::Ringwire(args.ringwire.clone());
    let theirs = args.qemu.clone().map(Vmm::Qemu);
    iter::once(ours).chain(theirs).collect()
}

/// Who is compared, and by what.
pub(crate) struct Suite<'a> {
    args: &'a SuiteArgs,
    pub(crate) cpus: Cpus,
    contestants: Vec<Box<dyn Contestant>>,
    offered: Offered,
    /// Of the wire, at both ends.
    queues: u32,
}

impl<'a> Suite<'a> {
    /// Those of the contestants that are wanted; frames come as fast as they can.
    pub(crate) fn new(
        args: &'a SuiteArgs,
        contestants: Vec<Box<dyn Contestant>>,
    ) -> Result<Self, BenchError> {
        let all: Vec<_> = contestants.iter().map(|it| it.name()).collect();
        let wanted = contestants.into_iter();
        let wanted = wanted.filter(|it| is_wanted(&args.only, it.name(), &all));
        Ok(Self {
            args,
            cpus: Cpus::choose()?,
            contestants: wanted.collect(),
            offered: Offered::ALL,
            queues: 1,
        })
    }

    /// The same with other frames from the far end.
    pub(crate) fn offered(self, offered: Offered) -> Self {
        Self { offered, ..self }
    }

    /// The same on a wire with so many queues.
    pub(crate) fn queues(self, queues: u32) -> Self {
        Self { queues, ..self }
    }

    /// All work at all sizes, as far as it is wanted.
    fn cases(&self) -> Vec<Case> {
        let sizes = self.args.sizes.iter().map(|&it| usize::from(it));
        let all: Vec<&str> = Work::ALL
            .map(Work::name)
            .into_iter()
            .chain(further::NAMES)
            .collect();
        sizes
            .flat_map(|size| Work::ALL.map(|work| Case { work, size }))
            .filter(|it| is_wanted(&self.args.only, &it.to_string(), &all))
            .collect()
    }

    /// All rounds of a case.
    pub(crate) fn measure(&self, case: Case, name: String, plan: Plan) -> Outcome {
        let each = self.contestants.iter();
        let names: Vec<_> = each.map(|it| it.name().to_owned()).collect();
        rounds::alternate(name, Unit::MPPS, &names, plan, |it| self.once(it, case))
    }

    /// One measurement of the contestant with that index.
    pub(crate) fn once(&self, index: usize, case: Case) -> Result<Sample, BenchError> {
        let contestant = self.contestants.get(index);
        let contestant =
            contestant.ok_or_else(|| BenchError::Nothing("no such contestant".into()))?;
        // A new wire each time: what a program leaves behind on it is gone.
        let wire = Wire::with_queues(self.queues);
        let bench = Bench {
            wire: &wire,
            cpus: self.cpus,
            window: Duration::from_secs_f64(self.args.seconds.clamp(0.1, 60.0)),
            offered: self.offered,
        };
        bench.run(contestant.as_ref(), case)
    }
}

/// Whether `--only` lets it through: its words are about this kind of name at all, and one of them fits.
pub(crate) fn is_wanted(only: &[String], name: &str, all: &[&str]) -> bool {
    let about = |word: &&String| all.iter().any(|it| it.contains(word.as_str()));
    let mut words = only.iter().filter(about).peekable();
    words.peek().is_none() || words.any(|word| name.contains(word.as_str()))
}
