//! How a run ends: reasons, their process exit statuses and their sentences.

use std::{
    fmt, io,
    os::fd::{AsRawFd, RawFd},
    sync::{Arc, OnceLock},
};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::confine::ConfineError;

/// Process exit statuses of `ringwire`, in one place.
///
/// Signals end it with 128 + the signal's number, as a shell reports a process killed by one, so
/// that a supervisor can tell them from a guest that ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// The guest powered off or rebooted, or the user left by the escape.
    Success = 0,
    /// The VM could not be started: bad configuration, or the host refused something.
    Startup = 1,
    /// The command line was not understood.
    Usage = 2,
    /// The guest reported a panic (pvpanic).
    GuestPanic = 3,
    /// The guest's CPU shut down by a triple fault.
    TripleFault = 4,
    /// KVM could not run the guest further.
    Kvm = 5,
    /// The host failed while the guest ran, or an own thread did.
    Host = 6,
    /// A thread made a system call that it has no use for ([`crate::confine`]).
    Forbidden = 7,
}

/// The statuses, and what other signals do, as `--help` shows them.
pub const STATUS_HELP: &str = "\
Exit status:
  0      the guest powered off or rebooted, or Ctrl-A x was typed; with acpi=off
         also, after 10 to 15 s, if it halted all of its CPUs for good
  1      the VM could not be started
  2      the command line was not understood
  3      the guest reported a panic (its kernel needs the pvpanic-mmio driver;
         without it a guest that reboots on panic ends with 0)
  4      the guest's CPU shut down (triple fault)
  5      KVM could not run the guest further; see `ringwire check kvm`
  6      the host failed while the guest ran
  7      a thread of ringwire made a system call that it has no use for
  128+N  ended by signal N (SIGHUP, SIGINT, SIGTERM and others)

SIGUSR1 makes a running guest's network cards log their counters. SIGUSR2
asks the guest to announce its addresses on the wire (gratuitous ARP).";

/// Why a VM stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitReason {
    /// ACPI S5.
    PowerOff,
    /// All CPUs halted with interrupts off, which is how a guest without ACPI powers off.
    Halted,
    /// ACPI reset register or keyboard controller.
    Reset,
    /// Ctrl-A x on the console.
    Escape,
    /// A signal to this process.
    Signal(i32),
    /// The guest's kernel panicked and said so.
    GuestPanic,
    /// The guest's CPU shut down.
    TripleFault {
        /// Which one.
        vcpu: u8,
    },
    /// KVM gave up.
    Kvm {
        /// On which vCPU.
        vcpu: u8,
        /// In words, with the instruction if KVM tells.
        what: String,
    },
    /// Something on our side failed; a sentence.
    Host(String),
    /// The process could not be confined, so the guest did not run; a sentence.
    NotConfined(String),
}

impl ExitReason {
    /// The process's exit status.
    pub fn status(&self) -> u8 {
        let status = match self {
            Self::PowerOff | Self::Halted | Self::Reset | Self::Escape => Status::Success,
            Self::Signal(number) => {
                return u8::try_from(number.saturating_add(128)).unwrap_or(u8::MAX);
            }
            Self::GuestPanic => Status::GuestPanic,
            Self::TripleFault { .. } => Status::TripleFault,
            Self::Kvm { .. } => Status::Kvm,
            Self::Host(_) => Status::Host,
            Self::NotConfined(_) => Status::Startup,
        };
        status as u8
    }

    /// Of an error on the way into confinement.
    pub(crate) fn not_confined(error: &ConfineError) -> Self {
        Self::NotConfined(format!(
            "could not confine ringwire, so the guest was not run: {error}. `--confine off` runs it all the same"
        ))
    }

    /// Whether the guest, or the user, meant it.
    pub fn is_success(&self) -> bool {
        self.status() == Status::Success as u8
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PowerOff => f.write_str("the guest powered off"),
            Self::Halted => f.write_str("the guest halted all of its CPUs"),
            Self::Reset => f.write_str("the guest rebooted"),
            Self::Escape => f.write_str("left by Ctrl-A x"),
            Self::Signal(number) => write!(f, "ended by signal {number}"),
            Self::GuestPanic => f.write_str("the guest's kernel panicked"),
            Self::TripleFault { vcpu } => write!(
                f,
                "vCPU {vcpu} of the guest shut down (triple fault): the guest crashed beyond its own handlers, or resets in this way (Linux's reboot=t)"
            ),
            Self::Kvm { vcpu, what } => write!(
                f,
                "KVM could not run vCPU {vcpu} further: {what}; `ringwire check kvm` tells whether this host's KVM can boot Linux"
            ),
            Self::Host(sentence) | Self::NotConfined(sentence) => f.write_str(sentence),
        }
    }
}

/// The place where any thread says that the VM must stop. The first reason counts.
#[derive(Debug, Clone)]
pub struct ExitRequest(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    reason: OnceLock<ExitReason>,
    event: EventFd,
}

impl ExitRequest {
    /// Nothing requested yet.
    ///
    /// # Errors
    /// The system has no eventfd left.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(Shared {
            reason: OnceLock::new(),
            event: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
        })))
    }

    /// Asks for the end. Never blocks; later reasons than the first are dropped.
    pub fn request(&self, reason: ExitReason) {
        if self.0.reason.set(reason).is_ok() {
            // Fails only when the counter is full, and then the event is pending.
            let _ = self.0.event.write(1);
        }
    }

    /// The first reason, if there is one.
    pub fn reason(&self) -> Option<&ExitReason> {
        self.0.reason.get()
    }
}

impl AsRawFd for ExitRequest {
    /// Readable from the first request on.
    fn as_raw_fd(&self) -> RawFd {
        self.0.event.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_distinct_and_documented() {
        let kvm = ExitReason::Kvm {
            vcpu: 0,
            what: "x".into(),
        };
        // That end has no time for reasons.
        assert_eq!(Status::Forbidden as u8, 7);
        assert!(STATUS_HELP.contains("\n  7 "));
        for (reason, status) in [
            (ExitReason::PowerOff, 0),
            (ExitReason::Halted, 0),
            (ExitReason::Reset, 0),
            (ExitReason::Escape, 0),
            (ExitReason::GuestPanic, 3),
            (ExitReason::TripleFault { vcpu: 1 }, 4),
            (kvm, 5),
            (ExitReason::Host("x".into()), 6),
            (ExitReason::NotConfined("x".into()), 1),
            (ExitReason::Signal(libc::SIGTERM), 143),
            (ExitReason::Signal(libc::SIGINT), 130),
        ] {
            assert_eq!(reason.status(), status, "{reason}");
            assert_eq!(reason.is_success(), status == 0);
            if status < 128 {
                assert!(STATUS_HELP.contains(&format!("\n  {status} ")));
            }
        }
    }

    #[test]
    fn the_first_reason_counts() {
        let exit = ExitRequest::new().unwrap();
        assert_eq!(exit.reason(), None);
        exit.request(ExitReason::GuestPanic);
        exit.clone().request(ExitReason::Reset);
        assert_eq!(exit.reason(), Some(&ExitReason::GuestPanic));
        assert_eq!(exit.0.event.read().unwrap(), 1);
    }
}
