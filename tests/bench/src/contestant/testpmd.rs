//! DPDK's testpmd on its af_xdp driver (Debian's package dpdk-dev).

use std::{path::Path, process::Command, time::Instant};

use ringwire_tests::Wire;

use super::{Contestant, Line};
use crate::{
    case::{Case, Work},
    cpu::Cpus,
};

/// The program.
const PROGRAM: &str = "dpdk-testpmd";

/// Seconds between two of its reports, and the time that a rate in them is of.
const PERIOD: u32 = 1;

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
            .arg(format!("--stats-period={}", PERIOD))
            .args(["--total-num-mbufs=8192", "--no-mlockall"]);
        command
    }

    fn received(&self, lines: &[Line], from: Instant, to: Instant) -> Option<f64> {
        let lines = lines.iter().filter(|it| from <= it.at && it.at <= to);
        // The period of the first one began before.
        lines.filter_map(|it| rate(&it.text)).nth(1)
    }

    fn flows(&self, lines: &[Line]) -> bool {
        lines
            .iter()
            .filter_map(|it| rate(&it.text))
            .any(|it| it > 500.0)
    }
}

/// From a line "  Rx-pps:       871234          Rx-bps: ...": the rate of the period that ends there.
fn rate(line: &str) -> Option<f64> {
    let after = line.split_once("Rx-pps:")?.1;
    after.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_rate_is_of_a_period_that_began_in_the_window() {
        let start = Instant::now();
        let line = |seconds: u64, pps: u32| Line {
            at: start + Duration::from_secs(seconds),
            text: format!("  Rx-pps:       {pps}          Rx-bps:     0"),
        };
        let lines = [line(1, 10), line(3, 20), line(4, 30), line(5, 40)];
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(Testpmd.received(&lines, at(2), at(3)), None);
        assert_eq!(Testpmd.received(&lines, at(2), at(5)), Some(30.0));
    }
}
