//! Why a disk can't be used.

use std::{io, path::PathBuf};

/// A disk could not be opened. Each message names the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum BlkError {
    /// There is no such file.
    #[error(
        "disk {}: there is no such file; check the path, or make an empty disk with `truncate -s 1G FILE`",
        path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A directory.
    #[error("disk {}: this is a directory; a raw image file or a block device is needed", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
    },
    /// A pipe, a socket, a character device.
    #[error("disk {}: this is neither a regular file nor a block device", path.display())]
    NotADisk {
        /// The file.
        path: PathBuf,
    },
    /// No bytes. (QEMU takes it and shows a disk of no sectors; nobody wants that.)
    #[error("disk {}: the file is empty; give it a size, for example `truncate -s 1G FILE`", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Opened for writing, and it can't be, or must not be.
    #[error(
        "disk {}: it can't be opened for writing ({reason}); add readonly=on, or make it writable",
        path.display()
    )]
    ReadOnly {
        /// The file.
        path: PathBuf,
        /// What is in the way.
        reason: String,
    },
    /// Another virtual machine has it.
    #[error(
        "disk {}: another process has it open{}; stop that one, or use a copy of the file",
        path.display(),
        if *read_only { " for writing" } else { ", and a disk that is written has one user only" }
    )]
    InUse {
        /// The file.
        path: PathBuf,
        /// Whether it was to be opened for reading only.
        read_only: bool,
    },
    /// Any other system call failed.
    #[error("disk {}: can't {what}: {source}", path.display())]
    System {
        /// The file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}
