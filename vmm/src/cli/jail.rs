//! `ringwire jail`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{ArgumentError, RunArgs, options, wrong};
use crate::{
    jail::{CgroupConfig, JailRequest},
    privileges::User,
};

/// What `ringwire jail --help` ends with.
pub const JAIL_HELP: &str = "\
Example:
    sudo ringwire jail --user 20007:20007 --netns vm7 --cgroup /sys/fs/cgroup/vms,memory.max=1G,pids.max=64 -- \\
        run --kernel vmlinuz --initrd guest.cpio --netdev af-xdp,ifname=eth1

The VM has mount, PID, IPC, UTS and cgroup namespaces of its own, without --netdev also a network
namespace, an empty environment, and no file but those that its options name and /dev/kvm; these at
their own paths, read-only where nothing is to be written. All of it goes when the VM ends. Signals,
the terminal and the exit status are as without a jail.

Without root's rights (CAP_SYS_ADMIN) the jail has a user namespace, too: for network cards see
`ringwire open`, which goes before: ringwire open --netdev ... -- ringwire jail -- run ...";

/// `ringwire jail`.
#[derive(Debug, Args)]
pub struct JailArgs {
    /// Run the guest as this user, with this group only, once everything is open. Root has to say it
    #[arg(long, value_name = "UID:GID")]
    pub user: Option<User>,
    /// The network namespace with the guest's interfaces: a name, as `ip netns` gives them, or a path
    #[arg(long, value_name = "NAME|PATH")]
    pub netns: Option<PathBuf>,
    /// Make a cgroup (v2) below this one, as ringwire-PID, and set limits: its files, and what to write there
    #[arg(long, value_name = "PATH[,memory.max=1G][,cpu.max=50000 100000][,...]")]
    pub cgroup: Option<String>,
    /// What to run.
    #[command(subcommand)]
    pub command: JailCommand,
}

/// What can be run in a jail.
#[derive(Debug, Subcommand)]
pub enum JailCommand {
    /// Boot a guest
    Run(Box<RunArgs>),
}

impl JailArgs {
    /// What is asked for.
    ///
    /// # Errors
    /// A list of options that is none.
    pub fn request(self) -> Result<JailRequest, ArgumentError> {
        let JailCommand::Run(run) = self.command;
        let cgroup = self.cgroup.map(|text| {
            let (parent, limits) = options::with_kind(&text).map_err(wrong("--cgroup", &text))?;
            Ok(CgroupConfig {
                parent: parent.into(),
                limits: limits.into_pairs(),
            })
        });
        Ok(JailRequest {
            config: run.config()?,
            user: self.user,
            netns: self.netns.map(named),
            cgroup: cgroup.transpose()?,
        })
    }
}

/// Where a network namespace is: names are in one directory (ip-netns(8)).
fn named(netns: PathBuf) -> PathBuf {
    if netns.components().count() > 1 {
        return netns;
    }
    PathBuf::from("/run/netns").join(netns)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn parse(arguments: &[&str]) -> Result<JailRequest, String> {
        let all = ["ringwire", "jail"].iter().chain(arguments);
        let cli = Cli::try_parse_from(all).map_err(|e| e.to_string())?;
        match cli.command {
            Command::Jail(jail) => jail.request().map_err(|e| e.to_string()),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn arguments_become_a_request() {
        let cgroup = "/sys/fs/cgroup/a,,b,memory.max=1G,cpu.max=50000 100000";
        let request = parse(&[
            "--user", "1:2", "--netns", "blue", "--cgroup", cgroup, "run", "--kernel", "k",
        ])
        .unwrap();
        assert_eq!(request.user, Some(User { uid: 1, gid: 2 }));
        assert_eq!(request.netns, Some("/run/netns/blue".into()));
        assert_eq!(request.config.kernel, PathBuf::from("k"));
        let limits = [("memory.max", "1G"), ("cpu.max", "50000 100000")];
        let limits = limits.map(|(file, value)| (file.to_owned(), value.to_owned()));
        let expected = CgroupConfig {
            parent: "/sys/fs/cgroup/a,b".into(),
            limits: limits.into(),
        };
        assert_eq!(request.cgroup, Some(expected));
        let request = parse(&["--netns", "/proc/7/ns/net", "run", "--kernel", "k"]).unwrap();
        assert_eq!(request.netns, Some("/proc/7/ns/net".into()));
    }

    #[test]
    fn wrong_arguments_are_named() {
        for (arguments, words) in [
            (
                &["--user", "nobody", "run", "--kernel", "k"][..],
                "a user is UID:GID",
            ),
            (
                &["--cgroup", "/x,memory.max", "run", "--kernel", "k"],
                "--cgroup /x,memory.max: ",
            ),
            (&["check", "kvm"], "unrecognized subcommand"),
            (&[], "Usage: ringwire jail"),
        ] {
            let sentence = parse(arguments).unwrap_err();
            assert!(sentence.contains(words), "{sentence}");
        }
    }
}
