//! Whether the XDP program is still there.

use std::io;

use crate::{
    interface::{Interface, InterfaceError},
    netlink::{Asker, Which},
    program::ForeignProgram,
};

/// What became of the XDP program that was on the interface when it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProgramStatus {
    /// It is there. With no program at first: there still is none.
    InPlace,
    /// There is none any more: frames go to the kernel.
    Gone,
    /// Another is there, and decides where frames go.
    Replaced(ForeignProgram),
    /// The interface was deleted or moved to another network namespace.
    InterfaceGone,
}

/// Compares the program on an interface with the one of the start.
#[derive(Debug)]
pub(crate) struct ProgramWatch {
    /// In the network namespace that the interface was opened in.
    asker: Asker,
    index: u32,
    id: Option<u32>,
}

impl ProgramWatch {
    /// Remembers the program that is there now.
    ///
    /// # Errors
    /// [`InterfaceError`].
    pub(crate) fn start(interface: &Interface) -> Result<Self, InterfaceError> {
        let index = interface.index();
        let refused = |source| InterfaceError::Query {
            name: interface.name().to_owned(),
            source,
        };
        let mut asker = Asker::open().map_err(refused)?;
        let info = asker.ask(Which::Index(index)).map_err(refused)?;
        let id = info.xdp.map(|program| program.id);
        Ok(Self { asker, index, id })
    }

    /// The interface's name now.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn name(&mut self) -> io::Result<String> {
        Ok(self.asker.ask(Which::Index(self.index))?.name)
    }

    /// What is there now.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn status(&mut self) -> io::Result<ProgramStatus> {
        let now = match self.asker.ask(Which::Index(self.index)) {
            Ok(info) => info.xdp,
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {
                return Ok(ProgramStatus::InterfaceGone);
            }
            Err(error) => return Err(error),
        };
        Ok(match now {
            Some(program) if Some(program.id) != self.id => ProgramStatus::Replaced(program),
            None if self.id.is_some() => ProgramStatus::Gone,
            _ => ProgramStatus::InPlace,
        })
    }
}
