//! The lab's network cards, two of each kind, which all tests with cards use one after the other.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// What the lab has two of, wired to each other. The drivers of all have XDP zero-copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Card {
    /// Intel 82576: two queues, and RSS.
    Igb,
    /// virtio-net: one queue.
    VirtioNet,
}

impl Card {
    fn driver(self) -> &'static str {
        match self {
            Self::Igb => "igb",
            Self::VirtioNet => "virtio_net",
        }
    }
}

/// Each card's present name, with the namespace that it is to go to and its name there. By MAC address, so that the same
/// card is always at the same end.
pub(crate) fn pair<'a>(
    kind: Card,
    vmm: &'a str,
    peer: &'a str,
    near: &'a str,
    far: &'a str,
) -> [(String, &'a str, &'a str); 2] {
    // A card that was left in a namespace by a killed test comes back a while after it.
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let mut cards = present(kind);
        cards.sort();
        if let [(_, first), (_, second), ..] = &cards[..] {
            return [(first.clone(), vmm, near), (second.clone(), peer, far)];
        }
        assert!(
            Instant::now() < deadline,
            "two {} cards are needed, {} are here; run these tests with 'make test'",
            kind.driver(),
            cards.len()
        );
        thread::sleep(Duration::from_millis(50));
    }
}

/// Takes a card out of its PCI slot as an administrator does before pulling it: its driver lets go of it, and its
/// interface is gone.
pub(crate) fn pull(device: &Path) {
    // That of virtio-net is on a bus of its own, on top.
    let slot = device.ancestors().find(|it| it.join("remove").exists());
    let slot = slot.expect("a card is in a slot");
    fs::write(slot.join("remove"), "1").expect("root may remove it");
}

/// Looks for new cards, and returns the name of the first one that nobody has: the one that was pulled.
pub(crate) fn put_back(kind: Card) -> String {
    let deadline = Instant::now() + Duration::from_secs(30);
    rescan();
    loop {
        if let Some((_, name)) = present(kind).pop() {
            return name;
        }
        assert!(Instant::now() < deadline, "the card does not come back");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Has the kernel find cards that were pulled, as new, in the namespace of process 1; there may be none.
pub(crate) fn rescan() {
    let _ = fs::write("/sys/bus/pci/rescan", "1");
}

/// MAC address and name of each card in the namespace of the test.
fn present(kind: Card) -> Vec<(String, String)> {
    let interfaces = fs::read_dir("/sys/class/net").expect("sysfs is mounted");
    let cards = interfaces.flatten().filter_map(|entry| {
        let driver = fs::read_link(entry.path().join("device/driver")).ok()?;
        let mac = fs::read_to_string(entry.path().join("address")).ok()?;
        let name = entry.file_name().into_string().ok()?;
        driver.ends_with(kind.driver()).then_some((mac, name))
    });
    cards.collect()
}

/// Back to the namespace of process 1, with what tests change set back. Nobody is told of an error: a test may be
/// failing already, and the next one complains.
pub(crate) fn give_back(namespace: &str, name: &str) {
    for words in [
        format!("ethtool -L {name} combined 2"),
        format!("ethtool -X {name} default"),
        format!("ip link set {name} mtu 1500"),
        format!("ip link set {name} down"),
        format!("ip link set {name} netns 1"),
    ] {
        let _ = Command::new("ip")
            .args(["netns", "exec", namespace])
            .args(words.split_whitespace())
            .output();
    }
}

/// Moves the calling thread into a namespace that `ip netns` has made.
pub(crate) fn enter(namespace: &str) {
    let file = File::open(format!("/run/netns/{namespace}")).expect("`ip netns` made it");
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .expect("root may change its namespace");
}
