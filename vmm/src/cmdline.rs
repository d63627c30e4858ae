//! The kernel command line.
//!
//! Our defaults come first and the user's text last: Linux takes the last of most options, so what
//! the user says wins, and what follows a `--` still goes to the guest's init.

use crate::x86_64::layout::{CMDLINE_MAX, VIRTIO_MMIO_SIZE, VirtioSlot};

/// Why there is no command line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CmdlineError {
    /// longer than Linux reads
    #[error(
        "the kernel command line has {len} bytes with what is put before it ('{prefix}'); the kernel reads {max}"
    )]
    TooLong {
        /// Its length in bytes.
        len: usize,
        /// Most bytes the kernel reads.
        max: usize,
        /// What is put before the user's text.
        prefix: String,
    },
    /// a NUL or a byte that is no ASCII
    #[error("the kernel command line has a byte that is not printable ASCII ({0:#04x})")]
    BadByte(u8),
}

/// What is always put before the user's text.
///
/// A reboot goes by ACPI's reset register; a panic reboots at once, which ends the process: nobody
/// would look at a dead guest.
const DEFAULT: &str = "reboot=acpi panic=-1";

/// With a serial console.
const CONSOLE: &str = "console=ttyS0";

/// The whole command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cmdline {
    prefix: String,
    text: String,
}

/// Whether the user's text switches ACPI off, so that devices must be described otherwise.
pub fn acpi_is_off(user: &str) -> bool {
    has_word(user, "acpi=off")
}

/// Whether the user's text switches the local APICs' timers off.
///
/// Linux starts the PIT in their place only if the CPU has no TSC deadline timer (`apic_needs_pit`): with one,
/// a guest of one CPU is left without ticks. So it must not have one.
pub fn apic_timer_is_off(user: &str) -> bool {
    has_word(user, "nolapic_timer")
}

fn has_word(user: &str, wanted: &str) -> bool {
    user.split_ascii_whitespace()
        .take_while(|word| *word != "--")
        .any(|word| word == wanted)
}

impl Cmdline {
    /// Puts the defaults before `user`. `console`: there is a serial console. `virtio`: devices
    /// that the kernel can't find otherwise (`virtio_mmio.device=`, see the kernel's
    /// admin-guide/kernel-parameters; needs CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES).
    pub fn new(user: &str, console: bool, virtio: &[VirtioSlot]) -> Self {
        let mut words = Vec::new();
        if console {
            words.push(CONSOLE.to_owned());
        }
        words.push(DEFAULT.to_owned());
        for VirtioSlot { base, irq } in virtio {
            let kib = VIRTIO_MMIO_SIZE >> 10;
            words.push(format!("virtio_mmio.device={kib}K@{base:#x}:{irq}"));
        }
        let prefix = words.join(" ");
        let text = match user.trim() {
            "" => prefix.clone(),
            user => format!("{prefix} {user}"),
        };
        Self { prefix, text }
    }

    /// The text with its final NUL, at most `max` bytes without it (and never more than Linux's
    /// COMMAND_LINE_SIZE).
    ///
    /// # Errors
    /// Too long, or not printable ASCII.
    pub fn bytes(&self, max: usize) -> Result<Vec<u8>, CmdlineError> {
        let max = max.min(CMDLINE_MAX - 1);
        let len = self.text.len();
        if len > max {
            let prefix = self.prefix.clone();
            return Err(CmdlineError::TooLong { len, max, prefix });
        }
        let printable = |byte: &u8| matches!(byte, b' '..=b'~' | b'\t');
        if let Some(byte) = self.text.bytes().find(|byte| !printable(byte)) {
            return Err(CmdlineError::BadByte(byte));
        }
        let mut bytes = self.text.clone().into_bytes();
        bytes.push(0);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::x86_64::layout::virtio_slot;

    fn text(line: &Cmdline) -> String {
        let mut bytes = line.bytes(usize::MAX).unwrap();
        assert_eq!(bytes.pop(), Some(0));
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn the_users_words_come_last() {
        let line = Cmdline::new(" quiet panic=5 -- init args ", true, &[]);
        assert_eq!(
            text(&line),
            "console=ttyS0 reboot=acpi panic=-1 quiet panic=5 -- init args"
        );
        assert_eq!(text(&Cmdline::new("", false, &[])), "reboot=acpi panic=-1");
    }

    #[test]
    fn devices_are_described_only_when_asked() {
        let slots = [virtio_slot(0).unwrap(), virtio_slot(3).unwrap()];
        assert_eq!(
            text(&Cmdline::new("acpi=off", false, &slots)),
            "reboot=acpi panic=-1 virtio_mmio.device=4K@0xd0000000:5 virtio_mmio.device=4K@0xd0003000:10 acpi=off"
        );
        assert!(acpi_is_off("quiet acpi=off"));
        assert!(!acpi_is_off("acpi=offf noacpi=off"));
        assert!(!acpi_is_off("quiet -- acpi=off"));
        assert!(apic_timer_is_off("nolapic_timer quiet") && !apic_timer_is_off("nolapic"));
    }

    #[test]
    fn long_and_odd_lines_are_refused() {
        let long = Cmdline::new(&"x".repeat(CMDLINE_MAX), true, &[]);
        let refused = long.bytes(usize::MAX).unwrap_err();
        assert!(matches!(refused, CmdlineError::TooLong { max: 2047, .. }));
        let short = Cmdline::new("0123456789", false, &[]);
        assert_eq!(short.bytes(31).unwrap().len(), 32);
        assert!(short.bytes(30).is_err());
        for byte in ["\n", "\0", "ü"] {
            let refused = Cmdline::new(byte, true, &[]).bytes(2000);
            assert!(byte == "\n" || matches!(refused, Err(CmdlineError::BadByte(_))));
        }
        assert!(Cmdline::new("a\nb", true, &[]).bytes(2000).is_err());
    }
}
