//! What an interface, its driver, this kernel and this user can do, and what is in the way.

mod notes;
mod problem;
mod rights;

use std::{
    fmt, io,
    os::fd::{AsFd, BorrowedFd},
    thread,
    time::Instant,
};

use libbpf_rs::{Xdp, XdpFlags};

pub(crate) use notes::warn;
pub use problem::Problem;
pub use rights::Right;

use crate::{
    config::PortConfig,
    diag::{self, BoundSocket},
    error::OpenError,
    ethtool::{self, Offload},
    handle::Handle,
    interface::{Interface, InterfaceError},
    kind::Ports,
    memlock::MemoryLimit,
    multi_buffer::{self, FrameLimits},
    netdev,
    port::{self, Port},
    program::{self, AttachMode, ForeignProgram, LoadedProgram},
    queue::Queue,
    socket,
    source::Source,
    umem::Umem,
};

/// `NETDEV_XDP_ACT_*` (linux/netdev.h).
mod act {
    pub(super) const BASIC: u64 = 1;
    pub(super) const REDIRECT: u64 = 1 << 1;
    pub(super) const XSK_ZEROCOPY: u64 = 1 << 3;
    pub(super) const RX_SG: u64 = 1 << 5;
}

/// How much memory is locked for a trial at most, in bytes.
const TRIED_MEMORY: u64 = 1 << 30;

/// What a driver says that it can do with XDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XdpFeatures {
    /// Run a program in the driver, and send its frames to sockets from there.
    pub native: bool,
    /// Receive into and send from frame memory in place.
    pub zero_copy: bool,
    /// Receive frames of several fragments.
    pub multi_buffer: bool,
    /// Most fragments of a frame in zero-copy mode; 0 if it can't.
    pub zero_copy_fragments: u32,
    /// Complete the checksums that [TX metadata](crate::TxMetadata) asks for, in zero-copy mode.
    pub tx_checksum: bool,
}

/// Whether something works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ability {
    /// It was done, and undone.
    Tried,
    /// The driver or the kernel says that it can. It was not tried, as that disturbs those who use
    /// the interface.
    Promised,
    /// It can't, for this reason.
    Refused(String),
    /// Neither tried nor told, for this reason.
    Unknown(&'static str),
}

impl Ability {
    /// Whether it can't.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Refused(_))
    }

    fn tried<E: fmt::Display>(result: Result<(), E>) -> Self {
        result.map_or_else(|error| Self::Refused(error.to_string()), |()| Self::Tried)
    }

    fn promised(features: Option<XdpFeatures>, can: impl FnOnce(XdpFeatures) -> bool) -> Self {
        match features.map(can) {
            Some(true) => Self::Promised,
            Some(false) => Self::Refused("the driver says that it can't".to_owned()),
            None => Self::Unknown("only a kernel from Linux 6.3 on tells it without a trial"),
        }
    }
}

impl fmt::Display for Ability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tried => f.write_str("works (tried)"),
            Self::Promised => {
                f.write_str("should work (promised by the driver or kernel, not tried)")
            }
            Self::Refused(why) => write!(f, "does not work: {why}"),
            Self::Unknown(why) => write!(f, "not known: {why}"),
        }
    }
}

/// What was found out, without changing anything on the interface.
///
/// Tried for real: to create a socket, to load the XDP program, to lock the memory. Not tried, because
/// it can interrupt the traffic of others: to attach the program and to bind to a queue, and so the
/// modes; [`Probe::try_out`] does that.
#[derive(Debug, Clone)]
pub struct Probe {
    /// The interface: name, index, addresses, MTU, queues, whether it is up.
    pub interface: Interface,
    /// Name of its driver. `None`: it does not say.
    pub driver: Option<String>,
    /// Release of the running kernel.
    pub kernel: String,
    /// The XDP program that is on the interface.
    pub program: Option<ForeignProgram>,
    /// The AF_XDP sockets that are bound to its queues. `None`: the kernel does not say, as
    /// it has no CONFIG_XDP_SOCKETS_DIAG.
    pub bound: Option<Vec<BoundSocket>>,
    /// What its driver can do. `None`: the kernel (before 6.3) does not say.
    pub features: Option<XdpFeatures>,
    /// What its driver and the stack do with frames.
    pub offloads: Vec<Offload>,
    /// Load the XDP program.
    pub load: Ability,
    /// Run it in the driver.
    pub native: Ability,
    /// Run it in the stack.
    pub skb: Ability,
    /// Do without copies.
    pub zero_copy: Ability,
    /// Frames of several chunks (XDP_USE_SG), which an MTU of more than one chunk takes.
    pub multi_buffer: Ability,
    /// The largest MTU in bytes that works both ways with frames of one chunk.
    pub one_chunk_mtu: u32,
    /// Complete checksums in zero-copy mode ([TX metadata](crate::TxMetadata)).
    pub tx_checksum: Ability,
    /// Lock the memory for the frames.
    pub lock_memory: Ability,
    /// Bytes that must be locked.
    pub memory_needed: u64,
    /// How much memory the process may lock without CAP_IPC_LOCK.
    pub memory_limit: MemoryLimit,
    /// Whether this process may create AF_XDP sockets, which takes CAP_NET_RAW and a kernel that
    /// has them.
    pub can_create_sockets: bool,
    /// The capabilities that opening takes.
    pub rights: Vec<Right>,
    /// What is in the way of opening as configured, or should be known.
    pub problems: Vec<Problem>,
}

/// What opening for a moment led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trial {
    /// Where the XDP program ran.
    pub mode: AttachMode,
    /// Whether all queues did without copies.
    pub zero_copy: bool,
    /// Whether all queues took checksums to complete.
    pub tx_checksum: bool,
    /// The MTU in bytes that works both ways.
    pub mtu: u32,
}

impl Probe {
    /// Looks at the interface of that name in the calling thread's network namespace, for one queue
    /// with the usual number of frames.
    ///
    /// # Errors
    /// [`InterfaceError`].
    pub fn interface(name: &str) -> Result<Self, InterfaceError> {
        Self::of(&PortConfig {
            ifname: name.to_owned(),
            ..PortConfig::default()
        })
    }

    /// Finds out whether the interface can be opened like this with our own program. What is in the
    /// way is in [`problems`](Self::problems).
    ///
    /// # Errors
    /// [`InterfaceError`], when there is nothing to look at.
    pub fn of(config: &PortConfig) -> Result<Self, InterfaceError> {
        Self::of_source(config, &Source::OwnProgram)
    }

    /// The same with what others provide. It is checked as far as that doesn't use it up: sockets are
    /// not set up, nothing is put into a map, and a device plugin, which answers once, is not asked.
    ///
    /// # Errors
    /// [`InterfaceError`], when there is nothing to look at.
    pub fn of_source(config: &PortConfig, source: &Source) -> Result<Self, InterfaceError> {
        let interface = Interface::by_name(&config.ifname)?;
        let features = features(interface.index());
        let socket = socket::create();
        let name = interface.name();
        let ports = Ports::of(&interface);
        let ports = ports.as_ref();
        let zero_copy = Ability::promised(features, |it| it.native && it.zero_copy);
        let mut probe = Self {
            driver: ethtool::driver(name).unwrap_or_default(),
            kernel: kernel(),
            program: interface.xdp_program().map(program::named),
            bound: bound(config, interface.index()),
            features,
            offloads: ethtool::offloads(name, interface.index()).unwrap_or_default(),
            load: Ability::tried(LoadedProgram::load(interface.queues(), false).map(drop)),
            native: on_ports(ports, Ability::promised(features, |it| it.native)),
            skb: Ability::Promised,
            zero_copy: on_ports(ports, zero_copy),
            multi_buffer: multi_buffer_ability(),
            tx_checksum: Ability::promised(features, |it| it.zero_copy && it.tx_checksum),
            one_chunk_mtu: FrameLimits::ONE_CHUNK.mtu(),
            lock_memory: lock_memory(config),
            memory_needed: config.locked_memory(),
            memory_limit: MemoryLimit::now(),
            can_create_sockets: socket.is_ok(),
            rights: rights::held(),
            problems: Vec::new(),
            interface,
        };
        probe.problems = problem::find(config, source, &probe);
        Ok(probe)
    }

    /// Whether nothing is in the way of opening.
    #[must_use]
    pub fn would_open(&self) -> bool {
        !self.problems.iter().any(|problem| problem.blocks)
    }

    /// Opens the interface for a moment, and closes it. Disturbs: frames of its queues are lost, and
    /// some drivers take the link down to change modes.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn try_out(config: &PortConfig) -> Result<Trial, OpenError> {
        let mut port = Port::open(config)?;
        let queues = port.take_queues();
        Ok(Trial {
            mode: port.mode(),
            zero_copy: queues.iter().all(Queue::zero_copy),
            tx_checksum: queues.iter().all(Queue::completes_checksums),
            mtu: port.mtu(),
        })
    }
}

/// What works natively, unless that would be on the interface's ports.
fn on_ports(ports: Option<&Ports>, ability: Ability) -> Ability {
    ports.map_or(ability, |ports| Ability::Refused(ports.why_not_native()))
}

/// What the driver of an interface says. `None`: the kernel does not ask it, before 6.3.
pub(crate) fn features(index: u32) -> Option<XdpFeatures> {
    let ifindex = i32::try_from(index).ok()?;
    // The query itself uses no program.
    let stand_in = io::stderr();
    let unused: BorrowedFd<'_> = stand_in.as_fd();
    let answer = Xdp::new(unused).query(ifindex, XdpFlags::NONE).ok()?;
    let can = |flag| answer.feature_flags & flag == flag;
    let told = answer.feature_flags != 0 || has_features();
    told.then(|| XdpFeatures {
        native: can(act::BASIC | act::REDIRECT),
        zero_copy: can(act::XSK_ZEROCOPY),
        multi_buffer: can(act::RX_SG),
        zero_copy_fragments: answer.xdp_zc_max_segs,
        tx_checksum: netdev::completes_checksums(index).unwrap_or(false),
    })
}

/// Whether no features means that there are none: the kernel tells them from 6.3 on.
fn has_features() -> bool {
    multi_buffer::version().is_some_and(|version| version >= (6, 3))
}

/// The sockets on the interface; waits for those on queues that are wanted to go, as opening does:
/// the kernel releases a queue late.
fn bound(config: &PortConfig, ifindex: u32) -> Option<Vec<BoundSocket>> {
    let wanted = config.start_queue..config.start_queue.saturating_add(config.queues);
    let start = Instant::now();
    loop {
        let sockets = diag::bound(ifindex).ok()?;
        let busy = sockets.iter().any(|socket| wanted.contains(&socket.queue));
        if !busy || start.elapsed() > socket::BUSY_PATIENCE {
            return Some(sockets);
        }
        thread::sleep(socket::BUSY_PAUSE);
    }
}

fn kernel() -> String {
    let system = rustix::system::uname();
    system.release().to_string_lossy().into_owned()
}

fn multi_buffer_ability() -> Ability {
    if multi_buffer::kernel_can() {
        return Ability::Promised;
    }
    Ability::Refused("it takes Linux 6.6".to_owned())
}

/// Registers memory of the whole size with a socket that is not bound, all at once.
fn lock_memory(config: &PortConfig) -> Ability {
    if port::check(config).is_err() {
        return Ability::Unknown("opening fails before");
    }
    if config.locked_memory() > TRIED_MEMORY {
        return Ability::Unknown("more than 1 GiB is not tried");
    }
    let frames = config.queues.saturating_mul(config.frames);
    // Opening fails for this before memory matters.
    let Ok(socket) = socket::create() else {
        return Ability::Unknown("it takes a socket, which can't be created");
    };
    let result = Umem::new(frames, None).and_then(|(umem, _pool)| {
        let handle = Handle::register(socket, &umem, config.frames / 2)?;
        drop(handle);
        Ok(())
    });
    Ability::tried(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_can_be_probed() {
        let probe = Probe::interface("lo").unwrap();
        assert_eq!(probe.interface.name(), "lo");
        assert!(probe.features.is_none_or(|features| !features.zero_copy));
        assert!(Probe::interface("rw-not-there").is_err());
    }

    #[test]
    fn abilities_read_as_the_end_of_a_sentence() {
        let refused = Ability::Refused("no".to_owned());
        assert_eq!(refused.to_string(), "does not work: no");
        assert!(refused.is_refused() && !Ability::Tried.is_refused());
        assert_eq!(Ability::Unknown("why").to_string(), "not known: why");
    }
}
