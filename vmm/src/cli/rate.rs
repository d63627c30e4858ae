//! `rate=PACKETS:BYTES:BURST` of `--netdev`.

use std::{num::NonZeroU64, time::Duration};

use devices::virtio::net::RateLimit;

/// What `rate` expects.
pub(super) const EXPECTED: &str = "packets a second, bytes a second and a burst of 5ms to 10s, such as 100K, :125M, or 1M:1G:50ms (K, M and G are powers of 1000)";

/// Reads a limit. Either number may be left out, and so may the burst.
pub(super) fn rate(text: &str) -> Option<RateLimit> {
    let mut parts = text.split(':');
    let mut number = || match parts.next() {
        None | Some("") => Some(None),
        Some(part) => count(part).map(Some),
    };
    let (packets_per_second, bytes_per_second) = (number()?, number()?);
    let burst = parts
        .next()
        .map_or(Some(RateLimit::DEFAULT_BURST), duration)?;
    let bursts = RateLimit::MIN_BURST..=RateLimit::MAX_BURST;
    let limits = packets_per_second.is_some() || bytes_per_second.is_some();
    (parts.next().is_none() && limits && bursts.contains(&burst)).then_some(RateLimit {
        packets_per_second,
        bytes_per_second,
        burst,
    })
}

/// A positive number with at most one decimal suffix.
fn count(text: &str) -> Option<NonZeroU64> {
    let (digits, factor) = match text.as_bytes().last()?.to_ascii_uppercase() {
        b'K' => (&text[..text.len() - 1], 1000),
        b'M' => (&text[..text.len() - 1], 1_000_000),
        b'G' => (&text[..text.len() - 1], 1_000_000_000),
        _ => (text, 1),
    };
    NonZeroU64::new(whole(digits)?.checked_mul(factor)?)
}

fn duration(text: &str) -> Option<Duration> {
    if let Some(digits) = text.strip_suffix("ms") {
        return whole(digits).map(Duration::from_millis);
    }
    whole(text.strip_suffix('s')?).map(Duration::from_secs)
}

fn whole(digits: &str) -> Option<u64> {
    // `u64::from_str` would also take a plus sign.
    let all = digits.bytes().all(|byte| byte.is_ascii_digit());
    all.then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_packets_bytes_and_a_burst() {
        let limit = |packets, bytes, burst| RateLimit {
            packets_per_second: NonZeroU64::new(packets),
            bytes_per_second: NonZeroU64::new(bytes),
            burst: Duration::from_millis(burst),
        };
        for (text, wanted) in [
            ("100K", limit(100_000, 0, 20)),
            ("100k:", limit(100_000, 0, 20)),
            (":125M", limit(0, 125_000_000, 20)),
            ("7:9", limit(7, 9, 20)),
            ("1M:1G:50ms", limit(1_000_000, 1_000_000_000, 50)),
            ("1::10s", limit(1, 0, 10_000)),
            (":1:5ms", limit(0, 1, 5)),
        ] {
            assert_eq!(rate(text), Some(wanted), "{text}");
        }
    }

    #[test]
    fn the_rest_is_none() {
        for text in [
            "",
            ":",
            "::20ms",
            "0",
            "1K:0",
            "K",
            "+1",
            "-1",
            "1.5M",
            "1T",
            "1MM",
            "1:2:3",
            "1:2:4ms",
            "1:2:11s",
            "1:2:20ms:",
            "1:2:",
            "18446744073709551615K",
            "18446744073709551616",
            "1\u{e9}",
            "\u{212a}",
        ] {
            assert_eq!(rate(text), None, "{text}");
        }
    }
}
