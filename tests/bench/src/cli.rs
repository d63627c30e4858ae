//! The command line of `ringwire-bench`.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};

use crate::{rounds::Plan, traffic::TrafficArgs};

/// Measures Ringwire beside others, in alternating rounds, on wires of its own
#[derive(Debug, Parser)]
#[command(name = "ringwire-bench")]
pub(crate) struct Cli {
    /// What to measure.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What can be measured.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// This machine's limit: net-afxdp, AF_PACKET V2 and V3, DPDK's testpmd, each at one end of a veth pair
    Raw(SuiteArgs),
    /// The bare guest of tests/guests under ringwire, beside net-afxdp without a guest, and under QEMU's -netdev af-xdp
    Guest(GuestArgs),
    /// Start, memory and idle CPU of ringwire, beside QEMU's
    Footprint(GuestArgs),
    /// Linux guests with iperf3 under ringwire, beside QEMU with tap (and vhost) and af-xdp. Where KVM boots Linux
    Lab(LabArgs),
    /// One end of a wire; the other commands call this
    Traffic(TrafficArgs),
}

/// What all of them take.
#[derive(Debug, Clone, Args)]
pub(crate) struct SuiteArgs {
    /// Alternating rounds of each case
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
    /// Seconds that all cases together may take: each gets its part, and fewer rounds if that is too short
    #[arg(long, default_value_t = 300)]
    pub(crate) limit: u32,
    /// Seconds that each measurement counts for
    #[arg(long, default_value_t = 1.0)]
    pub(crate) seconds: f64,
    /// Bytes of a frame (Ethernet header included, FCS not), several with commas
    #[arg(long, default_value = "64,1514", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(60..=1514))]
    pub(crate) sizes: Vec<u16>,
    /// Leave out the cases and contestants whose name does not contain one of these, several with commas
    #[arg(long, value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// Where the table, the JSON file and the plot go
    #[arg(long, default_value = "docs/bench")]
    pub(crate) out: PathBuf,
    /// The command as people give it, for the record
    #[arg(long, default_value = "ringwire-bench")]
    pub(crate) command: String,
}

impl SuiteArgs {
    /// For one of `cases`.
    pub(crate) fn plan(&self, cases: usize) -> Plan {
        let cases = u32::try_from(cases.max(1)).unwrap_or(u32::MAX);
        Plan {
            rounds: self.rounds,
            limit: Duration::from_secs(self.limit.into()) / cases,
        }
    }
}

/// What measuring with a bare guest takes besides.
#[derive(Debug, Clone, Args)]
pub(crate) struct GuestArgs {
    /// What all take.
    #[command(flatten)]
    pub(crate) suite: SuiteArgs,
    /// The `ringwire` program
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) ringwire: PathBuf,
    /// The bare guest, as tests/guests builds it
    #[arg(long, value_name = "FILE")]
    pub(crate) guest: PathBuf,
    /// A QEMU that has -netdev af-xdp (tests/bench/build-qemu prints one); without, only ringwire is measured
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) qemu: Option<PathBuf>,
    /// Name of the files
    #[arg(long)]
    pub(crate) name: String,
}

/// What measuring with Linux guests takes besides. Kernel and guest come from the environment, as for the tests with
/// guests (tests/build-system-tests).
#[derive(Debug, Clone, Args)]
pub(crate) struct LabArgs {
    /// What all take.
    #[command(flatten)]
    pub(crate) suite: SuiteArgs,
    /// QEMU for tap
    #[arg(long, value_name = "PROGRAM", default_value = "qemu-system-x86_64")]
    pub(crate) qemu: PathBuf,
    /// A QEMU that has -netdev af-xdp; without, it is left out
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) qemu_af_xdp: Option<PathBuf>,
}
