//! What is in the way, and what to do about it.

use std::os::unix::fs::FileTypeExt;

use super::{Ability, Probe, notes};
use crate::{
    config::{PortConfig, Require},
    ethtool, handed,
    interface::Interface,
    kind::{self, Ports, Unfit},
    multi_buffer, namespace, port,
    program::AttachMode,
    rss::Uncovered,
    source::Source,
    steering,
    tx_metadata::{self, TxMetadata},
    xskmap::XskMap,
};

/// Something that is in the way of opening, or that should be known before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What it is, as a sentence.
    pub what: String,
    /// What to do about it.
    pub fix: String,
    /// Whether opening fails because of it.
    pub blocks: bool,
}

/// What a fix for missing rights always can be.
const UNPRIVILEGED: &str =
    "run it with the capability, or with sockets that a privileged process has opened (sock-fds)";

/// The same in a user namespace.
const OUTSIDE: &str = "run it outside of the user namespace, or with sockets that a privileged process out there has \
                       opened (`ringwire open`, sock-fds), or, from Linux 6.9 on, with a bpffs at /sys/fs/bpf in \
                       here that such a process has made with rights to hand on (BPF token: delegate_cmds, \
                       delegate_maps, delegate_progs, delegate_attachs)";

/// All that is wrong with opening like this.
pub(super) fn find(config: &PortConfig, source: &Source, probe: &Probe) -> Vec<Problem> {
    let mut problems = Vec::new();
    configuration(config, probe, &mut problems);
    queues(config, probe, &mut problems);
    link(probe, &mut problems);
    if !matches!(source, Source::Sockets(_) | Source::SocketsForMap { .. }) {
        sockets(probe, &mut problems);
    }
    match source {
        Source::OwnProgram => {
            program(probe, &mut problems);
            native(config, probe, &mut problems);
            spread(config, probe, &mut problems);
        }
        others => foreign(config, others, probe, &mut problems),
    }
    zero_copy(config, probe, &mut problems);
    tx_metadata(config, probe, &mut problems);
    memory(probe, &mut problems);
    frames(probe, &mut problems);
    problems.extend(notes::find(&probe.interface));
    let skb_only = probe.native.is_refused() && probe.program.is_none();
    if config.mode == Some(AttachMode::Skb) || config.mode.is_none() && skb_only {
        problems.extend(Problem::of_large_frames(&probe.interface, AttachMode::Skb));
    }
    problems
}

impl Problem {
    /// What programs on this host send over a veth pair in frames larger than its MTU reaches a program in the stack (skb
    /// mode) as it is: TCP needs frames of several chunks for that (Linux 6.6), and datagrams can't be told from each
    /// other. In native mode the kernel cuts all of it before.
    pub fn of_large_frames(interface: &Interface, mode: AttachMode) -> Option<Self> {
        let name = interface.name();
        let is_veth = || matches!(ethtool::driver(name), Ok(Some(driver)) if driver == "veth");
        (mode == AttachMode::Skb && is_veth()).then(|| {
            let (what, switch) = if multi_buffer::kernel_can() {
                ("datagrams", "tx-udp-segmentation off")
            } else {
                ("TCP segments", "tso off gso off")
            };
            known(
                format!(
                    "{what} that a program on this host sends over the other end of {name} may be left \
                     in one frame of up to 64 KiB, and such frames get lost in skb mode"
                ),
                format!("`ethtool -K PEER {switch}`, PEER being the other end; or native mode"),
            )
        })
    }
}

fn blocking(what: impl Into<String>, fix: impl Into<String>) -> Problem {
    Problem {
        what: what.into(),
        fix: fix.into(),
        blocks: true,
    }
}

pub(super) fn known(what: impl Into<String>, fix: impl Into<String>) -> Problem {
    Problem {
        blocks: false,
        ..blocking(what, fix)
    }
}

fn configuration(config: &PortConfig, probe: &Probe, problems: &mut Vec<Problem>) {
    if let Err(error) = port::check(config) {
        problems.push(blocking(error.to_string(), "change what is asked for"));
    }
    let interface = &probe.interface;
    if let Some(Unfit { why, fix }) = Unfit::find(interface) {
        let name = interface.name();
        problems.push(blocking(format!("{name} can't be used: {why}"), fix));
    }
    if port::check_queues(config, interface).is_err() {
        let (available, max) = (interface.queues(), interface.max_queues());
        let last = u64::from(config.start_queue) + u64::from(config.queues);
        let name = interface.name();
        problems.push(blocking(
            format!(
                "{name} has the queues 0 to {}, but {} from {} on are asked for",
                available.saturating_sub(1),
                config.queues,
                config.start_queue
            ),
            match interface.set_queues_command(last) {
                Some(command) if last <= u64::from(max) => {
                    format!("`{command}` (its driver can have {max})")
                }
                _ => format!("ask for fewer: its driver can have {max} at most"),
            },
        ));
    }
}

fn queues(config: &PortConfig, probe: &Probe, problems: &mut Vec<Problem>) {
    let name = probe.interface.name();
    let wanted = config.start_queue..config.start_queue.saturating_add(config.queues);
    for socket in probe.bound.iter().flatten() {
        if wanted.contains(&socket.queue) {
            let user = socket
                .user
                .map_or_else(String::new, |user| format!(" of user {user}"));
            problems.push(blocking(
                format!(
                    "an AF_XDP socket{user} is bound to queue {} of {name} already",
                    socket.queue
                ),
                "end its process (`ss --xdp -p` shows it), or use other queues",
            ));
        }
    }
}

fn spread(config: &PortConfig, probe: &Probe, problems: &mut Vec<Problem>) {
    if let Some(uncovered) = Uncovered::find(config, &probe.interface) {
        problems.push(known(uncovered.to_string(), uncovered.fix()));
    }
}

fn link(probe: &Probe, problems: &mut Vec<Problem>) {
    let name = probe.interface.name();
    if !probe.interface.admin_up() {
        problems.push(known(
            format!("{name} is down: nothing passes until it is up"),
            format!("`ip link set dev {name} up`"),
        ));
    } else if !probe.interface.link_up() {
        problems.push(known(
            format!("{name} has no carrier: nothing passes until it has"),
            "plug in the cable; of a veth, set the other end up",
        ));
    }
}

fn sockets(probe: &Probe, problems: &mut Vec<Problem>) {
    if !probe.can_create_sockets {
        problems.push(blocking(
            "AF_XDP sockets can't be created: that takes CAP_NET_RAW, and a kernel built with \
             CONFIG_XDP_SOCKETS",
            UNPRIVILEGED,
        ));
    }
}

fn program(probe: &Probe, problems: &mut Vec<Problem>) {
    let name = probe.interface.name();
    if let Some(program) = &probe.program {
        problems.push(blocking(
            format!("another XDP program is on {name} ({program})"),
            format!(
                "end its owner or `ip link set dev {name} xdp off`; or put sockets into its map \
                 (inhibit=on with map-path, xsks-map-fd or sock-fds)"
            ),
        ));
    }
    let attaches = |name| probe.rights.iter().any(|it| it.name == name && it.held);
    let is_initial = namespace::is_initial_user();
    if let Ability::Refused(why) = &probe.load {
        let fix = if is_initial { UNPRIVILEGED } else { OUTSIDE };
        problems.push(blocking(why.clone(), fix));
    } else if is_initial && !attaches("CAP_NET_ADMIN") {
        problems.push(blocking(
            "the XDP program can't be attached: that takes CAP_NET_ADMIN",
            UNPRIVILEGED,
        ));
    }
}

/// With a program of others, and what they have handed over.
fn foreign(config: &PortConfig, source: &Source, probe: &Probe, problems: &mut Vec<Problem>) {
    let interface = &probe.interface;
    if probe.program.is_none() {
        problems.push(known(
            format!(
                "there is no XDP program on {}: nothing is received until its owner attaches it",
                interface.name()
            ),
            "attach it, or let it be ours (inhibit=off)",
        ));
    }
    let mode = steering::foreign_mode(config, interface).map(drop);
    if let Err(error) = kind::check_foreign(interface).and(mode) {
        problems.push(blocking(
            error.to_string(),
            "change what is asked for, or the program",
        ));
    }
    if let Err(why) = usable(config, source, interface) {
        problems.push(blocking(why, "hand over what fits"));
    }
}

/// Whether what was handed over can be used, as far as that can be told without using it.
fn usable(config: &PortConfig, source: &Source, interface: &Interface) -> Result<(), String> {
    let (first, count) = (config.start_queue, config.queues);
    let map = match source {
        Source::OwnProgram => return Ok(()),
        Source::Sockets(sockets) => {
            return handed::check(sockets, count, interface).map_err(|error| error.to_string());
        }
        Source::Plugin(path) => {
            let is_there = std::fs::metadata(path).is_ok_and(|it| it.file_type().is_socket());
            let why = || {
                format!(
                    "there is no socket of a device plugin at {}",
                    path.display()
                )
            };
            return is_there.then_some(()).ok_or_else(why);
        }
        Source::SocketsForMap { sockets, map } => {
            handed::check(sockets, count, interface).map_err(|error| error.to_string())?;
            let map = map.try_clone().map_err(|error| error.to_string())?;
            XskMap::new(map, first, count)
        }
        Source::Map(map) => match map.try_clone() {
            Ok(map) => XskMap::new(map, first, count),
            Err(error) => return Err(error.to_string()),
        },
        Source::PinnedMap { path, start_index } => XskMap::open(path, *start_index, count),
    };
    map.map(drop).map_err(|error| error.to_string())
}

fn native(config: &PortConfig, probe: &Probe, problems: &mut Vec<Problem>) {
    let name = probe.interface.name();
    let needs_native = config.mode == Some(AttachMode::Native) || config.require != Require::Any;
    if let Ability::Refused(why) = &probe.native {
        let what = format!("native mode does not work on {name}: {why}");
        let instead = Ports::of(&probe.interface).map(|ports| ports.instead());
        let less = || "require less, or use another interface".to_owned();
        problems.push(if needs_native {
            blocking(what, instead.unwrap_or_else(less))
        } else {
            known(what, "none is needed: skb mode is slower, but works")
        });
    }
}

fn zero_copy(config: &PortConfig, probe: &Probe, problems: &mut Vec<Problem>) {
    let name = probe.interface.name();
    if let Ability::Refused(why) = &probe.zero_copy
        && config.require == Require::ZeroCopy
    {
        problems.push(blocking(
            format!("zero-copy does not work on {name}: {why}"),
            "require less, or use another interface",
        ));
    }
}

fn tx_metadata(config: &PortConfig, probe: &Probe, problems: &mut Vec<Problem>) {
    if config.tx_metadata != TxMetadata::On {
        return;
    }
    let fix = "tx-metadata=auto or off";
    if probe.can_create_sockets
        && let Err(error) = tx_metadata::kernel_can()
    {
        problems.push(blocking(error.to_string(), fix));
    }
    let zero_copy = !probe.zero_copy.is_refused() && !config.force_copy;
    let zero_copy = zero_copy && config.mode != Some(AttachMode::Skb);
    if let Err(error) = config.tx_metadata.is_honoured(&probe.interface, zero_copy) {
        problems.push(blocking(error.to_string(), fix));
    }
}

fn memory(probe: &Probe, problems: &mut Vec<Problem>) {
    let locks = probe
        .rights
        .iter()
        .any(|it| it.name == "CAP_IPC_LOCK" && it.held);
    let limit = probe.memory_limit.bytes();
    let why = match &probe.lock_memory {
        Ability::Refused(why) => why.as_str(),
        Ability::Unknown(_) if !locks && limit.is_some_and(|it| it < probe.memory_needed) => {
            "not tried"
        }
        _ => return,
    };
    let need = probe.memory_needed / 1024;
    let where_it_counts = if namespace::is_initial_user() {
        ""
    } else {
        " in the initial user namespace"
    };
    problems.push(blocking(
        format!(
            "{need} KiB of memory can't be locked ({why}): the limit (RLIMIT_MEMLOCK) is {}, for all \
             AF_XDP memory of this user together",
            probe.memory_limit
        ),
        format!("`ulimit -l {need}` or more, or CAP_IPC_LOCK{where_it_counts}, or fewer frames or queues"),
    ));
}

fn frames(probe: &Probe, problems: &mut Vec<Problem>) {
    let (name, mtu) = (probe.interface.name(), probe.interface.mtu());
    if mtu > probe.one_chunk_mtu
        && let Ability::Refused(why) = &probe.multi_buffer
    {
        problems.push(known(
            format!(
                "{name} has an MTU of {mtu}, but frames must fit into one chunk, which an MTU of {} \
                 is enough for: {why}",
                probe.one_chunk_mtu
            ),
            format!("`ip link set dev {name} mtu {}`", probe.one_chunk_mtu),
        ));
    }
}
