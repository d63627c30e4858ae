//! Who makes the threads of devices.
//!
//! A device's threads come and go with its driver: DRIVER_OK starts them, on the vCPU's thread that wrote it,
//! and a command on the control queue changes how many there are. A VMM that confines its threads does not want
//! any of those to be able to make new ones: it hands the devices a [`ThreadMaker`] through their
//! [`Placement`].

use std::{
    fmt, io,
    thread::{self, JoinHandle},
};

use crate::placement::Placement;

/// What a device's thread does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ThreadKind {
    /// Moves the frames of a queue pair.
    Net,
    /// Serves the control queue of a network card, which starts and stops [`Net`](Self::Net) threads.
    NetControl,
    /// Carries out a disk's requests.
    Blk,
    /// Gives entropy.
    Rng,
}

/// A thread that a device wants.
pub struct NewThread {
    /// What it does.
    pub kind: ThreadKind,
    /// What it is called; there is no NUL in it. Linux shows the first 15 bytes.
    pub name: String,
    /// Where it runs: it is to [enter](Placement::enter) that before anything else.
    pub placement: Placement,
    /// Its whole life after that.
    pub work: Box<dyn FnOnce() + Send>,
}

impl NewThread {
    /// Starts it, on the thread that calls this: it inherits its mask of signals and its system call filters.
    ///
    /// # Errors
    /// The system's.
    pub fn start(self) -> io::Result<JoinHandle<()>> {
        let builder = thread::Builder::new().name(self.name.clone());
        builder.spawn(move || {
            self.placement.enter(&self.name);
            (self.work)();
        })
    }
}

impl fmt::Debug for NewThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewThread")
            .field("kind", &self.kind)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Makes threads for devices.
pub trait ThreadMaker: fmt::Debug + Send + Sync {
    /// Starts a thread. Called on any thread of the VM.
    ///
    /// # Errors
    /// There is no thread to be had; its work is gone then.
    fn make(&self, thread: NewThread) -> io::Result<JoinHandle<()>>;
}
