//! What happens to a network card's interface while the guest runs: its link, its XDP program.

use std::os::fd::{AsFd, AsRawFd, RawFd};

use net_afxdp::{LinkEvent, ProgramStatus};

use super::{Network, speed};

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
        let id = &self.id;
        match event {
            LinkEvent::Up => tracing::info!("netdev '{id}': link up"),
            LinkEvent::Down => tracing::info!("netdev '{id}': link down"),
            LinkEvent::Gone => tracing::warn!(
                "netdev '{id}': its interface is gone (deleted, or moved to another network namespace); the guest sees its link down until ringwire is started again"
            ),
            LinkEvent::Mtu(mtu) => tracing::warn!(
                "netdev '{id}': its interface has a new MTU, {mtu}; the guest keeps the one it was started with"
            ),
            LinkEvent::Renamed(name) => {
                tracing::info!("netdev '{id}': its interface is now called {name}");
            }
            LinkEvent::Program(_) => {}
        }
    }

    /// Asks the guest to announce itself on the wire (`NetControl::announce`), and says so in the log.
    pub(crate) fn announce(&self) {
        let id = &self.id;
        if self.control.announce() {
            tracing::info!("netdev '{id}': the guest is asked to announce itself");
        } else {
            tracing::warn!("netdev '{id}': the guest has no driver that can announce it");
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
        let (id, ifname) = (&self.id, self.port.interface().name());
        match &status {
            ProgramStatus::InPlace if self.had_program => {
                tracing::warn!("netdev '{id}': the XDP program on {ifname} is back");
            }
            ProgramStatus::InPlace => {
                tracing::warn!("netdev '{id}': there is no XDP program on {ifname} again");
            }
            ProgramStatus::Gone => tracing::warn!(
                "netdev '{id}': the XDP program was taken off {ifname}: the guest receives nothing any more, until ringwire is started again"
            ),
            ProgramStatus::Replaced(program) if !self.had_program => tracing::info!(
                "netdev '{id}': there is an XDP program on {ifname} now ({program}): the guest receives what that gives it"
            ),
            ProgramStatus::Replaced(program) => tracing::warn!(
                "netdev '{id}': another XDP program took the place of the one on {ifname} ({program}): the guest receives what that one gives it; take it off and start ringwire again"
            ),
            // The link's events say so.
            ProgramStatus::InterfaceGone => {}
        }
        self.program = status;
    }
}
