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
