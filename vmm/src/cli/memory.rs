//! `--memory SIZE` and `--memory size=SIZE,hugepages=on|off`.

use super::options::{Options, OptionsError};
use crate::size::{self, SizeError};

/// Guest memory as it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryArg {
    /// Bytes.
    pub size: u64,
    /// From the host's huge pages.
    pub hugepages: bool,
}

/// Why it was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemoryArgError {
    /// the list
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// the size
    #[error(transparent)]
    Size(#[from] SizeError),
}

/// Reads `--memory`, in either form.
///
/// # Errors
/// Not a size, not such a list, or no size in it.
pub fn memory(text: &str) -> Result<MemoryArg, MemoryArgError> {
    if !text.contains(['=', ',']) {
        let size = size::parse(text)?;
        let hugepages = false;
        return Ok(MemoryArg { size, hugepages });
    }
    let mut options = Options::parse(text)?;
    let size = size::parse(&options.require("size")?)?;
    let hugepages = options.switch("hugepages")?.unwrap_or(false);
    options.finish()?;
    Ok(MemoryArg { size, hugepages })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        for (text, size, hugepages) in [
            ("512", 512 << 20, false),
            ("8G", 8 << 30, false),
            ("size=512M", 512 << 20, false),
            ("hugepages=on,size=1G", 1 << 30, true),
            ("size=1G,hugepages=off", 1 << 30, false),
        ] {
            assert_eq!(memory(text), Ok(MemoryArg { size, hugepages }), "{text}");
        }
        for (text, words) in [
            ("lots", "'lots' is not a size"),
            ("size=lots", "'lots' is not a size"),
            ("hugepages=on", "the option 'size' is missing"),
            ("size=1G,hugepages=yes", "'yes' is no value for hugepages"),
            (
                "size=1G,slots=2",
                "no option 'slots'; there are: size, hugepages",
            ),
            ("1G,hugepages=on", "'1G' is not an option"),
        ] {
            let sentence = memory(text).unwrap_err().to_string();
            assert!(sentence.contains(words), "{sentence}");
        }
    }
}
