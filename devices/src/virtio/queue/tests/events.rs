//! Interrupt and kick suppression, and rings that are refused.

use super::*;

/// Publishes `count` entries and returns whether an interrupt is due.
fn complete(queue: &mut LiveQueue, count: u16) -> bool {
    for _ in 0..count {
        queue.push_used(0, 0);
    }
    queue.publish();
    queue.needs_interrupt()
}

#[test]
fn interrupts_follow_the_flag_without_event_idx() {
    let rings = Rings::new();
    let mut queue = rings.live(VERSION_1);
    assert!(!complete(&mut queue, 0), "nothing new");
    assert!(complete(&mut queue, 1));
    rings.write(AVAIL, 1u16);
    assert!(!complete(&mut queue, 3));
    rings.write(AVAIL, 0u16);
    assert!(complete(&mut queue, 1));
}

#[test]
fn interrupts_follow_used_event_also_across_the_wrap() {
    let rings = Rings::new();
    let event = AVAIL + 4 + 2 * u64::from(SIZE);
    let state = QueueState {
        next_avail: 65530,
        next_used: 65530,
        ..Rings::state()
    };
    let mut queue = LiveQueue::new(&state, &rings.ram, EVENT_IDX).unwrap();
    rings.write(event, 65532u16);
    assert!(!complete(&mut queue, 2), "65530, 65531");
    assert!(complete(&mut queue, 1), "65532");
    assert!(!complete(&mut queue, 2), "no new wish");
    rings.write(event, 1u16);
    assert!(!complete(&mut queue, 2), "65535, 0");
    assert!(complete(&mut queue, 4), "1 is among 1 to 4");
    // Garbage is a late interrupt at worst: every wish is met within 2^16 entries.
    rings.write(event, 0x8000u16);
    let met = (0..0x1_0000 / 8)
        .filter(|_| complete(&mut queue, 8))
        .count();
    assert_eq!(met, 1);
}

#[test]
fn kicks_are_asked_for_and_checked_again() {
    let mut rings = Rings::new();
    rings.descriptor(0, BUFFERS, 1, 0, 0);
    let mut queue = rings.live(VERSION_1);
    queue.disable_kicks();
    assert_eq!(rings.read::<u16>(USED), 1);
    assert_eq!(queue.enable_kicks(), Ok(false));
    assert_eq!(rings.read::<u16>(USED), 0);
    rings.offer(0);
    assert_eq!(queue.enable_kicks(), Ok(true));

    let mut queue = rings.live(EVENT_IDX);
    let event = USED + 4 + 8 * u64::from(SIZE);
    queue.disable_kicks();
    assert_eq!(rings.read::<u16>(USED), 0);
    assert_eq!(queue.enable_kicks(), Ok(true));
    assert_eq!(queue.enable_kicks_beyond(1), Ok(false));
    assert_eq!(rings.read::<u16>(event), 1);
    rings.offer(0);
    assert_eq!(queue.enable_kicks_beyond(1), Ok(true));
    // Two wait: a kick at the fourth is one when more than three do.
    assert_eq!(queue.enable_kicks_beyond(3), Ok(false));
    assert_eq!(rings.read::<u16>(event), 3);
    assert_eq!(queue.available(), Ok(2));
}

#[test]
fn bad_rings_are_refused() {
    let rings = Rings::new();
    let refused = |state: QueueState| LiveQueue::new(&state, &rings.ram, EVENT_IDX).unwrap_err();
    for size in [0, 3, 512, 0xffff] {
        assert_eq!(
            refused(QueueState {
                size,
                ..Rings::state()
            }),
            QueueFault::Size(size)
        );
    }
    let misaligned = [
        QueueState {
            desc_table: DESC + 8,
            ..Rings::state()
        },
        QueueState {
            avail_ring: AVAIL + 1,
            ..Rings::state()
        },
        QueueState {
            used_ring: USED + 2,
            ..Rings::state()
        },
    ];
    for state in misaligned {
        assert!(matches!(refused(state), QueueFault::Misaligned { .. }));
    }
    let outside = [
        QueueState {
            desc_table: END - 16,
            ..Rings::state()
        },
        QueueState {
            desc_table: EDGE - 16,
            ..Rings::state()
        },
        QueueState {
            avail_ring: 0x5_0000,
            ..Rings::state()
        },
        QueueState {
            used_ring: !3,
            ..Rings::state()
        },
    ];
    for state in outside {
        assert!(matches!(refused(state), QueueFault::NotInRam { .. }));
    }
    let overlapping = [
        QueueState {
            desc_table: AVAIL - 16,
            ..Rings::state()
        },
        QueueState {
            used_ring: AVAIL + 20,
            ..Rings::state()
        },
        QueueState {
            used_ring: DESC + 124,
            ..Rings::state()
        },
    ];
    for state in overlapping {
        assert!(matches!(refused(state), QueueFault::Overlap(..)));
    }
}

/// Positions around which 16-bit indices go wrong.
const EDGES: [u16; 5] = [0, 7, 0x7fff, 0xfff8, 0xffff];

/// 2.7.7.2, from its words: an interrupt if entry `used_event` is among those published since the last
/// decision. For every wish of the driver.
#[test]
fn interrupt_decisions_are_right_for_every_used_event() {
    let rings = Rings::new();
    let mut queue = rings.live(EVENT_IDX);
    let at = AVAIL + 4 + 2 * u64::from(SIZE);
    for old in EDGES {
        for count in [0, 1, SIZE, 0x8000, 0xffff] {
            let mut among = vec![false; 0x1_0000];
            for entry in 0..count {
                among[usize::from(old.wrapping_add(entry))] = true;
            }
            for event in 0..=u16::MAX {
                rings.write(at, event);
                queue.signalled_used = old;
                queue.published_used = old.wrapping_add(count);
                let wanted = among[usize::from(event)];
                assert_eq!(queue.needs_interrupt(), wanted, "{old} {count} {event}");
            }
        }
    }
}

/// 2.7.6, from its words: the driver's index never goes back, and is never more than the ring ahead of what
/// was given back. For every index that it can write.
#[test]
fn the_available_index_is_judged_right_for_every_value() {
    let rings = Rings::new();
    let mut queue = rings.live(0);
    for given_back in EDGES {
        for seen in [0, 1, SIZE] {
            let mut possible = vec![false; 0x1_0000];
            for ahead in seen..=SIZE {
                possible[usize::from(given_back.wrapping_add(ahead))] = true;
            }
            for found in 0..=u16::MAX {
                rings.write(AVAIL + 2, found);
                queue.published_used = given_back;
                queue.seen_avail = given_back.wrapping_add(seen);
                queue.next_avail = queue.seen_avail;
                let expected = if possible[usize::from(found)] {
                    Ok(found.wrapping_sub(queue.next_avail))
                } else {
                    let expected = queue.next_avail;
                    Err(QueueFault::AvailIndex { found, expected })
                };
                assert_eq!(queue.available(), expected);
            }
        }
    }
}

/// 2.7.8: an entry goes into the slot of its position, the index is one further, for every position.
#[test]
fn used_entries_are_published_right_at_every_position() {
    let rings = Rings::new();
    let mut queue = rings.live(0);
    for position in 0..=u16::MAX {
        assert!(!queue.publish(), "nothing new");
        queue.push_used(position % SIZE, u32::from(position));
        assert_eq!(rings.read::<u16>(USED + 2), position, "not yet visible");
        assert!(queue.publish());
        let entry = rings.read::<[u32; 2]>(USED + 4 + 8 * u64::from(position % SIZE));
        assert_eq!(entry, [u32::from(position % SIZE), u32::from(position)]);
        assert_eq!(rings.read::<u16>(USED + 2), position.wrapping_add(1));
    }
}
