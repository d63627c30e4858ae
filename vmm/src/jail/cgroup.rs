//! A cgroup for one VM: made, limited, joined from inside, removed from outside.
//!
//! Version 2 alone (Documentation/admin-guide/cgroup-v2.rst). A limit is a file of the cgroup and what is written
//! there, so all that the kernel can limit can be limited.
//!
//! It is removed by a process that waits for the end of the one outside ([`attendant`]): that one has no right to it any
//! more by then, and may be killed.

use std::{
    ffi::{CStr, CString},
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process, thread,
    time::Duration,
};

use rustix::{
    fs::{AtFlags, unlinkat},
    io::{Errno, retry_on_intr},
    process::{Pid, WaitOptions, waitpid},
    stdio::{dup2_stderr, stderr},
    thread::CapabilitySet,
};

use crate::{
    attendant::{self, AttendantError, Duty, failed as could_not},
    confine::AttendantKind,
};

/// `CGROUP2_SUPER_MAGIC` (linux/magic.h), as statfs(2) tells it.
const CGROUP2: rustix::fs::FsWord = 0x6367_7270;

/// How often, and how long apart, removing it is tried. The kernel is done with a process somewhat after its end, and the
/// more so the more memory that had.
const TRIES: (u32, Duration) = (1000, Duration::from_millis(10));

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
    /// removing it
    #[error("could not have a process remove the cgroup {} at the end: {source}", path.display())]
    Remover {
        /// Which cgroup.
        path: PathBuf,
        /// Why.
        source: AttendantError,
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

/// A cgroup that was made here. Dropped, it is removed; and also if this process is killed.
#[derive(Debug)]
pub(super) struct Cgroup {
    path: PathBuf,
    /// The process that does so, and what it waits for.
    remover: Option<(Pid, OwnedFd)>,
}

impl Cgroup {
    /// Makes it, below the parent and named after this process, and sets its limits.
    pub(super) fn create(config: &CgroupConfig) -> Result<Self, CgroupError> {
        let parent = &config.parent;
        check(parent)?;
        let name = format!("ringwire-{}", process::id());
        let path = parent.join(&name);
        // One of the same process ID that was left is empty, or is in use and stays.
        let _ = fs::remove_dir(&path);
        fs::create_dir(&path).map_err(failed("make", &path))?;
        let remover = start_remover(parent, &name).inspect_err(|_| {
            let _ = fs::remove_dir(&path);
        });
        let remover = remover.map_err(|source| CgroupError::Remover {
            path: path.clone(),
            source,
        })?;
        let remover = Some(remover);
        let made = Self { path, remover };
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
        let path = self.path.join(file);
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
        let members = options.write(true).open(self.path.join("cgroup.procs"));
        members.map_err(failed("open", &self.path))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let Some((remover, held)) = self.remover.take() else {
            return;
        };
        drop(held);
        let ended = retry_on_intr(|| waitpid(Some(remover), WaitOptions::empty()));
        let status = ended.map(|it| it.and_then(|(_, status)| status.exit_status()));
        let why = match status {
            Ok(Some(0)) => return,
            Ok(Some(errno)) => io::Error::from_raw_os_error(errno).to_string(),
            Ok(None) => "the process that was to remove it was killed".to_owned(),
            Err(error) => error.to_string(),
        };
        tracing::warn!("the cgroup {} stays: {why}", self.path.display());
    }
}

/// Has a process remove it when this one lets go of it. In the tree's root that takes CAP_DAC_OVERRIDE, as nobody may
/// write there; the process has no other use for that, as all that its filter lets it do with files is to remove an empty
/// directory.
fn start_remover(parent: &Path, name: &str) -> Result<(Pid, OwnedFd), AttendantError> {
    let parent = File::open(parent).map_err(AttendantError::Start)?;
    let name = CString::new(name).map_err(|error| AttendantError::Start(error.into()))?;
    attendant::start(&Duty {
        kind: AttendantKind::Remover,
        holds: &[libc::STDERR_FILENO],
        user: None,
        keeps: CapabilitySet::DAC_OVERRIDE,
        begins: &|| dup2_stderr(&parent).map_err(could_not("keep the directory")),
        ends: &|| remove(&name),
    })
}

/// The remover's end. Returns what the system said.
fn remove(name: &CStr) -> u8 {
    let (tries, pause) = TRIES;
    let mut error = None;
    for _ in 0..tries {
        error = match unlinkat(stderr(), name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return 0,
            Err(error) => Some(error),
        };
        thread::sleep(pause);
    }
    let errno = error.map(Errno::raw_os_error);
    errno.and_then(|it| it.try_into().ok()).unwrap_or(u8::MAX)
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
