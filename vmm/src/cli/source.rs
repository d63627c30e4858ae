//! The options of `--netdev af-xdp` that say where the XDP program and the sockets come from:
//! `inhibit`, `sock-fds`, `xsks-map-fd`, `map-path`, `map-start-index`, `plugin-socket`.

use std::os::fd::RawFd;

use super::options::{Options, OptionsError};
use crate::config::SourceConfig;

/// The options that say where sockets, or the map for them, are.
const SOURCES: &str = "sock-fds, xsks-map-fd, map-path or plugin-socket";

/// Why they do not go together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// a value that is none
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// two of them
    #[error("{first} and {second} exclude each other: give one of {SOURCES}")]
    Two {
        /// One that was given.
        first: &'static str,
        /// Another.
        second: &'static str,
    },
    /// a program of others is to be used, but how?
    #[error(
        "inhibit=on needs one of {SOURCES}: without an XDP program of its own, ringwire has to be told where the frames come from"
    )]
    Nothing,
    /// our program is to be loaded, and another one to be used
    #[error(
        "{0} needs inhibit=on: it is about an XDP program that is on the interface already, and without inhibit=on ringwire loads its own"
    )]
    NotInhibited(&'static str),
    /// no map whose slots could be meant
    #[error("map-start-index needs map-path: it is a slot of the map at that path")]
    NoMapPath,
}

/// Takes these options out of a list.
///
/// # Errors
/// Values that are none, and options that do not go together.
pub(super) fn source(options: &mut Options) -> Result<SourceConfig, SourceError> {
    let inhibit = options.switch("inhibit")?.unwrap_or(false);
    let sock_fds = options.convert("sock-fds", "file descriptors, such as 3:4", fds)?;
    let map_fd = options.convert("xsks-map-fd", "the number of a file descriptor", fd)?;
    let map_path = options.convert("map-path", "the path of a pinned map", path)?;
    let start_index = options.number("map-start-index")?;
    let plugin = options.convert("plugin-socket", "the path of a socket", path)?;
    if start_index.is_some() && map_path.is_none() {
        return Err(SourceError::NoMapPath);
    }
    // The only two that go together.
    let (sock_fds, map_fd) = match (sock_fds, map_fd) {
        (Some(sockets), Some(map)) => (Some(SourceConfig::SockFdsForMap { sockets, map }), None),
        (sock_fds, map_fd) => (
            sock_fds.map(SourceConfig::SockFds),
            map_fd.map(SourceConfig::XsksMapFd),
        ),
    };
    let given = [
        ("sock-fds", sock_fds),
        ("xsks-map-fd", map_fd),
        (
            "map-path",
            map_path.map(|path| SourceConfig::MapPath {
                path: path.into(),
                start_index: start_index.unwrap_or(0),
            }),
        ),
        (
            "plugin-socket",
            plugin.map(|path| SourceConfig::PluginSocket(path.into())),
        ),
    ];
    let mut given = given
        .into_iter()
        .filter_map(|(key, source)| Some((key, source?)));
    match (given.next(), given.next()) {
        (Some((first, _)), Some((second, _))) => Err(SourceError::Two { first, second }),
        (Some((key, _)), None) if !inhibit => Err(SourceError::NotInhibited(key)),
        (Some((_, source)), None) => Ok(source),
        (None, _) if inhibit => Err(SourceError::Nothing),
        (None, _) => Ok(SourceConfig::OwnProgram),
    }
}

fn fd(text: &str) -> Option<RawFd> {
    // `RawFd::from_str` would also take a sign.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

fn fds(text: &str) -> Option<Vec<RawFd>> {
    text.split(':').map(fd).collect()
}

fn path(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<SourceConfig, String> {
        let mut options = Options::parse(text).unwrap();
        let source = source(&mut options).map_err(|e| e.to_string())?;
        options.finish().unwrap();
        Ok(source)
    }

    fn refused(text: &str) -> String {
        read(text).unwrap_err()
    }

    #[test]
    fn each_source_is_read() {
        assert_eq!(read("inhibit=off"), Ok(SourceConfig::OwnProgram));
        assert_eq!(
            read("inhibit=on,sock-fds=3:14:5"),
            Ok(SourceConfig::SockFds(vec![3, 14, 5]))
        );
        assert_eq!(
            read("xsks-map-fd=9,inhibit=on"),
            Ok(SourceConfig::XsksMapFd(9))
        );
        assert_eq!(
            read("inhibit=on,sock-fds=3:4,xsks-map-fd=9"),
            Ok(SourceConfig::SockFdsForMap {
                sockets: vec![3, 4],
                map: 9
            })
        );
        let map = |start_index| SourceConfig::MapPath {
            path: "/sys/fs/bpf/xsks".into(),
            start_index,
        };
        assert_eq!(read("inhibit=on,map-path=/sys/fs/bpf/xsks"), Ok(map(0)));
        assert_eq!(
            read("inhibit=on,map-path=/sys/fs/bpf/xsks,map-start-index=4"),
            Ok(map(4))
        );
        assert_eq!(
            read("inhibit=on,plugin-socket=/tmp/afxdp.sock"),
            Ok(SourceConfig::PluginSocket("/tmp/afxdp.sock".into()))
        );
    }

    #[test]
    fn a_program_of_others_needs_a_way_to_it() {
        let sentence = refused("inhibit=on");
        assert!(
            sentence.starts_with("inhibit=on needs one of sock-fds, xsks-map-fd, map-path or"),
            "{sentence}"
        );
    }

    #[test]
    fn a_way_to_a_program_of_others_needs_inhibit() {
        for option in [
            "sock-fds=3",
            "xsks-map-fd=3",
            "map-path=/x",
            "plugin-socket=/x",
        ] {
            let (key, _) = option.split_once('=').unwrap();
            for text in [option.to_owned(), format!("{option},inhibit=off")] {
                let sentence = refused(&text);
                assert!(
                    sentence.starts_with(&format!("{key} needs inhibit=on: ")),
                    "{sentence}"
                );
            }
        }
    }

    #[test]
    fn sources_exclude_each_other() {
        for (text, words) in [
            (
                "sock-fds=3,xsks-map-fd=4,plugin-socket=/x",
                "sock-fds and plugin-socket",
            ),
            ("sock-fds=3,map-path=/x", "sock-fds and map-path"),
            ("map-path=/x,xsks-map-fd=4", "xsks-map-fd and map-path"),
            ("plugin-socket=/x,sock-fds=4", "sock-fds and plugin-socket"),
        ] {
            let sentence = refused(&format!("inhibit=on,{text}"));
            assert!(
                sentence.starts_with(&format!("{words} exclude each other: give one of")),
                "{sentence}"
            );
        }
    }

    #[test]
    fn a_slot_needs_a_map_that_is_pinned() {
        for text in [
            "map-start-index=1",
            "inhibit=on,sock-fds=3,map-start-index=0",
        ] {
            assert_eq!(
                refused(text),
                "map-start-index needs map-path: it is a slot of the map at that path"
            );
        }
    }

    #[test]
    fn values_are_descriptors_and_paths() {
        for (text, words) in [
            ("sock-fds=", "'' is no value for sock-fds: file descriptors"),
            ("sock-fds=3:", "'3:' is no value for sock-fds"),
            ("sock-fds=3:-4", "'3:-4' is no value for sock-fds"),
            (
                "sock-fds=4294967299",
                "'4294967299' is no value for sock-fds",
            ),
            ("xsks-map-fd=+3", "'+3' is no value for xsks-map-fd"),
            ("map-path=", "'' is no value for map-path: the path"),
            (
                "map-path=/x,map-start-index=-1",
                "'-1' is no value for map-start-index: a whole number",
            ),
            ("plugin-socket=", "'' is no value for plugin-socket"),
        ] {
            let sentence = refused(&format!("inhibit=on,{text}"));
            assert!(sentence.starts_with(words), "{sentence}");
        }
    }
}
