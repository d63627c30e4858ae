//! `ringwire check af-xdp,...`: whether `ringwire run` with these options would work, and what the
//! interface, its driver, the kernel and the user can do.

use std::fmt::Display;

use net_afxdp::{AttachMode, Port, Probe, Problem, Queue, Source};

use crate::{
    config::{NetdevConfig, NetdevConfigError, SourceConfig, check_netdevs},
    network::source,
};

mod json;
mod table;

/// What was found out.
#[derive(Debug)]
pub struct NetdevCheck {
    ifname: String,
    /// `None`: there is no such interface.
    probe: Option<Probe>,
    /// What opening it really, for a moment, led to.
    trial: Option<Result<Opened, String>>,
    problems: Vec<Problem>,
}

/// What opening for a moment led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Opened {
    mode: AttachMode,
    zero_copy: bool,
    tx_checksum: bool,
    mtu: u32,
}

/// Why nothing could be found out.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// options that contradict each other
    #[error(transparent)]
    Config(#[from] NetdevConfigError),
    /// what can be tried only once
    #[error(
        "{0} can be used once only, so --try would use it up: check without --try, and let `ringwire run` tell the rest"
    )]
    UsedUp(&'static str),
}

/// Finds out about `netdev`. Nothing is changed on the interface, unless `try_out` is set: then it is
/// opened as `ringwire run` does, for a moment, which disturbs those who use it.
///
/// # Errors
/// [`CheckError`]. What is in the way is no error, but an answer.
pub fn netdev(netdev: &NetdevConfig, try_out: bool) -> Result<NetdevCheck, CheckError> {
    check_netdevs(std::slice::from_ref(netdev))?;
    match &netdev.source {
        SourceConfig::SockFds(_) | SourceConfig::SockFdsForMap { .. } if try_out => {
            return Err(CheckError::UsedUp("sock-fds"));
        }
        SourceConfig::PluginSocket(_) if try_out => {
            return Err(CheckError::UsedUp("plugin-socket"));
        }
        _ => {}
    }
    let mut check = NetdevCheck {
        ifname: netdev.port.ifname.clone(),
        probe: None,
        trial: None,
        problems: Vec::new(),
    };
    let source = match source(&netdev.source) {
        Ok(source) => source,
        Err(error) => {
            check.problems.push(blocking(&error, INHERIT));
            return Ok(check);
        }
    };
    match Probe::of_source(&netdev.port, &source) {
        Ok(mut probe) => {
            check.problems = std::mem::take(&mut probe.problems);
            check.problems.extend(guest_memory(netdev, &probe));
            let addresses = Problem::of_other_addresses(&probe.interface, netdev.mac);
            check.problems.extend(addresses);
            check.probe = Some(probe);
        }
        Err(error) => check.problems.push(blocking(&error, OTHER_INTERFACE)),
    }
    if try_out && check.works() {
        let opened = open(netdev, source);
        if let Err(why) = &opened {
            let what = format!("opening it was tried and failed: {why}");
            check.problems.push(blocking(&what, "see that sentence"));
        }
        check.trial = Some(opened);
    }
    Ok(check)
}

const INHERIT: &str =
    "start ringwire from the process that has it open, without closing it on exec";
const OTHER_INTERFACE: &str =
    "name one that is there (`ip link`), or check in its network namespace (`ip netns exec`)";

fn blocking(what: &dyn Display, fix: &str) -> Problem {
    Problem {
        what: what.to_string(),
        fix: fix.to_owned(),
        blocks: true,
    }
}

/// What zero-copy-tx=on takes on top, for a user whose locked memory is limited.
fn guest_memory(netdev: &NetdevConfig, probe: &Probe) -> Option<Problem> {
    let unlimited = probe.memory_limit.bytes().is_none();
    let mut rights = probe.rights.iter();
    if !netdev.zero_copy_tx || unlimited || rights.any(|it| it.name == "CAP_IPC_LOCK" && it.held) {
        return None;
    }
    Some(Problem {
        what: format!(
            "zero-copy-tx=on locks all memory of the guest, times {} (queues), on top of what the frames need; the limit is {}",
            netdev.port.queues, probe.memory_limit
        ),
        fix: "see that it is enough (ulimit -l, LimitMEMLOCK= in a systemd unit), or give the process the capability CAP_IPC_LOCK".to_owned(),
        blocks: false,
    })
}

fn open(netdev: &NetdevConfig, source: Source) -> Result<Opened, String> {
    let mut port = Port::open_from(&netdev.port, source).map_err(|e| e.to_string())?;
    let queues = port.take_queues();
    Ok(Opened {
        mode: port.mode(),
        zero_copy: queues.iter().all(Queue::zero_copy),
        tx_checksum: queues.iter().all(Queue::completes_checksums),
        mtu: port.mtu(),
    })
}

impl NetdevCheck {
    /// Whether nothing is in the way.
    pub fn works(&self) -> bool {
        !self.problems.iter().any(|problem| problem.blocks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_interface_is_an_answer() {
        let config = NetdevConfig::new("net0", "rw-not-there");
        let check = netdev(&config, true).unwrap();
        assert!(!check.works());
        let table = check.to_string();
        assert!(
            table.starts_with("af-xdp on rw-not-there: no, ") && table.contains("  fix: name one"),
            "{table}"
        );
        let json = check.json();
        assert!(json["works"] == false && json["kernel"].is_null(), "{json}");
    }

    #[test]
    fn what_would_be_used_up_is_not_tried() {
        for source in [
            SourceConfig::SockFds(vec![3]),
            SourceConfig::PluginSocket("/x".into()),
        ] {
            let config = NetdevConfig {
                source,
                ..NetdevConfig::new("net0", "lo")
            };
            let sentence = netdev(&config, true).unwrap_err().to_string();
            assert!(sentence.contains("can be used once only"), "{sentence}");
        }
    }

    #[test]
    fn a_descriptor_that_is_not_open_is_an_answer() {
        let config = NetdevConfig {
            source: SourceConfig::XsksMapFd(1_000_000),
            ..NetdevConfig::new("net0", "lo")
        };
        let check = netdev(&config, true).unwrap();
        let what = &check.problems[0].what;
        assert!(
            !check.works() && what.contains("1000000 of xsks-map-fd"),
            "{what}"
        );
    }

    #[test]
    fn both_forms_have_all_that_is_known() {
        let check = netdev(&NetdevConfig::new("net0", "lo"), false).unwrap();
        let table = check.to_string();
        for name in [
            "interface",
            "driver",
            "queues",
            "native mode",
            "zero-copy",
            "multi-buffer",
            "locked memory",
            "CAP_NET_ADMIN",
        ] {
            assert!(table.contains(&format!("\n  {name} ")), "{name}: {table}");
        }
        let json = check.json();
        assert_eq!(json["interface"]["name"], "lo");
        assert!(json["abilities"]["native"]["state"].is_string(), "{json}");
        assert_eq!(json["works"], check.works());
        assert!(json["trial"].is_null());
    }
}
