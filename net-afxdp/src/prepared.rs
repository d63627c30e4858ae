//! What a privileged process prepares for one that has no privileges.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use rustix::io::FdFlags;

use crate::{
    config::PortConfig,
    error::{OpenError, QueueError},
    interface::Interface,
    kind, multi_buffer, port, probe,
    program::{AttachMode, AttachedProgram, ProgramError},
    promiscuous::Promiscuous,
    rss, socket,
    source::Source,
    status::{ProgramStatus, ProgramWatch},
    steering::{self, Steering},
    sys,
};

/// Our XDP program on an interface, and a socket for each queue, in its map but not set up: another
/// process can do the rest without any capability ([`Source::Sockets`](crate::Source::Sockets)). Where the kernel
/// takes only sockets that are set up into the map, it gets that as well ([`Prepared::map`]). It
/// needs to be allowed to lock the memory ([`PortConfig::locked_memory`]).
///
/// The program is there, and the interface promiscuous, until this is dropped, so keep it while the other process runs.
/// What keeps the interface promiscuous is no descriptor for others: [`Prepared::take_promiscuity`].
///
/// The sockets bind to no other interface (from Linux 6.6 on), but to any queue of it: give them to
/// one user only.
#[derive(Debug)]
pub struct Prepared {
    steering: Steering,
    interface: Interface,
    sockets: Vec<OwnedFd>,
    /// The program's map, if the sockets are not in it yet.
    map: Option<OwnedFd>,
    watch: ProgramWatch,
    promiscuous: Option<Promiscuous>,
}

impl Prepared {
    /// Attaches the program, creates the sockets and puts them into its map.
    ///
    /// Nobody has tried to bind then: a queue that is busy, and a zero-copy mode that is required
    /// but can't be had, show when the sockets are used.
    ///
    /// # Errors
    /// [`OpenError`]; nothing is left behind.
    pub fn open(config: &PortConfig) -> Result<Self, OpenError> {
        let interface = port::look_up(config)?;
        let config = kind::settle(config, &interface)?;
        Self::open_on(&config, interface.clone()).map_err(|error| port::or_gone(&interface, error))
    }

    fn open_on(config: &PortConfig, interface: Interface) -> Result<Self, OpenError> {
        let multi_buffer = multi_buffer::wanted(&interface, config);
        let program = steering::attach(config, &interface, multi_buffer)?;
        let mut sockets = Vec::new();
        let mut map = None;
        for queue in config.start_queue..config.start_queue + config.queues {
            let prepared = prepare(&program, &interface, queue, &mut map);
            sockets.push(prepared.map_err(|source| OpenError::Queue {
                interface: config.ifname.clone(),
                queue,
                source,
            })?);
        }
        let watch = ProgramWatch::start(&interface)?;
        probe::warn(&interface);
        rss::warn_about_others(config, &interface);
        Ok(Self {
            promiscuous: Promiscuous::begin(&interface),
            steering: Steering::Own(program),
            interface,
            sockets,
            map,
            watch,
        })
    }

    /// The interface as it was when it was opened.
    #[must_use]
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// Where the XDP program runs.
    #[must_use]
    pub fn mode(&self) -> AttachMode {
        self.steering.mode()
    }

    /// The sockets, the first queue's first.
    #[must_use]
    pub fn sockets(&self) -> &[OwnedFd] {
        &self.sockets
    }

    /// The program's map, for [`Source::SocketsForMap`](crate::Source::SocketsForMap): this kernel takes sockets into
    /// it only when they have rings (Linux 7.3), which whoever uses them makes. It gives no more power than
    /// the sockets do: nothing but AF_XDP sockets can be put in, to receive from their own queue.
    ///
    /// `None`: they are in it already, and [`Source::Sockets`](crate::Source::Sockets) will do.
    #[must_use]
    pub fn map(&self) -> Option<BorrowedFd<'_>> {
        self.map.as_ref().map(AsFd::as_fd)
    }

    /// Lets the sockets, and the map if there is one, stay open in programs that this process executes. Their
    /// numbers there are those that they have here.
    ///
    /// # Errors
    /// The system's.
    pub fn let_children_inherit(&self) -> io::Result<()> {
        for descriptor in self.sockets.iter().chain(&self.map) {
            rustix::io::fcntl_setfd(descriptor, FdFlags::empty())?;
        }
        Ok(())
    }

    /// Keeps the program on the interface, whatever becomes of this process, for as long as a program
    /// that it executes runs: that inherits the link, and needs to know nothing of it. With it,
    /// this process can become the other one (execve) and none is needed to keep the program.
    ///
    /// The interface is promiscuous only while this process has it so: see [`Prepared::take_promiscuity`].
    ///
    /// Dropping this takes the program off nevertheless.
    ///
    /// # Errors
    /// The system's.
    pub fn let_children_keep_program(&self) -> io::Result<()> {
        match &self.steering {
            Steering::Own(program) => {
                rustix::io::fcntl_setfd(program.link(), FdFlags::empty())?;
            }
            Steering::Foreign { .. } => {}
        }
        Ok(())
    }

    /// What a program inherits that this process executes: the sockets, the map, and the program's link. All have to stay
    /// open in it. The sockets are AF_XDP sockets and no others.
    #[must_use]
    pub fn inherited(&self) -> Vec<RawFd> {
        let sockets = self.sockets.iter().chain(&self.map);
        let mut inherited: Vec<_> = sockets.map(AsRawFd::as_raw_fd).collect();
        if let Steering::Own(program) = &self.steering {
            inherited.push(program.link().as_raw_fd());
        }
        inherited
    }

    /// Hands out what keeps the interface promiscuous while it is open; `None`: that was refused, and the log said so, or
    /// it was handed out already.
    ///
    /// It is a packet socket. Never hand it to somebody with fewer rights: who has it can send on every interface of
    /// the network namespace. No program that is executed gets it, whatever else is inherited; a process that becomes
    /// another one leaves it to a powerless child, which does nothing but to have it open.
    pub fn take_promiscuity(&mut self) -> Option<OwnedFd> {
        self.promiscuous.take().map(OwnedFd::from)
    }

    /// Closes the sockets here, or hands them out. While they are open here, their queues stay taken
    /// after the end of the process that has bound them, so do that once it has been started.
    pub fn take_sockets(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.sockets)
    }

    /// The same as what another process, or this one, opens them with: with the map, where that is needed.
    pub fn take_source(&mut self) -> Source {
        let sockets = self.take_sockets();
        match self.map.take() {
            Some(map) => Source::SocketsForMap { sockets, map },
            None => Source::Sockets(sockets),
        }
    }

    /// Whether the XDP program is still there; see
    /// [`Port::program_status`](crate::Port::program_status).
    ///
    /// # Errors
    /// The system's.
    pub fn program_status(&mut self) -> io::Result<ProgramStatus> {
        self.watch.status()
    }
}

/// A socket in the program's map, or with `late` set to that.
fn prepare(
    program: &AttachedProgram,
    interface: &Interface,
    queue: u32,
    late: &mut Option<OwnedFd>,
) -> Result<OwnedFd, QueueError> {
    let socket = socket::create()?;
    sys::restrict_to_device(socket.as_fd(), interface.index()).map_err(QueueError::Restrict)?;
    match program.direct(queue, socket.as_fd()) {
        Ok(()) => {}
        Err(ProgramError::Map { source, .. }) if is_too_early(&source) => {
            if late.is_none() {
                let map = program.map().try_clone_to_owned();
                *late = Some(map.map_err(|source| ProgramError::Map { queue, source })?);
            }
        }
        Err(error) => return Err(error.into()),
    }
    Ok(socket)
}

/// What Linux 7.3 says of a socket without a receive ring; older kernels take it (`xsk_map_update_elem`).
fn is_too_early(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOBUFS)
}
