//! The user's terminal in raw mode, and back on every way out.

use std::sync::{Mutex, PoisonError};

use rustix::{
    stdio::stdin,
    termios::{
        InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios, isatty, tcgetattr,
        tcsetattr,
    },
};

/// The modes to go back to, while the terminal is raw: global, because a panic hook has nothing
/// else to reach them by.
static SAVED: Mutex<Option<Termios>> = Mutex::new(None);

/// Whether standard input is a terminal.
pub fn is_terminal() -> bool {
    isatty(stdin())
}

/// Keeps the terminal of standard input raw while it lives.
#[derive(Debug)]
pub struct RawMode(());

impl RawMode {
    /// Passes every key on, unechoed and at once. Output processing stays, so that log lines look
    /// as they should.
    ///
    /// # Errors
    /// Standard input is no terminal, or the system refuses.
    pub fn enter() -> rustix::io::Result<Self> {
        let saved = tcgetattr(stdin())?;
        let raw = raw(saved.clone());
        *SAVED.lock().unwrap_or_else(PoisonError::into_inner) = Some(saved);
        let guard = Self(());
        tcsetattr(stdin(), OptionalActions::Now, &raw)?;
        Ok(guard)
    }

    /// Sets raw mode again, after a shell changed it while the process was stopped.
    pub fn renew(&self) {
        if let Ok(now) = tcgetattr(stdin()) {
            // A terminal that has gone needs no modes.
            let _ = tcsetattr(stdin(), OptionalActions::Now, &raw(now));
        }
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

fn raw(mut modes: Termios) -> Termios {
    modes.input_modes -= InputModes::IGNBRK
        | InputModes::BRKINT
        | InputModes::PARMRK
        | InputModes::ISTRIP
        | InputModes::INLCR
        | InputModes::IGNCR
        | InputModes::ICRNL
        | InputModes::IXON;
    modes.local_modes -= LocalModes::ECHO
        | LocalModes::ECHONL
        | LocalModes::ICANON
        | LocalModes::IEXTEN
        | LocalModes::ISIG;
    modes.special_codes[SpecialCodeIndex::VMIN] = 1;
    modes.special_codes[SpecialCodeIndex::VTIME] = 0;
    modes
}

/// Gives the terminal back as it was, if it is raw. Safe to call from a panic hook.
pub fn restore() {
    // Not to be waited for: the panic may have come with the lock held.
    let Ok(mut saved) = SAVED.try_lock() else {
        return;
    };
    if let Some(modes) = saved.take() {
        let _ = tcsetattr(stdin(), OptionalActions::Now, &modes);
    }
}
