//! The escape key of the console, as QEMU has it: Ctrl-A x leaves, Ctrl-A Ctrl-A sends Ctrl-A.

const CTRL_A: u8 = 0x01;

/// What to do about a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    /// Pass this byte on.
    Send(u8),
    /// Part of an escape.
    Swallow,
    /// End the VM.
    Leave,
}

/// Remembers a Ctrl-A.
#[derive(Debug, Default)]
pub(super) struct Escape {
    pressed: bool,
}

impl Escape {
    pub(super) fn key(&mut self, byte: u8) -> Key {
        if !self.pressed {
            self.pressed = byte == CTRL_A;
            return if self.pressed {
                Key::Swallow
            } else {
                Key::Send(byte)
            };
        }
        self.pressed = false;
        match byte {
            b'x' | b'X' => Key::Leave,
            CTRL_A | b'a' => Key::Send(CTRL_A),
            // Not an escape: what was typed after the Ctrl-A counts.
            other => Key::Send(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(input: &[u8]) -> Vec<Key> {
        let mut escape = Escape::default();
        input.iter().map(|byte| escape.key(*byte)).collect()
    }

    #[test]
    fn escapes_as_in_qemu() {
        use Key::{Leave, Send, Swallow};
        assert_eq!(keys(b"ab"), [Send(b'a'), Send(b'b')]);
        assert_eq!(keys(b"\x01x"), [Swallow, Leave]);
        assert_eq!(keys(b"\x01\x01x"), [Swallow, Send(1), Send(b'x')]);
        assert_eq!(keys(b"\x01ax"), [Swallow, Send(1), Send(b'x')]);
        assert_eq!(keys(b"\x01yx"), [Swallow, Send(b'y'), Send(b'x')]);
    }
}
