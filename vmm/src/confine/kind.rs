//! The kinds of threads, by what they do.

use std::fmt;

use devices::threads::ThreadKind as DeviceThread;

/// What a thread does, and so which system calls it has use for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ThreadKind {
    /// `main`: the control loop.
    Main,
    /// `vcpuN`: runs the guest.
    Vcpu,
    /// `netN`, `netN.K`: moves frames.
    Net,
    /// `netN.ctrl`: serves the control queue.
    NetControl,
    /// `blkN`: a disk.
    Blk,
    /// `rng0`: entropy.
    Rng,
    /// `console`: feeds the serial port.
    Console,
    /// `console.out`: writes what came from the serial port.
    ConsoleOutput,
    /// `spawner`: makes the devices' threads.
    Spawner,
}

/// What a process that waits for its maker's end does then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AttendantKind {
    /// It only ends itself.
    Holder,
    /// It removes an empty directory of the one that it holds as its standard error.
    Remover,
}

impl ThreadKind {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 9] = [
        Self::Main,
        Self::Vcpu,
        Self::Net,
        Self::NetControl,
        Self::Blk,
        Self::Rng,
        Self::Console,
        Self::ConsoleOutput,
        Self::Spawner,
    ];

    /// What threads of that kind are called.
    pub fn names(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Vcpu => "vcpuN",
            Self::Net => "netN, netN.K",
            Self::NetControl => "netN.ctrl",
            Self::Blk => "blkN",
            Self::Rng => "rngN",
            Self::Console => "console",
            Self::ConsoleOutput => "console.out",
            Self::Spawner => "spawner",
        }
    }
}

impl fmt::Display for ThreadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.names())
    }
}

impl From<DeviceThread> for ThreadKind {
    fn from(kind: DeviceThread) -> Self {
        match kind {
            DeviceThread::Net => Self::Net,
            DeviceThread::NetControl => Self::NetControl,
            DeviceThread::Blk => Self::Blk,
            DeviceThread::Rng => Self::Rng,
        }
    }
}
