//! A wire between two network namespaces, one for the VMM, one for the far end: a veth pair, or two cards.

use std::path::Path;
use std::process::{self, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::background::Background;
use crate::cards::{self, Card};
use crate::setup::serial;

/// The wire. Dropping it removes both namespaces, and with them the veth pair; cards are given back.
#[derive(Debug)]
pub struct Wire {
    vmm: String,
    peer: String,
    cards: Option<Card>,
}

impl Wire {
    /// The interface that the VMM opens.
    pub const IFNAME: &str = "wire0";
    /// The interface of the far end.
    pub const PEER_IFNAME: &str = "peer0";
    /// The far end's address.
    pub const PEER: &str = "10.78.0.1";
    /// The address that a guest gets by [`Options::on`](crate::Options::on).
    pub const GUEST: &str = "10.78.0.2";

    /// Makes the namespaces and a veth pair, with both ends up.
    ///
    /// # Panics
    /// When `ip` or `ethtool` fails; that needs root.
    #[must_use]
    pub fn new() -> Self {
        Self::with_queues(1)
    }

    /// The same, with that many queues at both ends.
    ///
    /// # Panics
    /// When `ip` or `ethtool` fails; that needs root.
    #[must_use]
    pub fn with_queues(queues: u32) -> Self {
        let wire = Self::without_interfaces(None);
        wire.lay(queues);
        wire
    }

    /// Makes the veth pair, with that many queues at both ends, and sets it up: once more, if it was deleted.
    ///
    /// # Panics
    /// When `ip` fails.
    pub fn lay(&self, queues: u32) {
        let (near, far) = (Self::IFNAME, Self::PEER_IFNAME);
        let count = format!("numrxqueues {queues} numtxqueues {queues}");
        self.near(&format!(
            "ip link add {near} {count} type veth peer name {far} {count} netns {}",
            self.peer
        ));
        self.near(&format!("ip link set {near} addrgenmode none up"));
        self.far("ip link set lo up");
        self.far(&format!("ip address add {}/24 dev {far}", Self::PEER));
        self.far(&format!("ip link set {far} up"));
    }

    /// Takes the two igb cards of the lab (`tests/lab/run --cards`), which are wired to each other, with both ends up and
    /// the queues as the driver sets them.
    ///
    /// # Panics
    /// When they are not there, or can't be set up.
    #[must_use]
    pub fn of_cards() -> Self {
        Self::of(Card::Igb)
    }

    /// The same with cards of that kind.
    ///
    /// # Panics
    /// When they are not there, or can't be set up.
    #[must_use]
    pub fn of(kind: Card) -> Self {
        let wire = Self::without_interfaces(Some(kind));
        let (near, far) = (Self::IFNAME, Self::PEER_IFNAME);
        for (card, namespace, name) in cards::pair(kind, &wire.vmm, &wire.peer, near, far) {
            must(Command::new("ip").args(["link", "set", &card, "netns", namespace, "name", name]));
        }
        wire.near(&format!("ip link set {near} addrgenmode none"));
        wire.near(&format!("ip link set {near} up"));
        wire.far("ip link set lo up");
        wire.far(&format!("ip address add {}/24 dev {far}", Self::PEER));
        wire.far(&format!("ip link set {far} up"));
        wire.wait_for_carrier();
        wire
    }

    fn without_interfaces(cards: Option<Card>) -> Self {
        let name = format!("rwt{}-{}", process::id(), serial());
        let wire = Self {
            vmm: format!("{name}-vmm"),
            peer: format!("{name}-peer"),
            cards,
        };
        must(Command::new("ip").args(["netns", "add", &wire.vmm]));
        must(Command::new("ip").args(["netns", "add", &wire.peer]));
        wire
    }

    /// Waits until both ends see the other: cards negotiate when they are set up, and when a program is attached.
    ///
    /// # Panics
    /// When they do not.
    pub fn wait_for_carrier(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let up = |text: String| text.contains("LOWER_UP");
        while !(up(self.near(&format!("ip link show {}", Self::IFNAME)))
            && up(self.far(&format!("ip link show {}", Self::PEER_IFNAME))))
        {
            assert!(Instant::now() < deadline, "no carrier on the wire");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Has the calling thread, and nothing else, enter the VMM's namespace (`near`) or the far end's.
    ///
    /// # Panics
    /// When the kernel refuses it.
    pub fn enter(&self, near: bool) {
        let name = if near { &self.vmm } else { &self.peer };
        cards::enter(name);
    }

    /// Runs a command (words, no quoting) in the VMM's namespace and returns what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub fn near(&self, command: &str) -> String {
        must(&mut in_namespace(&self.vmm, command))
    }

    /// Runs a command (words, no quoting) in the far end's namespace and returns what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub fn far(&self, command: &str) -> String {
        must(&mut in_namespace(&self.peer, command))
    }

    /// Runs a command (words, no quoting) in the far end's namespace that this kernel may be unable to do; whether it
    /// succeeded. What it says is shown.
    #[must_use]
    pub fn far_status(&self, command: &str) -> bool {
        let status = in_namespace(&self.peer, command).status();
        status.is_ok_and(|it| it.success())
    }

    /// Runs a command (words, no quoting) in the far end's namespace that is to fail, and returns what it printed.
    ///
    /// # Panics
    /// When it succeeds.
    pub fn far_fails(&self, command: &str) -> String {
        let mut command = in_namespace(&self.peer, command);
        let output = command.stdin(Stdio::null()).output();
        let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        assert!(!output.status.success(), "{command:?} succeeded");
        let texts = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&texts).into_owned()
    }

    /// Starts a command (words, no quoting) in the far end's namespace.
    ///
    /// # Panics
    /// When it can't be started.
    #[must_use]
    pub fn far_background(&self, command: &str) -> Background {
        Background::start(in_namespace(&self.peer, command))
    }

    /// A command that runs `program` in the VMM's namespace; `ip` becomes `program`, so that the process id is its.
    #[must_use]
    pub fn vmm_command(&self, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.vmm]).arg(program);
        command
    }

    /// The same in the far end's namespace.
    #[must_use]
    pub fn peer_command(&self, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.peer]).arg(program);
        command
    }

    /// Moves the VMM's interface into the far end's namespace, where it keeps its name.
    ///
    /// # Panics
    /// When the kernel refuses it.
    pub fn take_away(&self) {
        self.near(&format!("ip link set {} netns {}", Self::IFNAME, self.peer));
    }

    /// Moves it back, and sets it up.
    ///
    /// # Panics
    /// When the kernel refuses it.
    pub fn bring_back(&self) {
        self.far(&format!("ip link set {} netns {}", Self::IFNAME, self.vmm));
        self.near(&format!("ip link set {} up", Self::IFNAME));
        self.wait_for_carrier();
    }

    /// Pulls the card at the VMM's end.
    ///
    /// # Panics
    /// When it is not in a PCI slot.
    pub fn pull(&self) {
        let device = self.near(&format!(
            "readlink -f /sys/class/net/{}/device",
            Self::IFNAME
        ));
        cards::pull(Path::new(device.trim()));
    }

    /// Puts it back, up.
    ///
    /// # Panics
    /// When the kernel does not find it.
    pub fn put_back(&self) {
        let card = cards::put_back(self.cards.expect("it was a card"));
        let (namespace, name) = (&self.vmm, Self::IFNAME);
        must(Command::new("ip").args(["link", "set", &card, "netns", namespace, "name", name]));
        self.near(&format!("ip link set {name} up"));
        self.wait_for_carrier();
    }

    /// Whether an XDP program is on the VMM's interface.
    #[must_use]
    pub fn has_program(&self) -> bool {
        self.near(&format!("ip -details link show {}", Self::IFNAME))
            .contains("prog/xdp")
    }
}

impl Default for Wire {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.cards.is_some() {
            for (namespace, name) in [(&self.vmm, Self::IFNAME), (&self.peer, Self::PEER_IFNAME)] {
                cards::give_back(namespace, name);
            }
            cards::rescan();
        }
        for name in [&self.vmm, &self.peer] {
            let _ = Command::new("ip").args(["netns", "delete", name]).status();
        }
    }
}

fn in_namespace(name: &str, words: &str) -> Command {
    let mut command = Command::new("ip");
    command
        .args(["netns", "exec", name])
        .args(words.split_whitespace());
    command
}

/// Runs to the end, and returns what was printed.
fn must(command: &mut Command) -> String {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?} failed ({}): {text}{complaint}",
        output.status
    );
    text
}
