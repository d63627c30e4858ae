//! Makes a thread die, so that a test can see what a running process makes of it (catalogue 57). Only in builds with
//! debug assertions; elsewhere nothing of it is there.
//!
//! `RINGWIRE_TEST_SABOTAGE=THREAD:panic:N` in the environment has the thread of that name panic at the `N`th turn of its
//! loop, `THREAD:error:N` has an io-thread meet an error that it can't go on from.

use std::{
    env, io,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

/// What is to happen.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    thread: String,
    panic: bool,
    /// At which turn.
    turn: u64,
}

impl Plan {
    /// None if the words make no sense.
    fn new(words: &str) -> Option<Self> {
        let (rest, turn) = words.rsplit_once(':')?;
        let (thread, how) = rest.rsplit_once(':')?;
        let panic = match how {
            "panic" => true,
            "error" => false,
            _ => return None,
        };
        let turn = turn.parse().ok()?;
        let thread = thread.to_owned();
        Some(Self {
            thread,
            panic,
            turn,
        })
    }
}

/// One turn of the calling thread's loop.
///
/// # Errors
/// It is to have one.
///
/// # Panics
/// It is to.
pub fn turn() -> io::Result<()> {
    static PLAN: OnceLock<Option<Plan>> = OnceLock::new();
    static TURNS: AtomicU64 = AtomicU64::new(0);
    let plan = PLAN.get_or_init(|| Plan::new(&env::var("RINGWIRE_TEST_SABOTAGE").ok()?));
    let Some(plan) = plan else { return Ok(()) };
    if thread::current().name() != Some(&plan.thread)
        || TURNS.fetch_add(1, Ordering::Relaxed) + 1 != plan.turn
    {
        return Ok(());
    }
    assert!(!plan.panic, "sabotage, as a test wants it");
    Err(io::Error::other("sabotage, as a test wants it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_are_read() {
        let plan = |thread: &str, panic, turn| {
            let thread = thread.to_owned();
            Some(Plan {
                thread,
                panic,
                turn,
            })
        };
        assert_eq!(Plan::new("net0:panic:100"), plan("net0", true, 100));
        assert_eq!(Plan::new("net0.ctrl:error:1"), plan("net0.ctrl", false, 1));
        for nonsense in ["", "net0", "net0:panic", "net0:x:1", "net0:panic:x"] {
            assert_eq!(Plan::new(nonsense), None);
        }
        assert!(turn().is_ok());
    }
}
