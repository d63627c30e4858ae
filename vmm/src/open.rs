//! `ringwire open`: opens network cards with privileges, then becomes a command that has none.
//!
//! The order is fixed. What needs privileges comes first: the XDP program on each interface, the
//! sockets in its map ([`Prepared`]), the limit of locked memory. Then all privileges go
//! ([`privileges`]), and only then the command is looked for and executed, in place: signals and the exit
//! status are the command's. The command inherits the sockets, the link that keeps the program on the
//! interface, and a pipe's end that keeps it promiscuous: when its process ends, however it does, the program is
//! gone. The only process that stays has no power, and ends then, too (`open/keeper.rs`).

use std::{
    convert::Infallible,
    ffi::OsString,
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::Command,
};

use net_afxdp::{MemoryLimit, Prepared};
use rustix::{
    io::{FdFlags, fcntl_setfd},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

use crate::{
    cli::options,
    config::{NetdevConfig, NetdevConfigError, SourceConfig, check_netdevs},
    privileges, size,
};

mod inherited;
mod keeper;

pub use crate::{
    attendant::AttendantError,
    privileges::{PrivilegeError, User},
};
pub(crate) use inherited::inherited;

/// What to open, and what to run then.
#[derive(Debug, Clone)]
pub struct OpenRequest {
    /// The network cards: each as text for `--netdev`, and as what that means.
    pub netdevs: Vec<(String, NetdevConfig)>,
    /// Who runs the command; `None`: the user that runs this.
    pub user: Option<User>,
    /// Limit of locked memory for the command, in bytes; `None`: what it is now, or what the network
    /// cards need if that is more.
    pub memlock: Option<u64>,
    /// The command and its arguments.
    pub command: Vec<OsString>,
}

/// Why the command was not run. Nothing is left behind then.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// no network card
    #[error("nothing to open: give --netdev af-xdp,ifname=NAME")]
    NoNetdev,
    /// no command
    #[error("nothing to run: give a command after --")]
    NoCommand,
    /// network cards that contradict each other
    #[error(transparent)]
    Config(#[from] NetdevConfigError),
    /// others have opened it
    #[error(
        "netdev '{0}': inhibit=on and what belongs to it are for a program that others have loaded: `ringwire open` loads its own, and writes these options itself"
    )]
    Inhibited(String),
    /// the command does not use a network card
    #[error(
        "nothing in the command uses netdev '{id}': write {placeholder} where its --netdev options belong"
    )]
    Unused {
        /// The netdev.
        id: String,
        /// What stands for it.
        placeholder: String,
    },
    /// the interface
    #[error("netdev '{id}': {source}")]
    Prepare {
        /// The netdev.
        id: String,
        /// Why.
        source: Box<net_afxdp::OpenError>,
    },
    /// the guest's memory has to be locked, too
    #[error(
        "netdev '{0}': zero-copy-tx=on locks the guest's memory as well, whose size the command knows: give --memlock SIZE, for that times the number of queues and the frames"
    )]
    Memory(String),
    /// descriptors
    #[error("could not hand the sockets on to the command: {0}")]
    Inherit(#[source] io::Error),
    /// promiscuity
    #[error("could not have a process keep the interfaces promiscuous: {0}")]
    Keeper(#[from] AttendantError),
    /// the limit
    #[error(
        "could not raise the limit of locked memory from {now} to {wanted}, which the network cards need: {source}. Raising it takes the capability CAP_SYS_RESOURCE; or set it first (`ulimit -l`, LimitMEMLOCK= in a systemd unit)",
        wanted = size::human(*wanted)
    )]
    Memlock {
        /// The limit now.
        now: MemoryLimit,
        /// What is needed, in bytes.
        wanted: u64,
        /// What the system said.
        source: io::Error,
    },
    /// privileges that do not go
    #[error(transparent)]
    Privileges(#[from] PrivilegeError),
    /// the command
    #[error("could not run '{command}': {source}")]
    Run {
        /// The program.
        command: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Opens the network cards, gives up all privileges, and becomes the command.
///
/// For a process with one thread only: privileges belong to threads.
///
/// # Errors
/// [`OpenError`]. After an error the privileges may be gone.
pub fn open(request: &OpenRequest) -> Result<Infallible, OpenError> {
    let (program, arguments) = request.command.split_first().ok_or(OpenError::NoCommand)?;
    check(request)?;
    let mut prepared = Vec::new();
    for (_, netdev) in &request.netdevs {
        prepared.push(prepare(netdev)?);
    }
    set_memlock(request)?;
    let texts: Vec<String> = request.netdevs.iter().zip(&prepared).map(inner).collect();
    let arguments = arguments.iter().map(|it| fill_in(it, request, &texts));
    let mut command = Command::new(program);
    command.args(arguments);
    let keeper = keeper::start(&mut prepared)?;
    let mut descriptors: Vec<_> = prepared.iter().flat_map(Prepared::inherited).collect();
    descriptors.extend(keeper.iter().map(AsRawFd::as_raw_fd));
    inherited::tell(&mut command, &descriptors);
    privileges::drop_all(request.user)?;
    for_children(&prepared, keeper.as_ref()).map_err(OpenError::Inherit)?;
    // Returns only if it fails; what was opened is closed then.
    let source = command.exec();
    Err(OpenError::Run {
        command: program.to_string_lossy().into_owned(),
        source,
    })
}

fn check(request: &OpenRequest) -> Result<(), OpenError> {
    if request.netdevs.is_empty() {
        return Err(OpenError::NoNetdev);
    }
    let netdevs: Vec<_> = request.netdevs.iter().map(|(_, it)| it.clone()).collect();
    check_netdevs(&netdevs)?;
    for (_, netdev) in &request.netdevs {
        let id = netdev.id.clone();
        if netdev.source != SourceConfig::OwnProgram {
            return Err(OpenError::Inhibited(id));
        }
        if netdev.zero_copy_tx && request.memlock.is_none() {
            return Err(OpenError::Memory(id));
        }
        let places = placeholders(request, &id);
        let uses = |argument: &OsString| {
            let text = argument.to_string_lossy();
            places.iter().any(|place| text.contains(place))
        };
        if !request.command.iter().skip(1).any(uses) {
            let placeholder = places.into_iter().next().unwrap_or_default();
            return Err(OpenError::Unused { id, placeholder });
        }
    }
    Ok(())
}

fn prepare(netdev: &NetdevConfig) -> Result<Prepared, OpenError> {
    let prepared = Prepared::open(&netdev.port_config()).map_err(|source| OpenError::Prepare {
        id: netdev.id.clone(),
        source: Box::new(source),
    })?;
    tracing::info!(
        "netdev '{}': {} is open in {} mode",
        netdev.id,
        netdev.port.ifname,
        prepared.mode()
    );
    Ok(prepared)
}

/// Lets the command have what is for it.
fn for_children(prepared: &[Prepared], keeper: Option<&OwnedFd>) -> io::Result<()> {
    for prepared in prepared {
        prepared.let_children_inherit()?;
        prepared.let_children_keep_program()?;
    }
    if let Some(keeper) = keeper {
        fcntl_setfd(keeper, FdFlags::empty())?;
    }
    Ok(())
}

/// What stands for a network card in the command.
fn placeholders(request: &OpenRequest, id: &str) -> Vec<String> {
    let mut places = vec![format!("{{netdev:{id}}}")];
    if request.netdevs.len() == 1 {
        places.insert(0, "{netdev}".to_owned());
    }
    places
}

/// The `--netdev` of the command.
fn inner(((text, netdev), prepared): (&(String, NetdevConfig), &Prepared)) -> String {
    let sockets = prepared.sockets().iter();
    let numbers: Vec<_> = sockets.map(|fd| fd.as_raw_fd().to_string()).collect();
    let numbers = numbers.join(":");
    let mut options = vec![
        ("id", netdev.id.as_str()),
        ("inhibit", "on"),
        ("sock-fds", &numbers),
    ];
    let map = prepared.map().map(|map| map.as_raw_fd().to_string());
    options.extend(map.as_deref().map(|map| ("xsks-map-fd", map)));
    options::with(text, &options)
}

/// An argument with what the placeholders in it stand for. One that is not UTF-8 has none.
fn fill_in(argument: &OsString, request: &OpenRequest, texts: &[String]) -> OsString {
    let Some(argument) = argument.to_str() else {
        return argument.clone();
    };
    let mut argument = argument.to_owned();
    for ((_, netdev), text) in request.netdevs.iter().zip(texts) {
        for place in placeholders(request, &netdev.id) {
            argument = argument.replace(&place, text);
        }
    }
    argument.into()
}

fn set_memlock(request: &OpenRequest) -> Result<(), OpenError> {
    let now = getrlimit(Resource::Memlock);
    let needs = request
        .netdevs
        .iter()
        .map(|(_, it)| it.port.locked_memory());
    let wanted = match (request.memlock, now.current) {
        (Some(wanted), _) => wanted,
        (None, None) => return Ok(()),
        (None, Some(current)) => current.max(needs.fold(0, u64::saturating_add)),
    };
    // Never more than asked for: without privileges a soft limit could be raised to the hard one.
    let limit = Rlimit {
        current: Some(wanted),
        maximum: Some(wanted),
    };
    setrlimit(Resource::Memlock, limit).map_err(|source| OpenError::Memlock {
        now: MemoryLimit::now(),
        wanted,
        source: source.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(netdevs: &[(&str, NetdevConfig)], command: &[&str]) -> OpenRequest {
        let netdevs = netdevs
            .iter()
            .map(|(text, it)| ((*text).to_owned(), it.clone()));
        OpenRequest {
            netdevs: netdevs.collect(),
            user: None,
            memlock: None,
            command: command.iter().map(OsString::from).collect(),
        }
    }

    fn refused(netdevs: &[(&str, NetdevConfig)], command: &[&str]) -> String {
        open(&request(netdevs, command)).unwrap_err().to_string()
    }

    #[test]
    fn requests_must_make_sense() {
        let netdev = || ("af-xdp,ifname=a", NetdevConfig::new("net0", "a"));
        assert!(refused(&[netdev()], &[]).starts_with("nothing to run"));
        assert!(refused(&[], &["true"]).starts_with("nothing to open"));
        assert_eq!(
            refused(&[netdev()], &["true", "x"]),
            "nothing in the command uses netdev 'net0': write {netdev} where its --netdev options \
             belong"
        );
        let two = [netdev(), ("af-xdp,ifname=b", NetdevConfig::new("b", "b"))];
        assert!(
            refused(&two, &["true", "{netdev:net0}", "{netdev}"])
                .starts_with("nothing in the command uses netdev 'b': write {netdev:b} where")
        );
        let mut inhibited = netdev();
        inhibited.1.source = SourceConfig::SockFds(vec![3]);
        assert!(
            refused(&[inhibited], &["true", "{netdev}"]).contains("`ringwire open` loads its own")
        );
        let mut in_place = netdev();
        in_place.1.zero_copy_tx = true;
        assert!(refused(&[in_place], &["true", "{netdev}"]).contains("give --memlock SIZE"));
        let twice = [netdev(), netdev()];
        assert!(refused(&twice, &["true", "{netdev}"]).contains("used twice"));
    }

    #[test]
    fn placeholders_are_replaced_wherever_they_are() {
        let one = request(&[("", NetdevConfig::new("net0", "a"))], &[]);
        let filled = fill_in(&"--netdev={netdev}".into(), &one, &["X".to_owned()]);
        assert_eq!(filled, "--netdev=X");
        let two = request(
            &[
                ("", NetdevConfig::new("a", "a")),
                ("", NetdevConfig::new("b", "b")),
            ],
            &[],
        );
        let texts = ["X".to_owned(), "Y".to_owned()];
        let filled = fill_in(&"{netdev:b} {netdev:a} {netdev}".into(), &two, &texts);
        assert_eq!(filled, "Y X {netdev}");
    }
}
