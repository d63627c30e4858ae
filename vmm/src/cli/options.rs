//! `key=value,key=value` lists as QEMU's options have them; a comma in a value is written `,,`.

/// Why a list was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// an empty piece
    #[error("'{0}' has an empty option: options are key=value, separated by single commas")]
    Empty(String),
    /// no `=`
    #[error("'{0}' is not an option: options are key=value")]
    NoValue(String),
    /// twice the same
    #[error("the option '{0}' is given twice")]
    Duplicate(String),
    /// not there
    #[error("the option '{0}' is missing")]
    Missing(&'static str),
    /// nobody knows it
    #[error("there is no option '{key}'; there are: {known}")]
    Unknown {
        /// The key.
        key: String,
        /// The keys that there are.
        known: String,
    },
    /// a value that is none
    #[error("'{value}' is no value for {key}: {expected}")]
    Value {
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// What belongs there.
        expected: String,
    },
}

/// The options of one list, taken out one by one; what is left at the end is unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pairs: Vec<(String, String)>,
    asked: Vec<&'static str>,
}

/// Splits at single commas; two are one literal comma.
fn split(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let literal = c != ',' || chars.next_if_eq(&',').is_some();
        match parts.last_mut() {
            Some(part) if literal => part.push(c),
            _ => parts.push(String::new()),
        }
    }
    parts
}

/// Splits a list that starts with a word without `=`, such as `af-xdp,ifname=eth1`.
///
/// # Errors
/// See [`Options::parse`].
pub fn with_kind(text: &str) -> Result<(String, Options), OptionsError> {
    let mut parts = split(text);
    let kind = parts.remove(0);
    Ok((kind, Options::from_parts(text, parts)?))
}

/// The list `text` with these options instead of those of the same keys, or in addition.
pub fn with(text: &str, options: &[(&str, &str)]) -> String {
    let replaced = |part: &String| {
        let key = part.split_once('=').map(|(key, _)| key);
        options.iter().any(|(new, _)| key == Some(*new))
    };
    let kept = split(text).into_iter().filter(|part| !replaced(part));
    let new = options.iter().map(|(key, value)| format!("{key}={value}"));
    let escaped = kept.chain(new).map(|part| part.replace(',', ",,"));
    escaped.collect::<Vec<_>>().join(",")
}

impl Options {
    /// Reads a list.
    ///
    /// # Errors
    /// Empty pieces, pieces without `=`, keys that come twice.
    pub fn parse(text: &str) -> Result<Self, OptionsError> {
        Self::from_parts(text, split(text))
    }

    fn from_parts(text: &str, parts: Vec<String>) -> Result<Self, OptionsError> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for part in parts {
            if part.is_empty() {
                return Err(OptionsError::Empty(text.to_owned()));
            }
            let Some((key, value)) = part.split_once('=').filter(|(key, _)| !key.is_empty()) else {
                return Err(OptionsError::NoValue(part));
            };
            if pairs.iter().any(|(known, _)| known == key) {
                return Err(OptionsError::Duplicate(key.to_owned()));
            }
            pairs.push((key.to_owned(), value.to_owned()));
        }
        let asked = Vec::new();
        Ok(Self { pairs, asked })
    }

    /// Takes the value of `key` out, if it is there.
    pub fn take(&mut self, key: &'static str) -> Option<String> {
        self.asked.push(key);
        let at = self.pairs.iter().position(|(known, _)| known == key)?;
        Some(self.pairs.remove(at).1)
    }

    /// Takes a value that must be there and have something in it.
    ///
    /// # Errors
    /// It is missing or empty.
    pub fn require(&mut self, key: &'static str) -> Result<String, OptionsError> {
        self.take(key)
            .filter(|value| !value.is_empty())
            .ok_or(OptionsError::Missing(key))
    }

    /// Takes a whole number.
    ///
    /// # Errors
    /// Not a number from 0 to 2^32 - 1.
    pub fn number(&mut self, key: &'static str) -> Result<Option<u32>, OptionsError> {
        self.convert(key, "a whole number from 0 on", |value| {
            // `u32::from_str` would also take a plus sign.
            let digits = value.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| value.parse().ok()).flatten()
        })
    }

    /// Takes `on` or `off`.
    ///
    /// # Errors
    /// Anything else.
    pub fn switch(&mut self, key: &'static str) -> Result<Option<bool>, OptionsError> {
        self.convert(key, "on or off", |value| match value {
            "on" => Some(true),
            "off" => Some(false),
            _ => None,
        })
    }

    /// Takes a value that `convert` understands.
    ///
    /// # Errors
    /// It does not; `expected` says what it would.
    pub fn convert<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        convert: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, OptionsError> {
        let Some(value) = self.take(key) else {
            return Ok(None);
        };
        match convert(&value) {
            Some(converted) => Ok(Some(converted)),
            None => Err(OptionsError::Value {
                key: key.to_owned(),
                value,
                expected: expected.to_owned(),
            }),
        }
    }

    /// All keys and values, for a list whose keys are the user's own names.
    pub fn into_pairs(self) -> Vec<(String, String)> {
        self.pairs
    }

    /// Ends the list: whatever nobody asked for is unknown.
    ///
    /// # Errors
    /// Something is left.
    pub fn finish(self) -> Result<(), OptionsError> {
        match self.pairs.into_iter().next() {
            None => Ok(()),
            Some((key, _)) => Err(OptionsError::Unknown {
                key,
                known: self.asked.join(", "),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_kinds_pairs_and_commas() {
        let (kind, mut options) = with_kind("af-xdp,ifname=eth1,path=/a,,b=c").unwrap();
        assert_eq!(kind, "af-xdp");
        assert_eq!(options.take("ifname").as_deref(), Some("eth1"));
        assert_eq!(options.take("path").as_deref(), Some("/a,b=c"));
        assert_eq!(options.take("path"), None);
        options.finish().unwrap();
        assert_eq!(with_kind("af-xdp").unwrap().0, "af-xdp");
    }

    #[test]
    fn options_can_be_set() {
        assert_eq!(
            with(
                "af-xdp,ifname=a,inhibit=off,map-path=/a,,b",
                &[("inhibit", "on"), ("id", "x,y")]
            ),
            "af-xdp,ifname=a,map-path=/a,,b,inhibit=on,id=x,,y"
        );
        assert_eq!(with("af-xdp", &[]), "af-xdp");
    }

    #[test]
    fn refuses_what_is_no_list() {
        let refused = |text| Options::parse(text).unwrap_err().to_string();
        assert!(refused("").contains("empty option"));
        assert!(refused("a=1,").contains("empty option"));
        assert!(refused("a=1,b").contains("'b' is not an option"));
        assert!(refused("=1").contains("'=1' is not an option"));
        assert_eq!(refused("a=1,b=2,a=3"), "the option 'a' is given twice");
    }

    #[test]
    fn values_have_types() {
        let mut options = Options::parse("n=7,m=-1,p=+1,big=4294967296,on=on,odd=yes,e=").unwrap();
        assert_eq!(options.number("n"), Ok(Some(7)));
        assert_eq!(options.number("absent"), Ok(None));
        for key in ["m", "p", "big"] {
            let sentence = options.number(key).unwrap_err().to_string();
            assert!(sentence.contains("a whole number from 0 on"), "{sentence}");
        }
        assert_eq!(options.switch("on"), Ok(Some(true)));
        let sentence = options.switch("odd").unwrap_err().to_string();
        assert_eq!(sentence, "'yes' is no value for odd: on or off");
        assert_eq!(options.require("e"), Err(OptionsError::Missing("e")));
    }

    #[test]
    fn what_nobody_asked_for_is_unknown() {
        let mut options = Options::parse("a=1,b=2").unwrap();
        options.take("a");
        options.take("c");
        let sentence = options.finish().unwrap_err().to_string();
        assert_eq!(sentence, "there is no option 'b'; there are: a, c");
    }
}
