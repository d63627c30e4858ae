//! What is measured of Ringwire alone, with the bare guest: offloads that are negotiated or not, more frames than the guest
//! takes, two queue pairs, kicks and system calls.

use crate::{
    case::{Case, Work},
    cli::GuestArgs,
    contestant::{Bare, Contestant, More, Offered, Vmm},
    error::BenchError,
    exits,
    rounds::{self, Outcome, Plan, Unit},
    suite::{Suite, is_wanted},
    traffic::Pattern,
};

/// Bytes of the frames.
const SIZE: usize = 64;

/// What `--only` can name.
pub(crate) const NAMES: [&str; 4] = [
    Further::Offloads.name(),
    Further::Overload.name(),
    Further::Pairs.name(),
    Further::Exits.name(),
];

/// How often kicks and system calls are counted at most: they vary little.
const EXIT_ROUNDS: u32 = 5;

/// Nanoseconds that the overloaded guest spends with a frame, and so how many it takes a second at most.
const WORK: u64 = 10_000;
const TAKEN: u64 = 1_000_000_000 / WORK;

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Further {
    /// Frames of 64 bytes to and from a driver that takes all offloads, which are offered or not.
    Offloads,
    /// Frames that a slow guest receives of as many as it can take, and of four times as many.
    Overload,
    /// Two queue pairs, each with an I/O thread, and one.
    Pairs,
    /// Kicks, interrupts and system calls.
    Exits,
}

impl Further {
    const ALL: [Self; 4] = [Self::Offloads, Self::Overload, Self::Pairs, Self::Exits];

    const fn name(self) -> &'static str {
        match self {
            Self::Offloads => "offloads",
            Self::Overload => "overload",
            Self::Pairs => "pairs",
            Self::Exits => "exits",
        }
    }

    /// Those that `--only` lets through.
    pub(crate) fn wanted(only: &[String]) -> Vec<Self> {
        let works = Work::ALL.map(Work::name);
        let all: Vec<&str> = works.into_iter().chain(NAMES).collect();
        let each = Self::ALL.into_iter();
        each.filter(|it| is_wanted(only, it.name(), &all)).collect()
    }

    /// How many cases of frames need as much time.
    pub(crate) fn parts(all: &[Self]) -> usize {
        let parts = all.iter().map(|it| match it {
            // Few rounds, with one contestant.
            Self::Exits => 1,
            it => it.works().len(),
        });
        parts.sum()
    }

    fn works(self) -> &'static [Work] {
        match self {
            Self::Offloads => &[Work::TxPush, Work::RxDrop],
            Self::Overload => &[Work::RxDrop],
            Self::Pairs => &[Work::TxPush],
            Self::Exits => &Work::ALL,
        }
    }

    /// All rounds, with `plan` for each piece of work.
    pub(crate) fn measure(self, args: &GuestArgs, plan: Plan) -> Result<Vec<Outcome>, BenchError> {
        let cases = self.works().iter().map(|&work| Case { work, size: SIZE });
        match self {
            Self::Offloads => {
                let suite = offloads(args)?;
                let outcomes = cases.map(|case| {
                    let name = format!("{case}, a driver that takes offloads");
                    suite.measure(case, name, plan)
                });
                Ok(outcomes.collect())
            }
            Self::Overload => cases.map(|case| overload(args, case, plan)).collect(),
            Self::Pairs => {
                let suite = pairs(args)?;
                let named = cases.map(|case| (case, format!("{case}, queue pairs")));
                Ok(named
                    .map(|(case, name)| suite.measure(case, name, plan))
                    .collect())
            }
            Self::Exits => {
                let bare = ringwire(args);
                let cpus = Suite::new(&args.suite, Vec::new())?.cpus;
                let rounds = plan.rounds.min(EXIT_ROUNDS);
                let outcomes = cases.flat_map(|case| exits::count(&bare, case, rounds, 1.0, cpus));
                Ok(outcomes.collect())
            }
        }
    }
}

fn ringwire(args: &GuestArgs) -> Bare {
    Bare::new(Vmm::Ringwire(args.ringwire.clone()), args.guest.clone())
}

/// The frames have UDP checksums, which are there to be looked at.
fn offloads(args: &GuestArgs) -> Result<Suite<'_>, BenchError> {
    let bare = |name, card| -> Box<dyn Contestant> {
        Box::new(Bare {
            name,
            more: More {
                card,
                ..More::default()
            },
            words: "offloads=1".into(),
            ..ringwire(args)
        })
    };
    let contestants = vec![
        bare("all offered", ""),
        bare("none offered", ",csum=off,tso=off,uso=off,gro=off"),
    ];
    let suite = Suite::new(&args.suite, contestants)?;
    Ok(suite.offered(Offered {
        pattern: Pattern::Checked,
        rate: 0,
    }))
}

/// One vCPU serves all of them.
fn pairs(args: &GuestArgs) -> Result<Suite<'_>, BenchError> {
    let bare = |name, netdev, words: &str| -> Box<dyn Contestant> {
        Box::new(Bare {
            name,
            more: More {
                netdev,
                ..More::default()
            },
            words: words.into(),
            ..ringwire(args)
        })
    };
    let contestants = vec![
        bare("two pairs", ",queues=2", "pairs=2"),
        bare("one pair", "", ""),
    ];
    Ok(Suite::new(&args.suite, contestants)?.queues(2))
}

/// `first / this` is what the guest gets under overload of what it gets at its peak.
fn overload(args: &GuestArgs, case: Case, plan: Plan) -> Result<Outcome, BenchError> {
    let suites = [4, 1].map(|times| {
        let bare = Bare {
            words: format!("work={WORK}"),
            ..ringwire(args)
        };
        let suite = Suite::new(&args.suite, vec![Box::new(bare) as Box<dyn Contestant>])?;
        Ok::<_, BenchError>(suite.offered(Offered {
            rate: times * TAKEN,
            ..Offered::ALL
        }))
    });
    let [much, enough] = suites;
    let suites = [much?, enough?];
    let names = ["4 times that offered", "that offered"].map(str::to_owned);
    let name = format!("{case}, a guest that takes {TAKEN} a second");
    let outcome = rounds::alternate(name, Unit::MPPS, &names, plan, |index| {
        let suite = suites.get(index);
        let suite = suite.ok_or_else(|| BenchError::Nothing("no such load".into()))?;
        suite.once(0, case)
    });
    Ok(outcome)
}
