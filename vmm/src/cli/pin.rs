//! `--pin THREAD=CPU,...`.

use super::options::{Options, OptionsError};
use crate::config::PinConfig;

/// Reads one `--pin`.
///
/// # Errors
/// Not such a list, a thread that comes twice, a CPU that is no number.
pub(super) fn pins(text: &str) -> Result<Vec<PinConfig>, OptionsError> {
    let pin = |(thread, value): (String, String)| {
        let digits = value.bytes().all(|digit| digit.is_ascii_digit());
        match value.parse() {
            Ok(cpu) if digits => Ok(PinConfig { thread, cpu }),
            _ => Err(OptionsError::Value {
                key: thread,
                value,
                expected: "the number of a CPU".to_owned(),
            }),
        }
    };
    let pairs = Options::parse(text)?.into_pairs();
    pairs.into_iter().map(pin).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_get_cpus() {
        let pin = |thread: &str, cpu| PinConfig {
            thread: thread.to_owned(),
            cpu,
        };
        assert_eq!(
            pins("net0=1,vcpu0=0,net0.1=12"),
            Ok(vec![pin("net0", 1), pin("vcpu0", 0), pin("net0.1", 12)])
        );
        for (text, words) in [
            ("net0", "'net0' is not an option"),
            ("net0=", "'' is no value for net0: the number of a CPU"),
            ("net0=+1", "'+1' is no value"),
            ("net0=0-3", "'0-3' is no value"),
            ("net0=1,net0=2", "given twice"),
            ("", "empty option"),
        ] {
            let sentence = pins(text).unwrap_err().to_string();
            assert!(sentence.contains(words), "{sentence}");
        }
    }
}
