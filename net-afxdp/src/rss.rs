//! Which queues an interface spreads what it receives over (RSS), and whether all of them are opened.

use std::{collections::BTreeSet, fmt};

use crate::{config::PortConfig, ethtool, interface::Interface, kind::Ports};

/// Receive queues that frames come to and that are not opened: what arrives there goes to the host's
/// network stack, as the XDP program leaves it alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Uncovered {
    interface: String,
    first: u32,
    count: u32,
    /// How many queues the interface has.
    queues: u32,
    /// Those that frames come to although nobody has opened them.
    others: BTreeSet<u32>,
    /// Those that do the spreading: the interface itself, or its ports, whose queue numbers its frames keep.
    spreaders: Vec<Spreader>,
}

/// An interface that spreads.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Spreader {
    name: String,
    /// It has an indirection table, so that `ethtool -X` can choose the queues.
    has_table: bool,
    /// The command that gives it no more queues than are opened, if its driver knows it.
    fewer: Option<String>,
}

impl Spreader {
    /// Of `interface`, with the queues that it spreads over; `count` of them are opened.
    fn of(interface: &Interface, count: u32) -> (Self, Vec<u32>) {
        let name = interface.name();
        // Not known is no reason not to open it.
        let table = ethtool::indirections(name).unwrap_or_default();
        let spreader = Self {
            name: name.to_owned(),
            has_table: table.is_some(),
            fewer: interface.set_queues_command(u64::from(count)),
        };
        let queues = table.unwrap_or_else(|| (0..interface.queues()).collect());
        (spreader, queues)
    }
}

/// Tells in the log what goes past the queues that are to be opened.
pub(crate) fn warn_about_others(config: &PortConfig, interface: &Interface) {
    if let Some(uncovered) = Uncovered::find(config, interface) {
        let fix = uncovered.fix();
        tracing::warn!("{uncovered}. To change that: {fix}");
    }
}

impl Uncovered {
    /// Looks at how `interface` spreads frames. `None`: all that is hashed comes to the queues that
    /// `config` asks for, or there are not so many queues.
    ///
    /// Frames that are steered (`ethtool -N`) are not looked at.
    pub(crate) fn find(config: &PortConfig, interface: &Interface) -> Option<Self> {
        let (first, count) = (config.start_queue, config.queues);
        let queues = interface.queues();
        let covered = first..first.checked_add(count)?;
        if count == 0 || count >= queues || covered.end > queues {
            return None;
        }
        // A bond has 16 queues whatever its ports have.
        let ports = Ports::of(interface);
        let (spreaders, reached): (Vec<_>, Vec<_>) = match &ports {
            Some(ports) => {
                let ports = ports.ports().iter();
                ports.map(|port| Spreader::of(port, count)).unzip()
            }
            None => [Spreader::of(interface, count)].into_iter().unzip(),
        };
        let others: BTreeSet<_> = reached
            .into_iter()
            .flatten()
            .filter(|queue| *queue < queues && !covered.contains(queue))
            .collect();
        (!others.is_empty()).then(|| Self {
            interface: interface.name().to_owned(),
            first,
            count,
            queues: match ports {
                Some(_) => others.last().map_or(0, |last| last + 1),
                None => queues,
            },
            others,
            spreaders,
        })
    }

    /// What to do about it.
    pub(crate) fn fix(&self) -> String {
        let Self {
            first,
            count,
            queues,
            spreaders,
            ..
        } = self;
        let mut ways = Vec::new();
        if *first == 0 {
            let fewer = spreaders.iter().map(|it| it.fewer.as_ref());
            let fewer: Option<Vec<_>> = fewer.map(|it| Some(format!("`{}`", it?))).collect();
            ways.extend(fewer.map(|fewer| fewer.join(" and ")));
        }
        if spreaders.iter().all(|it| it.has_table) {
            let start = match first {
                0 => String::new(),
                _ => format!("start {first} "),
            };
            let equal = |it: &Spreader| format!("`ethtool -X {} {start}equal {count}`", it.name);
            let equal: Vec<_> = spreaders.iter().map(equal).collect();
            let all = equal.join(" and ");
            ways.push(format!("{all}, which leaves the others to the host"));
        }
        let start = if *first == 0 { "" } else { "start-queue=0," };
        ways.push(format!(
            "{start}queues={queues}, with as many vCPUs if each is to have a thread of its own"
        ));
        ways.join("; or ")
    }
}

impl fmt::Display for Uncovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            interface,
            first,
            count,
            queues,
            others,
            ..
        } = self;
        write!(
            f,
            "{interface} spreads what it receives over {queues} queues, of which "
        )?;
        match count {
            1 => write!(f, "queue {first} is opened")?,
            _ => write!(f, "{first} to {} are opened", first + (count - 1))?,
        }
        let others: Vec<_> = others.iter().map(u32::to_string).collect();
        // A card may have hundreds.
        let (some, more) = others.split_at(others.len().min(8));
        let end = if more.is_empty() { "" } else { " ..." };
        write!(
            f,
            ": what arrives on {}{end} goes past them to the host",
            some.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uncovered(first: u32, count: u32, has_table: bool) -> Uncovered {
        Uncovered {
            interface: "eth1".to_owned(),
            first,
            count,
            queues: 12,
            others: (0..12)
                .filter(|queue| !(first..first + count).contains(queue))
                .collect(),
            spreaders: vec![Spreader {
                name: "eth1".to_owned(),
                has_table,
                fewer: Some(format!("ethtool -L eth1 combined {count}")),
            }],
        }
    }

    #[test]
    fn one_queue_of_many_says_what_bypasses_it() {
        let one = uncovered(0, 1, true);
        assert_eq!(
            one.to_string(),
            "eth1 spreads what it receives over 12 queues, of which queue 0 is opened: what arrives on \
             1, 2, 3, 4, 5, 6, 7, 8 ... goes past them to the host"
        );
        assert_eq!(
            one.fix(),
            "`ethtool -L eth1 combined 1`; or `ethtool -X eth1 equal 1`, which leaves the others to the \
             host; or queues=12, with as many vCPUs if each is to have a thread of its own"
        );
    }

    #[test]
    fn ports_that_spread_have_commands_of_their_own() {
        let mut bond = uncovered(0, 1, true);
        let mut other = bond.spreaders[0].clone();
        other.name = "eth2".to_owned();
        other.fewer = Some("ethtool -L eth2 rx 1 tx 1".to_owned());
        bond.spreaders.push(other);
        let fix = bond.fix();
        for words in [
            "`ethtool -L eth1 combined 1` and `ethtool -L eth2 rx 1 tx 1`; or ",
            "`ethtool -X eth1 equal 1` and `ethtool -X eth2 equal 1`, which leaves",
        ] {
            assert!(fix.contains(words), "{fix}");
        }
        bond.spreaders[0].has_table = false;
        bond.spreaders[1].fewer = None;
        assert!(!bond.fix().contains("ethtool"), "{}", bond.fix());
    }

    #[test]
    fn later_queues_can_be_chosen_by_the_table_only() {
        let two = uncovered(4, 2, true);
        assert!(two.to_string().contains("4 to 5 are opened"), "{two}");
        let fix = two.fix();
        assert!(
            fix.starts_with("`ethtool -X eth1 start 4 equal 2`"),
            "{fix}"
        );
        let fix = uncovered(4, 2, false).fix();
        assert!(fix.starts_with("start-queue=0,queues=12"), "{fix}");
    }

    #[test]
    fn an_interface_whose_queues_are_all_opened_is_covered() {
        let lo = Interface::by_name("lo").unwrap();
        let config = |queues| PortConfig {
            ifname: "lo".to_owned(),
            queues,
            ..PortConfig::default()
        };
        assert_eq!(Uncovered::find(&config(lo.queues()), &lo), None);
        assert_eq!(Uncovered::find(&config(u32::MAX), &lo), None);
    }
}
