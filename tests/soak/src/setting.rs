//! What a VM is started with, at random.

use std::fs;

use crate::{link::Link, random::Random};

/// Frames of a queue pair if nothing is said.
const FRAMES: u64 = 4096;

/// Options of one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    /// What it is on.
    pub(crate) link: Link,
    /// Queue pairs.
    pub(crate) queues: u32,
    /// Frames of all of them together.
    pub(crate) frames: u64,
    /// More `,key=value` of `--netdev`.
    pub(crate) netdev: String,
    /// More `,key=value` of `--device`: the offloads.
    pub(crate) device: &'static str,
    /// Whether the card is on PCI. A bare guest has it on MMIO always, and PCI beside it or not.
    pub(crate) pci: bool,
    /// Guest RAM of huge pages that were set aside, if there are enough.
    pub(crate) huge: bool,
    /// Which kernel a Linux guest has, of those that there are, modulo their number.
    pub(crate) kernel: usize,
}

impl Setting {
    /// Of a process that lasts: all that can be in use is.
    pub(crate) fn lasting(link: Link) -> Self {
        let queues = link.queues();
        let required = match link {
            Link::Veth => "",
            Link::Cards(_) => ",require=zerocopy",
        };
        Self {
            link,
            queues,
            frames: u64::from(queues) * FRAMES,
            netdev: format!(",queues={queues}{required}"),
            device: "",
            pci: true,
            huge: false,
            kernel: 0,
        }
    }

    /// Of any other; `metadata`: the kernel takes `tx-metadata=on` on a veth pair, as no driver of the lab's cards does.
    pub(crate) fn random(random: &mut Random, link: Link, metadata: bool) -> Self {
        let metadata = metadata && link == Link::Veth;
        let queues = random.one_of([1, 2, 3]).min(link.queues());
        let mode = random.one_of(["", ",mode=native", ",mode=skb"]);
        let (each, frames) = random.one_of([(FRAMES, ""), (512, ",frames=512")]);
        let poll = random.one_of(["", "", ",busy-poll=0", ",busy-poll=20"]);
        let copy = random.one_of(["", "", ",zero-copy-tx=on", ",force-copy=on"]);
        let mut sums = random.one_of(["", "", ",tx-metadata=off", ",tx-metadata=on"]);
        let in_place = copy.contains("zero-copy-tx");
        if sums.ends_with("=on") && (in_place || !metadata) {
            sums = "";
        }
        let device = random.one_of([
            "",
            "",
            ",csum=off",
            ",tso=off",
            ",gro=off",
            ",tso=off,uso=off,gro=off",
        ]);
        Self {
            link,
            queues,
            frames: u64::from(queues) * each,
            netdev: format!(",queues={queues}{mode}{frames}{poll}{copy}{sums}"),
            device,
            pci: random.one_of([true, false]),
            huge: random.one_of([true, false]) && !in_place,
            kernel: random.one_of([0, 1, 2]),
        }
    }

    /// The value of `--memory` for that many MiB.
    pub(crate) fn memory(&self, mebibytes: u64) -> String {
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        if self.huge && free_huge(&meminfo) >= mebibytes {
            format!("size={mebibytes}M,hugepages=on")
        } else {
            format!("{mebibytes}M")
        }
    }

    /// Whether frames of the far end must not be over the MTU: the XDP program runs in generic mode, and the kernel has
    /// no frames of several chunks.
    pub(crate) fn loses_large_frames(&self) -> bool {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        self.netdev.contains("mode=skb") && is_before(&release, (6, 6))
    }
}

/// Whether a kernel's release, such as "6.12.3-some-distribution", is before this version.
fn is_before(release: &str, version: (u32, u32)) -> bool {
    let mut numbers = release.split('.').map_while(|it| it.parse::<u32>().ok());
    let (major, minor) = (numbers.next(), numbers.next());
    (major.unwrap_or(0), minor.unwrap_or(0)) < version
}

/// MiB of huge pages of 2 MiB that nobody has, by /proc/meminfo.
fn free_huge(meminfo: &str) -> u64 {
    let field = |name: &str| -> Option<u64> {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    if field("Hugepagesize:") != Some(2048) {
        return 0;
    }
    let free = field("HugePages_Free:").unwrap_or(0);
    2 * free.saturating_sub(field("HugePages_Rsvd:").unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_excludes_each_other_is_never_chosen() {
        let mut random = Random::new(1);
        let mut seen = 0;
        for _ in 0..2000 {
            let setting = Setting::random(&mut random, Link::Veth, true);
            let in_place = setting.netdev.contains("zero-copy-tx=on");
            let metadata = setting.netdev.contains("tx-metadata=on");
            assert!(!(in_place && (metadata || setting.huge)), "{setting:?}");
            assert_eq!(setting.frames % u64::from(setting.queues), 0);
            seen += u32::from(metadata);
            let without = Setting::random(&mut random, Link::Veth, false);
            assert!(!without.netdev.contains("tx-metadata=on"));
        }
        assert!(seen > 100);
    }

    #[test]
    fn versions_are_compared_by_number() {
        for (release, before) in [
            ("6.12.95+deb12-amd64", false),
            ("6.6.0", false),
            ("6.1.0-56-amd64", true),
            ("7.3.4", false),
            ("", true),
        ] {
            assert_eq!(is_before(release, (6, 6)), before, "{release}");
        }
    }

    #[test]
    fn huge_pages_that_are_promised_are_not_free() {
        let text = "HugePages_Total:     100\nHugePages_Free:       90\nHugePages_Rsvd:       10\nHugepagesize:       2048 kB\n";
        assert_eq!(free_huge(text), 160);
        assert_eq!(free_huge(&text.replace("2048", "1048576")), 0);
        assert_eq!(free_huge(""), 0);
    }
}
