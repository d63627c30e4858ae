//! The command line: `name=value` words, and where the devices are.

/// A command line.
#[derive(Debug, Clone, Copy)]
pub struct Cmdline<'a>(&'a str);

/// A virtio-mmio device as `virtio_mmio.device=SIZE@BASE:IRQ` says (the kernel's admin-guide/kernel-parameters).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MmioDevice {
    /// Physical address of its registers.
    pub base: u64,
}

impl<'a> Cmdline<'a> {
    /// Words separated by white space.
    #[must_use]
    pub fn new(text: &'a str) -> Self {
        Self(text)
    }

    /// The value of the last `name=value`, as in Linux.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&'a str> {
        self.values(name).last()
    }

    /// The same as a decimal number.
    ///
    /// # Panics
    /// It is none.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        let text = self.text(name)?;
        let Ok(number) = text.parse() else {
            panic!("{name}={text} is no number");
        };
        Some(number)
    }

    /// All virtio-mmio devices, in order.
    pub fn devices(&self) -> impl Iterator<Item = MmioDevice> {
        self.values("virtio_mmio.device").filter_map(|value| {
            let (_size, place) = value.split_once('@')?;
            let (base, _irq) = place.split_once(':')?;
            let base = match base.strip_prefix("0x") {
                Some(digits) => u64::from_str_radix(digits, 16).ok()?,
                None => base.parse().ok()?,
            };
            Some(MmioDevice { base })
        })
    }

    fn values(&self, name: &str) -> impl Iterator<Item = &'a str> {
        self.0
            .split_ascii_whitespace()
            .filter_map(move |word| word.strip_prefix(name)?.strip_prefix('='))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_of_a_name_counts() {
        let line = Cmdline::new("console=ttyS0 mode=tx size=64  size=1514 packetsize=9");
        assert_eq!(line.text("mode"), Some("tx"));
        assert_eq!(line.number("size"), Some(1514));
        assert_eq!(line.number("packets"), None);
    }

    #[test]
    #[should_panic(expected = "size=x is no number")]
    fn a_wrong_number_is_told() {
        let _ = Cmdline::new("size=x").number("size");
    }

    #[test]
    fn devices_are_found_as_both_vmms_write_them() {
        let line = Cmdline::new(
            "virtio_mmio.device=4K@0xd0000000:5 x virtio_mmio.device=512@0xfeb00e00:12 virtio_mmio.device=?",
        );
        let bases = line.devices().map(|it| it.base);
        assert!(bases.eq([0xd000_0000, 0xfeb0_0e00]));
    }
}
