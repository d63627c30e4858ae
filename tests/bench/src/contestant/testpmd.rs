//! DPDK's testpmd on its af_xdp driver (Debian's package dpdk-dev).

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use ringwire_tests::Wire;

use super::{Contestant, Line};
use crate::{
    case::{Case, Work},
    cpu::Cpus,
};

/// The program.
const PROGRAM: &str = "dpdk-testpmd";

/// Seconds between two of its reports, and the time that a rate in them is of.
const PERIOD: Duration = Duration::from_secs(1);

/// testpmd with one queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Testpmd;

impl Testpmd {
    /// Whether it is installed.
    pub(crate) fn is_there() -> bool {
        ["/usr/bin", "/usr/local/bin", "/bin"]
            .iter()
            .any(|it| Path::new(it).join(PROGRAM).exists())
    }
}

impl Contestant for Testpmd {
    fn name(&self) -> &'static str {
        "DPDK testpmd"
    }

    fn command(&self, case: Case, wire: &Wire, cpus: Cpus, _seconds: f64) -> Command {
        let mode = match case.work {
            Work::TxPush => "txonly",
            Work::RxDrop => "rxonly",
            Work::L2Fwd => "macswap",
        };
        let mut command = wire.vmm_command(Path::new(PROGRAM));
        // The first lcore only prints; the second polls.
        command
            .arg("--lcores")
            .arg(format!("0@{},1@{}", cpus.generator, cpus.measured))
            .args(["--main-lcore", "0", "--no-pci", "--no-huge", "-m", "512"])
            .args(["--no-telemetry", "--log-level", "4"])
            .arg(format!(
                "--file-prefix=ringwire-bench-{}",
                std::process::id()
            ))
            .arg("--vdev")
            .arg(format!(
                "net_af_xdp0,iface={},start_queue=0,queue_count=1",
                Wire::IFNAME
            ))
            .arg("--")
            .arg(format!("--forward-mode={mode}"))
            .arg(format!("--txpkts={}", case.size))
            .arg(format!("--stats-period={}", PERIOD.as_secs()))
            .args(["--total-num-mbufs=8192", "--no-mlockall"]);
        command
    }

    fn received(&self, lines: &[Line], from: Instant, to: Instant) -> Option<f64> {
        let lines = lines
            .iter()
            .filter(|it| from + PERIOD <= it.at && it.at <= to);
        lines.filter_map(|it| rate(&it.text)).next_back()
    }

    fn flows(&self, lines: &[Line]) -> bool {
        lines
            .iter()
            .filter_map(|it| rate(&it.text))
            .any(|it| it > 500.0)
    }

    fn extra(&self) -> Duration {
        2 * PERIOD
    }
}

/// From a line "  Rx-pps:       871234          Rx-bps: ...": the rate of the period that ends there.
fn rate(line: &str) -> Option<f64> {
    let after = line.split_once("Rx-pps:")?.1;
    after.split_whitespace().next()?.parse().ok()
}
