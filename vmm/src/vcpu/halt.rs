//! Whether the guest has stopped for good: all of its CPUs halted with interrupts off.
//!
//! Without ACPI this is how Linux powers off. KVM keeps such a vCPU for ever and says nothing, so each is brought out
//! of KVM_RUN now and then and looked at.

use std::sync::atomic::{AtomicU32, Ordering};

use kvm_bindings::{KVM_MP_STATE_HALTED, KVM_MP_STATE_INIT_RECEIVED, KVM_MP_STATE_UNINITIALIZED};
use kvm_ioctls::VcpuFd;

/// Rounds in a row in which all must have been stopped: in the first, one of them may have been started again by
/// another that was still running.
const ROUNDS: u32 = 2;

/// What the vCPUs' threads and the control loop share.
#[derive(Debug)]
pub(crate) struct HaltWatch {
    /// The current round, from 1 on.
    round: AtomicU32,
    /// In which round each vCPU was last found stopped; 0 if it runs.
    stopped: Vec<AtomicU32>,
    /// Rounds in a row that found all of them so.
    in_a_row: AtomicU32,
}

impl HaltWatch {
    /// For that many vCPUs.
    pub(crate) fn new(cpus: u8) -> Self {
        Self {
            round: AtomicU32::new(1),
            stopped: (0..cpus).map(|_| AtomicU32::new(0)).collect(),
            in_a_row: AtomicU32::new(0),
        }
    }

    /// A vCPU's thread: it was kicked.
    pub(super) fn look(&self, index: u8, vcpu: &VcpuFd) {
        self.set(index, is_stopped(vcpu));
    }

    fn set(&self, index: u8, stopped: bool) {
        if let Some(slot) = self.stopped.get(usize::from(index)) {
            let round = self.round.load(Ordering::Acquire);
            slot.store(if stopped { round } else { 0 }, Ordering::Release);
        }
    }

    /// The control loop, well after it has kicked all of them: whether the guest has stopped for good. Begins the next
    /// round, for which it has to kick them again.
    pub(crate) fn has_stopped(&self) -> bool {
        let round = self.round.load(Ordering::Acquire);
        let mut stopped = self.stopped.iter();
        let all = stopped.all(|slot| slot.load(Ordering::Acquire) == round);
        let in_a_row = match all {
            true => self.in_a_row.load(Ordering::Relaxed).saturating_add(1),
            false => 0,
        };
        self.in_a_row.store(in_a_row, Ordering::Relaxed);
        // Wraps after centuries; 0 is nobody's.
        self.round
            .store(round.wrapping_add(1).max(1), Ordering::Release);
        in_a_row >= ROUNDS
    }
}

/// Whether nothing but a signal of another CPU can make it run: it waits for its start, or halts with interrupts off.
/// (An NMI could, too, and none is ever sent from outside.)
fn is_stopped(vcpu: &VcpuFd) -> bool {
    const INTERRUPT_FLAG: u64 = 1 << 9;
    let Ok(state) = vcpu.get_mp_state() else {
        return false;
    };
    match state.mp_state {
        KVM_MP_STATE_UNINITIALIZED | KVM_MP_STATE_INIT_RECEIVED => true,
        KVM_MP_STATE_HALTED => {
            let regs = vcpu.get_regs();
            regs.is_ok_and(|regs| regs.rflags & INTERRUPT_FLAG == 0)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_all_cpus_in_two_rounds() {
        let watch = HaltWatch::new(2);
        assert!(!watch.has_stopped(), "nobody was looked at");
        let round = |states: [bool; 2]| {
            (0..)
                .zip(states)
                .for_each(|(index, state)| watch.set(index, state));
            watch.has_stopped()
        };
        assert!(!round([true, false]));
        assert!(!round([true, true]));
        assert!(!round([false, true]), "one was started again");
        assert!(!round([true, true]));
        assert!(round([true, true]));
        // What was seen in an earlier round does not count.
        watch.set(0, true);
        assert!(!watch.has_stopped());
    }
}
