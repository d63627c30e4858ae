//! What a privileged process prepares for one that has no privileges.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::io::FdFlags;

use crate::{
    config::PortConfig,
    error::{OpenError, QueueError},
    interface::Interface,
    multi_buffer, port,
    program::AttachMode,
    promiscuous::Promiscuous,
    rss, socket,
    status::{ProgramStatus, ProgramWatch},
    steering::{self, Steering},
    sys,
};

/// Our XDP program on an interface, and a socket for each queue, in its map but not set up: another
/// process can do the rest without any capability ([`Source::Sockets`](crate::Source::Sockets)). It
/// needs to be allowed to lock the memory ([`PortConfig::locked_memory`]).
///
/// The program is there, and the interface promiscuous, until this is dropped, so keep it while the other process runs.
///
/// The sockets bind to no other interface (from Linux 6.6 on), but to any queue of it: give them to
/// one user only.
#[derive(Debug)]
pub struct Prepared {
    steering: Steering,
    interface: Interface,
    sockets: Vec<OwnedFd>,
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
        Self::open_on(config, interface.clone()).map_err(|error| port::or_gone(&interface, error))
    }

    fn open_on(config: &PortConfig, interface: Interface) -> Result<Self, OpenError> {
        let multi_buffer = multi_buffer::wanted(&interface, config);
        let program = steering::attach(config, &interface, multi_buffer)?;
        let mut steering = Steering::Own(program);
        let mut sockets = Vec::new();
        for (number, queue) in (0..).zip(config.start_queue..config.start_queue + config.queues) {
            let socket = prepare(&mut steering, &interface, number, queue).map_err(|source| {
                OpenError::Queue {
                    interface: config.ifname.clone(),
                    queue,
                    source,
                }
            })?;
            sockets.push(socket);
        }
        let watch = ProgramWatch::start(&interface)?;
        rss::warn_about_others(config, &interface);
        Ok(Self {
            promiscuous: Promiscuous::begin(&interface),
            steering,
            interface,
            sockets,
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

    /// Lets the sockets stay open in programs that this process executes. Their numbers there are
    /// those that they have here.
    ///
    /// # Errors
    /// The system's.
    pub fn let_children_inherit(&self) -> io::Result<()> {
        for socket in &self.sockets {
            rustix::io::fcntl_setfd(socket, FdFlags::empty())?;
        }
        Ok(())
    }

    /// Keeps the program on the interface, whatever becomes of this process, for as long as a program
    /// that it executes runs: that inherits the link, and needs to know nothing of it. With it,
    /// this process can become the other one (execve) and none is needed to keep the program.
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
        if let Some(promiscuous) = &self.promiscuous {
            promiscuous.let_children_inherit()?;
        }
        Ok(())
    }

    /// Closes the sockets here, or hands them out. While they are open here, their queues stay taken
    /// after the end of the process that has bound them, so do that once it has been started.
    pub fn take_sockets(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.sockets)
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

fn prepare(
    steering: &mut Steering,
    interface: &Interface,
    number: u32,
    queue: u32,
) -> Result<OwnedFd, QueueError> {
    let socket = socket::create()?;
    sys::restrict_to_device(socket.as_fd(), interface.index()).map_err(QueueError::Restrict)?;
    steering.direct(number, queue, socket.as_fd())?;
    Ok(socket)
}
