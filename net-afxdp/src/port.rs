//! An interface opened for AF_XDP: its program and as many of its queues as asked for.

use std::{
    borrow::Cow,
    io,
    os::fd::{AsFd, OwnedFd},
};

use crate::{
    config::{MAX_FRAMES, MIN_FRAMES, PortConfig, Require},
    error::{OpenError, QueueError},
    ethtool::{self, LinkSpeed},
    handle::CopyMode,
    interface::{Interface, InterfaceError},
    kind,
    multi_buffer::{self, FrameLimits},
    probe,
    program::AttachMode,
    promiscuous::Promiscuous,
    queue::Queue,
    rss,
    shared_memory::SharedMemory,
    socket::{self, Socket, SocketOptions},
    source::Source,
    status::{ProgramStatus, ProgramWatch},
    steering::Steering,
    umem::Umem,
};

/// An interface opened for AF_XDP.
///
/// With our own program it is promiscuous meanwhile, so that frames to other addresses than the
/// card's own arrive, such as a guest's.
///
/// Dropping it takes our program off, or our sockets out of the map of others, and so does the end
/// of the process, whatever way. Queues that were taken out stay usable for sending then, but receive
/// nothing, unless others have put their sockets into a map.
#[derive(Debug)]
pub struct Port {
    /// `None`: it was let go.
    steering: Option<Steering>,
    mode: AttachMode,
    interface: Interface,
    mtu: u32,
    queues: Vec<Queue>,
    watch: ProgramWatch,
    /// With our own program only: with one of others, they decide.
    promiscuous: Option<Promiscuous>,
}

impl Port {
    /// Attaches our own program and opens the queues: all, or none.
    ///
    /// An interface that is down is opened with a warning: it works when it comes up.
    ///
    /// # Errors
    /// [`OpenError`]; what had been done is undone.
    pub fn open(config: &PortConfig) -> Result<Self, OpenError> {
        Self::open_from(config, Source::OwnProgram)
    }

    /// The same with a program, a map or sockets of others, which are closed again on an error.
    ///
    /// # Errors
    /// [`OpenError`]; what had been done is undone.
    pub fn open_from(config: &PortConfig, source: Source) -> Result<Self, OpenError> {
        Self::open_sharing(config, source, None)
    }

    /// The same with memory from which frames are sent in place: every queue registers all of it.
    ///
    /// # Errors
    /// [`OpenError`]; what had been done is undone.
    pub fn open_sharing(
        config: &PortConfig,
        source: Source,
        memory: Option<&SharedMemory>,
    ) -> Result<Self, OpenError> {
        let interface = look_up(config)?;
        let config = match source {
            Source::OwnProgram => kind::settle(config, &interface)?,
            _ => Cow::Borrowed(config),
        };
        Self::open_on(&config, &interface, source, memory)
            .map_err(|error| or_gone(&interface, error))
    }

    fn open_on(
        config: &PortConfig,
        interface: &Interface,
        source: Source,
        memory: Option<&SharedMemory>,
    ) -> Result<Self, OpenError> {
        let multi_buffer = multi_buffer::wanted(interface, config);
        let (mut steering, sockets) = Steering::new(config, interface, source, multi_buffer)?;
        let opening = Opening {
            config,
            interface,
            multi_buffer,
            memory,
        };
        let queues = opening.queues(&mut steering, sockets)?;
        let watch = ProgramWatch::start(interface)?;
        probe::warn(interface);
        let promiscuous = match &steering {
            Steering::Own(_) => {
                rss::warn_about_others(config, interface);
                Promiscuous::begin(interface)
            }
            Steering::Foreign { .. } => None,
        };
        let port = Self {
            mtu: usable_mtu(interface, &queues),
            mode: steering.mode(),
            steering: Some(steering),
            interface: interface.clone(),
            queues,
            watch,
            promiscuous,
        };
        tracing::info!(
            interface = port.interface.name(),
            mode = %port.mode(),
            zero_copy = port.queues.iter().all(Queue::zero_copy),
            tx_checksum = port.queues.iter().all(Queue::completes_checksums),
            start_queue = config.start_queue,
            queues = config.queues,
            multi_buffer,
            mtu = port.mtu,
            "AF_XDP is open"
        );
        Ok(port)
    }

    /// The interface as it was when it was opened.
    #[must_use]
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// Where the XDP program runs. With one of others that the kernel does not show on the
    /// interface, or shows in several modes: skb.
    #[must_use]
    pub fn mode(&self) -> AttachMode {
        self.mode
    }

    /// Whether the XDP program that was there when the port was opened, ours or not, still is. Asks
    /// the kernel, with two system calls.
    ///
    /// The kernel announces most changes, which [`LinkMonitor`](crate::LinkMonitor) tells of, but not
    /// that somebody detached a program's link: so ask now and then as well.
    ///
    /// # Errors
    /// The system's.
    pub fn program_status(&mut self) -> io::Result<ProgramStatus> {
        self.watch.status()
    }

    /// The speed of the interface's link, by the port's netlink socket; if it is gone, none. See [`Interface::link_speed`].
    #[must_use]
    pub fn link_speed(&mut self) -> LinkSpeed {
        let name = self.watch.name();
        let speed = name.and_then(|name| ethtool::link_speed(&name));
        speed.unwrap_or_default()
    }

    /// The largest MTU in bytes that works both ways: the interface's when it was opened, or that of
    /// the longest frames that its queues can have (with a VLAN tag) if that is less.
    #[must_use]
    pub fn mtu(&self) -> u32 {
        self.mtu
    }

    /// Does what dropping it does, as far as others can see: our program comes off, or our sockets out of the
    /// map of others. No queue receives anything any more.
    ///
    /// For an interface that is gone ([`LinkEvent::Gone`](crate::LinkEvent)): if it was moved to
    /// another network namespace, the program went along, and drops whatever comes there, as the kernel
    /// has parted the interface from its sockets for good.
    pub fn let_go(&mut self) {
        self.promiscuous = None;
        self.steering = None;
    }

    /// Hands out the queues, the first one first. Empty when called again.
    pub fn take_queues(&mut self) -> Vec<Queue> {
        std::mem::take(&mut self.queues)
    }
}

/// The MTU that works in all queues.
fn usable_mtu(interface: &Interface, queues: &[Queue]) -> u32 {
    let most = queues.iter().map(Queue::max_mtu).min();
    let most = most.unwrap_or(FrameLimits::ONE_CHUNK.mtu());
    if interface.mtu() > most {
        tracing::warn!(
            interface = interface.name(),
            mtu = interface.mtu(),
            "frames that are longer than an MTU of {most} makes them are not received"
        );
    }
    interface.mtu().min(most)
}

/// Checks the configuration and looks for the interface.
pub(crate) fn look_up(config: &PortConfig) -> Result<Interface, OpenError> {
    check(config)?;
    let interface = Interface::by_name(&config.ifname)?;
    kind::check(&interface)?;
    check_queues(config, &interface)?;
    interface.warn_if_down();
    Ok(interface)
}

/// The error, unless the reason for it is that the interface went since it was looked up.
pub(crate) fn or_gone(interface: &Interface, error: OpenError) -> OpenError {
    match Interface::by_index(interface.index()) {
        Err(InterfaceError::Missing { .. }) => OpenError::Gone {
            interface: interface.name().to_owned(),
            source: Box::new(error),
        },
        _ => error,
    }
}

pub(crate) fn check(config: &PortConfig) -> Result<(), OpenError> {
    if config.queues == 0 {
        return Err(OpenError::NoQueues);
    }
    let frames = config.frames;
    if !frames.is_power_of_two() || !(MIN_FRAMES..=MAX_FRAMES).contains(&frames) {
        return Err(OpenError::Frames { frames });
    }
    let require = config.require;
    let with = match require {
        Require::Native | Require::ZeroCopy if config.mode == Some(AttachMode::Skb) => "skb mode",
        Require::ZeroCopy if config.force_copy => "forced copy mode",
        _ => return Ok(()),
    };
    Err(OpenError::Contradiction { require, with })
}

pub(crate) fn check_queues(config: &PortConfig, interface: &Interface) -> Result<(), OpenError> {
    let last = config.start_queue.checked_add(config.queues);
    if last.is_some_and(|last| last <= interface.queues()) {
        return Ok(());
    }
    Err(OpenError::TooManyQueues {
        interface: config.ifname.clone(),
        start_queue: config.start_queue,
        queues: config.queues,
        available: interface.queues(),
        fix: interface.more_queues(u64::from(config.start_queue) + u64::from(config.queues)),
    })
}

/// What the queues of a port have in common.
struct Opening<'a> {
    config: &'a PortConfig,
    interface: &'a Interface,
    multi_buffer: bool,
    memory: Option<&'a SharedMemory>,
}

impl Opening<'_> {
    /// Opens all queues, on these sockets or on new ones.
    fn queues(
        &self,
        steering: &mut Steering,
        sockets: Option<Vec<OwnedFd>>,
    ) -> Result<Vec<Queue>, OpenError> {
        // All that fits in memory: `check_queues` bounds it by what the interface has.
        let mut queues = Vec::new();
        let mut sockets = sockets.map(Vec::into_iter);
        let first = self.config.start_queue;
        for (number, id) in (0..).zip(first..first + self.config.queues) {
            let socket = sockets.as_mut().and_then(Iterator::next);
            let queue = self.queue(steering, number, id, socket);
            queues.push(queue.map_err(|source| OpenError::Queue {
                interface: self.config.ifname.clone(),
                queue: id,
                source,
            })?);
        }
        Ok(queues)
    }

    /// `number`: from 0 on; `id`: on the interface.
    fn queue(
        &self,
        steering: &mut Steering,
        number: u32,
        id: u32,
        socket: Option<OwnedFd>,
    ) -> Result<Queue, QueueError> {
        let frames = self.config.frames;
        let (mut umem, pool) =
            Umem::new(frames, self.memory).map_err(|source| QueueError::Memory {
                need: Umem::needed(frames, self.memory) / 1024,
                source,
            })?;
        let (copy, metadata) = (self.copy_mode(steering), self.config.tx_metadata);
        if metadata.is_wanted(self.interface, copy, self.memory.is_some())? {
            umem.reserve_tx_metadata();
        }
        let options = SocketOptions {
            ifindex: self.interface.index(),
            queue: id,
            copy,
            multi_buffer: self.multi_buffer,
            ring_size: frames / 2,
        };
        let socket = socket.map_or_else(socket::create, Ok)?;
        let mut socket = Socket::set_up(socket, umem, &options)?;
        let reserved = socket.umem.tx_metadata_len();
        if reserved > 0 {
            socket.tx_checksum = metadata.is_honoured(self.interface, socket.zero_copy)?;
        }
        let limits = self.frame_limits(socket.zero_copy, reserved);
        let queue = Queue::new(id, socket, pool, limits);
        steering.direct(number, id, queue.as_fd())?;
        Ok(queue)
    }

    fn copy_mode(&self, steering: &Steering) -> CopyMode {
        if self.config.require == Require::ZeroCopy {
            CopyMode::ZeroCopy
        } else if self.config.force_copy || steering.needs_copy(self.interface) {
            // With the program in the stack, a driver that was given the frames in zero-copy mode
            // would never see them go to the socket.
            CopyMode::Copy
        } else {
            CopyMode::Best
        }
    }

    /// How long the frames of a queue can be. `reserved`: bytes of each chunk that none to send may use.
    fn frame_limits(&self, zero_copy: bool, reserved: u32) -> FrameLimits {
        if !self.multi_buffer {
            return FrameLimits::one_chunk(reserved);
        }
        let driver_limit = zero_copy.then(|| {
            let features = probe::features(self.interface.index());
            features.map_or(1, |features| features.zero_copy_fragments)
        });
        FrameLimits::several_chunks(self.interface.mtu(), driver_limit, reserved)
    }
}

#[cfg(test)]
#[path = "port_tests.rs"]
mod tests;
