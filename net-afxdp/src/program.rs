//! The XDP program: loaded, attached, and its map from queues to sockets.

use std::{
    fmt, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Once,
};

use libbpf_rs::{MapCore, MapHandle, ObjectBuilder, PrintLevel, libbpf_sys};

use crate::{
    bpf::{self, XdpLink},
    interface::Interface,
    namespace,
};

/// The object that build.rs made of bpf/xsk.bpf.c, aligned for an ELF header.
static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/xsk.bpf.o")));

#[repr(C, align(8))]
struct Aligned<T: ?Sized>(T);

const MAP: &str = "ringwire_xsks";
const PROGRAM: &str = "ringwire_xsk";

/// Where in the kernel's receive path the program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AttachMode {
    /// In the driver, before the kernel has made an skb of the frame.
    Native,
    /// In the stack, after that: works with every driver, slower.
    Skb,
}

impl AttachMode {
    fn flags(self) -> u32 {
        match self {
            Self::Native => libbpf_sys::XDP_FLAGS_DRV_MODE,
            Self::Skb => libbpf_sys::XDP_FLAGS_SKB_MODE,
        }
    }
}

impl fmt::Display for AttachMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Skb => "skb",
        })
    }
}

/// An XDP program that is on the interface, as the kernel names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignProgram {
    /// The program's id, as in `bpftool prog`.
    pub id: u32,
    /// Its name, if the process may ask for it (CAP_SYS_ADMIN).
    pub name: Option<String>,
    /// "native", "skb", "offloaded" or "several".
    pub mode: &'static str,
}

impl fmt::Display for ForeignProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "id {}", self.id)?;
        if let Some(name) = &self.name {
            write!(f, ", name {name}")?;
        }
        write!(f, ", mode {}", self.mode)
    }
}

/// Why the program is not on the interface.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// The kernel did not load it.
    #[error(
        "cannot load the XDP program: {0}. Loading takes the capabilities CAP_NET_ADMIN and CAP_BPF \
         (or CAP_SYS_ADMIN), and a kernel built with CONFIG_XDP_SOCKETS"
    )]
    Load(#[source] io::Error),
    /// The process has rights, but not where they count.
    #[error(
        "cannot load the XDP program: {0}. This process is in a user namespace, whose capabilities do \
         not count for that: load it outside of it, where CAP_NET_ADMIN and CAP_BPF do, or use sockets \
         that a process out there has opened (`ringwire open`); `ringwire check` names a third way"
    )]
    LoadInUserNamespace(#[source] io::Error),
    /// Another program is there.
    #[error(
        "another XDP program is on the interface ({0}) and was left alone. Take it off first \
         (`ip link set dev INTERFACE xdp off`, or end its owner), or use another interface"
    )]
    Foreign(ForeignProgram),
    /// The mode that was asked for can't be had.
    #[error(
        "cannot attach the XDP program in {mode} mode, which was asked for: {source}. Leave the mode \
         open to get the best that works"
    )]
    ForcedMode {
        /// The mode.
        mode: AttachMode,
        /// What the system said.
        source: io::Error,
    },
    /// No mode works.
    #[error("cannot attach the XDP program, in native mode: {native}, nor in skb mode: {skb}")]
    Attach {
        /// What the system said to native mode.
        native: io::Error,
        /// What the system said to skb mode.
        #[source]
        skb: io::Error,
    },
    /// No permission, or the interface went, whatever the mode.
    #[error(
        "cannot attach the XDP program: {0}. Attaching takes the capability CAP_NET_ADMIN in the \
         interface's network namespace"
    )]
    Refused(#[source] io::Error),
    /// The socket could not be put into the map.
    #[error("cannot put the socket of queue {queue} into the XDP program's map: {source}")]
    Map {
        /// The queue.
        queue: u32,
        /// What the system said.
        source: io::Error,
    },
}

/// The program in the kernel, not yet on an interface.
#[derive(Debug)]
pub(crate) struct LoadedProgram {
    program: OwnedFd,
    sockets: MapHandle,
}

/// The program on an interface. Dropping it, or the end of the process, takes it off.
#[derive(Debug)]
pub(crate) struct AttachedProgram {
    /// While this is there, the program stays.
    link: XdpLink,
    sockets: MapHandle,
    mode: AttachMode,
}

impl LoadedProgram {
    /// Loads the program with a map for the queues `0..queues`. `multi_buffer`: it is to see frames
    /// of several fragments, too (Linux 5.18).
    ///
    /// # Errors
    /// [`ProgramError::Load`].
    pub(crate) fn load(queues: u32, multi_buffer: bool) -> Result<Self, ProgramError> {
        send_libbpf_messages_to_tracing();
        Self::try_load(queues, multi_buffer).map_err(|error| {
            let error = system_error(&error);
            if error.kind() == io::ErrorKind::PermissionDenied && !namespace::is_initial_user() {
                ProgramError::LoadInUserNamespace(error)
            } else {
                ProgramError::Load(error)
            }
        })
    }

    fn try_load(queues: u32, multi_buffer: bool) -> libbpf_rs::Result<Self> {
        let missing = |what: &str| {
            libbpf_rs::Error::from(io::Error::other(format!("no {what} in the object")))
        };
        let mut object = ObjectBuilder::default().open_memory(&OBJECT.0)?;
        for mut map in object.maps_mut() {
            if map.name() == MAP {
                map.set_max_entries(queues.max(1))?;
            }
        }
        if multi_buffer {
            // What the section name "xdp.frags" would do. The program itself never looks into a
            // frame, so it is the same for both kinds.
            for mut program in object.progs_mut() {
                program.set_flags(libbpf_sys::BPF_F_XDP_HAS_FRAGS);
            }
        }
        let object = object.load()?;
        let map = object
            .maps()
            .find(|map| map.name() == MAP)
            .ok_or_else(|| missing(MAP))?;
        let program = object
            .progs()
            .find(|program| program.name() == PROGRAM)
            .ok_or_else(|| missing(PROGRAM))?;
        Ok(Self {
            program: program.as_fd().try_clone_to_owned()?,
            sockets: MapHandle::try_from(&map)?,
        })
    }

    /// Puts the program on the interface: in `mode`, or else in native mode if that works and in
    /// skb mode if not.
    ///
    /// # Errors
    /// [`ProgramError`]; a program that is there already is left alone.
    pub(crate) fn attach(
        self,
        interface: &Interface,
        mode: Option<AttachMode>,
    ) -> Result<AttachedProgram, ProgramError> {
        if let Some(program) = interface.xdp_program() {
            return Err(ProgramError::Foreign(named(program)));
        }
        let first = mode.unwrap_or(AttachMode::Native);
        let source = match self.try_attach(interface, first) {
            Ok(link) => return Ok(self.attached(link, first)),
            Err(source) => source,
        };
        match source.raw_os_error() {
            // Somebody else was faster, since we looked.
            Some(libc::EBUSY | libc::EEXIST) => {
                let now = Interface::by_index(interface.index()).ok();
                if let Some(program) = now.as_ref().and_then(Interface::xdp_program) {
                    return Err(ProgramError::Foreign(named(program)));
                }
            }
            Some(libc::EPERM | libc::EACCES | libc::ENODEV) => {
                return Err(ProgramError::Refused(source));
            }
            _ => {}
        }
        if let Some(mode) = mode {
            return Err(ProgramError::ForcedMode { mode, source });
        }
        tracing::info!(
            interface = interface.name(),
            error = %source,
            "native XDP does not work here, using skb mode"
        );
        match self.try_attach(interface, AttachMode::Skb) {
            Ok(link) => Ok(self.attached(link, AttachMode::Skb)),
            Err(skb) => Err(ProgramError::Attach {
                native: source,
                skb,
            }),
        }
    }

    fn try_attach(&self, interface: &Interface, mode: AttachMode) -> io::Result<XdpLink> {
        XdpLink::create(self.program.as_fd(), interface.index(), mode.flags())
    }

    fn attached(self, link: XdpLink, mode: AttachMode) -> AttachedProgram {
        AttachedProgram {
            link,
            sockets: self.sockets,
            mode,
        }
    }
}

impl AttachedProgram {
    /// The link that keeps it on the interface.
    pub(crate) fn link(&self) -> BorrowedFd<'_> {
        self.link.as_fd()
    }

    /// The map from its queues to sockets.
    pub(crate) fn map(&self) -> BorrowedFd<'_> {
        self.sockets.as_fd()
    }

    /// The mode that it runs in.
    pub(crate) fn mode(&self) -> AttachMode {
        self.mode
    }

    /// From now on the frames of `queue` go to `socket`. The kernel empties the slot when the
    /// socket is closed.
    ///
    /// # Errors
    /// [`ProgramError::Map`].
    pub(crate) fn direct(&self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), ProgramError> {
        bpf::insert(self.map(), queue, socket).map_err(|source| ProgramError::Map { queue, source })
    }
}

/// The same with its name, if that can be had.
pub(crate) fn named(program: &ForeignProgram) -> ForeignProgram {
    let info = libbpf_rs::query::ProgInfoIter::default().find(|info| info.id == program.id);
    let name = info.map(|info| info.name.to_string_lossy().into_owned());
    ForeignProgram {
        name: name.filter(|name| !name.is_empty()),
        ..program.clone()
    }
}

/// libbpf-rs' error as the system's: it keeps the errno to itself, but its text ends with it.
fn system_error(error: &libbpf_rs::Error) -> io::Error {
    let kind = match error.kind() {
        libbpf_rs::ErrorKind::PermissionDenied => io::ErrorKind::PermissionDenied,
        libbpf_rs::ErrorKind::NotFound => io::ErrorKind::NotFound,
        libbpf_rs::ErrorKind::OutOfMemory => io::ErrorKind::OutOfMemory,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, format!("{error:#}"))
}

/// libbpf prints to stderr unless told otherwise; what matters comes back as an error.
fn send_libbpf_messages_to_tracing() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        libbpf_rs::set_print(Some((PrintLevel::Info, |_, message| {
            tracing::debug!(target: "libbpf", "{}", message.trim_end());
        })));
    });
}

#[cfg(test)]
#[path = "program_tests.rs"]
mod tests;
