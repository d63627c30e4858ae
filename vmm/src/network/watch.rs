//! What happens to a network card's interface while the guest runs: its link, its XDP program.

use std::os::fd::{AsFd, AsRawFd, RawFd};

use devices::log::LogLimit;
use net_afxdp::{LinkEvent, ProgramStatus};

use super::{Network, speed};

/// What the interface's owner, the other end of its veth, and whoever may put programs on it can cause.
#[derive(Debug, Default)]
pub(super) struct Lines {
    link: LogLimit,
    program: LogLimit,
    announcements: LogLimit,
    others: LogLimit,
}

impl Network {
    /// The descriptor that is readable when [`watch`](Self::watch) has something to do.
    pub(crate) fn link_fd(&self) -> Option<RawFd> {
        let monitor = self.monitor.as_ref()?;
        Some(monitor.as_fd().as_raw_fd())
    }

    /// Passes changes of the interface's link on to the guest. Returns `false` when there will be
    /// none any more.
    pub(crate) fn watch(&mut self) -> bool {
        while let Some(monitor) = &mut self.monitor {
            match monitor.next_event() {
                Ok(Some(event)) => self.link_changed(&event),
                Ok(None) => return true,
                Err(e) => {
                    tracing::warn!(
                        "netdev '{}': its link is not watched any more: {e}",
                        self.id
                    );
                    self.monitor = None;
                }
            }
        }
        false
    }

    fn link_changed(&mut self, event: &LinkEvent) {
        match event {
            LinkEvent::Up => {
                self.control.set_speed(speed(&mut self.port));
                self.control.set_link(true);
            }
            LinkEvent::Down => self.control.set_link(false),
            LinkEvent::Gone => {
                self.control.set_link(false);
                // Where it is now, our program would be in the way.
                self.port.let_go();
            }
            LinkEvent::Program(_) => self.check_program(),
            LinkEvent::Mtu(mtu) => self.control.set_wire_mtu(*mtu),
            LinkEvent::Renamed(_) => {}
        }
        self.tell(event);
    }

    /// Says so in the log.
    fn tell(&self, event: &LinkEvent) {
        let id = &self.id;
        let limit = match event {
            LinkEvent::Up | LinkEvent::Down => &self.lines.link,
            LinkEvent::Gone | LinkEvent::Mtu(_) | LinkEvent::Renamed(_) => &self.lines.others,
            LinkEvent::Program(_) => return,
        };
        let Some(left_out) = limit.pass() else { return };
        match event {
            LinkEvent::Up => tracing::info!("netdev '{id}': link up{left_out}"),
            LinkEvent::Down => tracing::info!("netdev '{id}': link down{left_out}"),
            LinkEvent::Gone => tracing::warn!(
                "netdev '{id}': its interface is gone (deleted, or moved to another network namespace); the guest sees its link down until ringwire is started again{left_out}"
            ),
            LinkEvent::Mtu(mtu) => tracing::warn!(
                "netdev '{id}': its interface has a new MTU, {mtu}; the guest keeps the one it was started with{left_out}"
            ),
            LinkEvent::Renamed(name) => {
                tracing::info!("netdev '{id}': its interface is now called {name}{left_out}");
            }
            LinkEvent::Program(_) => {}
        }
    }

    /// Asks the guest to announce itself on the wire (`NetControl::announce`), and says so in the log.
    pub(crate) fn announce(&self) {
        let id = &self.id;
        let asked = self.control.announce();
        let Some(left_out) = self.lines.announcements.pass() else {
            return;
        };
        if asked {
            tracing::info!("netdev '{id}': the guest is asked to announce itself{left_out}");
        } else {
            tracing::warn!("netdev '{id}': the guest has no driver that can announce it{left_out}");
        }
    }

    /// Reports an XDP program that was replaced or taken off. To be called now and then too: the
    /// kernel announces most changes, but not that somebody detached a program's link.
    pub(crate) fn check_program(&mut self) {
        // An error here comes again, and the link's events say more about it.
        let Ok(status) = self.port.program_status() else {
            return;
        };
        if status == self.program {
            return;
        }
        self.tell_of_program(&status);
        self.program = status;
    }

    fn tell_of_program(&self, status: &ProgramStatus) {
        let (id, ifname) = (&self.id, self.port.interface().name());
        let Some(left_out) = self.lines.program.pass() else {
            return;
        };
        match status {
            ProgramStatus::InPlace if self.had_program => {
                tracing::warn!("netdev '{id}': the XDP program on {ifname} is back{left_out}");
            }
            ProgramStatus::InPlace => {
                tracing::warn!(
                    "netdev '{id}': there is no XDP program on {ifname} again{left_out}"
                );
            }
            ProgramStatus::Gone => tracing::warn!(
                "netdev '{id}': the XDP program was taken off {ifname}: the guest receives nothing any more, until ringwire is started again{left_out}"
            ),
            ProgramStatus::Replaced(program) if !self.had_program => tracing::info!(
                "netdev '{id}': there is an XDP program on {ifname} now ({program}): the guest receives what that gives it{left_out}"
            ),
            ProgramStatus::Replaced(program) => tracing::warn!(
                "netdev '{id}': another XDP program took the place of the one on {ifname} ({program}): the guest receives what that one gives it; take it off and start ringwire again{left_out}"
            ),
            // The link's events say so.
            ProgramStatus::InterfaceGone => {}
        }
    }
}
