//! Why an interface was not opened.

use std::io;

use crate::{
    config::{MAX_FRAMES, MIN_FRAMES, Require},
    handed::HandedError,
    interface::InterfaceError,
    plugin::PluginError,
    program::{AttachMode, ProgramError},
    socket::SocketError,
    tx_metadata::TxMetadataError,
    xskmap::MapError,
};

/// Why an interface was not opened. Nothing is left behind then.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The interface is missing.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// The interface went while it was being opened.
    #[error(
        "the network interface {interface} went away while it was being opened (it was deleted, or \
         moved to another network namespace): {source}"
    )]
    Gone {
        /// Name that it had.
        interface: String,
        /// What failed because of that.
        source: Box<OpenError>,
    },
    /// It can be nobody's network card.
    #[error("{interface} can't be used: {why}. {fix}")]
    Unfit {
        /// Name of the interface.
        interface: String,
        /// Why, as the end of a sentence.
        why: String,
        /// What to do, as a sentence.
        fix: String,
    },
    /// In native mode, its sockets would get nothing.
    #[error("{interface}: {what}, but {why}. {fix}")]
    OnPorts {
        /// Name of the interface.
        interface: String,
        /// What was asked for, or is there.
        what: String,
        /// What is in the way.
        why: String,
        /// What to do, as a sentence.
        fix: String,
    },
    /// No queue was asked for.
    #[error("at least one queue must be opened")]
    NoQueues,
    /// The number of frames is not usable.
    #[error(
        "{frames} frames per queue are not possible: it must be a power of two from {MIN_FRAMES} to \
         {MAX_FRAMES}"
    )]
    Frames {
        /// What was asked for.
        frames: u32,
    },
    /// What is required can't be had with what is asked for otherwise.
    #[error("{require} can't be required together with {with}: take one of them out")]
    Contradiction {
        /// What is required.
        require: Require,
        /// What excludes it.
        with: &'static str,
    },
    /// The interface has fewer queues.
    #[error(
        "{interface} has {available} queue{}, the first of which is 0, but {queues} from \
         {start_queue} on {} asked for. Ask for fewer{fix}",
        plural(*available), if *queues == 1 { "was" } else { "were" },
    )]
    TooManyQueues {
        /// Name of the interface.
        interface: String,
        /// First queue asked for.
        start_queue: u32,
        /// Number asked for.
        queues: u32,
        /// Number that there is.
        available: u32,
        /// What else there is to do, as the end of a sentence; empty: nothing.
        fix: String,
    },
    /// The XDP program is not on the interface.
    #[error("{interface}: {source}")]
    Program {
        /// Name of the interface.
        interface: String,
        /// Why.
        source: ProgramError,
    },
    /// The XDP program does not run in the driver, and that is required.
    #[error(
        "{interface}: {require} is required, but only skb mode can be reached: {why}. Require less \
         (any), or use an interface whose driver has native XDP"
    )]
    NotReached {
        /// Name of the interface.
        interface: String,
        /// What is required.
        require: Require,
        /// What is in the way.
        why: String,
    },
    /// The program of others runs elsewhere.
    #[error(
        "{interface}: {wanted} mode was asked for, but the XDP program that is there {found}. Its \
         owner must attach it in {wanted} mode, or leave the mode open"
    )]
    ForeignMode {
        /// Name of the interface.
        interface: String,
        /// Mode that was asked for.
        wanted: AttachMode,
        /// Where it is.
        found: String,
    },
    /// The sockets that were handed over can't be used.
    #[error("{interface}: {source}")]
    Sockets {
        /// Name of the interface.
        interface: String,
        /// Why.
        source: HandedError,
    },
    /// The map that sockets are to be put into can't be used.
    #[error("{interface}: {source}")]
    Map {
        /// Name of the interface.
        interface: String,
        /// Why.
        source: MapError,
    },
    /// The device plugin did not hand out the map.
    #[error("{interface}: {source}")]
    Plugin {
        /// Name of the interface.
        interface: String,
        /// Why.
        source: PluginError,
    },
    /// A queue could not be opened; those before it were closed again.
    #[error("queue {queue} of {interface}: {source}")]
    Queue {
        /// Name of the interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// Why.
        source: QueueError,
    },
}

/// Why a queue was not opened.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// There is no memory for its frames.
    #[error("cannot map {need} KiB for the frames: {source}")]
    Memory {
        /// What the frames need, in KiB.
        need: u64,
        /// What the system said.
        source: io::Error,
    },
    /// Its socket was refused.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The program does not know the socket.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The map of a program of others did not take the socket.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The socket can't be restricted to the interface.
    #[error("cannot restrict the socket to the interface (SO_BINDTOIFINDEX): {0}")]
    Restrict(#[source] io::Error),
    /// Checksums can't be left to the card, though that is asked for.
    #[error(transparent)]
    TxMetadata(#[from] TxMetadataError),
}

fn plural(count: u32) -> &'static str {
    if count == 1 { "" } else { "s" }
}
