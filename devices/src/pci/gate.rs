//! Whether an interrupt is sent now or remembered: one vector's protocol between the thread that
//! raises and the vCPU that masks.
//!
//! Both sides first make theirs known and then look at the other's, and both touch the pending bit by
//! a swap, so one of them comes second and sees what the first one did: nothing is lost, and nothing
//! is sent twice. The model in `tests/msix_gate` tries every order.

use super::sync::{AtomicBool, AtomicU8, Ordering};

/// What becomes of interrupts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum State {
    /// MSI-X is not in use: they are forgotten.
    Off,
    /// Masked: they are remembered.
    Held,
    /// They are sent.
    Open,
}

/// One vector's state and pending bit.
#[derive(Debug)]
pub(super) struct Gate {
    state: AtomicU8,
    pending: AtomicBool,
}

impl Gate {
    /// A gate for a function whose MSI-X is not in use.
    pub(super) fn new() -> Self {
        Self {
            state: AtomicU8::new(State::Off as u8),
            pending: AtomicBool::new(false),
        }
    }

    fn is_open(&self) -> bool {
        self.state.load(Ordering::Acquire) == State::Open as u8
    }

    /// Something happened: whether to send now.
    #[must_use]
    pub(super) fn raise(&self) -> bool {
        match self.state.load(Ordering::Acquire) {
            state if state == State::Open as u8 => return true,
            state if state == State::Off as u8 => return false,
            _ => {}
        }
        self.pending.swap(true, Ordering::AcqRel);
        // Opened since the first look: then its swap may have come before ours.
        self.is_open() && self.pending.swap(false, Ordering::AcqRel)
    }

    /// The driver changed the mask: whether to send what was remembered.
    #[must_use]
    pub(super) fn set(&self, state: State) -> bool {
        self.state.store(state as u8, Ordering::Release);
        match state {
            State::Open => self.pending.swap(false, Ordering::AcqRel),
            State::Held => false,
            State::Off => {
                self.pending.swap(false, Ordering::AcqRel);
                false
            }
        }
    }

    /// The pending bit.
    pub(super) fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Acquire)
    }
}
