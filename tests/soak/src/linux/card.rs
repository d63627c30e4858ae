//! What a Linux guest does with its card while flows go through it.

use ringwire_tests::Wire;

use super::Linux;
use crate::{
    problem::Outcome, random::Random, resident::Resident, setting::Setting, station::Station,
};

/// One of the things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    /// Another number of queue pairs for a while.
    Pairs,
    /// Rings of other sizes, which resets each of them.
    Rings,
    /// The driver lets the card go and takes it again, which resets it.
    Rebind,
    /// The card is down for a while.
    Down,
    /// Offloads come and go.
    Offloads,
    /// Interrupts wait.
    Interrupts,
    /// All frames of the wire are wanted for a while.
    Promiscuous,
    /// The far end sends as much as it can for a while.
    Flood,
}

impl Deed {
    const ALL: [Self; 8] = [
        Self::Pairs,
        Self::Rings,
        Self::Rebind,
        Self::Down,
        Self::Offloads,
        Self::Interrupts,
        Self::Promiscuous,
        Self::Flood,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Pairs => "Pairs",
            Self::Rings => "Rings",
            Self::Rebind => "Rebind",
            Self::Down => "Down",
            Self::Offloads => "Offloads",
            Self::Interrupts => "Interrupts",
            Self::Promiscuous => "Promiscuous",
            Self::Flood => "Flood",
        }
    }

    /// Whether the guest's kernel loses its address or its routes meanwhile.
    fn cuts(self) -> bool {
        matches!(self, Self::Rebind | Self::Down)
    }

    /// What the guest does first, and, a while later, then.
    fn commands(self, random: &mut Random, setting: &Setting) -> (String, String) {
        let all = setting.queues;
        let pairs = random.one_of([1, 2, 3]).min(all);
        let [rx, tx] = [(); 2].map(|()| random.one_of([256, 512, 1024]));
        let offload = random.one_of(["tso", "gso", "gro", "tx", "rx", "rx-gro-hw", "lro"]);
        let wait = random.one_of([0, 50, 300]);
        match self {
            Self::Pairs => (
                format!("ethtool -L eth0 combined {pairs}"),
                format!("ethtool -L eth0 combined {all}"),
            ),
            // Linux's driver for MMIO has no registers for it.
            Self::Rings if !setting.pci => ("true".to_owned(), "true".to_owned()),
            Self::Rings => (
                format!("ethtool -G eth0 rx {rx} tx {tx}"),
                "ethtool -G eth0 rx 1024 tx 1024".to_owned(),
            ),
            Self::Rebind => {
                let driver = "/sys/bus/virtio/drivers/virtio_net";
                (
                    format!(
                        "basename $(readlink /sys/class/net/eth0/device) >/tmp/card; cat /tmp/card >{driver}/unbind"
                    ),
                    format!(
                        "cat /tmp/card >{driver}/bind && ip address add {}/24 dev eth0 && ip link set eth0 up && ethtool -L eth0 combined {all}",
                        Wire::GUEST
                    ),
                )
            }
            Self::Down => (
                "ip link set eth0 down".to_owned(),
                "ip link set eth0 up".to_owned(),
            ),
            // Which there are depends on the kernel and on what the card offers.
            Self::Offloads => (
                format!("ethtool -K eth0 {offload} off; true"),
                format!("ethtool -K eth0 {offload} on; true"),
            ),
            Self::Interrupts => (
                format!("ethtool -C eth0 rx-usecs {wait} tx-usecs {wait}; true"),
                "ethtool -C eth0 rx-usecs 0 tx-usecs 0; true".to_owned(),
            ),
            Self::Promiscuous => (
                "ip link set eth0 promisc on".to_owned(),
                "ip link set eth0 promisc off".to_owned(),
            ),
            Self::Flood => ("true".to_owned(), "true".to_owned()),
        }
    }
}

/// Lets one of them happen in flows, and says which.
pub(super) fn happen(station: &mut Station<Linux>, random: &mut Random) -> Outcome<&'static str> {
    let deed = random.one_of(Deed::ALL);
    let (first, then) = deed.commands(random, &station.setting);
    let pause = random.pause(50);
    Linux::begin(station, random, deed.cuts())?;
    station.resident.ok(&first)?;
    if deed == Deed::Flood {
        // It fails when one of them was not answered.
        station.far(&format!("ping -q -f -w 1 {}", Wire::GUEST));
    }
    station.watch(pause)?;
    station.resident.ok(&then)?;
    Ok(deed.name())
}
