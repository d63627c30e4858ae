//! Watches one interface through rtnetlink: link up and down, MTU, name, XDP program, end.
//!
//! An AF_XDP socket itself stays silent when its interface goes down or away, so whoever serves a
//! queue watches its interface with this.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, BorrowedFd},
};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::{
    netlink::{self, Asker, LinkInfo, MESSAGE_SPACE, Message, Which},
    program::ForeignProgram,
};

/// Multicast group of messages about interfaces (`RTMGRP_LINK`, linux/rtnetlink.h).
const RTMGRP_LINK: u32 = 1;

/// How often in a row a read may say that messages were lost. Once is usual; the kernel says it again
/// when more is lost before what it holds is read.
const MAX_OVERRUNS: u32 = 100;

/// What happened to the interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEvent {
    /// Frames can pass: it is switched on and has a carrier.
    Up,
    /// Frames can't pass.
    Down,
    /// It has a new MTU, in bytes.
    Mtu(u32),
    /// It has a new name. Sockets and the program stay as they are.
    Renamed(String),
    /// Another XDP program is on it, or none. Not every change is announced by the kernel: see
    /// [`Port::program_status`](crate::Port::program_status).
    Program(Option<ForeignProgram>),
    /// It was deleted, or moved to another network namespace. The last event.
    Gone,
}

/// State of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkState {
    /// Whether frames can pass.
    pub up: bool,
    /// MTU in bytes.
    pub mtu: u32,
    /// Its name.
    pub name: String,
    /// The XDP program that is on it, without its name.
    pub program: Option<ForeignProgram>,
}

impl From<LinkInfo> for LinkState {
    fn from(info: LinkInfo) -> Self {
        Self {
            up: info.running,
            mtu: info.mtu,
            name: info.name,
            program: info.xdp,
        }
    }
}

/// Reports the changes of one interface. Never blocks.
#[derive(Debug)]
pub struct LinkMonitor {
    index: u32,
    /// Subscribed to changes.
    changes: Socket,
    /// For questions, in the same network namespace.
    asker: Asker,
    /// As of the last event; `None` when it is gone.
    state: Option<LinkState>,
    events: VecDeque<LinkEvent>,
    /// Messages were lost: the outcome is to be asked for.
    overrun: bool,
    buffer: Vec<u8>,
}

impl LinkMonitor {
    /// Watches the interface of that index in the calling thread's network namespace.
    ///
    /// # Errors
    /// The system's; `ENODEV` when there is no such interface.
    pub fn open(index: u32) -> io::Result<Self> {
        let mut changes = Socket::new(NETLINK_ROUTE)?;
        // Subscribed before the state is asked for, so no change falls in between.
        changes.bind(&SocketAddr::new(0, RTMGRP_LINK))?;
        changes.set_non_blocking(true)?;
        let mut asker = Asker::open()?;
        let state = Some(asker.ask(Which::Index(index))?.into());
        let events = VecDeque::new();
        let buffer = Vec::with_capacity(MESSAGE_SPACE);
        Ok(Self {
            index,
            changes,
            asker,
            state,
            events,
            overrun: false,
            buffer,
        })
    }

    /// The interface's state as of the last event that was returned or is waiting. `None`: gone.
    #[must_use]
    pub fn state(&self) -> Option<&LinkState> {
        self.state.as_ref()
    }

    /// The next change, oldest first. `None`: nothing more for now.
    ///
    /// # Errors
    /// The system's.
    pub fn next_event(&mut self) -> io::Result<Option<LinkEvent>> {
        let mut overruns = 0;
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            self.buffer.clear();
            match self.changes.recv(&mut self.buffer, 0) {
                Ok(_) => {
                    overruns = 0;
                    self.read_messages();
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) if self.overrun => self.catch_up()?,
                    Some(libc::EAGAIN) => return Ok(None),
                    Some(libc::EINTR) => {}
                    // The kernel had more to say than the socket holds. What it holds is older
                    // than what was lost, so that is read first.
                    Some(libc::ENOBUFS) if overruns < MAX_OVERRUNS => {
                        self.overrun = true;
                        overruns += 1;
                    }
                    _ => return Err(error),
                },
            }
        }
    }

    fn read_messages(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        for message in netlink::messages(&buffer) {
            match message {
                Message::Link(info) if info.index == self.index => self.changed(info.into()),
                Message::Gone(index) if index == self.index => self.gone(),
                _ => {}
            }
        }
        self.buffer = buffer;
    }

    fn catch_up(&mut self) -> io::Result<()> {
        self.overrun = false;
        match self.asker.ask(Which::Index(self.index)) {
            Ok(info) => self.changed(info.into()),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => self.gone(),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn changed(&mut self, new: LinkState) {
        // Gone is the last: a new interface may get the same index.
        let Some(old) = &mut self.state else { return };
        if new.name != old.name {
            self.events.push_back(LinkEvent::Renamed(new.name.clone()));
        }
        if new.mtu != old.mtu {
            self.events.push_back(LinkEvent::Mtu(new.mtu));
        }
        if new.program != old.program {
            let program = new.program.clone();
            self.events.push_back(LinkEvent::Program(program));
        }
        if new.up != old.up {
            self.events.push_back(if new.up {
                LinkEvent::Up
            } else {
                LinkEvent::Down
            });
        }
        *old = new;
    }

    fn gone(&mut self) {
        if self.state.take().is_some() {
            self.events.push_back(LinkEvent::Gone);
        }
    }
}

impl AsFd for LinkMonitor {
    /// Readable when [`LinkMonitor::next_event`] may have something.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.changes.as_fd()
    }
}
