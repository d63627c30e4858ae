//! How frames find the sockets: an XDP program, ours or not, and its map.

use std::{
    fmt,
    os::fd::{BorrowedFd, OwnedFd},
};

use crate::{
    config::{PortConfig, Require},
    error::{OpenError, QueueError},
    handed,
    interface::Interface,
    kind, plugin,
    program::{AttachMode, AttachedProgram, ForeignProgram, LoadedProgram, ProgramError},
    source::Source,
    xskmap::XskMap,
};

/// The XDP program that sends frames to the sockets.
#[derive(Debug)]
pub(crate) enum Steering {
    /// Ours: it goes when this is dropped.
    Own(AttachedProgram),
    /// That of others.
    Foreign {
        /// Where it runs; skb if the kernel does not tell.
        mode: AttachMode,
        /// Where the sockets are to be put. `None`: others did that.
        map: Option<XskMap>,
    },
}

/// Sockets to use, one for each queue. `None`: they are to be created.
pub(crate) type Sockets = Option<Vec<OwnedFd>>;

impl Steering {
    /// Attaches our program, or checks what others have provided. `multi_buffer`: ours is to see
    /// frames of several fragments, too.
    ///
    /// # Errors
    /// [`OpenError`].
    pub(crate) fn new(
        config: &PortConfig,
        interface: &Interface,
        source: Source,
        multi_buffer: bool,
    ) -> Result<(Self, Sockets), OpenError> {
        let name = || config.ifname.clone();
        let (first, count) = (config.start_queue, config.queues);
        let map_error = |source| OpenError::Map {
            interface: name(),
            source,
        };
        let (map, sockets) = match source {
            Source::OwnProgram => {
                let program = attach(config, interface, multi_buffer)?;
                return Ok((Self::Own(program), None));
            }
            Source::Sockets(sockets) => {
                handed::check(&sockets, count, interface).map_err(|source| OpenError::Sockets {
                    interface: name(),
                    source,
                })?;
                (None, Some(sockets))
            }
            Source::SocketsForMap { sockets, map } => {
                handed::check(&sockets, count, interface).map_err(|source| OpenError::Sockets {
                    interface: name(),
                    source,
                })?;
                let map = XskMap::new(map, first, count).map_err(map_error)?;
                (Some(map), Some(sockets))
            }
            Source::Map(map) => (
                Some(XskMap::new(map, first, count).map_err(map_error)?),
                None,
            ),
            Source::PinnedMap { path, start_index } => (
                Some(XskMap::open(&path, start_index, count).map_err(map_error)?),
                None,
            ),
            Source::Plugin(path) => {
                let map = plugin::ask_for_map(&path, interface.name()).map_err(|source| {
                    OpenError::Plugin {
                        interface: name(),
                        source,
                    }
                })?;
                (
                    Some(XskMap::new(map, first, count).map_err(map_error)?),
                    None,
                )
            }
        };
        if interface.xdp_program().is_none() {
            // Not an error: it may come later, or be on an interface that this one belongs to.
            tracing::warn!(
                interface = interface.name(),
                "there is no XDP program on the interface: nothing is received until its owner \
                 attaches it"
            );
        }
        kind::check_foreign(interface)?;
        let mode = foreign_mode(config, interface)?;
        Ok((Self::Foreign { mode, map }, sockets))
    }

    /// Where the program runs.
    pub(crate) fn mode(&self) -> AttachMode {
        match self {
            Self::Own(program) => program.mode(),
            Self::Foreign { mode, .. } => *mode,
        }
    }

    /// Whether the driver can't see where frames go, so that it must not have their memory.
    pub(crate) fn needs_copy(&self, interface: &Interface) -> bool {
        match self {
            Self::Own(program) => program.mode() == AttachMode::Skb,
            Self::Foreign { .. } => {
                let program = interface.xdp_program();
                program.is_some_and(|program| program.mode == "skb")
            }
        }
    }

    /// From now on the frames of `queue` go to `socket`, that of the `number`-th queue.
    ///
    /// # Errors
    /// [`QueueError`].
    pub(crate) fn direct(
        &mut self,
        number: u32,
        queue: u32,
        socket: BorrowedFd<'_>,
    ) -> Result<(), QueueError> {
        match self {
            Self::Own(program) => program.direct(queue, socket)?,
            Self::Foreign { map: Some(map), .. } => map.insert(number, socket)?,
            Self::Foreign { map: None, .. } => {}
        }
        Ok(())
    }
}

/// Loads and attaches our program, in a mode that is good enough.
pub(crate) fn attach(
    config: &PortConfig,
    interface: &Interface,
    multi_buffer: bool,
) -> Result<AttachedProgram, OpenError> {
    let mode = match config.require {
        Require::Any => config.mode,
        Require::Native | Require::ZeroCopy => Some(AttachMode::Native),
    };
    LoadedProgram::load(interface.queues(), multi_buffer)
        .and_then(|program| program.attach(interface, mode))
        .map_err(|error| match error {
            ProgramError::ForcedMode { source, .. } if config.require != Require::Any => {
                OpenError::NotReached {
                    interface: config.ifname.clone(),
                    require: config.require,
                    why: format!("attaching the XDP program natively failed: {source}"),
                }
            }
            source => OpenError::Program {
                interface: config.ifname.clone(),
                source,
            },
        })
}

/// Where the program of others runs, if that is good enough.
pub(crate) fn foreign_mode(
    config: &PortConfig,
    interface: &Interface,
) -> Result<AttachMode, OpenError> {
    let program = interface.xdp_program();
    let mode = match program.map(|program| program.mode) {
        Some("native" | "offloaded") => AttachMode::Native,
        _ => AttachMode::Skb,
    };
    if let Some(wanted) = config.mode
        && wanted != mode
    {
        return Err(OpenError::ForeignMode {
            interface: config.ifname.clone(),
            wanted,
            found: Found(program).to_string(),
        });
    }
    if config.require != Require::Any && mode != AttachMode::Native {
        return Err(OpenError::NotReached {
            interface: config.ifname.clone(),
            require: config.require,
            why: format!("the XDP program that is there {}", Found(program)),
        });
    }
    Ok(mode)
}

/// A program of others, or that there is none, as the end of a sentence.
struct Found<'a>(Option<&'a ForeignProgram>);

impl fmt::Display for Found<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(program) => write!(f, "(id {}) runs in {} mode", program.id, program.mode),
            None => f.write_str("can't be seen: the kernel shows none"),
        }
    }
}
