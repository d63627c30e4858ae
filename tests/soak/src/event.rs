//! What befalls a station.

use std::{thread, time::Duration};

use ringwire_tests::Wire;
use rustix::process::Signal;

use crate::{
    problem::{Outcome, wrong},
    random::Random,
    station::{QUEUES, Station},
};

const NEAR: &str = Wire::IFNAME;
const FAR: &str = Wire::PEER_IFNAME;
/// Bytes of a frame's payload that every test frame has room in.
const MTU: u32 = 1500;

/// One of the things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// The interface goes down and comes back.
    Flap,
    /// The peer does.
    FarFlap,
    /// The interface has another MTU for a while.
    Mtu,
    /// The interface has another number of channels for a while, if the kernel lets it.
    Channels,
    /// The interface has another name for a while.
    Rename,
    /// The process is stopped for a while.
    Stop,
    /// The far end takes and sends nothing for a while.
    Pause,
    /// The far end sends as much as it can for a while.
    Flood,
    /// The control loop is asked for counters.
    Counters,
    /// Nothing, for a while.
    Quiet,
    /// SIGTERM, and a new process.
    Terminate,
    /// SIGKILL, and a new process.
    Kill,
    /// The interface is moved to another namespace and back; a new process.
    Move,
    /// The interface is deleted and made again; a new process.
    Delete,
}

impl Event {
    /// What a process outlives.
    const OUTLIVED: [Self; 10] = [
        Self::Flap,
        Self::FarFlap,
        Self::Mtu,
        Self::Channels,
        Self::Rename,
        Self::Stop,
        Self::Pause,
        Self::Flood,
        Self::Counters,
        Self::Quiet,
    ];

    const LAST: [Self; 4] = [Self::Terminate, Self::Kill, Self::Move, Self::Delete];

    /// One at random; `lasting`: the process is to live on.
    pub(crate) fn random(random: &mut Random, lasting: bool) -> Self {
        if !lasting && random.next().is_multiple_of(4) {
            return random.one_of(Self::LAST);
        }
        random.one_of(Self::OUTLIVED)
    }

    /// Lets it happen, and waits until frames come through again.
    pub(crate) fn happen(self, station: &mut Station, random: &mut Random) -> Outcome {
        let pause = random.pause(50);
        match self {
            Self::Flap => {
                station.near(&format!("ip link set {NEAR} down"));
                station.watch(pause)?;
                station.near(&format!("ip link set {NEAR} up"));
            }
            Self::FarFlap => {
                station.far(&format!("ip link set {FAR} down"));
                station.watch(pause)?;
                station.far(&format!("ip link set {FAR} up"));
            }
            Self::Mtu => {
                let mtu = random.one_of([576, 1400, 1501, 3000]);
                station.near(&format!("ip link set {NEAR} mtu {mtu}"));
                station.watch(pause)?;
                station.near(&format!("ip link set {NEAR} mtu {MTU}"));
            }
            Self::Channels => {
                let count = random.one_of([1, 2]);
                station.near(&format!("ethtool -L {NEAR} rx {count} tx {count}"));
                station.watch(pause)?;
                station.near(&format!("ethtool -L {NEAR} rx {QUEUES} tx {QUEUES}"));
            }
            Self::Rename => {
                station.near(&format!("ip link set {NEAR} name other0"));
                station.watch(pause)?;
                station.near(&format!("ip link set other0 name {NEAR}"));
            }
            Self::Stop => {
                station.vm.signal(Signal::STOP)?;
                station.watch(pause)?;
                station.vm.signal(Signal::CONT)?;
            }
            Self::Pause => {
                station.reflector.pause(true);
                station.watch(pause)?;
                station.reflector.pause(false);
            }
            Self::Flood => {
                station.reflector.flood(true);
                station.watch(pause)?;
                station.reflector.flood(false);
            }
            Self::Counters => counters(station)?,
            Self::Quiet => station.watch(4 * pause)?,
            Self::Terminate => station.replace(Signal::TERM, random, |_| Ok(()))?,
            Self::Kill => station.replace(Signal::KILL, random, |_| Ok(()))?,
            Self::Move => station.replace(Signal::TERM, random, |station| {
                station.wire.take_away();
                station.watch(pause)?;
                station.wire.bring_back();
                Ok(())
            })?,
            Self::Delete => station.replace(Signal::TERM, random, |station| {
                station.near(&format!("ip link delete {NEAR}"));
                station.watch(pause)?;
                station.wire.lay(QUEUES);
                station.renew_reflector();
                Ok(())
            })?,
        }
        station.await_frames(&format!("{self:?}"))
    }
}

/// The control loop answers, whatever the guest does.
fn counters(station: &mut Station) -> Outcome {
    let from = station.vm.log_len();
    station.vm.signal(Signal::USR1)?;
    for _ in 0..1000 {
        if station.vm.has_logged(from, "netdev 'net0': guest") {
            return Ok(());
        }
        station.check()?;
        thread::sleep(Duration::from_millis(20));
    }
    wrong("the control loop does not answer SIGUSR1 within 20 s")
}
