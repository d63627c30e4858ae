//! Disks.

use std::{
    fs::Metadata,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::PathBuf,
};

use devices::virtio::blk::Serial;

/// A raw disk image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskConfig {
    /// A file or a block device.
    pub path: PathBuf,
    /// The guest can't write to it.
    pub readonly: bool,
    /// What the guest sees as its serial number; its name, `blk0`, `blk1`, ..., if none is given.
    pub serial: Option<Serial>,
}

/// Disks that don't go together.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// one image as two disks, and the guest may write one of them
    #[error(
        "--disk path={} and --disk path={} are the same {what}, and a disk that is written has one user only: \
         give the second one a copy, or both readonly=on",
        one.display(), other.display()
    )]
    SameImage {
        /// The first disk's path.
        one: PathBuf,
        /// The second one's.
        other: PathBuf,
        /// A file or a block device.
        what: &'static str,
    },
    /// two disks that the guest can't tell apart
    #[error(
        "the disks {} and {} both have the serial number '{serial}', by which the guest tells them apart: \
         give one of them another by serial=",
        one.display(), other.display()
    )]
    SameSerial {
        /// The first disk's path.
        one: PathBuf,
        /// The second one's.
        other: PathBuf,
        /// The number.
        serial: String,
    },
}

/// The name of the disk at that place of the command line, in the log, for its thread and, if it has no serial number,
/// for the guest.
pub(crate) fn name(index: usize) -> String {
    format!("blk{index}")
}

/// No two disks have one serial number.
pub(super) fn check_serials(disks: &[DiskConfig]) -> Result<(), DiskError> {
    let serial = |(index, disk): (usize, &DiskConfig)| {
        let given = disk.serial.as_ref().map(ToString::to_string);
        given.unwrap_or_else(|| name(index))
    };
    let serials: Vec<_> = disks.iter().enumerate().map(serial).collect();
    match first_pair(&serials, |one, other| one == other) {
        Some((one, other, serial)) => Err(DiskError::SameSerial {
            one: disks[one].path.clone(),
            other: disks[other].path.clone(),
            serial: serial.clone(),
        }),
        None => Ok(()),
    }
}

/// No image that the guest may write is there twice, by whatever paths. What can't be looked at will be said by
/// who opens it.
pub(crate) fn check_apart(disks: &[DiskConfig]) -> Result<(), DiskError> {
    let image = |disk: &DiskConfig| {
        let metadata = disk.path.metadata().ok()?;
        Some((identity(&metadata), disk.readonly))
    };
    let images: Vec<_> = disks.iter().map(image).collect();
    let clash = |one: &Option<(Identity, bool)>, other: &Option<(Identity, bool)>| {
        let both = one.as_ref().zip(other.as_ref());
        both.is_some_and(|((one, read), (other, read_too))| one == other && !(*read && *read_too))
    };
    match first_pair(&images, clash) {
        Some((one, other, image)) => Err(DiskError::SameImage {
            one: disks[one].path.clone(),
            other: disks[other].path.clone(),
            what: match image {
                Some((Identity::Device(_), _)) => "block device",
                _ => "file",
            },
        }),
        None => Ok(()),
    }
}

/// What a path leads to.
#[derive(Debug, PartialEq, Eq)]
enum Identity {
    /// Device and inode number.
    File(u64, u64),
    /// A device has as many inodes as it has names.
    Device(u64),
}

fn identity(metadata: &Metadata) -> Identity {
    if metadata.file_type().is_block_device() {
        Identity::Device(metadata.rdev())
    } else {
        Identity::File(metadata.dev(), metadata.ino())
    }
}

/// The first two that are alike, and the first of them.
fn first_pair<T>(all: &[T], alike: impl Fn(&T, &T) -> bool) -> Option<(usize, usize, &T)> {
    all.iter().enumerate().find_map(|(place, one)| {
        let rest = all.iter().enumerate().skip(place + 1);
        let mut twins = rest.filter(|(_, other)| alike(one, other));
        twins.next().map(|(other, _)| (place, other, one))
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use vmm_sys_util::tempdir::TempDir;

    use super::*;

    fn disk(path: impl Into<PathBuf>, readonly: bool) -> DiskConfig {
        DiskConfig {
            path: path.into(),
            readonly,
            serial: None,
        }
    }

    #[test]
    fn one_image_is_one_disk_by_whatever_path() {
        let directory = TempDir::new_with_prefix("/tmp/ringwire-disk-test-").unwrap();
        let at = |name: &str| directory.as_path().join(name);
        for name in ["a", "b"] {
            fs::write(at(name), [0; 512]).unwrap();
        }
        symlink(at("a"), at("soft")).unwrap();
        fs::hard_link(at("a"), at("hard")).unwrap();
        let round = directory
            .as_path()
            .join("../")
            .join(directory.as_path().file_name().unwrap())
            .join("a");
        for again in [at("a"), at("soft"), at("hard"), round] {
            for (one_reads, other_reads) in [(false, false), (true, false), (false, true)] {
                let disks = [
                    disk(at("a"), one_reads),
                    disk(at("b"), false),
                    disk(&again, other_reads),
                ];
                let sentence = check_apart(&disks).unwrap_err().to_string();
                let words = format!(
                    "--disk path={} and --disk path={} are the same file",
                    at("a").display(),
                    again.display()
                );
                assert!(sentence.starts_with(&words), "{sentence}");
            }
            check_apart(&[disk(at("a"), true), disk(again, true)]).unwrap();
        }
        check_apart(&[disk(at("a"), false), disk(at("b"), false)]).unwrap();
        // Who is not there is missed by who opens it.
        check_apart(&[disk(at("x"), false), disk(at("x"), false)]).unwrap();
    }

    #[test]
    fn serial_numbers_differ() {
        let named = |serials: &[&str]| -> Vec<_> {
            let with = |serial: &&str| DiskConfig {
                serial: serial.parse().ok(),
                ..disk("x", true)
            };
            serials.iter().map(with).collect()
        };
        for fine in [
            &["", "", ""][..],
            &["a", "b"],
            &["blk1", "a"],
            &["blk0", ""],
        ] {
            check_serials(&named(fine)).unwrap();
        }
        for (clash, serial) in [(&["a", "", "a"][..], "'a'"), (&["blk1", ""], "'blk1'")] {
            let sentence = check_serials(&named(clash)).unwrap_err().to_string();
            assert!(sentence.contains(serial), "{sentence}");
        }
    }
}
