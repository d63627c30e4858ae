//! Rings over plain memory, with the kernel played by the other side.

use std::{sync::atomic::Ordering, thread};

use crate::{
    plain_rings::Memory,
    ring::{Consumer, Descriptor, NEED_WAKEUP, Producer},
};

fn put(producer: &mut Producer<u64>, entries: impl IntoIterator<Item = u64>) -> bool {
    for entry in entries {
        let Some(mut slot) = producer.reserve(1) else {
            return false;
        };
        assert!(slot.push(entry));
        slot.commit();
    }
    true
}

fn take_all(consumer: &mut Consumer<u64>, limit: u32) -> Vec<u64> {
    let mut burst = consumer.peek(limit);
    let entries = (0..burst.len())
        .map_while(|position| burst.get(position))
        .collect();
    let count = burst.len();
    burst.release(count);
    entries
}

/// Where indices are about to wrap, and where not.
const STARTS: [u32; 3] = [0, u32::MAX - 2, u32::MAX];

#[test]
fn entries_come_out_as_they_went_in_across_the_wrap() {
    for start in STARTS {
        let memory = Memory::new(4, start);
        let (mut producer, mut consumer) = memory.sides();
        for round in 0..10 {
            let entries = [round * 3, round * 3 + 1, round * 3 + 2];
            assert!(put(&mut producer, entries));
            assert_eq!(producer.publish(), 3);
            assert_eq!(take_all(&mut consumer, 8), entries);
        }
    }
}

#[test]
fn a_full_ring_takes_no_more_and_an_empty_one_gives_none() {
    for start in STARTS {
        let memory = Memory::new(4, start);
        let (mut producer, mut consumer) = memory.sides();
        assert_eq!(consumer.peek(4).len(), 0);
        assert_eq!(producer.room(4), 4);
        assert!(put(&mut producer, 0..4));
        assert_eq!(producer.room(1), 0);
        assert!(producer.reserve(1).is_none());
        producer.publish();
        assert!(producer.reserve(1).is_none(), "published is not consumed");
        assert_eq!(take_all(&mut consumer, 1), [0]);
        assert!(producer.reserve(2).is_none(), "all or none");
        assert!(put(&mut producer, [4]));
        producer.publish();
        assert_eq!(take_all(&mut consumer, 9), [1, 2, 3, 4]);
        assert_eq!(consumer.available(), 0);
    }
}

#[test]
fn nothing_is_seen_before_it_is_published() {
    let memory = Memory::new(8, 0);
    let (mut producer, mut consumer) = memory.sides();
    assert!(put(&mut producer, 0..3));
    assert_eq!(
        (producer.staged(), producer.pending(), consumer.available()),
        (3, 0, 0)
    );
    assert_eq!(producer.publish(), 3);
    assert_eq!(producer.publish(), 0);
    assert_eq!(
        (producer.staged(), producer.pending(), consumer.available()),
        (0, 3, 3)
    );
    assert_eq!(take_all(&mut consumer, 2), [0, 1]);
    assert_eq!(producer.pending(), 1);
}

#[test]
fn a_reservation_that_is_dropped_leaves_no_trace() {
    let memory = Memory::new(4, u32::MAX);
    let (mut producer, mut consumer) = memory.sides();
    let mut dropped = producer.reserve(4).unwrap();
    assert!(dropped.push(66));
    drop(dropped);
    assert_eq!((producer.staged(), producer.room(4)), (0, 4));
    assert!(put(&mut producer, [1]));
    producer.publish();
    assert_eq!(take_all(&mut consumer, 4), [1]);
}

#[test]
fn a_reservation_stages_what_was_written_and_takes_no_more_than_reserved() {
    let memory = Memory::new(4, 0);
    let (mut producer, mut consumer) = memory.sides();
    let mut slots = producer.reserve(3).unwrap();
    assert!(slots.push(1) && slots.push(2));
    slots.commit();
    assert_eq!(producer.staged(), 2);
    let mut slots = producer.reserve(1).unwrap();
    assert!(slots.push(3) && !slots.push(4));
    slots.commit();
    producer.publish();
    assert_eq!(take_all(&mut consumer, 4), [1, 2, 3]);
}

#[test]
fn a_burst_that_is_not_released_stays() {
    let memory = Memory::new(4, u32::MAX);
    let (mut producer, mut consumer) = memory.sides();
    assert!(put(&mut producer, 0..4));
    producer.publish();
    assert_eq!(consumer.peek(4).get(0), Some(0));
    let mut burst = consumer.peek(3);
    assert_eq!(
        (burst.len(), burst.get(2), burst.get(3)),
        (3, Some(2), None)
    );
    burst.release(2);
    assert_eq!((burst.len(), burst.get(0)), (1, Some(2)));
    burst.release(9);
    assert_eq!(take_all(&mut consumer, 4), [3]);
}

#[test]
fn an_absurd_index_of_the_other_side_is_cut_to_the_ring() {
    let memory = Memory::new(4, 0);
    let (mut producer, mut consumer) = memory.sides();
    memory.producer.store(1000, Ordering::Release);
    assert_eq!(consumer.peek(u32::MAX).len(), 4);
    assert_eq!(consumer.available(), 4);
    assert!(put(&mut producer, 0..4));
    producer.publish();
    memory.consumer.store(5000, Ordering::Release);
    assert_eq!(producer.room(4), 0);
    assert!(producer.reserve(1).is_none());
    assert_eq!(producer.pending(), 4);
}

#[test]
fn a_ring_that_was_in_use_goes_on_where_it_was() {
    let memory = Memory::new(4, 7);
    let (mut producer, mut consumer) = memory.sides();
    assert!(put(&mut producer, 0..2));
    producer.publish();
    assert_eq!(take_all(&mut consumer, 1), [0]);
    let (mut producer, mut consumer) = memory.sides();
    assert_eq!((producer.room(4), consumer.available()), (3, 1));
    assert!(put(&mut producer, [5]));
    producer.publish();
    assert_eq!(take_all(&mut consumer, 4), [1, 5]);
}

#[test]
fn the_wakeup_flag_is_the_kernels() {
    let memory = Memory::<u64>::new(4, 0);
    let (producer, _consumer) = memory.sides();
    assert!(!producer.needs_wakeup());
    memory.flags.store(NEED_WAKEUP, Ordering::Relaxed);
    assert!(producer.needs_wakeup());
    memory.flags.store(2, Ordering::Relaxed);
    assert!(!producer.needs_wakeup());
}

#[test]
fn two_threads_hand_over_whole_entries_in_order() {
    const COUNT: u32 = if cfg!(miri) { 200 } else { 200_000 };
    let memory = Memory::<Descriptor>::new(8, u32::MAX - 100);
    let (mut producer, mut consumer) = memory.sides();
    let entry = |number: u32| Descriptor {
        address: u64::from(number) << 32 | u64::from(number),
        length: number,
        options: !number,
    };
    let sender = thread::spawn(move || {
        let mut number = 0;
        while number < COUNT {
            let count = (number % 5 + 1).min(COUNT - number);
            let Some(mut slots) = producer.reserve(count) else {
                thread::yield_now();
                continue;
            };
            for _ in 0..count {
                slots.push(entry(number));
                number += 1;
            }
            slots.commit();
            producer.publish();
        }
    });
    let mut expected = 0;
    while expected < COUNT {
        let mut burst = consumer.peek(3);
        let count = burst.len();
        for position in 0..count {
            assert_eq!(burst.get(position), Some(entry(expected)));
            expected += 1;
        }
        burst.release(count);
        if count == 0 {
            thread::yield_now();
        }
    }
    sender.join().unwrap();
    drop(memory);
}
