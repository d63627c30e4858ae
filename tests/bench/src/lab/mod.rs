//! Linux guests under Ringwire and under QEMU: iperf3, and request and response. Each has a wire and a machine of its own;
//! all are booted first, and measured by turns.

mod latency;
mod station;

use std::time::Duration;

use crate::{
    cli::LabArgs,
    error::BenchError,
    report::{Columns, Report},
    rounds::{self, Sample, Unit},
    suite::is_wanted,
};

use station::{Setup, Station};

/// What is measured.
#[derive(Debug, Clone, Copy)]
enum Traffic {
    /// TCP streams, from the guest or to it: Mbit/s that arrive.
    Tcp {
        /// How many at once.
        streams: u32,
        /// To the guest.
        reverse: bool,
    },
    /// Datagrams of 1448 bytes from the guest, as fast as it can: Mbit/s that arrive.
    Udp,
    /// From the far end to the guest and back, one byte over TCP, one after the other: microseconds that this part of
    /// the requests, in per cent, did not exceed.
    Latency(usize),
}

const MBIT: Unit = Unit {
    name: "Mbit/s",
    less: false,
};
const MICROSECONDS: Unit = Unit {
    name: "us",
    less: true,
};

const CASES: [(&str, Traffic); 7] = [
    (
        "TCP from the guest",
        Traffic::Tcp {
            streams: 1,
            reverse: false,
        },
    ),
    (
        "TCP to the guest",
        Traffic::Tcp {
            streams: 1,
            reverse: true,
        },
    ),
    (
        "4 x TCP from the guest",
        Traffic::Tcp {
            streams: 4,
            reverse: false,
        },
    ),
    (
        "4 x TCP to the guest",
        Traffic::Tcp {
            streams: 4,
            reverse: true,
        },
    ),
    ("UDP from the guest", Traffic::Udp),
    ("TCP request and response, median", Traffic::Latency(50)),
    ("TCP request and response, 99 %", Traffic::Latency(99)),
];

impl Traffic {
    fn unit(self) -> Unit {
        match self {
            Self::Latency(_) => MICROSECONDS,
            _ => MBIT,
        }
    }
}

/// `ringwire-bench lab`.
pub(crate) fn run(args: &LabArgs) -> Result<(), BenchError> {
    let only = &args.suite.only;
    let setups = Setup::all(args);
    let all: Vec<_> = setups.iter().map(Setup::name).collect();
    let mut stations = Vec::new();
    for setup in setups.iter().filter(|it| is_wanted(only, it.name(), &all)) {
        eprintln!("    booting a guest: {}", setup.name());
        match Station::boot(setup) {
            Ok(station) => stations.push(station),
            Err(error) => eprintln!("    {error}"),
        }
    }
    let names: Vec<_> = stations.iter().map(|it| it.name().to_owned()).collect();
    if names.is_empty() {
        return Err(BenchError::Nothing("no guest came up".into()));
    }
    let mut report = Report::begin(
        "lab",
        "Linux guests: iperf3, request and response",
        Columns::Program,
        &args.suite.command,
        &args.suite.out,
    );
    let plan = args.suite.plan(CASES.len());
    let time = Duration::from_secs_f64(args.suite.seconds.clamp(1.0, 60.0));
    for (case, traffic) in CASES {
        if !is_wanted(only, case, &CASES.map(|it| it.0)) {
            continue;
        }
        let unit = traffic.unit();
        let measure = |index: usize| -> Result<Sample, BenchError> {
            let station = stations.get_mut(index);
            let station = station.ok_or_else(|| BenchError::Nothing("no such guest".into()))?;
            station.measure(case, traffic, time)
        };
        let outcome = rounds::alternate(case.to_owned(), unit, &names, plan, measure);
        report.add(outcome);
    }
    report.finish()
}
