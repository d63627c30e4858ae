//! Notification coalescing: interrupts that are put off, for a number of packets and for a time.

use std::{thread, time::Duration};

use devices::{
    testing::wait_for,
    virtio::net::{BusyPoll, NetDevice, loopback::Loopback},
};

use crate::{guest::*, pairs_guest::*};

const VQ_NOTF_COAL: u64 = 1 << 52;
const NOTF_COAL: u64 = 1 << 53;

const HOUR: u32 = 3_600_000_000;
/// Long enough for an interrupt that should not come to come.
const A_WHILE: Duration = Duration::from_millis(50);

fn command(number: u8, words: &[u32]) -> Vec<u8> {
    let words = words.iter().flat_map(|word| word.to_le_bytes());
    [6, number].into_iter().chain(words).collect()
}

/// All transmit queues, or all receive queues.
fn set(guest: &mut PairsGuest, direction: u8, packets: u32, usecs: u32) -> u8 {
    guest.command(&command(direction, &[packets, usecs]))
}

fn interrupts(guest: &PairsGuest) -> u64 {
    guest.control.counters().interrupts
}

/// Frames that the guest receives, each by itself, without a look at interrupts.
fn receive(guest: &mut PairsGuest, count: usize) {
    for seed in 0..count {
        guest.check_received(0, 0, &pattern(60, seed));
    }
}

fn transmit(guest: &mut PairsGuest, count: usize) {
    for seed in 0..count {
        guest.check_sent(0, &pattern(60, seed));
    }
}

/// A driver that always wants interrupts: this one does not update `used_event`.
fn start(name: &str, pairs: usize) -> PairsGuest {
    let mut guest = PairsGuest::start(name, pairs);
    guest.features &= !EVENT_IDX;
    guest.boot();
    guest
}

#[test]
fn without_a_setting_each_burst_interrupts() {
    let mut guest = start("tcoal0", 1);
    let features = VQ_NOTF_COAL | NOTF_COAL;
    assert_eq!(guest.features & features, features);
    receive(&mut guest, 5);
    transmit(&mut guest, 5);
    wait_for("ten interrupts", || {
        (interrupts(&guest) == 10).then_some(())
    });
    guest.assert_sound();
}

#[test]
fn packets_wait_for_others() {
    for (direction, send) in [(1, receive as fn(&mut PairsGuest, usize)), (0, transmit)] {
        let mut guest = start("tcoaln", 1);
        assert_eq!(set(&mut guest, direction, 8, HOUR), OK);
        send(&mut guest, 7);
        thread::sleep(A_WHILE);
        assert_eq!(interrupts(&guest), 0, "{direction}");
        send(&mut guest, 1);
        wait_for("the interrupt", || (interrupts(&guest) == 1).then_some(()));
        send(&mut guest, 16);
        wait_for("two more", || (interrupts(&guest) == 3).then_some(()));
        // The other direction is not concerned.
        let other = if direction == 0 { receive } else { transmit };
        other(&mut guest, 2);
        wait_for("one each", || (interrupts(&guest) == 5).then_some(()));
        guest.assert_sound();
    }
}

/// The thread sleeps meanwhile, so it has to be woken up for it.
#[test]
fn packets_wait_for_the_time_to_pass() {
    for (direction, send) in [(1, receive as fn(&mut PairsGuest, usize)), (0, transmit)] {
        for usecs in [1, 20_000] {
            let mut guest = start("tcoalt", 1);
            assert_eq!(set(&mut guest, direction, 0, usecs), OK);
            send(&mut guest, 3);
            wait_for("an interrupt", || (interrupts(&guest) > 0).then_some(()));
            thread::sleep(A_WHILE);
            let before = interrupts(&guest);
            assert!(before <= 3);
            send(&mut guest, 1);
            wait_for("another", || (interrupts(&guest) > before).then_some(()));
            guest.assert_sound();
        }
    }
}

/// A thread that polls all the time has no sleep to be woken up from.
#[test]
fn time_passes_while_the_thread_polls() {
    let (near, far) = Loopback::pair(MAX_FRAME).unwrap();
    let (mut config, _) = config("tcoalp");
    config.busy_poll = BusyPoll::For(Duration::from_secs(7200));
    let device = NetDevice::new(config, vec![near]).unwrap();
    let mut guest = PairsGuest::with_device(device, vec![far]);
    guest.boot();
    assert_eq!(set(&mut guest, 1, 0, 5_000), OK);
    receive(&mut guest, 1);
    wait_for("the interrupt", || (interrupts(&guest) == 1).then_some(()));
}

#[test]
fn a_new_setting_ends_the_wait_and_a_reset_the_setting() {
    let mut guest = start("tcoalr", 1);
    assert_eq!(set(&mut guest, 1, 0, HOUR), OK);
    receive(&mut guest, 3);
    assert_eq!(set(&mut guest, 1, 0, 0), OK);
    assert_eq!(interrupts(&guest), 0);
    receive(&mut guest, 1);
    wait_for("the interrupt", || (interrupts(&guest) == 1).then_some(()));
    assert_eq!(set(&mut guest, 1, 0, HOUR), OK);
    receive(&mut guest, 1);
    guest.boot();
    receive(&mut guest, 1);
    wait_for("at once", || (interrupts(&guest) == 2).then_some(()));
    guest.assert_sound();
}

/// 2.7.7.2: a driver that asked for one interrupt gets it, though it asked for none since.
#[test]
fn an_interrupt_that_was_asked_for_comes() {
    let mut guest = PairsGuest::start("tcoale", 1);
    assert_eq!(set(&mut guest, 1, 0, 20_000), OK);
    guest.pairs[0].rx.set_used_event(1);
    receive(&mut guest, 5);
    wait_for("the interrupt", || (interrupts(&guest) == 1).then_some(()));
    receive(&mut guest, 5);
    thread::sleep(A_WHILE);
    assert_eq!(interrupts(&guest), 1, "no other was asked for");
}

/// Each queue for itself; the driver reads what it set, and a change for all is one for each.
#[test]
fn queues_have_settings_of_their_own() {
    let mut guest = start("tcoalq", 2);
    assert_eq!(guest.set_pairs(2), OK);
    let get = |guest: &mut PairsGuest, queue: u32| {
        let answer = guest.command_with_room(&command(3, &[queue]), 9);
        assert_eq!((answer.len(), answer[0]), (9, OK));
        let word = |at: usize| u32::from_le_bytes(answer[at..at + 4].try_into().unwrap());
        (word(1), word(5))
    };
    assert_eq!(guest.command(&command(2, &[2, 64, HOUR])), OK);
    assert_eq!(get(&mut guest, 2), (64, HOUR));
    for queue in [0, 1, 3] {
        assert_eq!(get(&mut guest, queue), (0, 0), "{queue}");
    }
    guest.check_received(1, 1, &pattern(60, 1));
    thread::sleep(A_WHILE);
    assert_eq!(interrupts(&guest), 0);
    guest.check_received(0, 0, &pattern(60, 1));
    wait_for("that of pair 0", || (interrupts(&guest) == 1).then_some(()));
    // The pair is given up: what its queue still has to say is said.
    assert_eq!(guest.set_pairs(1), OK);
    assert_eq!(interrupts(&guest), 2);
    assert_eq!(set(&mut guest, 1, 7, 9), OK);
    assert_eq!(set(&mut guest, 0, 1, 2), OK);
    for (queue, setting) in [(0, (7, 9)), (1, (1, 2)), (2, (7, 9)), (3, (1, 2))] {
        assert_eq!(get(&mut guest, queue), setting);
    }
    guest.assert_sound();
}

/// 27: of the wrong length, for queues that there are not, without the feature.
#[test]
fn impossible_settings_are_refused() {
    let mut guest = start("tcoalb", 1);
    let setting = [1u32, 2];
    for number in [0, 1] {
        for bytes in 0..10 {
            let all = [command(number, &setting), vec![0]].concat();
            let answer = if bytes == 8 { OK } else { ERR };
            assert_eq!(guest.command(&all[..2 + bytes]), answer, "{bytes} bytes");
        }
    }
    for queue in [2, 3, 0xffff] {
        assert_eq!(guest.command(&command(2, &[queue, 1, 2])), ERR, "{queue}");
        let answer = guest.command_with_room(&command(3, &[queue]), 9);
        assert_eq!(answer, [ERR]);
    }
    assert_eq!(guest.command(&command(2, &[0, 1])), ERR, "too short");
    assert_eq!(guest.command(&command(2, &[0, 1, 2, 3])), ERR, "too long");
    assert_eq!(guest.command(&command(3, &[0])), ERR, "no room for it");
    assert_eq!(guest.command_with_room(&command(3, &[0, 0]), 9), [ERR]);
    assert_eq!(guest.command(&command(4, &[0, 1, 2])), ERR, "no command");
    let offered = guest.features;
    for (without, commands) in [(NOTF_COAL, [0, 1]), (VQ_NOTF_COAL, [2, 3])] {
        guest.features = offered & !without;
        guest.boot();
        for number in 0..4u8 {
            let words: &[u32] = [&[1u32, 2][..], &[1, 2], &[0, 1, 2], &[0]][usize::from(number)];
            let answer = guest.command_with_room(&command(number, words), 9)[0];
            let refused = commands.contains(&number);
            assert_eq!(answer, if refused { ERR } else { OK }, "{number}");
        }
    }
    guest.assert_sound();
}
