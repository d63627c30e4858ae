//! `--serial stdio|null|file=PATH[,limit=SIZE|off]`.

use super::options::{Options, OptionsError};
use crate::{
    config::{MIN_SERIAL_LIMIT, SERIAL_LIMIT, SerialConfig},
    size,
};

/// Why it was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SerialArgError {
    /// nothing that there is
    #[error("a serial console is stdio, null or file=PATH[,limit=SIZE|off]")]
    Kind,
    /// the list
    #[error(transparent)]
    Options(#[from] OptionsError),
}

/// Reads `--serial`.
///
/// # Errors
/// None of the three; a list with other options; a limit that is none.
pub fn serial(text: &str) -> Result<SerialConfig, SerialArgError> {
    match text {
        "stdio" => return Ok(SerialConfig::Stdio),
        "null" => return Ok(SerialConfig::Null),
        _ if !text.contains('=') => return Err(SerialArgError::Kind),
        _ => {}
    }
    let mut options = Options::parse(text)?;
    let path = options.take("file").filter(|path| !path.is_empty());
    let path = path.ok_or(SerialArgError::Kind)?.into();
    let expected = "a size from 64K on, such as 16M, or off";
    let limit = options.convert("limit", expected, limit)?;
    options.finish()?;
    let limit = limit.unwrap_or(Some(SERIAL_LIMIT));
    Ok(SerialConfig::File { path, limit })
}

fn limit(text: &str) -> Option<Option<u64>> {
    if matches!(text, "off" | "0") {
        return Some(None);
    }
    let size = size::parse(text).ok()?;
    (size >= MIN_SERIAL_LIMIT).then_some(Some(size))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, limit: Option<u64>) -> SerialConfig {
        let path = path.into();
        SerialConfig::File { path, limit }
    }

    #[test]
    fn consoles_are_read() {
        for (text, console) in [
            ("stdio", SerialConfig::Stdio),
            ("null", SerialConfig::Null),
            ("file=/a=b,,c", file("/a=b,c", Some(16 << 20))),
            ("file=f,limit=64K", file("f", Some(64 << 10))),
            ("limit=1G,file=f", file("f", Some(1 << 30))),
            ("file=f,limit=off", file("f", None)),
            ("file=f,limit=0", file("f", None)),
        ] {
            assert_eq!(serial(text), Ok(console), "{text}");
        }
    }

    #[test]
    fn the_rest_is_refused() {
        for (text, words) in [
            ("pty", "stdio, null or file=PATH"),
            ("file=", "stdio, null or file=PATH"),
            ("limit=1M", "stdio, null or file=PATH"),
            (
                "file=f,limit=63K",
                "'63K' is no value for limit: a size from 64K on",
            ),
            ("file=f,limit=lots", "'lots' is no value for limit"),
            (
                "file=f,append=on",
                "there is no option 'append'; there are: file, limit",
            ),
            ("file=a,b", "'b' is not an option"),
        ] {
            let sentence = serial(text).unwrap_err().to_string();
            assert!(sentence.contains(words), "{sentence}");
        }
    }
}
