//! The answer for people.

use std::fmt::{self, Display, Formatter};

use net_afxdp::{Ability, Probe};

use super::{NetdevCheck, Opened};
use crate::size;

/// Width of the names in the table.
const NAMES: usize = 16;

fn row(f: &mut Formatter<'_>, name: &str, value: impl Display) -> fmt::Result {
    writeln!(f, "  {name:NAMES$} {value}")
}

impl Display for NetdevCheck {
    /// A table of several lines, the first of which is the answer.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let answer = if self.works() {
            "yes, nothing is in the way"
        } else {
            "no, something is in the way"
        };
        writeln!(f, "af-xdp on {}: {answer}", self.ifname)?;
        if let Some(probe) = &self.probe {
            writeln!(f)?;
            interface(f, probe)?;
            abilities(f, probe)?;
            match self.trial {
                Some(Ok(opened)) => row(f, "opened", Words(opened))?,
                Some(Err(_)) => row(f, "opened", "failed")?,
                None => {}
            }
            for right in &probe.rights {
                let held = if right.held { "held" } else { "missing" };
                row(f, right.name, format_args!("{held}, {}", right.needed_for))?;
            }
        }
        for problem in &self.problems {
            let kind = if problem.blocks { "problem" } else { "note" };
            write!(f, "\n{kind}: {}\n  fix: {}\n", problem.what, problem.fix)?;
        }
        Ok(())
    }
}

/// What opening led to, in words.
struct Words(Opened);

impl Display for Words {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Opened {
            mode,
            zero_copy,
            tx_checksum,
            mtu,
        } = self.0;
        let copy = if zero_copy { "zero-copy" } else { "copy" };
        write!(f, "{mode} mode, {copy}, MTU {mtu}")?;
        f.write_str(if tx_checksum { ", tx-checksum" } else { "" })
    }
}

fn interface(f: &mut Formatter<'_>, probe: &Probe) -> fmt::Result {
    let it = &probe.interface;
    let state = match (it.admin_up(), it.link_up()) {
        (false, _) => "down",
        (true, false) => "up without carrier",
        (true, true) => "up",
    };
    let (name, index, mtu) = (it.name(), it.index(), it.mtu());
    row(
        f,
        "interface",
        format_args!("{name} (index {index}), {state}, MTU {mtu}"),
    )?;
    row(f, "driver", probe.driver.as_deref().unwrap_or("unknown"))?;
    row(f, "kernel", &probe.kernel)?;
    let (queues, max) = (it.queues(), it.max_queues());
    row(f, "queues", format_args!("{queues}, at most {max}"))?;
    match &probe.program {
        Some(program) => row(f, "XDP program", program)?,
        None => row(f, "XDP program", "none")?,
    }
    let on = probe.offloads.iter().filter(|offload| offload.on);
    let on: Vec<_> = on.map(|offload| offload.name).collect();
    let on = if on.is_empty() {
        "none on".to_owned()
    } else {
        format!("{} on", on.join(", "))
    };
    row(f, "offloads", on)
}

/// The abilities by their names in JSON and in the table.
pub(super) fn named(probe: &Probe) -> [(&'static str, &'static str, &Ability); 7] {
    [
        ("load", "load a program", &probe.load),
        ("native", "native mode", &probe.native),
        ("skb", "skb mode", &probe.skb),
        ("zero_copy", "zero-copy", &probe.zero_copy),
        ("multi_buffer", "multi-buffer", &probe.multi_buffer),
        ("tx_checksum", "tx-checksum", &probe.tx_checksum),
        ("lock_memory", "locked memory", &probe.lock_memory),
    ]
}

fn abilities(f: &mut Formatter<'_>, probe: &Probe) -> fmt::Result {
    for (key, name, ability) in named(probe) {
        if key != "lock_memory" {
            row(f, name, ability)?;
            continue;
        }
        let (need, limit) = (size::human(probe.memory_needed), probe.memory_limit);
        let value = format_args!("{need} needed, the limit is {limit}: {ability}");
        row(f, name, value)?;
    }
    let mtu = probe.one_chunk_mtu;
    row(
        f,
        "one chunk",
        format_args!("is enough for an MTU of {mtu}"),
    )
}
