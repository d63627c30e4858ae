//! A Linux guest with flows to the far end's kernel, which change and stop nothing: what they carry is checked at its end.

mod boot;
mod card;
mod flow;

use std::{process::ExitStatus, sync::Arc};

use ringwire_tests::{Guest, Wire};

use crate::{
    link::Link,
    problem::{Outcome, wrong},
    process::Ending,
    random::Random,
    resident::{Programs, Resident, Tally},
    setting::Setting,
    station::Station,
};

pub(crate) use boot::stood_still;
use flow::{Flow, Kind};

/// Ports are counted from here, and from here again at the last one.
const PORTS: std::ops::Range<u16> = 6000..30_000;

/// What no kernel says whose card is as it must be.
const COMPLAINTS: &str =
    "BUG: unable|Oops|NETDEV WATCHDOG|is not a head|out of range|bad gso|resize .* fail";

/// The guest, and what goes to and from it.
#[derive(Debug)]
pub(crate) struct Linux {
    guest: Guest,
    flows: Vec<Flow>,
    port: u16,
    tally: Tally,
}

impl Linux {
    /// A port that no flow had lately.
    fn port(&mut self) -> u16 {
        let port = self.port;
        self.port = if port + 1 < PORTS.end {
            port + 1
        } else {
            PORTS.start
        };
        port
    }

    /// One line of shell, which must succeed.
    fn ok(&mut self, command: &str) -> Outcome<String> {
        let output = self.guest.run(command);
        if output.status == 0 {
            return Ok(output.text);
        }
        wrong(format!(
            "'{command}' failed in a Linux guest ({}): {}\n{}",
            output.status,
            output.text,
            self.guest.log()
        ))
    }
}

impl Resident for Linux {
    const NAME: &'static str = "Linux";
    const POWERS_OFF: bool = true;

    /// The far end's kernel spreads its flows over all of them, and what arrives where the netdev is not is lost.
    fn channels(setting: &Setting) -> u32 {
        setting.queues
    }

    fn start(_: &Programs, wire: &Arc<Wire>, setting: &Setting, _: &mut Random) -> Outcome<Self> {
        let link = setting.link;
        link.set_channels(wire, Self::channels(setting))?;
        if link == Link::Veth {
            // Native mode switches them off by itself.
            let large = if setting.loses_large_frames() {
                "off"
            } else {
                "on"
            };
            wire.far(&format!(
                "ethtool -K {} tso {large} gso {large}",
                Wire::PEER_IFNAME
            ));
        }
        let mut linux = Self {
            guest: boot::boot(wire, setting),
            flows: Vec::new(),
            port: PORTS.start,
            tally: Tally::default(),
        };
        // The program made cards negotiate once more.
        wire.wait_for_carrier();
        // At first Linux uses one for each CPU.
        linux.ok(&format!("ethtool -L eth0 combined {}", setting.queues))?;
        Ok(linux)
    }

    fn id(&self) -> u32 {
        self.guest.id()
    }

    fn log(&self) -> String {
        self.guest.log()
    }

    fn check(&mut self) -> Outcome {
        if self.guest.is_running() {
            return Ok(());
        }
        let (console, log) = (self.guest.transcript(), self.guest.log());
        wrong(format!(
            "ringwire with a Linux guest ended:\n{console}\n{log}"
        ))
    }

    fn tally(&self) -> Tally {
        self.tally
    }

    /// One or two flows; where the network is cut, such as bear it.
    fn begin(station: &mut Station<Self>, random: &mut Random, cuts: bool) -> Outcome {
        for _ in 0..random.one_of([1, 2]) {
            let kind = if cuts {
                random.one_of(Kind::OF_TCP)
            } else {
                random.one_of(Kind::ALL)
            };
            let linux = &mut station.resident;
            let port = linux.port();
            let flow = Flow::start(linux, &station.wire, kind, port, random)?;
            linux.flows.push(flow);
        }
        for flow in &mut station.resident.flows {
            flow.wait_until_it_runs(&station.wire)?;
        }
        Ok(())
    }

    fn happen(station: &mut Station<Self>, random: &mut Random) -> Outcome<&'static str> {
        card::happen(station, random)
    }

    fn settle(station: &mut Station<Self>, after: &str) -> Outcome {
        let flows = std::mem::take(&mut station.resident.flows);
        for flow in flows {
            let linux = &mut station.resident;
            let what = format!("{flow:?}");
            let arrived = flow.finish(linux);
            let arrived = arrived.or_else(|it| wrong(format!("{what}, in {after}: {it}")))?;
            linux.tally += arrived;
            station.watch(std::time::Duration::ZERO)?;
        }
        let peer = Wire::PEER;
        let pings = format!(
            "for i in $(seq 60); do ping -q -c 1 -W 1 {peer} >/dev/null && break; done; ping -q -c 2 -W 10 {peer}"
        );
        let answered = station.resident.ok(&pings);
        answered.or_else(|it| wrong(format!("no frames come through after {after}: {it}")))?;
        Ok(())
    }

    fn before_end(&mut self, ending: Ending) -> Outcome {
        if ending == Ending::Kill {
            return Ok(());
        }
        self.ok(&format!(
            "dmesg | grep -E '{COMPLAINTS}' >/tmp/complaints; cat /tmp/complaints; [ ! -s /tmp/complaints ]"
        ))?;
        if ending == Ending::PowerOff {
            self.guest.send("poweroff -f");
        }
        Ok(())
    }

    fn wait(&mut self) -> Outcome<(ExitStatus, String)> {
        let status = self.guest.wait();
        // Their far ends would wait for long.
        self.flows.clear();
        let log = self.guest.log();
        let faults = log.split("guest_faults=").skip(1);
        if faults.into_iter().any(|it| !it.starts_with("0")) {
            return wrong(format!("a Linux guest is said to break rules:\n{log}"));
        }
        Ok((status, log))
    }
}
