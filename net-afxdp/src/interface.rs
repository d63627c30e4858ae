//! What the kernel says about a network interface.

use std::io;

use crate::{
    ethtool::{self, LinkSpeed},
    netlink::{Asker, Kind, LinkInfo, Which},
    program::ForeignProgram,
};

/// Longest name that an interface can have, as an alternative one, in bytes (`ALTIFNAMSIZ` less the terminator).
const NAME_MAX: usize = 127;

/// Why there is nothing to know about an interface.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// It is not there.
    #[error(
        "there is no network interface {name:?} in this network namespace; `ip link` lists those \
         that are there"
    )]
    Missing {
        /// The name asked for, or the index in decimal.
        name: String,
    },
    /// No interface can have that name.
    #[error("{name:?} can't be the name of a network interface: it must have 1 to 127 bytes")]
    BadName {
        /// The name asked for.
        name: String,
    },
    /// The kernel did not answer.
    #[error("cannot ask the kernel about the network interface {name:?}: {source}")]
    Query {
        /// The name asked for, or the index in decimal.
        name: String,
        /// What the system said.
        source: io::Error,
    },
}

/// A network interface as it was when asked.
#[derive(Debug, Clone)]
pub struct Interface {
    info: LinkInfo,
    queues: u32,
    max_queues: u32,
    /// Its driver knows `ethtool -L`.
    has_channels: bool,
    /// `ethtool -L` counts receive and transmit queues each for themselves.
    separate_channels: bool,
}

impl Interface {
    /// Asks about the interface of that name, or alternative name, in the calling thread's network namespace.
    ///
    /// # Errors
    /// [`InterfaceError`].
    pub fn by_name(name: &str) -> Result<Self, InterfaceError> {
        if name.is_empty() || name.len() > NAME_MAX || name.contains('\0') {
            return Err(InterfaceError::BadName {
                name: name.to_owned(),
            });
        }
        Self::query(Which::Name(name)).map_err(|source| explain(name.to_owned(), source))
    }

    /// Asks about the interface of that index.
    ///
    /// # Errors
    /// [`InterfaceError`].
    pub fn by_index(index: u32) -> Result<Self, InterfaceError> {
        Self::query(Which::Index(index)).map_err(|source| explain(index.to_string(), source))
    }

    fn query(which: Which<'_>) -> io::Result<Self> {
        Self::of(Asker::open()?.ask(which)?)
    }

    fn of(info: LinkInfo) -> io::Result<Self> {
        let channels = ethtool::channels(&info.name)?;
        let (queues, max_queues) = match &channels {
            Some(channels) if channels.queues() != 0 => (channels.queues(), channels.max_queues()),
            // What the driver allotted; it may use fewer, which binding finds out.
            _ => {
                let queues = info.rx_queues.max(info.tx_queues).max(1);
                (queues, queues)
            }
        };
        Ok(Self {
            info,
            queues,
            max_queues: max_queues.max(queues),
            has_channels: channels.is_some(),
            separate_channels: channels.is_some_and(|channels| !channels.are_combined()),
        })
    }

    /// Its index, which stays the same when it is renamed.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.info.index
    }

    /// Its name, though it was looked for by an alternative one.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.info.name
    }

    /// Its MTU in bytes: the longest frame without the Ethernet header.
    #[must_use]
    pub fn mtu(&self) -> u32 {
        self.info.mtu
    }

    /// Its Ethernet address. `None`: it has none of six bytes.
    #[must_use]
    pub fn mac(&self) -> Option<[u8; 6]> {
        self.info.mac
    }

    /// Whether it is switched on (`ip link set up`).
    #[must_use]
    pub fn admin_up(&self) -> bool {
        self.info.admin_up
    }

    /// Whether frames can pass: it is switched on and has a carrier.
    #[must_use]
    pub fn link_up(&self) -> bool {
        self.info.running
    }

    /// How fast its link is now. Asks the kernel, for a name that may have changed since.
    #[must_use]
    pub fn link_speed(&self) -> LinkSpeed {
        let name = Asker::open().and_then(|mut asker| asker.ask(Which::Index(self.index())));
        let speed = name.and_then(|info| ethtool::link_speed(&info.name));
        // An interface that is gone has no speed either.
        speed.unwrap_or_default()
    }

    /// Number of queues that it has now; their ids start at 0.
    #[must_use]
    pub fn queues(&self) -> u32 {
        self.queues
    }

    /// Number of queues that `ethtool -L` can give it at most.
    #[must_use]
    pub fn max_queues(&self) -> u32 {
        self.max_queues
    }

    /// What to do to have so many queues, besides asking for fewer: the end of a sentence, or nothing.
    pub(crate) fn more_queues(&self, count: u64) -> String {
        let Some(command) = self.set_queues_command(count) else {
            return String::new();
        };
        let max = self.max_queues();
        format!(", or give it more if its driver can (`{command}`; at most {max})")
    }

    /// The command that gives it so many queues, if its driver can have so many. `None`: their number can't be changed.
    #[must_use]
    pub fn set_queues_command(&self, count: u64) -> Option<String> {
        let name = self.name();
        self.has_channels.then(|| {
            if self.separate_channels {
                format!("ethtool -L {name} rx {count} tx {count}")
            } else {
                format!("ethtool -L {name} combined {count}")
            }
        })
    }

    /// The XDP program that is on it; without its name.
    #[must_use]
    pub fn xdp_program(&self) -> Option<&ForeignProgram> {
        self.info.xdp.as_ref()
    }

    /// What its frames are (`ARPHRD_*`, linux/if_arp.h).
    pub(crate) fn link_type(&self) -> u16 {
        self.info.link_type
    }

    /// What made it. `None`: a driver of hardware, or tun.
    pub(crate) fn kind(&self) -> Option<&Kind> {
        self.info.kind.as_ref()
    }

    /// The interface that it is a port of, a bridge for instance.
    pub(crate) fn master(&self) -> Option<Self> {
        Self::by_index(self.info.master?).ok()
    }

    /// Those that are its ports. None also if the kernel does not say.
    pub(crate) fn ports(&self) -> Vec<Self> {
        self.others(|it| it.master == Some(self.index()))
    }

    /// Whether there is a VLAN interface on it.
    pub(crate) fn has_vlans(&self) -> bool {
        let is_vlan = |it: &LinkInfo| it.kind.as_ref().is_some_and(|kind| kind.name == "vlan");
        let is_here = |it: &LinkInfo| it.link == Some(self.index()) && !it.link_elsewhere;
        !self.others(|it| is_vlan(it) && is_here(it)).is_empty()
    }

    fn others(&self, wanted: impl Fn(&LinkInfo) -> bool) -> Vec<Self> {
        let found = Asker::open().and_then(|mut asker| asker.all(wanted));
        let found = found.unwrap_or_default().into_iter();
        found.filter_map(|info| Self::of(info).ok()).collect()
    }

    /// Whether it is there to have ports, though maybe it has none yet.
    pub(crate) fn is_for_ports(&self) -> bool {
        // A team, unlike a bond, has no IFF_MASTER.
        let is_team = || self.kind().is_some_and(|kind| kind.name == "team");
        self.info.for_ports || is_team()
    }

    /// The other end, if this is a veth and that is in this network namespace, too.
    pub(crate) fn peer(&self) -> Option<Self> {
        let index = self.info.link.filter(|_| !self.info.link_elsewhere)?;
        Self::by_index(index).ok()
    }

    /// Says so if nothing passes because the interface is switched off.
    pub(crate) fn warn_if_down(&self) {
        if !self.admin_up() {
            tracing::warn!(
                interface = self.name(),
                "the interface is down: nothing passes until it is up (`ip link set dev {} up`)",
                self.name()
            );
        }
    }
}

fn explain(name: String, source: io::Error) -> InterfaceError {
    match source.raw_os_error() {
        // EINVAL: a kernel without alternative names (before 5.5).
        Some(libc::ENODEV | libc::ENXIO | libc::EINVAL) => InterfaceError::Missing { name },
        _ => InterfaceError::Query { name, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_known() {
        let lo = Interface::by_name("lo").unwrap();
        assert_eq!(lo.name(), "lo");
        assert_eq!(lo.index(), 1);
        assert!(lo.queues() >= 1);
        assert_eq!(Interface::by_index(lo.index()).unwrap().name(), "lo");
    }

    #[test]
    fn bonds_and_teams_are_for_ports() {
        let of = |kind: &str, for_ports| {
            let kind = Some(Kind {
                name: kind.to_owned(),
                ..Kind::default()
            });
            // The name is for what is asked of its driver.
            let info = LinkInfo {
                name: "lo".to_owned(),
                kind,
                for_ports,
                ..LinkInfo::default()
            };
            Interface::of(info).unwrap().is_for_ports()
        };
        assert!(of("bond", true) && of("team", false) && !of("veth", false));
    }

    #[test]
    fn a_missing_interface_is_named() {
        let error = Interface::by_name("rw-not-there").unwrap_err().to_string();
        assert!(
            error.starts_with("there is no network interface \"rw-not-there\""),
            "{error}"
        );
        let error = Interface::by_index(0x7fff_0000).unwrap_err().to_string();
        assert!(error.contains("2147418112"), "{error}");
    }

    #[test]
    fn impossible_names_are_refused() {
        for name in ["", &"n".repeat(128), "nul\0"] {
            let error = Interface::by_name(name).unwrap_err();
            assert!(matches!(error, InterfaceError::BadName { .. }), "{error}");
        }
    }
}
