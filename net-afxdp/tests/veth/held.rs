//! What the process holds of the system, to see what was left behind.

use std::{
    io, thread,
    time::{Duration, Instant},
};

use crate::packet::PATIENCE;

/// What the process holds of the system.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Held {
    descriptors: usize,
    pub(crate) sockets: u32,
    pub(crate) mappings: usize,
}

impl Held {
    pub(crate) fn now() -> Self {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        Self {
            descriptors: std::fs::read_dir("/proc/self/fd").unwrap().count(),
            sockets: xdp_sockets().unwrap(),
            // The rings' mappings, by the name that the kernel gives them.
            mappings: maps
                .lines()
                .filter(|line| line.contains("socket:["))
                .count(),
        }
    }

    /// The kernel releases a socket some 50 ms after its end.
    pub(crate) fn settled(wanted: &Self) -> Self {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = Self::now();
            let rest = now.sockets == wanted.sockets && now.mappings == wanted.mappings;
            if rest || Instant::now() > deadline {
                return now;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

fn xdp_sockets() -> io::Result<u32> {
    let protocols = std::fs::read_to_string("/proc/thread-self/net/protocols")?;
    let line = protocols.lines().find(|line| line.starts_with("XDP"));
    let count = line.and_then(|line| line.split_whitespace().nth(2)?.parse().ok());
    count.ok_or_else(|| io::Error::other("no XDP in /proc/net/protocols"))
}
