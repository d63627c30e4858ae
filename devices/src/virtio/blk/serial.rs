//! What a disk says it is called (GET_ID; virtio 1.2, 5.2.6): in a Linux guest `/dev/disk/by-id/virtio-...`.

use std::{fmt, str::FromStr};

use super::wire::ID_LEN;

/// A serial number: 1 to 20 printable ASCII characters without spaces and slashes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Serial([u8; ID_LEN]);

/// Not a serial number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a serial number is 1 to 20 printable ASCII characters without spaces and slashes")]
pub struct NotASerial;

impl Serial {
    /// As much of `name` as one can be, for a disk to which nobody gave one. Nothing of the host is in it: not the file's
    /// name, nor its number.
    pub(super) fn of_name(name: &str) -> Self {
        let fits = name.bytes().filter(|&byte| is_fit(byte));
        let mut bytes = [0; ID_LEN];
        for (to, from) in bytes.iter_mut().zip(fits) {
            *to = from;
        }
        Self(bytes)
    }

    /// The answer to GET_ID: padded with zeros.
    pub(super) fn as_bytes(&self) -> &[u8; ID_LEN] {
        &self.0
    }
}

fn is_fit(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'/'
}

impl FromStr for Serial {
    type Err = NotASerial;

    fn from_str(text: &str) -> Result<Self, NotASerial> {
        let fits = (1..=ID_LEN).contains(&text.len()) && text.bytes().all(is_fit);
        fits.then(|| Self::of_name(text)).ok_or(NotASerial)
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.split(|&byte| byte == 0).next();
        f.write_str(std::str::from_utf8(text.unwrap_or_default()).unwrap_or_default())
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Serial({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serial_numbers_have_1_to_20_characters() {
        for text in ["a", "root", "0123456789abcdefghij", "!~,=:"] {
            assert_eq!(text.parse::<Serial>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "0123456789abcdefghijk",
            "a b",
            "a/b",
            "tab\t",
            "ä",
            "\0",
        ] {
            assert_eq!(text.parse::<Serial>(), Err(NotASerial), "{text:?}");
        }
        let name = Serial::of_name("a name/that\0is much too long for one");
        assert_eq!(name.to_string(), "anamethatismuchtoolo");
    }
}
