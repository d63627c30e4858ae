//! The jail's root directory: a tmpfs with nothing in it but the files that the VM's configuration names, each at its
//! own path, so that neither the configuration nor messages about it change.
//!
//! Each file is a bind mount in a mount namespace of its own: nothing has to be taken away at the end. The old root is
//! detached, so no path leads to it.

use std::{
    collections::BTreeMap,
    env,
    fs::{self, File, FileType, OpenOptions},
    io,
    os::unix::fs::FileTypeExt,
    path::{Component, Path, PathBuf, absolute},
};

use rustix::{
    fs::StatVfsMountFlags,
    mount::{
        MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change,
        mount_remount, unmount,
    },
    process::pivot_root,
};

use crate::config::{SerialConfig, SourceConfig, VmConfig};

/// Where the new root is while it is being filled: a directory that every system has, and below which nobody keeps
/// kernels or disks.
const BASE: &str = "/proc";
/// Read before huge pages are used, how many there are (`crate::memory`).
const MEMINFO: &str = "/proc/meminfo";
/// Files of no size and their directories; one page for [`MEMINFO`].
const TMPFS: &std::ffi::CStr = c"size=64k,nr_inodes=2k,mode=755";
/// Nothing here is to be executed, nor to give rights.
const HARMLESS: MountFlags = MountFlags::NOSUID.union(MountFlags::NOEXEC);
/// Nor are there devices in what is not a device.
const EMPTY: MountFlags = HARMLESS.union(MountFlags::NODEV);

/// Why there is no such root.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// a file
    #[error("could not put '{path}' into the jail: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// the root itself
    #[error("could not {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

fn system<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> RootError {
    move |source| RootError::System {
        what,
        source: source.into(),
    }
}

/// What is to be done with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Use {
    Read,
    Write,
    /// Made, if it is not there.
    Make,
}

/// Leaves the calling process, in a mount namespace of its own already, such a root.
pub(super) fn enter(config: &VmConfig) -> Result<(), RootError> {
    let home = env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    let meminfo = config.hugepages.then(|| fs::read(MEMINFO));
    let meminfo = meminfo.transpose().map_err(system("read /proc/meminfo"))?;
    mount_base()?;
    for (path, for_what) in files(config)
        .map_err(system("tell which files are meant"))?
        .into_values()
    {
        put(path, for_what).map_err(|source| RootError::File {
            path: path.to_owned(),
            source,
        })?;
    }
    if let Some(text) = meminfo {
        // As it was: a proc file system of its own would show far more than that.
        copy(Path::new(MEMINFO), &text).map_err(system("copy /proc/meminfo into the jail"))?;
    }
    // Relative paths of the configuration stay what they were.
    let inside = make_directories(&home).map_err(system("make a directory in the jail"))?;
    become_root()?;
    env::set_current_dir(Path::new("/").join(inside)).map_err(system("enter the jail's directory"))
}

/// Leaves the calling process, in a mount namespace of its own already, a root with nothing in it at all.
pub(super) fn enter_empty() -> Result<(), RootError> {
    mount_base()?;
    become_root()
}

/// An empty tmpfs, which nobody outside sees.
fn mount_base() -> Result<(), RootError> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).map_err(system("part with the host's mounts"))?;
    mount("ringwire", BASE, "tmpfs", EMPTY, TMPFS).map_err(system("mount a tmpfs"))
}

/// Makes that tmpfs the root, not to be written any more, and detaches the old one.
fn become_root() -> Result<(), RootError> {
    env::set_current_dir(BASE).map_err(system("enter the jail's root"))?;
    pivot_root(".", ".").map_err(system(
        "make it the root (pivot_root; in a plain chroot that is not possible)",
    ))?;
    // The old root, which lies above the new one now.
    unmount(".", UnmountFlags::DETACH).map_err(system("detach the host's root"))?;
    let sealed = EMPTY | MountFlags::BIND | MountFlags::RDONLY;
    mount_remount("/", sealed, "").map_err(system("make the jail's root read-only"))?;
    env::set_current_dir("/").map_err(system("enter the jail's root"))
}

/// Files by their place in the new root: by which path, and what for.
type Files<'a> = BTreeMap<PathBuf, (&'a Path, Use)>;

/// The files that a VM is made of.
fn files(config: &VmConfig) -> io::Result<Files<'_>> {
    let mut named = vec![(Path::new("/dev/kvm"), Use::Write)];
    named.push((&config.kernel, Use::Read));
    named.extend(config.initrd.iter().map(|it| (it.as_path(), Use::Read)));
    for disk in &config.disks {
        let for_what = if disk.readonly { Use::Read } else { Use::Write };
        named.push((&disk.path, for_what));
    }
    if let SerialConfig::File { path, .. } = &config.serial {
        named.push((path, Use::Make));
    }
    for netdev in &config.netdevs {
        match &netdev.source {
            SourceConfig::MapPath { path, .. } | SourceConfig::PluginSocket(path) => {
                named.push((path, Use::Write));
            }
            SourceConfig::OwnProgram
            | SourceConfig::SockFds(_)
            | SourceConfig::SockFdsForMap { .. }
            | SourceConfig::XsksMapFd(_) => {}
        }
    }
    let mut files = Files::new();
    for (path, for_what) in named {
        // One that is named twice is there for the stronger use.
        let (_, most) = files.entry(inside(path)?).or_insert((path, for_what));
        *most = for_what.max(*most);
    }
    Ok(files)
}

/// One file into the root. What is not there is left to who opens it, and says so.
fn put(path: &Path, for_what: Use) -> io::Result<()> {
    if for_what == Use::Make && !path.exists() {
        OpenOptions::new().append(true).create(true).open(path)?;
    }
    let kind = match fs::metadata(path) {
        Ok(found) => found.file_type(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    if kind.is_dir() {
        // No directory is of use to a VM, which says so as well.
        return make_directories(path).map(drop);
    }
    if let Some(parent) = absolute(path)?.parent() {
        make_directories(parent)?;
    }
    let target = Path::new(BASE).join(inside(path)?);
    File::create_new(&target)?;
    mount_bind(path, &target)?;
    mount_remount(
        &target,
        MountFlags::BIND | rights(&target, kind, for_what)?,
        "",
    )?;
    Ok(())
}

/// A file with this content into the root.
fn copy(path: &Path, content: &[u8]) -> io::Result<()> {
    path.parent().map(make_directories).transpose()?;
    fs::write(Path::new(BASE).join(inside(path)?), content)
}

/// How the mount of a file is limited: never less than its file system is already.
fn rights(target: &Path, kind: FileType, for_what: Use) -> io::Result<MountFlags> {
    let mut flags = HARMLESS;
    if !kind.is_block_device() && !kind.is_char_device() {
        flags |= MountFlags::NODEV;
    }
    let before = rustix::fs::statvfs(target)?.f_flag;
    if for_what == Use::Read || before.contains(StatVfsMountFlags::RDONLY) {
        flags |= MountFlags::RDONLY;
    }
    if before.contains(StatVfsMountFlags::NODEV) {
        flags |= MountFlags::NODEV;
    }
    Ok(flags)
}

/// Where a path is in the new root, relative to it: `..` leads up in words, and never out.
fn inside(path: &Path) -> io::Result<PathBuf> {
    let mut inside = PathBuf::new();
    for component in absolute(path)?.components() {
        match component {
            Component::Normal(name) => inside.push(name),
            Component::ParentDir => {
                inside.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(inside)
}

/// Makes a directory in the new root, and those on the way, also those that `..` leaves again; returns its place.
fn make_directories(path: &Path) -> io::Result<PathBuf> {
    let path = absolute(path)?;
    for way in path.ancestors() {
        fs::create_dir_all(Path::new(BASE).join(inside(way)?))?;
    }
    inside(&path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DiskConfig, NetdevConfig};

    #[test]
    fn paths_never_lead_out() {
        for (path, place) in [
            ("/a/b", "a/b"),
            ("/a/../b", "b"),
            ("/../../etc/passwd", "etc/passwd"),
            ("/a/./b/../../../c", "c"),
            ("/", ""),
        ] {
            assert_eq!(inside(Path::new(path)).unwrap(), Path::new(place), "{path}");
        }
        let home = env::current_dir().unwrap();
        let home = home.strip_prefix("/").unwrap();
        assert_eq!(inside(Path::new("x")).unwrap(), home.join("x"));
        let up = inside(Path::new("../x")).unwrap();
        assert_eq!(up, home.parent().unwrap().join("x"));
    }

    #[test]
    fn a_vms_files_are_those_that_it_names() {
        let mut config = VmConfig::new("/boot/k");
        config.initrd = Some("i".into());
        let (path, limit) = ("s".into(), None);
        config.serial = SerialConfig::File { path, limit };
        for (path, readonly) in [("r", true), ("w", false), ("./i", false)] {
            let path = path.into();
            config.disks.push(DiskConfig {
                path,
                readonly,
                serial: None,
            });
        }
        let mut netdev = NetdevConfig::new("net0", "eth1");
        netdev.source = SourceConfig::PluginSocket("p".into());
        config.netdevs.push(netdev);
        let expected = [
            ("/boot/k", Use::Read),
            ("/dev/kvm", Use::Write),
            // Named for both, in two ways.
            ("i", Use::Write),
            ("p", Use::Write),
            ("r", Use::Read),
            ("s", Use::Make),
            ("w", Use::Write),
        ];
        let expected = expected.map(|(path, for_what)| (Path::new(path), for_what));
        let mut found: Vec<_> = files(&config).unwrap().into_values().collect();
        found.sort_unstable();
        assert_eq!(found, expected);
    }
}
