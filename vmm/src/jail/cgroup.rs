//! A cgroup for one VM: made, limited, joined from inside, removed from outside.
//!
//! Version 2 alone (Documentation/admin-guide/cgroup-v2.rst). A limit is a file of the cgroup and what is written
//! there, so all that the kernel can limit can be limited.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    process, thread,
    time::Duration,
};

/// `CGROUP2_SUPER_MAGIC` (linux/magic.h), as statfs(2) tells it.
const CGROUP2: rustix::fs::FsWord = 0x6367_7270;

/// How often, and how long apart, removing it is tried. The kernel is done with a process somewhat after its end.
const TRIES: (u32, Duration) = (200, Duration::from_millis(10));

/// What cgroup to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupConfig {
    /// An existing cgroup, below which it is made.
    pub parent: PathBuf,
    /// Files of the new one, such as `memory.max`, and what to write there.
    pub limits: Vec<(String, String)>,
}

/// Why there is no such cgroup.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// no cgroup v2
    #[error(
        "'{0}' is no directory of cgroup v2: its file system is mounted at /sys/fs/cgroup, as a rule, or at /sys/fs/cgroup/unified (`mount -t cgroup2`)"
    )]
    NotVersion2(PathBuf),
    /// a file that is no limit
    #[error(
        "'{0}' is no limit: these are files of controllers, such as memory.max, cpu.max, pids.max"
    )]
    NoLimit(String),
    /// the limit's controller is not there
    #[error(
        "the cgroup {parent} does not hand on the controller {controller}, so there is no {file}: `echo +{controller} > {parent}/cgroup.subtree_control`, while no process is in that cgroup itself",
        parent = parent.display()
    )]
    NoController {
        /// Below which it was to be.
        parent: PathBuf,
        /// The limit.
        file: String,
        /// What it belongs to.
        controller: String,
    },
    /// a limit that is none
    #[error("could not write '{value}' to {}: {source}", path.display())]
    Limit {
        /// The file.
        path: PathBuf,
        /// What was to be in it.
        value: String,
        /// What the system said.
        source: io::Error,
    },
    /// making or joining it
    #[error("could not {what} the cgroup {}: {source}", path.display())]
    System {
        /// What was tried.
        what: &'static str,
        /// With which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A cgroup that was made here. Dropped, it is removed.
#[derive(Debug)]
pub(super) struct Cgroup(PathBuf);

impl Cgroup {
    /// Makes it, below the parent and named after this process, and sets its limits.
    pub(super) fn create(config: &CgroupConfig) -> Result<Self, CgroupError> {
        let parent = &config.parent;
        check(parent)?;
        let path = parent.join(format!("ringwire-{}", process::id()));
        // One of the same process ID, whose maker was killed, is empty, or is in use and stays.
        let _ = fs::remove_dir(&path);
        fs::create_dir(&path).map_err(failed("make", &path))?;
        let made = Self(path);
        for (file, value) in &config.limits {
            made.limit(parent, file, value)?;
        }
        Ok(made)
    }

    fn limit(&self, parent: &Path, file: &str, value: &str) -> Result<(), CgroupError> {
        let controller = file.split_once('.').map(|(controller, _)| controller);
        let Some(controller) = controller.filter(|it| *it != "cgroup" && !file.contains('/'))
        else {
            return Err(CgroupError::NoLimit(file.to_owned()));
        };
        let path = self.0.join(file);
        let opened = OpenOptions::new().write(true).open(&path);
        let written = opened.and_then(|mut limit| limit.write_all(value.as_bytes()));
        written.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => CgroupError::NoController {
                parent: parent.to_owned(),
                file: file.to_owned(),
                controller: controller.to_owned(),
            },
            _ => CgroupError::Limit {
                path,
                value: value.to_owned(),
                source,
            },
        })
    }

    /// For [`join`], by a process that does not see it any more.
    pub(super) fn members(&self) -> Result<File, CgroupError> {
        let mut options = OpenOptions::new();
        let members = options.write(true).open(self.0.join("cgroup.procs"));
        members.map_err(failed("open", &self.0))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let (tries, pause) = TRIES;
        let mut removed = fs::remove_dir(&self.0);
        for _ in 1..tries {
            if removed.is_ok() {
                return;
            }
            thread::sleep(pause);
            removed = fs::remove_dir(&self.0);
        }
        if let Err(e) = removed {
            tracing::warn!("the cgroup {} stays: {e}", self.0.display());
        }
    }
}

/// Puts the calling process into a cgroup, for good.
pub(super) fn join(mut members: File) -> Result<(), CgroupError> {
    // 0: whoever writes.
    let joined = members.write_all(b"0");
    joined.map_err(failed("join", Path::new("that was made for the VM")))
}

fn failed<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> CgroupError + 'a {
    move |source| CgroupError::System {
        what,
        path: path.to_owned(),
        source,
    }
}

fn check(parent: &Path) -> Result<(), CgroupError> {
    let found = rustix::fs::statfs(parent).map_err(|e| failed("open", parent)(e.into()))?;
    if found.f_type == CGROUP2 {
        Ok(())
    } else {
        Err(CgroupError::NotVersion2(parent.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_directories_are_refused() {
        let config = |parent: &str| CgroupConfig {
            parent: parent.into(),
            limits: Vec::new(),
        };
        let refused = |parent| Cgroup::create(&config(parent)).unwrap_err().to_string();
        assert!(refused("/tmp").starts_with("'/tmp' is no directory of cgroup v2"));
        let absent = refused("/nonexistent");
        assert!(
            absent.starts_with("could not open the cgroup /nonexistent: No such file"),
            "{absent}"
        );
        assert!(!Path::new("/tmp/ringwire").exists());
    }
}
