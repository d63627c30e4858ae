//! The capabilities that opening takes.

use rustix::thread::{CapabilitySet, capabilities};

use crate::namespace;

/// A capability, and what it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Right {
    /// Its name (capabilities(7)).
    pub name: &'static str,
    /// What takes it.
    pub needed_for: &'static str,
    /// Whether the calling thread has it, where it counts: for all but CAP_NET_RAW, that is in the initial user
    /// namespace.
    pub held: bool,
}

/// Which of them the calling thread has.
pub(crate) fn held() -> Vec<Right> {
    let effective = capabilities(None).map(|sets| sets.effective);
    let effective = effective.unwrap_or(CapabilitySet::empty());
    let bpf = CapabilitySet::BPF | CapabilitySet::SYS_ADMIN;
    let is_initial = namespace::is_initial_user();
    [
        ("CAP_NET_RAW", "to create sockets", CapabilitySet::NET_RAW),
        (
            "CAP_NET_ADMIN",
            "to load and attach the XDP program",
            CapabilitySet::NET_ADMIN,
        ),
        ("CAP_BPF", "to load the XDP program", bpf),
        (
            "CAP_IPC_LOCK",
            "to lock more memory than RLIMIT_MEMLOCK",
            CapabilitySet::IPC_LOCK,
        ),
    ]
    .map(|(name, needed_for, any_of)| Right {
        name,
        needed_for,
        held: effective.intersects(any_of) && (is_initial || name == "CAP_NET_RAW"),
    })
    .into()
}
