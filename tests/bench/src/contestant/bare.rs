//! The bare guest of `tests/guests` under a VMM, with its card on the near end.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use ringwire_tests::Wire;
use serde_json::Value;

use super::{Contestant, Line};
use crate::{
    case::{Case, Work},
    cpu::Cpus,
};

/// The guest's memory.
const MEMORY: &str = "64";

/// As small as QEMU has one.
const QEMU_MACHINE: &str =
    "microvm,x-option-roms=off,isa-serial=on,pit=off,pic=off,rtc=off,acpi=off,memory-backend=ram";

/// Whose virtual machine.
#[derive(Debug, Clone)]
pub(crate) enum Vmm {
    /// `ringwire`, this program.
    Ringwire(PathBuf),
    /// A QEMU that has the AF_XDP back end.
    Qemu(PathBuf),
}

impl Vmm {
    /// As in the tables.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Ringwire(_) => "Ringwire",
            Self::Qemu(_) => "QEMU af-xdp",
        }
    }

    /// The program.
    pub(crate) fn program(&self) -> &Path {
        match self {
            Self::Ringwire(program) | Self::Qemu(program) => program,
        }
    }

    /// Whether a thread of that name moves frames: our I/O threads; in QEMU the main loop, which has no name of its own.
    pub(crate) fn moves_frames(&self, thread: &str) -> bool {
        match self {
            Self::Ringwire(_) => thread.starts_with("net"),
            Self::Qemu(_) => !self.is_vcpu(thread),
        }
    }

    /// Whether a thread of that name is a vCPU.
    pub(crate) fn is_vcpu(&self, thread: &str) -> bool {
        match self {
            Self::Ringwire(_) => thread.starts_with("vcpu"),
            Self::Qemu(_) => thread.starts_with("CPU "),
        }
    }

    /// MiB of frames for one queue: 4096 frames of 4 KiB, and twice that in QEMU (net/af-xdp.c).
    pub(crate) fn frame_memory(&self) -> f64 {
        match self {
            Self::Ringwire(_) => 16.0,
            Self::Qemu(_) => 32.0,
        }
    }

    /// Boots `kernel` with one AF_XDP card on the near end, its serial port on stdin and stdout, guest RAM in shared
    /// memory.
    pub(crate) fn arguments(&self, command: &mut Command, kernel: &Path, words: &str) {
        self.arguments_with(More::default(), command, kernel, words);
    }

    /// The same with more for the card.
    fn arguments_with(&self, more: More, command: &mut Command, kernel: &Path, words: &str) {
        let More { netdev, card } = more;
        let netdev = format!("af-xdp,id=net0,ifname={}{netdev}", Wire::IFNAME);
        match self {
            Self::Ringwire(_) => command
                .args(["run", "--cpus", "1", "--memory"])
                .arg(format!("{MEMORY}M"))
                .args(["--netdev", &netdev])
                .args(["--device", &format!("virtio-net-mmio,netdev=net0{card}")])
                .arg("--kernel")
                .arg(kernel)
                // The guest looks for its card on the command line.
                .args(["--cmdline", &format!("acpi=off {words}")]),
            Self::Qemu(_) => command
                .args(["-M", QEMU_MACHINE, "-accel", "kvm"])
                .args(["-cpu", "host,-arch-capabilities", "-m", MEMORY, "-object"])
                .arg(format!(
                    "memory-backend-memfd,id=ram,size={MEMORY}M,share=on"
                ))
                // Threads with names, to tell the vCPU from the rest.
                .args(["-name", "guest,debug-threads=on"])
                .args(["-nodefaults", "-no-user-config", "-no-reboot"])
                .args(["-display", "none", "-serial", "stdio"])
                // Firmware: it was built without, and takes that of the machine's own emulator.
                .args(["-L", "/usr/share/qemu", "-L", "/usr/share/seabios"])
                .args(["-global", "virtio-mmio.force-legacy=false"])
                .args(["-netdev", &netdev])
                .args(["-device", &format!("virtio-net-device,netdev=net0{card}")])
                .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-kernel"])
                .arg(kernel)
                .args(["-append", words]),
        };
    }
}

/// A VMM with the guest.
#[derive(Debug, Clone)]
pub(crate) struct Bare {
    /// Whose.
    pub(crate) vmm: Vmm,
    /// The guest: tests/guests, `traffic`.
    pub(crate) guest: PathBuf,
    /// As in the tables.
    pub(crate) name: &'static str,
    /// More words on its command line.
    pub(crate) words: String,
    /// More for its card.
    pub(crate) more: More,
}

/// More `,key=value` for a card.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct More {
    /// For `--netdev`.
    pub(crate) netdev: &'static str,
    /// For `--device`.
    pub(crate) card: &'static str,
}

impl Bare {
    /// As people start it.
    pub(crate) fn new(vmm: Vmm, guest: PathBuf) -> Self {
        Self {
            name: vmm.name(),
            vmm,
            guest,
            words: String::new(),
            more: More::default(),
        }
    }
}

/// What the guest calls a piece of work.
fn mode(work: Work) -> &'static str {
    match work {
        Work::TxPush => "tx",
        Work::RxDrop => "rx",
        Work::L2Fwd => "fwd",
    }
}

impl Contestant for Bare {
    fn name(&self) -> &'static str {
        self.name
    }

    fn command(&self, case: Case, wire: &Wire, _cpus: Cpus, seconds: f64) -> Command {
        // The vCPU, the I/O thread and the generator share the CPUs as the scheduler likes.
        let words = format!(
            "mode={} size={} seconds={} {}",
            mode(case.work),
            case.size,
            seconds.ceil(),
            self.words
        );
        let mut command = wire.vmm_command(self.vmm.program());
        self.vmm
            .arguments_with(self.more, &mut command, &self.guest, &words);
        command
    }

    fn received(&self, lines: &[Line], _from: Instant, _to: Instant) -> Option<f64> {
        lines.iter().find_map(|it| rate(&it.text))
    }

    fn flows(&self, lines: &[Line]) -> bool {
        // The generator sends already.
        lines.iter().any(|it| it.text.trim_end() == "ready")
    }

    fn reports_at_its_end(&self) -> bool {
        true
    }

    fn moves_frames(&self, thread: &str) -> bool {
        self.vmm.moves_frames(thread)
    }
}

/// A number in the line of JSON with which the guest ends.
pub(crate) fn reported(line: &str, name: &str) -> Option<f64> {
    let report: Value = serde_json::from_str(line).ok()?;
    report.get(name).and_then(Value::as_f64)
}

/// Frames a second, from the same line.
fn rate(line: &str) -> Option<f64> {
    let seconds = reported(line, "cycles")? / reported(line, "tsc_khz")? / 1000.0;
    Some(reported(line, "packets")? / seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_of_the_guests_own_clock() {
        let line = r#"{"mode":"rx","packets":3000,"cycles":6000000,"tsc_khz":2000}"#;
        assert_eq!(rate(line), Some(1000.0));
        assert_eq!(rate("ready"), None);
        assert_eq!(rate(r#"{"error":"no card"}"#), None);
    }
}
