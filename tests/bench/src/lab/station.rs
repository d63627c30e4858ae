//! A booted guest with its wire, its far end and a server there.

use std::{
    fs,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use ringwire_tests::{Background, Guest, Options, Setup as Built, Wire};
use serde_json::Value;

use super::{Traffic, latency};
use crate::{cli::LabArgs, cpu, error::BenchError, rounds::Sample};

/// Beyond the time that iperf3 is asked to send.
const PATIENCE: Duration = Duration::from_secs(40);

/// As small as QEMU has one, with ACPI, since Debian's kernel finds no virtio device without, and with PCI, as Ringwire
/// has by default.
const QEMU_MACHINE: &str = "microvm,x-option-roms=off,isa-serial=on,rtc=on,acpi=on,pcie=on";

/// QEMU's card without checksums and segmentation, either way: what the guest's kernel does itself then.
const QEMU_PLAIN: &str = ",csum=off,gso=off,host_tso4=off,host_tso6=off,host_ecn=off,host_ufo=off,\
    guest_csum=off,guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off";
/// Ringwire's.
const PLAIN: &str = ",csum=off,tso=off,uso=off,gro=off";

/// Who runs the guest, and how it gets to the far end.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    /// As in the tables.
    name: &'static str,
    way: Way,
    /// What the card is told besides.
    card: &'static str,
}

/// How frames get to the far end.
#[derive(Debug, Clone)]
enum Way {
    /// `ringwire`, AF_XDP on one end of a veth pair, with these further keys of `--netdev`.
    Ringwire(&'static str),
    /// QEMU; the far end is a tap device.
    Tap {
        /// The program.
        qemu: PathBuf,
        /// Packets move in the kernel.
        vhost: bool,
    },
    /// QEMU, AF_XDP on one end of a veth pair.
    Afxdp(PathBuf),
}

impl Setup {
    /// Ours, then those it is compared with.
    pub(super) fn all(args: &LabArgs) -> Vec<Self> {
        let one = |name, way, card| Self { name, way, card };
        let tap = |vhost| Way::Tap {
            qemu: args.qemu.clone(),
            vhost,
        };
        let mut all = vec![
            one("Ringwire", Way::Ringwire(""), ""),
            one("Ringwire, offloads off", Way::Ringwire(""), PLAIN),
            one("Ringwire, skb mode", Way::Ringwire(",mode=skb"), ""),
            one("QEMU tap", tap(false), ""),
        ];
        if fs::exists("/dev/vhost-net").unwrap_or(false) {
            all.push(one("QEMU tap vhost", tap(true), ""));
            all.push(one("QEMU tap vhost, offloads off", tap(true), QEMU_PLAIN));
        }
        let afxdp = args.qemu_af_xdp.clone();
        all.extend(afxdp.map(|qemu| one("QEMU af-xdp", Way::Afxdp(qemu), "")));
        all
    }

    /// As in the tables.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    fn start(&self, wire: &Wire) -> Guest {
        let far = Wire::PEER_IFNAME;
        match &self.way {
            Way::Ringwire(keys) => {
                let card = format!("virtio-net-pci,netdev=net0{}", self.card);
                let options = Options::new().on_with(wire, keys);
                Guest::start(&options.arg("--device").arg(card))
            }
            Way::Afxdp(qemu) => {
                // The far end's kernel leaves checksums undone on veth. Ringwire tells its guest; this back end can't.
                wire.far(&format!("ethtool -K {far} tx off"));
                let netdev = format!("af-xdp,id=net0,ifname={}", Wire::IFNAME);
                let command = wire.vmm_command(qemu);
                Guest::of(arguments(command, &netdev, self.card))
            }
            Way::Tap { qemu, vhost } => {
                // In place of the veth pair.
                wire.far(&format!("ip link delete {far}"));
                wire.far(&format!("ip tuntap add dev {far} mode tap vnet_hdr"));
                wire.far(&format!("ip address add {}/24 dev {far}", Wire::PEER));
                wire.far(&format!("ip link set {far} up"));
                let vhost = if *vhost { "on" } else { "off" };
                let netdev =
                    format!("tap,id=net0,ifname={far},script=no,downscript=no,vhost={vhost}");
                let command = wire.peer_command(qemu);
                Guest::of(arguments(command, &netdev, self.card))
            }
        }
    }
}

/// The guest that [`Options::new`] describes, under QEMU.
fn arguments(mut command: Command, netdev: &str, card: &str) -> Command {
    let words = format!(
        "console=ttyS0 panic=-1 quiet ringwire.driven ringwire.ip={}/24",
        Wire::GUEST
    );
    command
        .args(["-M", QEMU_MACHINE, "-accel", "kvm", "-cpu", "host"])
        .args(["-smp", "2", "-m", "256", "-nodefaults", "-no-user-config"])
        .args(["-display", "none", "-no-reboot", "-serial", "stdio"])
        .args(["-L", "/usr/share/qemu", "-L", "/usr/share/seabios"])
        .args(["-netdev", netdev, "-device"])
        .arg(format!("virtio-net-pci,netdev=net0,romfile={card}"))
        .arg("-kernel")
        .arg(Built::vmlinux())
        .arg("-initrd")
        .arg(Built::initrd())
        .args(["-append", &words]);
    command
}

/// All of it. The guest goes first when dropped.
pub(super) struct Station {
    name: &'static str,
    /// `None` since a command was not answered: what comes on the console would be taken for the answer to the next
    /// one, and a guest that hangs takes CPU time from the others.
    guest: Option<Guest>,
    _server: Background,
    wire: Wire,
}

impl Station {
    /// Returns when the guest takes commands and both servers listen.
    pub(super) fn boot(setup: &Setup) -> Result<Self, BenchError> {
        let name = setup.name();
        guarded(name, "boot", || {
            let wire = Wire::new();
            receive_as_a_card(&wire);
            let mut guest = setup.start(&wire);
            guest.wait_for("ringwire-guest: ready");
            guest.ok(&format!(
                "nc -ll -p {} -e cat >/dev/null 2>&1 &",
                latency::PORT
            ));
            guest.ok(&format!("ping -q -c 1 -W 5 {}", Wire::PEER));
            let server = wire
                .far_background("iperf3 --server --forceflush")
                .after_line("listening");
            Self {
                name,
                guest: Some(guest),
                _server: server,
                wire,
            }
        })
    }

    /// As in the tables.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// One measurement.
    pub(super) fn measure(
        &mut self,
        case: &str,
        traffic: Traffic,
        time: Duration,
    ) -> Result<Sample, BenchError> {
        let name = self.name;
        // Put back if it answers; ended otherwise.
        let mut guest = self.guest.take().ok_or_else(|| BenchError::Contestant {
            who: name.into(),
            case: case.into(),
            what: "the guest has not answered an earlier command".into(),
        })?;
        let id = guest.id();
        let (before, start) = (cpu::used(id), Instant::now());
        let value = guarded(name, case, || match traffic {
            Traffic::Latency(percent) => self.latency(time, percent),
            Traffic::Tcp { streams, reverse } => {
                let reverse = if reverse { "--reverse" } else { "" };
                iperf(&mut guest, &format!("--parallel {streams} {reverse}"), time)
            }
            Traffic::Udp => iperf(&mut guest, "--udp --bitrate 0 --length 1448", time),
        })?;
        self.guest = Some(guest);
        let used = cpu::used(id).saturating_sub(before);
        let value = value.map_err(|what| BenchError::Contestant {
            who: name.into(),
            case: case.into(),
            what,
        })?;
        let cpu = Some(used.as_secs_f64() / start.elapsed().as_secs_f64());
        Ok(Sample {
            cpu,
            ..Sample::of(value)
        })
    }

    /// From the far end.
    fn latency(&self, time: Duration, percent: usize) -> Result<f64, String> {
        let wire = &self.wire;
        let ask = || {
            wire.enter(false);
            latency::measure(Wire::GUEST, time, percent)
        };
        let joined = thread::scope(|scope| scope.spawn(ask).join());
        let answer = joined.map_err(|_| "the far end can't be entered")?;
        answer.map_err(|error| format!("request and response: {error}"))
    }
}

/// The far end of the veth pair coalesces segments, in a thread of its own, as the card and the kernel of another machine
/// do. By itself veth does neither: each frame is received when it is sent, in whoever sends it. A tap device in its
/// place has nothing of that.
fn receive_as_a_card(wire: &Wire) {
    let far = Wire::PEER_IFNAME;
    wire.far(&format!("ethtool -K {far} gro on"));
    // Otherwise it takes its peer for one that sends large frames anyway.
    wire.near(&format!("ethtool -K {} tso off", Wire::IFNAME));
    let threaded = format!("echo 1 >/sys/class/net/{far}/threaded");
    let mut shell = wire.peer_command(Path::new("sh"));
    let status = shell.args(["-c", &threaded]).status();
    assert!(
        status.is_ok_and(|it| it.success()),
        "{far} can't receive in a thread of its own"
    );
}

/// The client is in the guest. Its console is a serial line: it gets one line of what is needed, not hundreds.
fn iperf(guest: &mut Guest, options: &str, time: Duration) -> Result<f64, String> {
    let seconds = time.as_secs();
    guest.send(&format!(
        "iperf3 -c {} -t {seconds} -J {options} >/tmp/result; s=$?; \
         sed -n '/^\\t\"end\"/,$p' /tmp/result | tr -d '\\n\\t '; echo; [ $s = 0 ] || grep error /tmp/result",
        Wire::PEER
    ));
    let output = guest.answer(time + PATIENCE);
    let text = output.text;
    arrived(&text).ok_or_else(|| {
        let from = text.char_indices().rev().nth(300).map_or(0, |it| it.0);
        format!("iperf3 {options}: {}", text.get(from..).unwrap_or_default())
    })
}

/// Mbit/s that arrived, from the last part of iperf3's JSON, `"end":{...}}`.
fn arrived(text: &str) -> Option<f64> {
    let line = text.lines().find(|it| it.starts_with("\"end\":"))?;
    let end: Value = serde_json::from_str(&format!("{{{line}")).ok()?;
    let end = end.get("end")?;
    let number = |sum: &Value, name: &str| sum.get(name).and_then(Value::as_f64);
    // UDP has one sum, the sender's, with what was lost.
    let bits = match end.get("sum") {
        Some(sum) => number(sum, "bits_per_second")? * (1.0 - number(sum, "lost_percent")? / 100.0),
        None => number(end.get("sum_received")?, "bits_per_second")?,
    };
    Some(bits / 1e6)
}

/// What the tests' guests do when something is wrong is panic, with all that is known; here the others go on.
fn guarded<T>(who: &str, case: &str, run: impl FnOnce() -> T) -> Result<T, BenchError> {
    panic::catch_unwind(AssertUnwindSafe(run)).map_err(|_| BenchError::Contestant {
        who: who.into(),
        case: case.into(),
        what: "failed; see above".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrived_is_told_for_both_protocols() {
        let tcp = "x\n\"end\":{\"sum_sent\":{\"bits_per_second\":9e6},\"sum_received\":{\"bits_per_second\":8e6}}}\n";
        assert_eq!(arrived(tcp), Some(8.0));
        let udp = "\"end\":{\"sum\":{\"bits_per_second\":8e6,\"lost_percent\":25}}}";
        assert_eq!(arrived(udp), Some(6.0));
        assert_eq!(arrived("error - unable to connect"), None);
    }
}
