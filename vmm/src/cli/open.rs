//! `ringwire open`.

use std::ffi::OsString;

use clap::Args;

use super::{ArgumentError, netdev, wrong};
use crate::{
    open::{OpenRequest, User},
    size,
};

/// What `ringwire open --help` ends with.
pub const OPEN_HELP: &str = "\
In the arguments of COMMAND, {netdev} stands for the options of the inner --netdev: those given
here, with inhibit=on, sock-fds=..., and on Linux 7.3 xsks-map-fd=... With several netdevs it is {netdev:ID}.

    sudo ringwire open --netdev af-xdp,ifname=eth1,queues=2 --user 20007:108 -- \\
        ringwire run --kernel vmlinuz --cpus 2 --netdev {netdev}

COMMAND has no capability in any set, can get none (no_new_privs), and takes the place of this
process. The user needs access to /dev/kvm: let its group be the one that owns it (above: 108).
Give each VM a user of its own. COMMAND inherits AF_XDP sockets, the XDP program's link, and a pipe's
end; RINGWIRE_OPEN_FDS lists their numbers. The XDP program leaves the interface when COMMAND ends,
and so does the process without any power that keeps the interface promiscuous.";

/// `ringwire open`.
#[derive(Debug, Args)]
pub struct OpenArgs {
    /// Network card to open, with its options as for `ringwire run`; may be repeated
    #[arg(long, value_name = "af-xdp,ifname=NAME,...", required = true)]
    pub netdev: Vec<String>,
    /// Run the command as this user, with this group only; without it the user stays the same
    #[arg(long, value_name = "UID:GID")]
    pub user: Option<User>,
    /// Limit of locked memory for the command; by default what the netdevs need, or more if it is
    /// more already. The memory of all AF_XDP sockets of a user counts together
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub memlock: Option<u64>,
    /// What to run
    #[arg(last = true, required = true)]
    pub command: Vec<OsString>,
}

impl OpenArgs {
    /// What is asked for.
    ///
    /// # Errors
    /// A list of options that is none.
    pub fn request(self) -> Result<OpenRequest, ArgumentError> {
        let mut netdevs = Vec::new();
        for (i, text) in self.netdev.into_iter().enumerate() {
            let netdev = netdev::netdev(&text, i).map_err(wrong("--netdev", &text))?;
            netdevs.push((text, netdev));
        }
        Ok(OpenRequest {
            netdevs,
            user: self.user,
            memlock: self.memlock,
            command: self.command,
        })
    }
}
