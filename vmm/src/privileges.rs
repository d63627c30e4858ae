//! Giving up all privileges for good.

use std::{io, str::FromStr};

use rustix::{
    io::Errno,
    process::{
        Gid, Pid, Signal, Uid, getpid, getppid, kill_process, parent_process_death_signal,
        set_parent_process_death_signal,
    },
    thread::{
        CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
        clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
        set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
    },
};

/// Somebody without supplementary groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// User ID.
    pub uid: u32,
    /// Group ID.
    pub gid: u32,
}

/// The ID that means "leave it as it is" to the system.
const NOBODY_AT_ALL: u32 = u32::MAX;

impl FromStr for User {
    type Err = String;

    /// `UID:GID`, in decimal.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let id = |text: &str| {
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            let id = digits.then(|| text.parse().ok()).flatten();
            id.filter(|id| *id != NOBODY_AT_ALL)
        };
        let ids = text.split_once(':');
        let user = ids.and_then(|(uid, gid)| {
            Some(Self {
                uid: id(uid)?,
                gid: id(gid)?,
            })
        });
        user.ok_or_else(|| "a user is UID:GID, two numbers, such as 20007:20007".to_owned())
    }
}

/// Why privileges are still there.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// another user
    #[error(
        "could not become user {uid} of group {gid}: {source}. That takes the capabilities CAP_SETUID and CAP_SETGID",
        uid = user.uid, gid = user.gid
    )]
    User {
        /// Who.
        user: User,
        /// What the system said.
        source: io::Error,
    },
    /// capabilities
    #[error("could not give up the capabilities ({what}): {source}")]
    Capabilities {
        /// Which.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// they are not gone
    #[error("the capabilities {0:?} are still there")]
    Left(CapabilitySet),
}

fn refused(what: &'static str) -> impl Fn(Errno) -> PrivilegeError {
    move |error| PrivilegeError::Capabilities {
        what,
        source: error.into(),
    }
}

/// Makes the calling thread a process of `user` that has no capability in any set, and that can get
/// none, whatever it executes (no_new_privs). See capabilities(7).
///
/// # Errors
/// [`PrivilegeError`]; some privileges may be gone then.
pub(crate) fn drop_all(user: Option<User>) -> Result<(), PrivilegeError> {
    drop_all_but(CapabilitySet::empty(), user)
}

/// The same, with these capabilities kept of those that it has. Another user's are gone in any case.
///
/// # Errors
/// [`PrivilegeError`]; some privileges may be gone then.
pub(crate) fn drop_all_but(kept: CapabilitySet, user: Option<User>) -> Result<(), PrivilegeError> {
    let leash = parent_process_death_signal().map_err(refused("parent-death signal"))?;
    let parent = getppid();
    clear_ambient_capability_set().map_err(refused("ambient"))?;
    // The only set whose change takes a capability. Without it no_new_privs is what keeps the
    // command from gaining any.
    let now = capabilities(None).map_err(refused("effective"))?;
    if now.effective.contains(CapabilitySet::SETPCAP) {
        empty_bounding_set()?;
    }
    if let Some(user) = user {
        become_user(user).map_err(|error| PrivilegeError::User {
            user,
            source: error.into(),
        })?;
    }
    set_no_new_privs(true).map_err(refused("no_new_privs"))?;
    keep_only(kept)?;
    if let Some(signal) = leash {
        put_on_leash_again(signal, parent)?;
    }
    let left = capabilities(None).map_err(refused("effective"))?;
    let left = (left.effective | left.permitted | left.inheritable) - kept;
    if left.is_empty() {
        Ok(())
    } else {
        Err(PrivilegeError::Left(left))
    }
}

/// Another user's process is let off it (PR_SET_PDEATHSIG(2const)). If the parent ended meanwhile, the signal is late,
/// but it comes.
fn put_on_leash_again(signal: Signal, parent: Option<Pid>) -> Result<(), PrivilegeError> {
    let failed = || refused("parent-death signal");
    set_parent_process_death_signal(Some(signal)).map_err(failed())?;
    if getppid() != parent {
        kill_process(getpid(), signal).map_err(failed())?;
    }
    Ok(())
}

/// Leaves the calling thread these capabilities of those that it has, and none to programs that it executes.
///
/// # Errors
/// [`PrivilegeError::Capabilities`].
pub(crate) fn keep_only(these: CapabilitySet) -> Result<(), PrivilegeError> {
    let now = capabilities(None).map_err(refused("permitted"))?;
    let kept = CapabilitySets {
        effective: now.permitted & these,
        permitted: now.permitted & these,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, kept).map_err(refused("permitted"))
}

/// Leaves all supplementary groups, if the calling thread may. Where it may not, only its own user's rights are
/// left, and nobody else's are gained.
pub(crate) fn drop_groups() -> bool {
    set_thread_groups(&[]).is_ok()
}

fn empty_bounding_set() -> Result<(), PrivilegeError> {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match capability_is_in_bounding_set(capability) {
            Ok(true) => {
                remove_capability_from_bounding_set(capability).map_err(refused("bounding"))?;
            }
            Ok(false) => {}
            // The kernel knows no more.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(refused("bounding")(error)),
        }
    }
    Ok(())
}

fn become_user(user: User) -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    // The groups first: changing them takes what the user ID gives up.
    set_thread_groups(&[])?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    const VARIABLE: &str = "RINGWIRE_TEST_LEASH";

    /// In a process of its own, whose parent is not the one that it was.
    #[test]
    fn a_parent_that_ended_while_the_user_changed_is_noticed() {
        if std::env::var_os(VARIABLE).is_some() {
            put_on_leash_again(Signal::USR1, getppid()).unwrap();
            println!("still there");
            put_on_leash_again(Signal::USR1, Some(getpid())).unwrap();
            println!("too long");
            return;
        }
        let test = "privileges::tests::a_parent_that_ended_while_the_user_changed_is_noticed";
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(VARIABLE, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            said.contains("still there") && !said.contains("too long"),
            "{said}"
        );
        assert_eq!(output.status.signal(), Some(libc::SIGUSR1));
    }

    #[test]
    fn users_are_two_numbers() {
        let user = User {
            uid: 65534,
            gid: 108,
        };
        assert_eq!("65534:108".parse(), Ok(user));
        for text in [
            "",
            "65534",
            ":",
            "1:",
            "nobody:kvm",
            "-1:0",
            "+1:0",
            "4294967295:0",
            "0:4294967295",
            "1:2:3",
        ] {
            let sentence = text.parse::<User>().unwrap_err();
            assert!(sentence.starts_with("a user is UID:GID"), "{text}");
        }
    }
}
