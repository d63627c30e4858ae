//! An interface opened for AF_XDP: its program and as many of its queues as asked for.

use std::{io, os::fd::AsFd};

use crate::{
    interface::{Interface, InterfaceError},
    multi_buffer::{self, FrameLimits},
    probe,
    program::{AttachMode, AttachedProgram, LoadedProgram, ProgramError},
    queue::Queue,
    socket::{Socket, SocketError, SocketOptions},
    umem::{CHUNK_SIZE, Umem},
};

/// Fewest frames of a queue.
pub const MIN_FRAMES: u32 = 64;

/// Most frames of a queue: 1 GiB of locked memory.
pub const MAX_FRAMES: u32 = 1 << 18;

/// What to open. Plain data; [`Port::open`] checks it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortConfig {
    /// Name of an interface in the calling thread's network namespace.
    pub ifname: String,
    /// Where the XDP program is to run. `None`: natively if that works, else in skb mode.
    pub mode: Option<AttachMode>,
    /// Copy mode even where the driver has zero-copy.
    pub force_copy: bool,
    /// Number of consecutive queues.
    pub queues: u32,
    /// The first of them.
    pub start_queue: u32,
    /// UMEM frames per queue, of 4096 bytes of locked memory each; a power of two from
    /// [`MIN_FRAMES`] to [`MAX_FRAMES`].
    pub frames: u32,
}

impl Default for PortConfig {
    fn default() -> Self {
        Self {
            ifname: String::new(),
            mode: None,
            force_copy: false,
            queues: 1,
            start_queue: 0,
            frames: 4096,
        }
    }
}

/// Why an interface was not opened. Nothing is left behind then.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The interface is missing.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
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
    /// The interface has fewer queues.
    #[error(
        "{interface} has {available} queue{}, the first of which is 0, but {queues} from \
         {start_queue} on {} asked for. Ask for fewer, or give it more if its driver can \
         (`ethtool -L {interface} combined {}`; at most {max})",
        plural(*available), if *queues == 1 { "was" } else { "were" },
        u64::from(*start_queue) + u64::from(*queues)
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
        /// Number that there can be.
        max: u32,
    },
    /// The XDP program is not on the interface.
    #[error("{interface}: {source}")]
    Program {
        /// Name of the interface.
        interface: String,
        /// Why.
        source: ProgramError,
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
}

/// An interface with our XDP program on it.
///
/// Dropping it takes the program off, and so does the end of the process, whatever way. Queues that
/// were taken out stay usable for sending then, but receive nothing.
#[derive(Debug)]
pub struct Port {
    program: AttachedProgram,
    interface: Interface,
    mtu: u32,
    queues: Vec<Queue>,
}

impl Port {
    /// Attaches the program and opens the queues: all, or none.
    ///
    /// An interface that is down is opened with a warning: it works when it comes up.
    ///
    /// # Errors
    /// [`OpenError`]; what had been done is undone.
    pub fn open(config: &PortConfig) -> Result<Self, OpenError> {
        check(config)?;
        let interface = Interface::by_name(&config.ifname)?;
        check_queues(config, &interface)?;
        warn_about(&interface);

        let refused = |source| OpenError::Program {
            interface: config.ifname.clone(),
            source,
        };
        let last = config.start_queue + config.queues;
        let multi_buffer = multi_buffer::wanted(&interface);
        let program = LoadedProgram::load(interface.queues(), multi_buffer)
            .and_then(|program| program.attach(&interface, config.mode))
            .map_err(refused)?;

        // All that fits in memory: `check_queues` bounds it by what the interface has.
        let mut queues = Vec::new();
        for id in config.start_queue..last {
            let queue =
                open_queue(config, &interface, &program, multi_buffer, id).map_err(|source| {
                    OpenError::Queue {
                        interface: config.ifname.clone(),
                        queue: id,
                        source,
                    }
                })?;
            queues.push(queue);
        }
        let port = Self {
            mtu: usable_mtu(&interface, &queues),
            program,
            interface,
            queues,
        };
        tracing::info!(
            interface = port.interface.name(),
            mode = %port.mode(),
            zero_copy = port.queues.iter().all(Queue::zero_copy),
            start_queue = config.start_queue,
            queues = config.queues,
            multi_buffer,
            mtu = port.mtu,
            "AF_XDP is open"
        );
        Ok(port)
    }

    /// The interface as it was when it was opened.
    #[must_use]
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// Where the XDP program runs.
    #[must_use]
    pub fn mode(&self) -> AttachMode {
        self.program.mode()
    }

    /// The largest MTU in bytes that works both ways: the interface's when it was opened, or that of
    /// the longest frames that its queues can have (with a VLAN tag) if that is less.
    #[must_use]
    pub fn mtu(&self) -> u32 {
        self.mtu
    }

    /// Hands out the queues, the first one first. Empty when called again.
    pub fn take_queues(&mut self) -> Vec<Queue> {
        std::mem::take(&mut self.queues)
    }
}

/// The MTU that works in all queues.
fn usable_mtu(interface: &Interface, queues: &[Queue]) -> u32 {
    let most = queues.iter().map(Queue::max_mtu).min();
    let most = most.unwrap_or(FrameLimits::ONE_CHUNK.mtu());
    if interface.mtu() > most {
        tracing::warn!(
            interface = interface.name(),
            mtu = interface.mtu(),
            "frames that are longer than an MTU of {most} makes them are not received"
        );
    }
    interface.mtu().min(most)
}

fn check(config: &PortConfig) -> Result<(), OpenError> {
    if config.queues == 0 {
        return Err(OpenError::NoQueues);
    }
    let frames = config.frames;
    if !frames.is_power_of_two() || !(MIN_FRAMES..=MAX_FRAMES).contains(&frames) {
        return Err(OpenError::Frames { frames });
    }
    Ok(())
}

fn check_queues(config: &PortConfig, interface: &Interface) -> Result<(), OpenError> {
    let last = config.start_queue.checked_add(config.queues);
    if last.is_some_and(|last| last <= interface.queues()) {
        return Ok(());
    }
    Err(OpenError::TooManyQueues {
        interface: config.ifname.clone(),
        start_queue: config.start_queue,
        queues: config.queues,
        available: interface.queues(),
        max: interface.max_queues(),
    })
}

fn warn_about(interface: &Interface) {
    if !interface.admin_up() {
        tracing::warn!(
            interface = interface.name(),
            "the interface is down: nothing passes until it is up (`ip link set dev {} up`)",
            interface.name()
        );
    }
}

fn open_queue(
    config: &PortConfig,
    interface: &Interface,
    program: &AttachedProgram,
    multi_buffer: bool,
    id: u32,
) -> Result<Queue, QueueError> {
    let (umem, pool) = Umem::new(config.frames).map_err(|source| QueueError::Memory {
        need: u64::from(config.frames) * u64::from(CHUNK_SIZE) / 1024,
        source,
    })?;
    let options = SocketOptions {
        ifindex: interface.index(),
        queue: id,
        // With the program in the stack, a driver that was given the frames in zero-copy mode
        // would never see them go to the socket.
        copy: config.force_copy || program.mode() == AttachMode::Skb,
        multi_buffer,
        ring_size: config.frames / 2,
    };
    let socket = Socket::open(umem, &options)?;
    let limits = frame_limits(interface, multi_buffer, socket.zero_copy());
    let queue = Queue::new(id, socket, pool, limits);
    program.direct(id, queue.as_fd())?;
    Ok(queue)
}

/// How long the frames of a queue can be.
fn frame_limits(interface: &Interface, multi_buffer: bool, zero_copy: bool) -> FrameLimits {
    if !multi_buffer {
        return FrameLimits::ONE_CHUNK;
    }
    let driver_limit = zero_copy.then(|| {
        probe::features(interface.index()).map_or(1, |features| features.zero_copy_fragments)
    });
    FrameLimits::several_chunks(interface.mtu(), driver_limit)
}

fn plural(count: u32) -> &'static str {
    if count == 1 { "" } else { "s" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(change: impl FnOnce(&mut PortConfig)) -> String {
        let mut config = PortConfig {
            ifname: "lo".to_owned(),
            ..PortConfig::default()
        };
        change(&mut config);
        Port::open(&config).unwrap_err().to_string()
    }

    #[test]
    fn bad_numbers_are_refused_before_anything_is_touched() {
        assert_eq!(
            refusal(|config| config.queues = 0),
            "at least one queue must be opened"
        );
        for frames in [0, 1, 32, 65, 4095, 1 << 19, u32::MAX] {
            let text = refusal(|config| config.frames = frames);
            assert!(
                text.starts_with(&format!("{frames} frames per queue are not")),
                "{text}"
            );
        }
    }

    #[test]
    fn too_many_queues_say_how_many_there_are() {
        let text = refusal(|config| config.queues = 100_000);
        assert!(text.starts_with("lo has "), "{text}");
        assert!(text.contains("ethtool -L lo combined 100000"), "{text}");
        let text = refusal(|config| config.start_queue = u32::MAX);
        assert!(
            text.contains("1 from 4294967295 on was asked for"),
            "{text}"
        );
    }

    #[test]
    fn a_missing_interface_is_an_error_of_its_own() {
        let text = refusal(|config| config.ifname = "rw-not-there".to_owned());
        assert!(text.contains("there is no network interface"), "{text}");
    }
}
