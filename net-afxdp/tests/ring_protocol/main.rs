#![expect(
    unsafe_code,
    reason = "makes rings over memory of the model, with the kernel played by the other side"
)]
//! The protocol of the rings under loom: the very code of `src/ring.rs`, with loom's atomics, in every
//! order that the memory model allows.

#[expect(
    dead_code,
    reason = "the model uses the parts of it that two threads run at once"
)]
#[path = "../../src/ring.rs"]
mod ring;
mod sync;

use std::{ptr::NonNull, sync::Arc};

use loom::thread;

use ring::{Consumer, Layout, NEED_WAKEUP, Producer};
use sync::{AtomicU32, Entry, Ordering, fence};

/// Memory of a ring.
struct Memory {
    producer: AtomicU32,
    consumer: AtomicU32,
    flags: AtomicU32,
    entries: Box<[Entry<u64>]>,
}

// SAFETY: the atomics are shared as they are; the entries through the two sides of a ring alone, and
// whether that is right is what loom checks.
unsafe impl Sync for Memory {}
// SAFETY: as above.
unsafe impl Send for Memory {}

/// A ring of `size` entries, empty, whose indices are about to wrap.
fn ring(size: u32) -> (Arc<Memory>, Producer<u64>, Consumer<u64>) {
    let start = u32::MAX;
    let memory = Arc::new(Memory {
        producer: AtomicU32::new(start),
        consumer: AtomicU32::new(start),
        flags: AtomicU32::new(0),
        entries: (0..size).map(|_| Entry::new(0)).collect(),
    });
    let layout = Layout {
        producer: NonNull::from(&memory.producer),
        consumer: NonNull::from(&memory.consumer),
        flags: NonNull::from(&memory.flags),
        entries: NonNull::from(&*memory.entries).cast(),
        size,
    };
    // SAFETY: the callers keep the memory; this is the only producer.
    let producer = unsafe { Producer::new(layout) };
    // SAFETY: the callers keep the memory; this is the only consumer.
    let consumer = unsafe { Consumer::new(layout) };
    (memory, producer, consumer)
}

fn put(producer: &mut Producer<u64>, entries: &[u64]) -> bool {
    let Some(mut slots) = u32::try_from(entries.len())
        .ok()
        .and_then(|count| producer.reserve(count))
    else {
        return false;
    };
    for entry in entries {
        assert!(slots.push(*entry));
    }
    slots.commit();
    producer.publish();
    true
}

fn take(consumer: &mut Consumer<u64>) -> Vec<u64> {
    let mut burst = consumer.peek(u32::MAX);
    let entries: Vec<_> = (0..burst.len()).map_while(|it| burst.get(it)).collect();
    let all = burst.len();
    burst.release(all);
    entries
}

#[test]
fn entries_are_handed_over_whole_in_order_and_never_overwritten_unread() {
    loom::model(|| {
        let (memory, mut producer, mut consumer) = ring(2);
        // Three entries through two slots: the last one reuses the first's.
        let sender = thread::spawn(move || {
            assert!(put(&mut producer, &[1, 2]));
            let mut tries = 0;
            while !put(&mut producer, &[3]) {
                tries += 1;
                if tries == 2 {
                    return false;
                }
                thread::yield_now();
            }
            true
        });
        let mut taken = Vec::new();
        for _ in 0..2 {
            taken.extend(take(&mut consumer));
            thread::yield_now();
        }
        let all = sender.join().unwrap();
        taken.extend(take(&mut consumer));
        assert_eq!(taken, if all { vec![1, 2, 3] } else { vec![1, 2] });
        drop(memory);
    });
}

#[test]
fn frames_that_are_published_together_are_seen_together() {
    loom::model(|| {
        let (memory, mut producer, mut consumer) = ring(4);
        let sender = thread::spawn(move || assert!(put(&mut producer, &[1, 2, 3])));
        let first = take(&mut consumer);
        assert!(first.is_empty() || first == [1, 2, 3], "{first:?}");
        sender.join().unwrap();
        let rest = take(&mut consumer);
        assert_eq!([first, rest].concat(), [1, 2, 3]);
        drop(memory);
    });
}

/// What the kernel does before it stops looking at a ring, as `xsk_set_tx_need_wakeup` and what follows:
/// it sets the flag, and looks once more. Returns whether it found something.
fn fall_asleep(memory: &Memory, consumer: &mut Consumer<u64>, barrier: bool) -> bool {
    memory.flags.store(NEED_WAKEUP, Ordering::Relaxed);
    if barrier {
        fence(Ordering::SeqCst);
    }
    !take(consumer).is_empty()
}

/// Runs a producer against a kernel that falls asleep. True: an entry is in the ring, the kernel
/// sleeps, and nobody wakes it.
fn is_lost(barrier: bool) -> bool {
    let (memory, mut producer, mut consumer) = ring(2);
    let user = thread::spawn(move || {
        assert!(put(&mut producer, &[1]));
        producer.needs_wakeup()
    });
    let found = fall_asleep(&memory, &mut consumer, barrier);
    let woken = user.join().expect("the user");
    !found && !woken
}

#[test]
fn no_entry_sleeps_in_the_ring() {
    loom::model(|| assert!(!is_lost(true)));
}

/// Shows that the model would see it: the fence is needed on both sides.
#[test]
#[should_panic(expected = "an entry sleeps in the ring")]
fn without_a_barrier_one_would() {
    loom::model(|| assert!(!is_lost(false), "an entry sleeps in the ring"));
}
