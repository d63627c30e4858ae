//! What goes between a Linux guest and the far end's kernel: iperf3, and streams and datagrams whose every byte is checked.

use std::{
    thread,
    time::{Duration, Instant},
};

use ringwire_tests::{Background, Setup, Wire};

use super::Linux;
use crate::{
    problem::{Outcome, wrong},
    random::Random,
    resident::Tally,
    station::PATIENCE,
};

/// The status of `wirecheck` if a byte was wrong.
const WRONG: i32 = 3;

/// What carries a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// iperf3 over TCP, so many streams.
    IperfTcp(u32),
    /// iperf3 over UDP, the same.
    IperfUdp(u32),
    /// A checked stream.
    Stream,
    /// Checked datagrams.
    Datagrams,
}

impl Kind {
    pub(super) const ALL: [Self; 6] = [
        Self::IperfTcp(1),
        Self::IperfTcp(4),
        Self::IperfUdp(1),
        Self::IperfUdp(4),
        Self::Stream,
        Self::Datagrams,
    ];
    pub(super) const OF_TCP: [Self; 3] = [Self::IperfTcp(1), Self::IperfTcp(4), Self::Stream];

    fn is_checked(self) -> bool {
        matches!(self, Self::Stream | Self::Datagrams)
    }

    /// TCP connections that it has while it runs: iperf3 has one to steer it.
    fn connections(self) -> u32 {
        match self {
            Self::IperfTcp(streams) => 1 + streams,
            Self::IperfUdp(_) | Self::Stream => 1,
            Self::Datagrams => 0,
        }
    }

    /// Whether what it carries gets lost by right, and what steers it with it.
    fn may_break(self) -> bool {
        matches!(self, Self::IperfUdp(_) | Self::Datagrams)
    }
}

/// One of them, under way.
#[derive(Debug)]
pub(super) struct Flow {
    kind: Kind,
    /// To the guest.
    inward: bool,
    port: u16,
    far: Background,
}

impl Flow {
    /// Starts it at both ends.
    pub(super) fn start(
        linux: &mut Linux,
        wire: &Wire,
        kind: Kind,
        port: u16,
        random: &mut Random,
    ) -> Outcome<Self> {
        let inward = random.one_of([true, false]);
        let seconds = random.one_of([1, 2, 3]);
        let (guest, peer) = (Wire::GUEST, Wire::PEER);
        let far = if kind.is_checked() {
            let (receive, send) = checked(kind, seconds, port);
            if inward {
                in_guest(linux, port, &format!("wirecheck {receive} {guest}:{port}"))?;
                linux.ok(&format!(
                    "until grep -q listening /tmp/f{port}; do usleep 20000; done"
                ))?;
                far_wirecheck(wire, &format!("{send} {guest}:{port}"))
            } else {
                let far = far_wirecheck(wire, &format!("{receive} {peer}:{port}"));
                let far = far.after_line("listening");
                in_guest(linux, port, &format!("wirecheck {send} {peer}:{port}"))?;
                far
            }
        } else {
            let server = format!("iperf3 --server --one-off --forceflush -p {port}");
            let far = wire.far_background(&server).after_line("listening");
            let options = iperf(kind, inward);
            in_guest(
                linux,
                port,
                &format!("iperf3 -c {peer} -p {port} -t {seconds} {options}"),
            )?;
            far
        };
        Ok(Self {
            kind,
            inward,
            port,
            far,
        })
    }

    /// Waits until all its connections are there; on a slow host a short one may be over already.
    pub(super) fn wait_until_it_runs(&mut self, wire: &Wire) -> Outcome {
        let deadline = Instant::now() + PATIENCE;
        while !self.kind.may_break() && !self.far.has_ended() {
            let table = wire.far("cat /proc/net/tcp /proc/net/tcp6");
            if established(&table, self.port) >= self.kind.connections() {
                break;
            }
            if Instant::now() > deadline {
                return wrong(format!("a flow does not begin: {self:?}"));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Waits for both ends, and judges what they say.
    pub(super) fn finish(self, linux: &mut Linux) -> Outcome<Tally> {
        let Self {
            kind, port, far, ..
        } = self;
        // Who sends knows first that nobody listens any more; who then still waits is told so.
        let far_first = self.inward && kind.is_checked();
        let (far, inside) = if far_first {
            let far = far.end(PATIENCE);
            if !far.0.success() && kind.may_break() {
                let _ = linux.guest.run(&format!("kill $(cat /tmp/p{port})"));
            }
            (Some(far), guest_end(linux, port))
        } else {
            let inside = guest_end(linux, port);
            let broken = inside.status != 0 && kind.may_break();
            ((!broken).then(|| far.end(PATIENCE)), inside)
        };
        let (far_code, far_text) = match &far {
            Some((status, text)) => (status.code(), text.as_str()),
            None => (None, ""),
        };
        let told = format!(
            "{far_code:?} '{far_text}'; {} '{}'",
            inside.status, inside.text
        );
        if kind.is_checked() && (far_code == Some(WRONG) || inside.status == WRONG.unsigned_abs()) {
            return wrong(format!("a wrong byte: {told}"));
        }
        if far_code != Some(0) || inside.status != 0 {
            if kind.may_break() {
                return Ok(Tally {
                    cut: 1,
                    ..Tally::default()
                });
            }
            return wrong(told);
        }
        let report = if self.inward { &inside.text } else { far_text };
        Ok(Tally {
            flows: 1,
            bytes: value(report, "bytes").unwrap_or(0),
            frames: value(report, "received").unwrap_or(0),
            ..Tally::default()
        })
    }
}

/// The receiver's arguments and the sender's, without the address.
fn checked(kind: Kind, seconds: u64, seed: u16) -> (String, String) {
    let bytes = u64::MAX;
    if kind == Kind::Stream {
        return (
            format!("--seed {seed} tcp-receive"),
            format!("--seed {seed} tcp-send --bytes {bytes} --seconds {seconds}"),
        );
    }
    let sizes = "--smallest 8 --largest 1452";
    let count = 400 * seconds;
    (
        format!("--seed {seed} udp-receive {sizes}"),
        format!("--seed {seed} udp-send {sizes} --count {count} --burst 8 --gap 20000"),
    )
}

/// More options of the client.
fn iperf(kind: Kind, inward: bool) -> String {
    let direction = if inward { "--reverse" } else { "" };
    match kind {
        Kind::IperfUdp(streams) => {
            format!("-P {streams} --udp --bitrate 20M --length 1400 {direction}")
        }
        Kind::IperfTcp(streams) => format!("-P {streams} {direction}"),
        Kind::Stream | Kind::Datagrams => String::new(),
    }
}

fn far_wirecheck(wire: &Wire, arguments: &str) -> Background {
    wire.far_background(&format!("{} {arguments}", Setup::wirecheck().display()))
}

/// Starts it in the guest, under the name of its port.
fn in_guest(linux: &mut Linux, port: u16, command: &str) -> Outcome {
    linux.ok(&format!(
        "{command} >/tmp/f{port} 2>&1 & echo $! >/tmp/p{port}"
    ))?;
    Ok(())
}

/// Waits for its end; the status and the last that it said.
fn guest_end(linux: &mut Linux, port: u16) -> ringwire_tests::Output {
    linux.guest.run(&format!(
        "wait $(cat /tmp/p{port}); s=$?; tail -n 5 /tmp/f{port}; rm -f /tmp/f{port} /tmp/p{port}; (exit $s)"
    ))
}

/// How many connections at a port are established, of /proc/net/tcp.
fn established(table: &str, port: u16) -> u32 {
    let end = format!(":{port:04X}");
    let lines = table.lines().filter(|line| {
        let fields: Vec<_> = line.split_whitespace().take(4).collect();
        let [_, local, remote, state] = fields[..] else {
            return false;
        };
        state == "01" && (local.ends_with(&end) || remote.ends_with(&end))
    });
    lines.fold(0, |count, _| count + 1)
}

/// The number of "name=number".
fn value(text: &str, name: &str) -> Option<u64> {
    let mut words = text.split_whitespace();
    words.find_map(|it| it.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_found_at_either_end() {
        let table = "  sl  local_address rem_address   st tx_queue\n   \
             0: 0100004E:1770 0200004E:D431 01 00000000\n   \
             1: 0100004E:D432 0200004E:1770 01 00000000\n   \
             2: 0100004E:1770 00000000:0000 0A 00000000\n   \
             3: 0100004E:1771 0200004E:D431 01 00000000\n";
        assert_eq!(established(table, 0x1770), 2);
        assert_eq!(established(table, 0x1771), 1);
        assert_eq!(established(table, 0x1772), 0);
    }

    #[test]
    fn reports_are_read() {
        let report = "listening\nsent=400 received=398 duplicates=0 reordered=0\n";
        assert_eq!(value(report, "received"), Some(398));
        assert_eq!(value(report, "bytes"), None);
    }
}
