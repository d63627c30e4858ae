//! What each command measures.

use std::{iter, time::Duration};

use ringwire_tests::Wire;

use crate::{
    case::{Case, Work},
    cli::{GuestArgs, SuiteArgs},
    contestant::{Bare, Contestant, Own, Testpmd, Vmm},
    cpu::Cpus,
    error::BenchError,
    measure::Bench,
    report::Report,
    rounds::{self, Unit},
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
    let report = Report::begin(
        "raw",
        "Frames a second at one end of a veth pair",
        &args.command,
        &args.out,
    );
    frames(args, contestants, report)
}

/// A guest of our own, beside the machine's limit and others' virtual machines.
pub(crate) fn guest(args: &GuestArgs) -> Result<(), BenchError> {
    let contestants = vmms(args)
        .into_iter()
        .map(|vmm| -> Box<dyn Contestant> {
            let guest = args.guest.clone();
            Box::new(Bare { vmm, guest })
        })
        .chain([Box::new(Own::like_guest(Kind::Afxdp)) as Box<dyn Contestant>]);
    let report = Report::begin(
        &args.name,
        "Frames a second of a bare guest, and of net-afxdp without a guest",
        &args.suite.command,
        &args.suite.out,
    );
    frames(&args.suite, contestants.collect(), report)
}

/// Ringwire, and QEMU if there is one.
pub(crate) fn vmms(args: &GuestArgs) -> Vec<Vmm> {
    let ours = Vmm::Ringwire(args.ringwire.clone());
    let theirs = args.qemu.clone().map(Vmm::Qemu);
    iter::once(ours).chain(theirs).collect()
}

/// All work at all sizes.
fn frames(
    args: &SuiteArgs,
    contestants: Vec<Box<dyn Contestant>>,
    mut report: Report,
) -> Result<(), BenchError> {
    let cpus = Cpus::choose()?;
    let sizes = args.sizes.iter().map(|&it| usize::from(it));
    let cases: Vec<_> = sizes
        .flat_map(|size| Work::ALL.map(|work| Case { work, size }))
        .filter(|it| is_wanted(&args.only, &it.to_string(), &Work::ALL.map(Work::name)))
        .collect();
    let plan = args.plan(cases.len());
    for case in cases {
        let all: Vec<_> = contestants.iter().map(|it| it.name()).collect();
        let chosen: Vec<_> = contestants
            .iter()
            .filter(|it| is_wanted(&args.only, it.name(), &all))
            .collect();
        let names: Vec<_> = chosen.iter().map(|it| it.name().to_owned()).collect();
        let measure = |index: usize| {
            // A new wire each time: what a program leaves behind on it is gone.
            let wire = Wire::new();
            let bench = Bench {
                wire: &wire,
                cpus,
                window: Duration::from_secs_f64(args.seconds.clamp(0.1, 60.0)),
            };
            let contestant = chosen
                .get(index)
                .ok_or_else(|| BenchError::Nothing("no such contestant".into()))?;
            bench.run(contestant.as_ref(), case)
        };
        let outcome = rounds::alternate(case.to_string(), Unit::MPPS, &names, plan, measure);
        report.add(outcome);
    }
    report.finish()
}

/// Whether `--only` lets it through: its words are about this kind of name at all, and one of them fits.
pub(crate) fn is_wanted(only: &[String], name: &str, all: &[&str]) -> bool {
    let about = |word: &&String| all.iter().any(|it| it.contains(word.as_str()));
    let mut words = only.iter().filter(about).peekable();
    words.peek().is_none() || words.any(|word| name.contains(word.as_str()))
}
