//! Sizes as users write them.

/// Why a size was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// not a number with at most one suffix
    #[error(
        "'{0}' is not a size: give a whole number with K, M, G or T (1024 and up; without a suffix it means MiB), such as 512M or 8G"
    )]
    Syntax(String),
    /// does not fit in 64 bits
    #[error("'{0}' is more than a 64-bit machine can address")]
    Overflow(String),
}

/// Reads a memory size as QEMU's `-m` does: `512M`, `8G`, `8GiB`, and `512` for 512 MiB.
/// Returns bytes.
///
/// # Errors
/// Not a whole number with a known suffix, or 2^64 bytes and more.
pub fn parse(text: &str) -> Result<u64, SizeError> {
    let syntax = || SizeError::Syntax(text.to_owned());
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, suffix) = text.split_at(digits);
    if number.is_empty() {
        return Err(syntax());
    }
    let shift = match suffix.to_ascii_lowercase().as_str() {
        "k" | "kib" => 10,
        "" | "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return Err(syntax()),
    };
    let overflow = || SizeError::Overflow(text.to_owned());
    let number: u64 = number.parse().map_err(|_| overflow())?;
    number.checked_mul(1 << shift).ok_or_else(overflow)
}

/// A size in words: the largest binary unit that divides it (`512 MiB`, `1 byte`).
pub fn human(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let whole =
        |&&(shift, _): &&(u32, &str)| bytes >= 1 << shift && bytes.is_multiple_of(1 << shift);
    match units.iter().find(whole) {
        Some((shift, unit)) => format!("{} {unit}", bytes >> shift),
        None if bytes >= 1 << 20 => format!("{:.1} MiB", mebibytes(bytes)),
        None if bytes == 1 => "1 byte".to_owned(),
        None => format!("{bytes} bytes"),
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people, one decimal")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1u32 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_users_write() {
        for (text, bytes) in [
            ("64M", 64 << 20),
            ("64m", 64 << 20),
            ("64MiB", 64 << 20),
            ("512", 512 << 20),
            ("8G", 8 << 30),
            ("1T", 1 << 40),
            ("65536K", 64 << 20),
            ("0", 0),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn refuses_the_rest() {
        for text in [
            "", "M", "-1G", "+1G", "1.5G", "8 G", "8GB", "8P", "G8", "0x10M", "8G8",
        ] {
            assert_eq!(
                parse(text),
                Err(SizeError::Syntax(text.to_owned())),
                "{text}"
            );
        }
        for text in [
            "99999999999999999999999",
            "18446744073709551615M",
            "16777216T",
        ] {
            assert_eq!(
                parse(text),
                Err(SizeError::Overflow(text.to_owned())),
                "{text}"
            );
        }
    }

    #[test]
    fn says_sizes_in_words() {
        for (bytes, words) in [
            (0, "0 bytes"),
            (1, "1 byte"),
            (1000, "1000 bytes"),
            (2048, "2 KiB"),
            (64 << 20, "64 MiB"),
            ((64 << 20) + 512, "64.0 MiB"),
            (8 << 30, "8 GiB"),
            (1536 << 20, "1536 MiB"),
        ] {
            assert_eq!(human(bytes), words);
        }
    }
}
