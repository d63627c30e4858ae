//! The entries, by their numbers in `docs/catalogue.md`.

mod control;
mod frames;
mod layout;
mod offloads;
mod pci;
mod registers;
mod rings;
mod turmoil;

use crate::rig::Rig;

/// What must come of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Must {
    /// The device asks for a reset.
    Reset,
    /// The same, as soon as frames are received.
    ResetOnReceive,
    /// It works without one.
    GoOn,
    /// Either.
    Whatever,
}

/// One of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) number: u8,
    /// For the report.
    pub(crate) what: &'static str,
    /// Does it in that way, with a device that works; `None` if there are fewer ways.
    pub(crate) attack: fn(&mut Rig, u16) -> Option<Must>,
}

/// All of them. 31, 33 and 59 are of PCI, and not done where there is none; 13 is 14 with every index of 16 bits.
pub(crate) const ENTRIES: &[Entry] = &[
    entry(1, "chains that loop", rings::loops),
    entry(2, "impossible available indices", rings::indices),
    entry(3, "descriptors that are none", rings::outside_the_table),
    entry(4, "broken indirect tables", rings::tables),
    entry(5, "tables that change", turmoil::changing_table),
    entry(6, "impossible lengths", rings::lengths),
    entry(7, "buffers outside RAM", rings::outside_ram),
    entry(8, "buffers of the wrong direction", rings::directions),
    entry(9, "misplaced rings", layout::misplaced),
    entry(10, "impossible queue sizes", layout::sizes),
    entry(11, "an endless queue", turmoil::endless),
    entry(12, "more in flight than there is", rings::too_many),
    entry(13, "indices written byte by byte", turmoil::torn_index),
    entry(14, "index wraps, used_event of garbage", turmoil::wrap),
    entry(15, "kicks that mean nothing", registers::kicks),
    entry(16, "short and cut headers", frames::headers),
    entry(17, "impossible segmentation", offloads::segmentation),
    entry(18, "header lengths that lie", offloads::header_lengths),
    entry(19, "checksums elsewhere", offloads::checksums),
    entry(20, "broken packets to be cut", offloads::packets),
    entry(21, "very many segments", offloads::many),
    entry(22, "headers that change", turmoil::changing_header),
    entry(23, "tiny receive buffers", frames::tiny_buffers),
    entry(24, "too few receive buffers", frames::few_buffers),
    entry(25, "impossible features", layout::features),
    entry(26, "sets of features", layout::feature_sets),
    entry(27, "impossible commands", control::commands),
    entry(28, "frames that are too long", frames::long),
    entry(29, "odd register accesses", registers::odd),
    entry(30, "queues that are none", registers::queues),
    entry(31, "impossible MSI-X vectors and tables", pci::vectors),
    entry(32, "status at random", registers::status_bits),
    entry(33, "BARs moved where none can be", pci::bars),
    entry(34, "half-configured queues", layout::half_configured),
    entry(35, "resets under way", turmoil::resets),
    entry(36, "buffers in the device's registers", rings::registers),
    entry(59, "Bus Master Enable at any time", pci::bus_master),
];

const fn entry(number: u8, what: &'static str, attack: fn(&mut Rig, u16) -> Option<Must>) -> Entry {
    Entry {
        number,
        what,
        attack,
    }
}
