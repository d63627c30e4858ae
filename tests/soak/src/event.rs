//! What befalls a station.

use std::{thread, time::Duration};

use ringwire_tests::Wire;
use rustix::process::Signal;

use crate::{
    problem::{Outcome, wrong},
    process::Ending,
    random::Random,
    resident::Resident,
    station::Station,
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
    /// The control loop is asked for counters.
    Counters,
    /// Nothing, for a while.
    Quiet,
    /// What only this kind of guest, or its far end, does.
    Own,
    /// SIGTERM, and a new process.
    Terminate,
    /// SIGKILL, and a new process.
    Kill,
    /// The guest switches itself off, if it can, and a new process.
    PowerOff,
    /// The interface is moved to another namespace and back; a new process.
    Move,
    /// The interface is deleted and made again, or the card pulled and put back; a new process.
    Delete,
}

impl Event {
    /// What a process outlives.
    const OUTLIVED: [Self; 8] = [
        Self::Flap,
        Self::FarFlap,
        Self::Mtu,
        Self::Channels,
        Self::Rename,
        Self::Stop,
        Self::Counters,
        Self::Quiet,
    ];

    const LAST: [Self; 5] = [
        Self::Terminate,
        Self::Kill,
        Self::PowerOff,
        Self::Move,
        Self::Delete,
    ];

    /// One at random; `lasting`: the process is to live on.
    pub(crate) fn random(random: &mut Random, lasting: bool) -> Self {
        if !lasting && random.next().is_multiple_of(4) {
            return random.one_of(Self::LAST);
        }
        if random.next().is_multiple_of(2) {
            Self::Own
        } else {
            random.one_of(Self::OUTLIVED)
        }
    }

    /// Lets it happen, and waits until frames come through again; what happened.
    pub(crate) fn happen<R: Resident>(
        self,
        station: &mut Station<R>,
        random: &mut Random,
    ) -> Outcome<String> {
        let mut name = format!("{self:?}");
        match self {
            Self::Own => name = R::happen(station, random)?.to_owned(),
            // What it is to happen in is left in the middle.
            Self::Terminate | Self::Kill | Self::PowerOff | Self::Move | Self::Delete => {
                R::begin(station, random, false)?;
                self.end(station, random)?;
            }
            _ => {
                // The far end's kernel loses its routes with its link.
                R::begin(station, random, self == Self::FarFlap)?;
                self.pass(station, random)?;
            }
        }
        R::settle(station, &name)?;
        Ok(name)
    }

    /// Something comes and goes.
    fn pass<R: Resident>(self, station: &mut Station<R>, random: &mut Random) -> Outcome {
        let pause = random.pause(50);
        let mtu = random.one_of([576, 1400, 1501, 3000]);
        let count = random.one_of([1, 2]);
        let all = R::channels(&station.setting);
        let channels =
            |count| format!("ethtool -L {NEAR} {}", station.setting.link.channels(count));
        let (fewer, back) = (channels(count), channels(all));
        let link = |action: &str| format!("ip link set {action}");
        match self {
            Self::Flap => there_and_back(
                station,
                pause,
                &link(&format!("{NEAR} down")),
                &link(&format!("{NEAR} up")),
            ),
            Self::Mtu => there_and_back(
                station,
                pause,
                &link(&format!("{NEAR} mtu {mtu}")),
                &link(&format!("{NEAR} mtu {MTU}")),
            ),
            Self::Channels => there_and_back(station, pause, &fewer, &back),
            Self::Rename => there_and_back(
                station,
                pause,
                &link(&format!("{NEAR} name other0")),
                &link(&format!("other0 name {NEAR}")),
            ),
            Self::FarFlap => {
                station.far(&link(&format!("{FAR} down")));
                station.watch(pause)?;
                station.far(&link(&format!("{FAR} up")));
                Ok(())
            }
            Self::Stop => {
                station.signal(Signal::STOP)?;
                station.watch(pause)?;
                station.signal(Signal::CONT)
            }
            Self::Counters => counters(station),
            _ => station.watch(4 * pause),
        }
    }

    /// The process ends, and another takes its place.
    fn end<R: Resident>(self, station: &mut Station<R>, random: &mut Random) -> Outcome {
        let pause = random.pause(50);
        match self {
            Self::Kill => station.replace(Ending::Kill, random, |_| Ok(())),
            Self::PowerOff if R::POWERS_OFF => {
                station.replace(Ending::PowerOff, random, |_| Ok(()))
            }
            Self::Move => station.replace(Ending::Terminate, random, |station| {
                station.wire.take_away();
                station.watch(pause)?;
                station.wire.bring_back();
                Ok(())
            }),
            Self::Delete => station.replace(Ending::Terminate, random, |station| {
                let link = station.setting.link;
                link.cut(&station.wire);
                station.watch(pause)?;
                link.mend(&station.wire);
                Ok(())
            }),
            _ => station.replace(Ending::Terminate, random, |_| Ok(())),
        }
    }
}

/// Both are tried at the near end, with a pause between them.
fn there_and_back<R: Resident>(
    station: &mut Station<R>,
    pause: Duration,
    there: &str,
    back: &str,
) -> Outcome {
    station.near(there);
    station.watch(pause)?;
    station.near(back);
    Ok(())
}

/// The control loop answers, whatever the guest does.
fn counters<R: Resident>(station: &mut Station<R>) -> Outcome {
    let from = station.resident.log().len();
    station.signal(Signal::USR1)?;
    for _ in 0..1000 {
        let log = station.resident.log();
        if log
            .get(from..)
            .is_some_and(|it| it.contains("netdev 'net0': guest"))
        {
            return Ok(());
        }
        station.resident.check()?;
        thread::sleep(Duration::from_millis(20));
    }
    wrong("the control loop does not answer SIGUSR1 within 20 s")
}
