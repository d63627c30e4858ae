//! The process that keeps interfaces promiscuous while the command runs.
//!
//! What does so is a packet socket, and whoever has one sends on any interface of the network namespace: so it is not
//! the command that inherits it. A process without any power holds it instead ([`attendant`]), and ends when
//! nobody has the pipe any more that the command inherits.

use std::os::fd::{AsRawFd, OwnedFd};

use net_afxdp::Prepared;
use rustix::thread::CapabilitySet;

use crate::{
    attendant::{self, AttendantError, Duty, failed},
    confine::AttendantKind,
};

/// Starts it, if there is anything to keep, which only it has then. The descriptor is what it waits for.
pub(super) fn start(prepared: &mut [Prepared]) -> Result<Option<OwnedFd>, AttendantError> {
    let sockets = prepared.iter_mut().filter_map(Prepared::take_promiscuity);
    let sockets: Vec<_> = sockets.collect();
    if sockets.is_empty() {
        return Ok(None);
    }
    let numbers: Vec<_> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
    let duty = Duty {
        kind: AttendantKind::Holder,
        holds: &numbers,
        // Not the command's, who could end it.
        user: None,
        keeps: CapabilitySet::empty(),
        begins: &|| std::env::set_current_dir("/").map_err(failed("leave its directory")),
        ends: &|| 0,
    };
    attendant::start_apart(&duty).map(Some)
}
