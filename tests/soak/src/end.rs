//! When it is to end before its time: something is wrong, or SIGINT, SIGTERM or SIGHUP came.

use std::{
    io,
    sync::atomic::{AtomicBool, AtomicI32, Ordering},
};

use vmm_sys_util::signal::register_signal_handler;

static ASKED: AtomicBool = AtomicBool::new(false);
/// The signal, or 0.
static SIGNAL: AtomicI32 = AtomicI32::new(0);

/// All stations are to come to their ends.
pub(crate) fn ask() {
    ASKED.store(true, Ordering::Relaxed);
}

/// Whether they are to.
pub(crate) fn is_asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// The signal that asked for it.
pub(crate) fn by_signal() -> Option<u8> {
    let signal = SIGNAL.load(Ordering::Relaxed);
    u8::try_from(signal).ok().filter(|&it| it != 0)
}

/// Has those signals ask for it. Children have their usual actions again.
///
/// # Errors
/// What the system said.
pub(crate) fn on_signals() -> io::Result<()> {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        register_signal_handler(signal, take)?;
    }
    Ok(())
}

/// Stores to atomics are all that it does: nothing else is safe in a signal handler (signal-safety(7)).
extern "C" fn take(number: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    SIGNAL.store(number, Ordering::Relaxed);
    ask();
}
