//! What a station's wire is made of.

use std::sync::Arc;

use ringwire_tests::{Card, Wire};

use crate::problem::{Outcome, Problem};

/// Two ends that are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    /// A veth pair.
    Veth,
    /// Two of the lab's cards, whose drivers have zero-copy.
    Cards(Card),
}

impl Link {
    /// For the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Veth => "",
            Self::Cards(Card::Igb) => " on igb",
            Self::Cards(Card::VirtioNet) => " on virtio-net",
        }
    }

    /// Queues that its interfaces can have.
    pub(crate) fn queues(self) -> u32 {
        match self {
            Self::Veth => 3,
            Self::Cards(Card::Igb) => 2,
            Self::Cards(Card::VirtioNet) => 1,
        }
    }

    /// Makes it.
    pub(crate) fn lay(self) -> Arc<Wire> {
        Arc::new(match self {
            Self::Veth => Wire::with_queues(self.queues()),
            Self::Cards(card) => Wire::of(card),
        })
    }

    /// Its near end is gone: an interface is deleted, with the other one, and a card pulled.
    pub(crate) fn cut(self, wire: &Wire) {
        match self {
            Self::Veth => {
                wire.near(&format!("ip link delete {}", Wire::IFNAME));
            }
            Self::Cards(_) => wire.pull(),
        }
    }

    /// It is there again.
    pub(crate) fn mend(self, wire: &Wire) {
        match self {
            Self::Veth => wire.lay(self.queues()),
            Self::Cards(_) => wire.put_back(),
        }
    }

    /// What ethtool's `-L INTERFACE` is told for that many queues: on most cards one is for both directions.
    pub(crate) fn channels(self, count: u32) -> String {
        match self {
            Self::Veth => format!("rx {count} tx {count}"),
            Self::Cards(_) => format!("combined {count}"),
        }
    }

    /// Gives both ends that many queues. Fails where they have as many, so what comes of it is not looked at.
    pub(crate) fn set_channels(self, wire: &Wire, count: u32) -> Outcome {
        let channels = self.channels(count);
        for (mut ethtool, interface) in [
            (wire.vmm_command("ethtool".as_ref()), Wire::IFNAME),
            (wire.peer_command("ethtool".as_ref()), Wire::PEER_IFNAME),
        ] {
            let ethtool = ethtool.args(["-L", interface]);
            let output = ethtool.args(channels.split_whitespace()).output();
            output.map_err(Problem::system("run ethtool"))?;
        }
        Ok(())
    }
}
