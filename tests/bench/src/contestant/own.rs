//! `ringwire-bench traffic` as a contestant, and as the generator of the others.

use std::{env, path::PathBuf, process::Command, time::Instant};

use clap::ValueEnum;
use ringwire_tests::Wire;

use super::{Contestant, Line};
use crate::{
    case::{Case, Work},
    cpu::Cpus,
    traffic::{Kind, Pattern},
};

/// One way to the wire.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Own {
    kind: Kind,
    pattern: Pattern,
}

impl Own {
    /// Sends what testpmd sends.
    pub(crate) fn udp(kind: Kind) -> Self {
        let pattern = Pattern::Udp;
        Self { kind, pattern }
    }

    /// Sends what the bare guest sends.
    pub(crate) fn like_guest(kind: Kind) -> Self {
        let pattern = Pattern::Experimental;
        Self { kind, pattern }
    }
}

/// What the far end sends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Offered {
    /// What is in the frames.
    pub(crate) pattern: Pattern,
    /// Frames a second; 0: as many as can be.
    pub(crate) rate: u64,
}

impl Offered {
    /// As fast as can be, what testpmd sends.
    pub(crate) const ALL: Self = Self {
        pattern: Pattern::Udp,
        rate: 0,
    };

    /// A command that sends frames of the case from the far end.
    pub(crate) fn generator(self, case: Case, wire: &Wire, cpus: Cpus, seconds: f64) -> Command {
        let mut command = wire.peer_command(&program());
        let case = Case {
            work: Work::TxPush,
            ..case
        };
        let own = Own {
            kind: Kind::Afxdp,
            pattern: self.pattern,
        };
        arguments(&mut command, own, case, Wire::PEER_IFNAME);
        command
            .args(["--cpu", &cpus.generator.to_string()])
            .args(["--rate", &self.rate.to_string()])
            .args(["--seconds", &seconds.to_string()]);
        command
    }
}

impl Contestant for Own {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Afxdp => "net-afxdp",
            Kind::AfxdpSkb => "net-afxdp skb",
            Kind::PacketV2 => "AF_PACKET V2",
            Kind::PacketV3 => "AF_PACKET V3",
        }
    }

    fn command(&self, case: Case, wire: &Wire, cpus: Cpus, seconds: f64) -> Command {
        let mut command = wire.vmm_command(&program());
        arguments(&mut command, *self, case, Wire::IFNAME);
        command
            .args(["--cpu", &cpus.measured.to_string()])
            .args(["--seconds", &seconds.to_string()]);
        command
    }

    fn received(&self, lines: &[Line], from: Instant, to: Instant) -> Option<f64> {
        // By its own clock: when a line is read depends on who else runs.
        let mut reports = lines
            .iter()
            .filter(|it| from <= it.at && it.at <= to)
            .filter_map(|it| progress(&it.text));
        let first = reports.next()?;
        let last = reports.next_back()?;
        Some((last.1 - first.1) / (last.0 - first.0))
    }

    fn flows(&self, lines: &[Line]) -> bool {
        let last = lines.iter().rev().find_map(|it| progress(&it.text));
        last.is_some_and(|(_, received)| received > 500.0)
    }
}

/// Seconds and frames received, from a line "progress NANOSECONDS RECEIVED SENT".
fn progress(line: &str) -> Option<(f64, f64)> {
    let mut words = line.strip_prefix("progress ")?.split(' ');
    let nanoseconds: f64 = words.next()?.parse().ok()?;
    let received = words.next()?.parse().ok()?;
    Some((nanoseconds / 1e9, received))
}

fn arguments(command: &mut Command, own: Own, case: Case, ifname: &str) {
    command
        .args(["traffic", &word(own.kind), case.work.name()])
        .args(["--ifname", ifname, "--size", &case.size.to_string()])
        .args(["--pattern", &word(own.pattern)]);
}

/// As the command line takes it.
fn word(value: impl ValueEnum) -> String {
    let value = value.to_possible_value();
    value.map_or_else(String::new, |it| it.get_name().to_owned())
}

/// This program.
fn program() -> PathBuf {
    env::current_exe().unwrap_or_else(|_| "ringwire-bench".into())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_rate_is_of_the_lines_in_the_window() {
        let start = Instant::now();
        let line = |seconds: u64, text: &str| Line {
            at: start + Duration::from_secs(seconds),
            text: text.into(),
        };
        let lines = [
            line(0, "progress 0 0 0"),
            line(1, "progress 1000000000 500 0"),
            line(2, "something else"),
            line(3, "progress 3000000000 2500 0"),
            line(4, "progress 4000000000 9999999 0"),
        ];
        let rate = Own::udp(Kind::Afxdp).received(
            &lines,
            start + Duration::from_secs(1),
            start + Duration::from_secs(3),
        );
        assert_eq!(rate, Some(1000.0));
    }
}
