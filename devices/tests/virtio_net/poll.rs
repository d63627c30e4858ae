//! Polling: work is found without a kick for as long as the thread looks, and no longer.

use std::{thread, time::Duration};

use devices::{
    testing::{register, wait_for},
    virtio::net::{BusyPoll, loopback::Loopback},
};

use crate::guest::*;

/// Far longer than any test here takes.
const HOURS: BusyPoll = BusyPoll::For(Duration::from_secs(7200));

fn polling(name: &str, policy: BusyPoll) -> NetGuest {
    let (near, wire) = Loopback::pair(MAX_FRAME).unwrap();
    let mut guest = NetGuest::plug_polling(name, near, wire, policy);
    guest.boot();
    guest
}

#[test]
fn frames_are_found_without_a_kick() {
    let mut guest = polling("tpoll", HOURS);
    guest.check_traffic();
    for seed in 0..100 {
        let frame = pattern(60, seed);
        guest.queue_silently(&with_header(&frame));
        assert_eq!(guest.sent(), frame);
        guest.tx.wait_used();
    }
    guest.assert_sound();
}

#[test]
fn a_thread_that_polls_is_stopped_all_the_same() {
    let mut guest = polling("tpollr", HOURS);
    for _ in 0..20 {
        guest.check_traffic();
        guest.driver.write(register::STATUS, 0);
        guest.boot();
    }
    guest.assert_sound();
}

#[test]
fn without_polling_a_frame_waits_for_its_kick() {
    let mut guest = polling("tpoll0", BusyPoll::For(Duration::ZERO));
    guest.check_traffic();
    assert_idle("tpoll0");
    let frame = pattern(60, 1);
    guest.queue_silently(&with_header(&frame));
    thread::sleep(Duration::from_millis(50));
    assert!(guest.wire_is_empty(), "nobody looks without a kick");
    guest.driver.kick(TX);
    assert_eq!(guest.sent(), frame);
}

/// How often each of the threads slept and what CPU time it used, in nanoseconds.
fn used(names: &[String]) -> Vec<(u64, u64)> {
    let field = |status: &str, name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().trim().to_owned()
    };
    let number = |text: &str| text.parse::<u64>().unwrap();
    let mut found = vec![None; names.len()];
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let read = |file| std::fs::read_to_string(task.path().join(file));
        let (Ok(status), Ok(times)) = (read("status"), read("schedstat")) else {
            continue;
        };
        let thread = field(&status, "Name:");
        if let Some(at) = names.iter().position(|name| *name == thread) {
            let sleeps = number(&field(&status, "voluntary_ctxt_switches:"));
            let time = number(times.split(' ').next().unwrap());
            found[at] = Some((sleeps, time));
        }
    }
    found.into_iter().map(Option::unwrap).collect()
}

/// An idle guest costs nothing: its threads do not even wake up.
#[test]
fn the_threads_of_an_idle_card_sleep_through() {
    for (name, policy) in [
        ("tidlea", BusyPoll::Adaptive),
        ("tidle0", BusyPoll::For(Duration::ZERO)),
        ("tidle5", BusyPoll::For(Duration::from_micros(500))),
    ] {
        let mut guest = polling(name, policy);
        for _ in 0..20 {
            guest.check_traffic();
        }
        let names = [name.to_owned()];
        // The last sleep may still be to come.
        let mut before = used(&names);
        wait_for("the last sleep", || {
            thread::sleep(Duration::from_millis(100));
            let last = std::mem::replace(&mut before, used(&names));
            (last == before).then_some(())
        });
        thread::sleep(Duration::from_secs(2));
        assert_eq!(used(&names), before, "{name}: sleeps, CPU time");
        guest.check_traffic();
    }
}

#[test]
fn adaptive_polling_ends_when_nothing_comes() {
    let mut guest = polling("tpolla", BusyPoll::Adaptive);
    for _ in 0..50 {
        guest.check_traffic();
    }
    assert_idle("tpolla");
    wait_for("traffic after the silence", || {
        guest.check_traffic();
        Some(())
    });
    guest.assert_sound();
}
