//! The map of a program of others, from its slots to sockets (BPF_MAP_TYPE_XSKMAP).

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use libbpf_rs::libbpf_sys;

use crate::bpf;

/// Why sockets can't be put into a map of others.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// There is none at that path, or it may not be opened.
    #[error(
        "cannot open the pinned map {}: {source}. It must be a map that was pinned in a bpffs, and \
         this user must have read and write permission for the file",
        path.display()
    )]
    Open {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is no map.
    #[error(
        "what was handed over as the map of sockets is not a BPF map: {0}. It must be an XSKMAP"
    )]
    NotAMap(#[source] io::Error),
    /// It is a map of another type.
    #[error(
        "the map {name:?} (id {id}) does not hold AF_XDP sockets: its type is number {kind}, and an \
         XSKMAP has number {XSKMAP}"
    )]
    OtherType {
        /// Name of the map.
        name: String,
        /// Its id, as in `bpftool map`.
        id: u32,
        /// Its type (`enum bpf_map_type`).
        kind: u32,
    },
    /// It has too few slots.
    #[error(
        "the map {name:?} (id {id}) has {slots} slot{}, the first of which is 0, but the slots \
         {first} to {last} are needed",
        if *slots == 1 { "" } else { "s" }
    )]
    TooSmall {
        /// Name of the map.
        name: String,
        /// Its id.
        id: u32,
        /// Number of its slots.
        slots: u32,
        /// First slot needed.
        first: u32,
        /// Last slot needed.
        last: u64,
    },
    /// Another socket is in the slot.
    #[error(
        "slot {slot} of the map {name:?} (id {id}) has another socket already, and still had it \
         after a while. End the process that owns it, or use another slot"
    )]
    Taken {
        /// Name of the map.
        name: String,
        /// Its id.
        id: u32,
        /// The slot.
        slot: u32,
    },
    /// The kernel refused the socket.
    #[error("cannot put a socket into slot {slot} of the map {name:?} (id {id}): {source}")]
    Insert {
        /// Name of the map.
        name: String,
        /// Its id.
        id: u32,
        /// The slot.
        slot: u32,
        /// What the system said.
        source: io::Error,
    },
}

/// `BPF_MAP_TYPE_XSKMAP` (linux/bpf.h).
const XSKMAP: u32 = libbpf_sys::BPF_MAP_TYPE_XSKMAP;

/// How often a slot that is taken is tried again. The kernel empties it when its socket is closed,
/// which is late when a process has ended a moment ago.
const TRIES: u32 = 50;

/// Pause between two tries.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

/// A map of others. Dropping it takes out what was put in.
#[derive(Debug)]
pub(crate) struct XskMap {
    map: OwnedFd,
    name: String,
    id: u32,
    /// Slot of the first socket.
    first: u32,
    /// Slots that are ours.
    inserted: Vec<u32>,
}

impl XskMap {
    /// Opens the map that is pinned at `path`, to use `count` slots from `first` on.
    ///
    /// # Errors
    /// [`MapError`].
    pub(crate) fn open(path: &Path, first: u32, count: u32) -> Result<Self, MapError> {
        let map = bpf::open_pinned(path).map_err(|source| MapError::Open {
            path: path.to_owned(),
            source,
        })?;
        Self::new(map, first, count)
    }

    /// Takes a map, to use `count` slots from `first` on.
    ///
    /// # Errors
    /// [`MapError`].
    pub(crate) fn new(map: OwnedFd, first: u32, count: u32) -> Result<Self, MapError> {
        let info = bpf::map_info(map.as_fd()).map_err(MapError::NotAMap)?;
        let name = info.name;
        let id = info.id;
        if info.kind != XSKMAP {
            let kind = info.kind;
            return Err(MapError::OtherType { name, id, kind });
        }
        let end = u64::from(first) + u64::from(count);
        if end > u64::from(info.max_entries) {
            return Err(MapError::TooSmall {
                name,
                id,
                slots: info.max_entries,
                first,
                last: end.saturating_sub(1),
            });
        }
        Ok(Self {
            map,
            name,
            id,
            first,
            inserted: Vec::new(),
        })
    }

    /// Puts the socket of the `number`-th queue, from 0, into its slot. Never pushes another socket
    /// out.
    ///
    /// # Errors
    /// [`MapError`].
    pub(crate) fn insert(&mut self, number: u32, socket: BorrowedFd<'_>) -> Result<(), MapError> {
        // Checked by `new` for all numbers that there are.
        let slot = self.first.saturating_add(number);
        let mut tries = 0;
        loop {
            let Err(source) = bpf::insert_new(self.map.as_fd(), slot, socket) else {
                self.inserted.push(slot);
                return Ok(());
            };
            tries += 1;
            match source.raw_os_error() {
                Some(libc::EEXIST) if tries < TRIES => std::thread::sleep(PAUSE),
                Some(libc::EEXIST) => {
                    return Err(MapError::Taken {
                        name: self.name.clone(),
                        id: self.id,
                        slot,
                    });
                }
                _ => {
                    return Err(MapError::Insert {
                        name: self.name.clone(),
                        id: self.id,
                        slot,
                        source,
                    });
                }
            }
        }
    }
}

impl Drop for XskMap {
    fn drop(&mut self) {
        // The kernel does that too, but only when the last duplicate of the socket is closed.
        for slot in &self.inserted {
            if let Err(error) = bpf::delete(self.map.as_fd(), *slot) {
                tracing::debug!(slot, %error, "the kernel empties the slot when its socket closes");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_map_is_refused() {
        let (reader, _writer) = io::pipe().unwrap();
        let text = XskMap::new(reader.into(), 0, 1).unwrap_err().to_string();
        assert!(text.contains("is not a BPF map"), "{text}");
    }

    #[test]
    fn paths_without_a_map_are_named() {
        for path in ["/rw-not-there", "/dev/null", "nul\0"] {
            let text = XskMap::open(Path::new(path), 0, 1).unwrap_err().to_string();
            assert!(text.starts_with("cannot open the pinned map "), "{text}");
        }
    }
}
