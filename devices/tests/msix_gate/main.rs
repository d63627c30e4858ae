//! The protocol of an MSI-X vector under loom: the very code of `src/pci/gate.rs`, with loom's atomics,
//! in every order that a raising thread and a masking vCPU can meet in (catalogue 31).

#![expect(
    clippy::unwrap_used,
    reason = "a panic is how a test fails, also in its helpers"
)]

#[path = "../../src/pci/gate.rs"]
mod gate;
mod sync;

use gate::{Gate, State};
use loom::{sync::Arc, thread};

/// What is left after `raises` threads raised once each while a vCPU went from `before` through
/// `then`: how many interrupts were sent, and whether one is pending.
fn meet(raises: usize, before: State, then: &[State]) -> (usize, bool) {
    let gate = Arc::new(Gate::new());
    assert!(!gate.set(before));
    let raiser = |_| {
        let gate = Arc::clone(&gate);
        thread::spawn(move || gate.raise())
    };
    let raisers: Vec<_> = (0..raises).map(raiser).collect();
    let by_vcpu = then.iter().filter(|&&state| gate.set(state)).count();
    let by_raisers = raisers.into_iter().map(|raiser| raiser.join().unwrap());
    let sent = by_vcpu + by_raisers.filter(|&sent| sent).count();
    (sent, gate.is_pending())
}

#[test]
fn an_interrupt_that_meets_an_unmasking_is_sent_once() {
    loom::model(|| assert_eq!(meet(1, State::Held, &[State::Open]), (1, false)));
}

#[test]
fn an_interrupt_that_meets_a_masking_and_unmasking_is_sent_once() {
    let steps = &[State::Held, State::Open];
    loom::model(move || assert_eq!(meet(1, State::Open, steps), (1, false)));
}

#[test]
fn an_interrupt_that_meets_a_gap_is_sent_or_pending() {
    let steps = &[State::Open, State::Held];
    loom::model(move || {
        let (sent, pending) = meet(1, State::Held, steps);
        assert_eq!(sent + usize::from(pending), 1);
    });
}

#[test]
fn two_interrupts_may_become_one_and_never_none() {
    let mut model = loom::model::Builder::new();
    // All orders of three threads take a minute; those with so many switches take no second.
    model.preemption_bound = Some(3);
    model.check(|| {
        let (sent, pending) = meet(2, State::Held, &[State::Open]);
        assert!((1..=2).contains(&sent) && !pending, "{sent} {pending}");
    });
}

#[test]
fn nothing_is_sent_while_masked_or_off() {
    loom::model(|| {
        assert_eq!(meet(2, State::Held, &[]), (0, true));
        assert_eq!(meet(2, State::Off, &[]), (0, false));
    });
}
