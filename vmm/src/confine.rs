//! Confinement: what a running VM can't do any more, whoever has got hold of one of its threads.
//!
//! A machine that is built has all that it needs: files, sockets, memory. Before its guest runs, the process
//! gives up its privileges and the right to open anything (`Confinement::begin`), and each thread gets a filter
//! of the system calls that it has use for (`Confinement::enter`). A call that is not among them ends the process, in
//! words (`trap`). docs/confinement.md says it all; its tables are made from `allowed`.
//!
//! Only the thread that begins, and those that are started afterwards, are confined, for good.

use std::{
    collections::HashMap,
    fmt, io,
    mem::ManuallyDrop,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use devices::threads::{NewThread, ThreadMaker};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use seccompiler::BpfProgram;

use crate::privileges::{self, PrivilegeError, User};

mod allowed;
#[cfg(test)]
mod docs;
mod filter;
mod kind;
mod landlock;
mod names;
mod spawner;
#[cfg(test)]
mod tests;
mod trap;
#[cfg(debug_assertions)]
mod trespass;

pub(crate) use kind::AttendantKind;
pub use kind::ThreadKind;
use spawner::{Handle, Spawner};

/// How a VM is confined.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConfineConfig {
    /// Who runs it from then on; `None`: the user that started it.
    pub user: Option<User>,
}

/// Why a VM is not confined, and so does not run.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// privileges
    #[error(transparent)]
    Privileges(#[from] PrivilegeError),
    /// other things of the process
    #[error("could not {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// a filter that can't be made: a bug
    #[error("could not make the filter of the threads {kind}: {source}")]
    Make {
        /// Whose.
        kind: ThreadKind,
        /// Why.
        source: seccompiler::BackendError,
    },
    /// the same of a process that only waits
    #[error("could not make the filter of a process that only waits: {0}")]
    MakeAttendants(#[source] seccompiler::BackendError),
    /// the kernel does not take a filter
    #[error(
        "could not limit the system calls of the thread {thread}: {source}. It takes a kernel with CONFIG_SECCOMP_FILTER"
    )]
    Apply {
        /// Whose.
        thread: String,
        /// What the system said.
        source: seccompiler::Error,
    },
    /// the thread that makes threads
    #[error("could not start the thread that makes the devices' threads: {0}")]
    Spawner(#[source] io::Error),
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> ConfineError {
    move |source| ConfineError::System { what, source }
}

/// Everybody's filter, ready to be applied.
struct Filters {
    own: HashMap<ThreadKind, BpfProgram>,
    /// The spawner's, besides.
    absences: BpfProgram,
}

impl fmt::Debug for Filters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Filters")
    }
}

impl Filters {
    fn new() -> Result<Self, ConfineError> {
        let failed = |kind| move |source| ConfineError::Make { kind, source };
        let made = ThreadKind::ALL.map(|kind| {
            let filter = filter::of(kind);
            filter.map(|filter| (kind, filter)).map_err(failed(kind))
        });
        Ok(Self {
            own: made.into_iter().collect::<Result<_, _>>()?,
            absences: filter::of_absences().map_err(failed(ThreadKind::Spawner))?,
        })
    }

    /// Limits the calling thread, `name`, to what its kind may do.
    fn enter(&self, kind: ThreadKind, name: &str) -> Result<(), ConfineError> {
        trap::set_name(name);
        let refused = |source| ConfineError::Apply {
            thread: name.to_owned(),
            source,
        };
        let filter = self.own.get(&kind).ok_or(seccompiler::Error::EmptyFilter);
        let filter = filter.map_err(refused)?;
        if kind == ThreadKind::Spawner {
            seccompiler::apply_filter(&self.absences).map_err(refused)?;
        }
        seccompiler::apply_filter(filter).map_err(refused)?;
        #[cfg(debug_assertions)]
        trespass::if_asked_to(name);
        Ok(())
    }
}

/// A VM's confinement, which its devices get their threads from. Not begun, it makes them as usual.
#[derive(Debug, Default)]
pub(crate) struct Confinement(Mutex<State>);

#[derive(Debug, Default)]
enum State {
    #[default]
    Off,
    On {
        filters: Arc<Filters>,
        spawner: Spawner,
    },
    /// The devices are reset, and no thread is made any more.
    Ended,
}

impl Confinement {
    /// Gives up what the process does not need any more. What is built is kept; the calling thread still has
    /// to [`enter`](Self::enter). Returns what was done, for people.
    ///
    /// # Errors
    /// [`ConfineError`]; some of it may be done then.
    pub(crate) fn begin(&self, config: ConfineConfig) -> Result<String, ConfineError> {
        let filters = Arc::new(Filters::new()?);
        trap::install().map_err(system("install the handler of SIGSYS"))?;
        // Before, too: without privileges it is like others of its user, who may look into it otherwise. Another user
        // changes it.
        not_dumpable()?;
        let groups = privileges::drop_groups();
        privileges::drop_all(config.user)?;
        not_dumpable()?;
        let landlock = landlock::restrict().map_err(system("restrict files by Landlock"))?;
        self.refuse()?;
        let spawner = Spawner::start(Arc::clone(&filters))?;
        *self.state() = State::On { filters, spawner };
        Ok(Summary { groups, landlock }.to_string())
    }

    /// All threads from now on get EACCES for what libraries try by themselves.
    fn refuse(&self) -> Result<(), ConfineError> {
        let kind = ThreadKind::Main;
        let filter = filter::of_refusals();
        let filter = filter.map_err(|source| ConfineError::Make { kind, source })?;
        seccompiler::apply_filter(&filter).map_err(|source| ConfineError::Apply {
            thread: kind.to_string(),
            source,
        })
    }

    /// Limits the calling thread, `name`, to what its kind may do, for good.
    ///
    /// # Errors
    /// [`ConfineError::Apply`].
    pub(crate) fn enter(&self, kind: ThreadKind, name: &str) -> Result<(), ConfineError> {
        let filters = match &*self.state() {
            State::On { filters, .. } => Arc::clone(filters),
            State::Off | State::Ended => return Ok(()),
        };
        filters.enter(kind, name)
    }

    /// No thread is wanted any more.
    pub(crate) fn end(&self) {
        let state = std::mem::replace(&mut *self.state(), State::Ended);
        if let State::On { spawner, .. } = state {
            spawner.end();
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawner(&self) -> io::Result<Option<Handle>> {
        match &*self.state() {
            State::Off => Ok(None),
            State::On { spawner, .. } => Ok(Some(spawner.handle())),
            State::Ended => Err(io::Error::other("the VM has ended")),
        }
    }
}

impl ThreadMaker for Confinement {
    fn make(&self, thread: NewThread) -> io::Result<JoinHandle<()>> {
        match self.spawner()? {
            Some(spawner) => spawner.make(thread),
            None => thread.start(),
        }
    }
}

fn not_dumpable() -> Result<(), ConfineError> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(io::Error::from)
        .map_err(system("make the process undumpable"))
}

/// Leaves the calling process, which has no privileges any more, what an attendant of that kind does.
///
/// # Errors
/// [`ConfineError`].
pub(crate) fn enter_attendant(kind: AttendantKind) -> Result<(), ConfineError> {
    match kind {
        AttendantKind::Holder => {
            landlock::restrict().map_err(system("restrict files by Landlock"))?;
        }
        // It is to remove a directory, and its filter allows nothing else with files.
        AttendantKind::Remover => {}
    }
    // Never freed: from here on that could be a forbidden call.
    let filter =
        ManuallyDrop::new(filter::of_attendant(kind).map_err(ConfineError::MakeAttendants)?);
    seccompiler::apply_filter(&filter).map_err(|source| ConfineError::Apply {
        thread: "main".to_owned(),
        source,
    })
}

/// What was done, for people.
struct Summary {
    groups: bool,
    landlock: Option<i64>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no capabilities, no_new_privs, not dumpable, ")?;
        if !self.groups {
            f.write_str("supplementary groups kept (that takes CAP_SETGID), ")?;
        }
        match self.landlock {
            Some(version) => write!(f, "no files to open (Landlock {version})")?,
            None => f.write_str("no Landlock in this kernel")?,
        }
        f.write_str(", system calls limited for each thread (seccomp)")
    }
}
