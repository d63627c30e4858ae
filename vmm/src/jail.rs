//! `ringwire jail`: a VM in namespaces of its own, with a root directory that holds only what its command line names.
//!
//! Three processes: the one that was started stays outside, and passes signals on and the exit status back; a child is
//! the VM; and a second child, which does nothing, is the first process of their PID namespace,
//! so that the VM itself has a usual process's signals. With a cgroup a third child takes it away at the end. Both wait for
//! the end of the one outside, and have no power (`attendant.rs`). The VM goes on in this same program instead of
//! executing it again, so the new root needs neither program nor libraries, and has none.
//!
//! It still has the privileges that opening an interface takes, within these walls, until its own confinement
//! ([`crate::confine`]) takes them away before the guest runs. Who has no privileges gets a user namespace.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
    path::{Path, PathBuf},
};

use rustix::{
    process::{
        DumpableBehavior, Pid, Signal, getgid, getuid, set_dumpable_behavior,
        set_parent_process_death_signal,
    },
    thread::{
        CapabilitySet, LinkNameSpaceType, UnshareFlags, capabilities, move_into_link_name_space,
    },
};

use crate::{
    attendant::{self, AttendantError, Duty, Leash, failed},
    config::VmConfig,
    confine::AttendantKind,
    files, open,
    privileges::{self, PrivilegeError, User},
    processes,
    signals::Signals,
};

mod cgroup;
mod child;
mod root;

use cgroup::Cgroup;
pub use cgroup::{CgroupConfig, CgroupError};
use child::Child;
pub use root::RootError;

/// What to put into a jail, and what that is like.
#[derive(Debug, Clone)]
pub struct JailRequest {
    /// The VM.
    pub config: VmConfig,
    /// Whose the VM is once everything is open. Root has to name somebody; others stay who they are.
    pub user: Option<User>,
    /// The network namespace whose interfaces are meant; `None`: the present one, or with no network card
    /// an empty one.
    pub netns: Option<PathBuf>,
    /// The cgroup to make.
    pub cgroup: Option<CgroupConfig>,
}

/// Which of the processes this is, and what is to be done.
#[derive(Debug)]
pub enum Jailed {
    /// The one inside: run this VM, and end with its exit status.
    Inside {
        /// The VM.
        config: Box<VmConfig>,
        /// What reaches it from outside.
        signals: Signals,
    },
    /// The one outside, and that inside has ended.
    Ended(End),
}

/// How the process inside ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself, with this exit status.
    Exited(u8),
    /// By this signal.
    Killed(i32),
}

impl End {
    /// The exit status that tells of it.
    #[must_use]
    pub fn status(self) -> u8 {
        match self {
            Self::Exited(status) => status,
            Self::Killed(number) => u8::try_from(number.saturating_add(128)).unwrap_or(u8::MAX),
        }
    }
}

/// Why there is no jail. Nothing is left behind then.
#[derive(Debug, thiserror::Error)]
pub enum JailError {
    /// not confined
    #[error(
        "`--confine off` in a jail would leave root's rights to the guest's threads, which are enough to leave it: leave the option out"
    )]
    NotConfined,
    /// two users
    #[error("--user is given to `jail` and to `run`: give it once")]
    TwoUsers,
    /// root
    #[error(
        "a jail of root's needs a user to run the guest as, who owns nothing on this host: give --user UID:GID, such as --user 20007:20007, another one for each VM"
    )]
    NoUser,
    /// another user without the right to become it
    #[error(
        "--user takes root's rights (CAP_SYS_ADMIN, CAP_SETUID, CAP_SETGID), which this process does not have: leave it out, and the jail is this user's own"
    )]
    OtherUser,
    /// a network namespace
    #[error(
        "could not open the network namespace '{path}': {source}. `ip netns list` shows those that have names"
    )]
    OpenNetns {
        /// Where it was looked for.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// user namespaces
    #[error(
        "could not {what}: {source}. Without root's rights a jail takes a user namespace, which this system does not give to this user: start it as root, with --user"
    )]
    UserNamespace {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// cgroup
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// the first process
    #[error("could not have a first process in the jail: {0}")]
    First(#[source] AttendantError),
    /// the end of the one outside
    #[error("the process outside the jail has ended")]
    Left,
    /// root directory
    #[error(transparent)]
    Root(#[from] RootError),
    /// privileges that do not go
    #[error(transparent)]
    Privileges(#[from] PrivilegeError),
    /// another system call
    #[error("could not {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// For `map_err`: what was tried.
fn system<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> JailError {
    move |source| JailError::System {
        what,
        source: source.into(),
    }
}

/// What the process inside gets from the one outside.
struct Handed {
    netns: Option<File>,
    cgroup: Option<File>,
}

/// Makes the jail and its processes. Returns inside as soon as the jail is ready, and outside when it has ended.
///
/// For a process with one thread only. Inside, all file descriptors are closed but the standard ones, those that
/// the VM's configuration names, and those of `ringwire open`; the environment is gone.
///
/// # Errors
/// [`JailError`], outside or inside.
pub fn enter(mut request: JailRequest) -> Result<Jailed, JailError> {
    let privileged = capabilities(None)
        .map_err(system("ask for the capabilities"))?
        .effective
        .contains(CapabilitySet::SYS_ADMIN);
    settle_user(&mut request, privileged)?;
    // Before there is a child, which inherits the blocked signals: none of them is lost on the way to it.
    let signals = Signals::new().map_err(system("listen for signals"))?;
    let netns = request.netns.as_deref().map(open_netns).transpose()?;
    let cgroup = request.cgroup.as_ref().map(Cgroup::create).transpose()?;
    let procs = cgroup.as_ref().map(Cgroup::members).transpose()?;
    let handed = Handed {
        netns,
        cgroup: procs,
    };
    if !privileged {
        own_user_namespace()?;
    }
    processes::unshare(UnshareFlags::NEWPID).map_err(system("make a PID namespace"))?;
    let (first, leash_of_first) = start_first(request.user)?;
    let first = Child::new(first).map_err(system("watch the jail's first process"))?;
    let leash = Leash::new().map_err(system("make a pipe"))?;
    let Some(vm) = processes::fork().map_err(system("start a process"))? else {
        // Closed by their numbers; and neither the cgroup nor the first process is its own to end.
        std::mem::forget((cgroup, first, leash_of_first));
        begin(&request, handed, leash, &signals)?;
        let config = Box::new(request.config);
        return Ok(Jailed::Inside { config, signals });
    };
    let leash = leash.held();
    let mut vm = Child::new(vm).map_err(system("watch the VM's process"))?;
    drop(handed);
    keep_right_to_signal()?;
    let end = vm
        .pass_on(&signals)
        .map_err(system("wait for the VM's process"))?;
    // All that the namespace still has goes with its first process; then the cgroup is empty.
    drop((leash, leash_of_first, first));
    drop(cgroup);
    Ok(Jailed::Ended(end))
}

/// Who the VM's user is. It is the confinement that makes it so.
fn settle_user(request: &mut JailRequest, privileged: bool) -> Result<(), JailError> {
    let confine = request.config.confine.as_mut();
    let confine = confine.ok_or(JailError::NotConfined)?;
    if confine.user.is_some() && request.user.is_some() {
        return Err(JailError::TwoUsers);
    }
    confine.user = confine.user.or(request.user);
    request.user = confine.user;
    match (privileged, confine.user) {
        (true, None) => Err(JailError::NoUser),
        (false, Some(_)) => Err(JailError::OtherUser),
        (true, Some(_)) | (false, None) => Ok(()),
    }
}

fn open_netns(path: &Path) -> Result<File, JailError> {
    files::open(path).map_err(|source| JailError::OpenNetns {
        path: path.to_owned(),
        source,
    })
}

/// A user namespace in which this user, alone, is the same (user_namespaces(7)).
fn own_user_namespace() -> Result<(), JailError> {
    let (user, group) = (getuid().as_raw(), getgid().as_raw());
    let refused = |what| move |source| JailError::UserNamespace { what, source };
    processes::unshare(UnshareFlags::NEWUSER).map_err(refused("make a user namespace"))?;
    // Groups can't be left any more then, which could take rights away that being in none of them means.
    fs::write("/proc/self/setgroups", "deny")
        .and_then(|()| fs::write("/proc/self/uid_map", format!("{user} {user} 1")))
        .and_then(|()| fs::write("/proc/self/gid_map", format!("{group} {group} 1")))
        .map_err(refused("map this user into a user namespace"))
}

/// Has the calling process end when the one outside does, however it does.
fn end_with_parent(leash: Leash) -> Result<(), JailError> {
    let what = "have the jail end with its maker";
    let watched = leash.watched();
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(system(what))?;
    // It may have ended before that. Its process ID does not tell: seen from another namespace it is 0 at all times.
    if watched.is_let_go().map_err(system(what))? {
        return Err(JailError::Left);
    }
    Ok(())
}

/// The first process of the PID namespace: it has nothing, and does nothing until the one outside ends it, or has ended.
fn start_first(user: Option<User>) -> Result<(Pid, OwnedFd), JailError> {
    let duty = Duty {
        kind: AttendantKind::Holder,
        holds: &[],
        user,
        keeps: CapabilitySet::empty(),
        begins: &|| {
            processes::unshare(UnshareFlags::NEWNS).map_err(failed("make a mount namespace"))?;
            root::enter_empty().map_err(|error| error.to_string())?;
            processes::ignore_children();
            Ok(())
        },
        ends: &|| 0,
    };
    attendant::start(&duty).map_err(JailError::First)
}

/// Goes into the jail.
fn begin(
    request: &JailRequest,
    handed: Handed,
    leash: Leash,
    signals: &Signals,
) -> Result<(), JailError> {
    end_with_parent(leash)?;
    let mut kept = kept(request);
    kept.extend([0, 1, 2, signals.as_raw_fd()]);
    kept.extend(handed.netns.iter().map(AsRawFd::as_raw_fd));
    kept.extend(handed.cgroup.iter().map(AsRawFd::as_raw_fd));
    processes::close_others(&kept).map_err(system(processes::CLOSE_OTHERS))?;
    processes::erase_environment();
    if let Some(members) = handed.cgroup {
        cgroup::join(members)?;
    }
    let mut own =
        UnshareFlags::NEWNS | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS | UnshareFlags::NEWCGROUP;
    if let Some(netns) = &handed.netns {
        move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network)).map_err(
            system("enter the network namespace, which takes root's rights,"),
        )?;
    } else if request.config.netdevs.is_empty() {
        own |= UnshareFlags::NEWNET;
    }
    processes::unshare(own).map_err(system("make namespaces"))?;
    root::enter(&request.config)?;
    tracing::info!(
        "jailed: a root with the files that were named, mount, PID, IPC, UTS and cgroup namespaces of its own{}",
        if own.contains(UnshareFlags::NEWNET) {
            ", no network"
        } else {
            ""
        }
    );
    Ok(())
}

/// File descriptors that the VM's configuration names, or that keep what `ringwire open` has opened.
fn kept(request: &JailRequest) -> Vec<RawFd> {
    let mut kept = open::inherited();
    for netdev in &request.config.netdevs {
        kept.extend(netdev.source.descriptors());
    }
    kept
}

/// Leaves the process outside with the one right that it has use for: signals to another user's process.
fn keep_right_to_signal() -> Result<(), JailError> {
    privileges::keep_only(CapabilitySet::KILL)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(system("make the process undumpable"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::confine::ConfineConfig;

    fn settled(
        run: Option<ConfineConfig>,
        user: Option<User>,
        privileged: bool,
    ) -> Result<Option<User>, String> {
        let mut config = VmConfig::new("k");
        config.confine = run;
        let mut request = JailRequest {
            config,
            user,
            netns: None,
            cgroup: None,
        };
        settle_user(&mut request, privileged).map_err(|e| e.to_string())?;
        let confined = request.config.confine.unwrap();
        assert_eq!(confined.user, request.user);
        Ok(request.user)
    }

    #[test]
    fn there_is_one_user_and_root_names_it() {
        let user = Some(User { uid: 7, gid: 8 });
        let plain = Some(ConfineConfig { user: None });
        let other = Some(ConfineConfig { user });
        assert_eq!(settled(plain, user, true), Ok(user));
        assert_eq!(settled(other, None, true), Ok(user));
        assert_eq!(settled(plain, None, false), Ok(None));
        for (run, user, privileged, words) in [
            (None, user, true, "`--confine off` in a jail"),
            (other, user, true, "--user is given to `jail` and to `run`"),
            (plain, None, true, "give --user UID:GID"),
            (plain, user, false, "--user takes root's rights"),
            (other, None, false, "--user takes root's rights"),
        ] {
            let sentence = settled(run, user, privileged).unwrap_err();
            assert!(sentence.contains(words), "{sentence}");
        }
    }
}
