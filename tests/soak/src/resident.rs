//! What lives on a wire: a VM at its near end, and what speaks with it at its far end.

use std::{ops::AddAssign, path::PathBuf, process::ExitStatus, sync::Arc};

use ringwire_tests::Wire;

use crate::{
    problem::Outcome, process::Ending, random::Random, setting::Setting, station::Station,
};

/// What VMs are made of.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    /// The `ringwire` program.
    pub(crate) ringwire: PathBuf,
    /// The hostile bare guest.
    pub(crate) guest: PathBuf,
    /// Whether this kernel takes `tx-metadata=on` on a wire.
    pub(crate) metadata: bool,
}

/// What came through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Entries of the catalogue that a bare guest did.
    pub(crate) entries: u64,
    /// Frames, or datagrams, whose every byte was right.
    pub(crate) frames: u64,
    /// Frames of floods.
    pub(crate) floods: u64,
    /// Flows of Linux guests.
    pub(crate) flows: u64,
    /// Those over UDP that lost what tells their end.
    pub(crate) cut: u64,
    /// Bytes of TCP that were all right.
    pub(crate) bytes: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.entries += other.entries;
        self.frames += other.frames;
        self.floods += other.floods;
        self.flows += other.flows;
        self.cut += other.cut;
        self.bytes += other.bytes;
    }
}

/// One kind of them.
pub(crate) trait Resident: Sized {
    /// For the table.
    const NAME: &'static str;

    /// Whether its guest can switch itself off.
    const POWERS_OFF: bool;

    /// Queues that both interfaces of the wire are to have.
    fn channels(setting: &Setting) -> u32;

    /// Starts both ends, and waits until frames are exchanged.
    fn start(
        programs: &Programs,
        wire: &Arc<Wire>,
        setting: &Setting,
        random: &mut Random,
    ) -> Outcome<Self>;

    /// The process id of `ringwire`.
    fn id(&self) -> u32;

    /// What it has said on standard error.
    fn log(&self) -> String;

    /// Whether all is as it must be.
    fn check(&mut self) -> Outcome;

    /// What came through so far.
    fn tally(&self) -> Tally;

    /// Begins what an event is to happen in; `cuts`: the event takes the network away from one end for a while.
    fn begin(station: &mut Station<Self>, random: &mut Random, cuts: bool) -> Outcome;

    /// Lets something happen that only this kind knows, and says what. What it begins with [`begin`](Self::begin) is up to
    /// itself.
    fn happen(station: &mut Station<Self>, random: &mut Random) -> Outcome<&'static str>;

    /// Waits until frames come through again.
    fn settle(station: &mut Station<Self>, after: &str) -> Outcome;

    /// Looks at the guest before its end; with `PowerOff` it switches itself off.
    fn before_end(&mut self, ending: Ending) -> Outcome;

    /// Waits for the end; the status and all that was said.
    fn wait(&mut self) -> Outcome<(ExitStatus, String)>;
}
