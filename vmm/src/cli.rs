//! The command line of `ringwire`.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};

use crate::{
    config::{SerialConfig, Transport, VmConfig},
    exit::STATUS_HELP,
    privileges::User,
};

pub mod check;
mod confine;
pub mod jail;
pub mod memory;
pub mod netdev;
pub mod offloads;
pub mod open;
pub mod options;
mod pin;
mod rate;
pub mod serial;
pub mod source;

use check::CheckArgs;
use jail::{JAIL_HELP, JailArgs};
use memory::MemoryArg;
use netdev::NetdevError;
use open::{OPEN_HELP, OpenArgs};

/// A small KVM virtual machine monitor whose network card is an AF_XDP socket
#[derive(Debug, Parser)]
#[command(name = "ringwire", version, after_help = STATUS_HELP)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// More messages on standard error: -v what happens, -vv every detail (never per packet)
    #[arg(short, long, action = ArgAction::Count, global = true)]
    pub verbose: u8,
}

/// What `ringwire` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Boot a guest
    #[command(after_help = STATUS_HELP)]
    Run(Box<RunArgs>),
    /// Open network cards, give up all privileges, and run a command (such as `ringwire run`) that
    /// uses them
    #[command(after_help = OPEN_HELP)]
    Open(OpenArgs),
    /// Boot a guest in namespaces of its own, in a root directory with nothing but the files that it was given, and
    /// in a cgroup
    #[command(after_help = JAIL_HELP)]
    Jail(JailArgs),
    /// Say whether this host can do something; exit status 0 for yes, 1 for no
    Check(CheckArgs),
}

/// `ringwire run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Kernel: a bzImage (vmlinuz), or an ELF file (vmlinux) with a PVH entry
    #[arg(long, value_name = "FILE")]
    pub kernel: PathBuf,
    /// Initial RAM disk
    #[arg(long, value_name = "FILE")]
    pub initrd: Option<PathBuf>,
    /// Kernel command line, added to `console=ttyS0 reboot=acpi panic=-1`; with acpi=off in it there is no PCI, and
    /// the virtio devices are described by virtio_mmio.device= instead of by ACPI
    #[arg(
        long,
        value_name = "STR",
        default_value = "",
        hide_default_value = true
    )]
    pub cmdline: String,
    /// Number of vCPUs, up to the host's number of CPUs
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub cpus: u32,
    /// Guest memory: K, M, G or T after the number, MiB without; with hugepages=on from the huge pages
    /// that were set aside on this host (sysctl vm.nr_hugepages)
    #[arg(long, value_name = "SIZE|size=SIZE,hugepages=on|off", default_value = "256M", value_parser = memory::memory)]
    pub memory: MemoryArg,
    /// Serial console: stdio (Ctrl-A x leaves), null, or file=PATH for its output, whose older half goes
    /// whenever it reaches limit=SIZE (16M; off: it grows without end)
    #[arg(long, value_name = "stdio|null|file=PATH[,limit=SIZE|off]", default_value = "stdio", value_parser = serial::serial)]
    pub serial: SerialConfig,
    /// Disk (virtio-blk), a raw image or a block device; may be repeated
    ///
    /// serial=TEXT (blk0, blk1, ...) is what a Linux guest has as /dev/disk/by-id/virtio-TEXT: 1 to 20 characters.
    #[arg(long, value_name = "path=FILE[,readonly=on|off][,serial=TEXT]")]
    pub disk: Vec<String>,
    /// Network card (virtio-net on AF_XDP); may be repeated; --help lists its options
    ///
    /// After af-xdp,ifname=NAME may come, separated by commas:
    ///
    /// id=ID (net0, net1 ...), mode=native|skb (native, else skb, which is the faster one for TCP from this host over
    /// veth), force-copy=on|off (off),
    /// queues=N (1), start-queue=M (0), frames=N (UMEM frames of 4 KiB per queue, a power of two, 4096),
    /// require=any|native|zerocopy (any), rate=PACKETS:BYTES:BURST (none; each way, a second; such as
    /// rate=100K, rate=:125M, rate=1M:1G:50ms), busy-poll=MICROSECONDS (adaptive; 0: never),
    /// zero-copy-tx=on|off (off; on: frames are sent from guest memory, all of which is locked),
    /// tx-metadata=auto|on|off (auto: checksums are left to the card where its driver has that; on: in copy
    /// mode to the kernel as well).
    ///
    /// inhibit=on uses an XDP program that is on the interface already, together with one of:
    /// sock-fds=A:B:... (open AF_XDP sockets, see `ringwire open`), xsks-map-fd=FD,
    /// map-path=PATH[,map-start-index=K], plugin-socket=PATH.
    #[arg(long, value_name = "af-xdp,ifname=NAME,...")]
    pub netdev: Vec<String>,
    /// The guest's side of a netdev, which has one in any case: its transport (virtio-net-pci or
    /// virtio-net-mmio), and mac=ADDRESS; the default address is locally administered and made from the
    /// interface's
    ///
    /// Offloads, done in software, which the guest is offered unless they are switched off: csum=on|off
    /// (checksums; off, none of the others either), tso=on|off and uso=on|off (TCP and UDP frames of up to 64 KiB
    /// from the guest), gro=on|off (segments put together for the guest).
    #[arg(long, value_name = "virtio-net-pci|virtio-net-mmio,netdev=ID,...")]
    pub device: Vec<String>,
    /// How the guest finds its virtio devices, other than cards for which --device says it: pci, with an
    /// interrupt for each queue (MSI-X), or mmio, with one for each device; default: pci, or mmio with acpi=off in
    /// --cmdline
    #[arg(long, value_name = "pci|mmio", value_parser = transport)]
    pub transport: Option<Transport>,
    /// Keep threads on one CPU each: vcpuN; a netdev's id (net0), net0.K for its further queue pairs,
    /// net0.ctrl; blkN, rng0, main, console. May be repeated
    #[arg(long, value_name = "THREAD=CPU,...")]
    pub pin: Vec<String>,
    /// Give up all that the guest's life does not need before it begins: capabilities, supplementary groups,
    /// the right to open files, and all system calls but a few for each thread (docs/confinement.md)
    #[arg(long, value_name = "on|off", default_value = "on", value_parser = ["on", "off"])]
    pub confine: String,
    /// Run the guest as this user, with this group only, once everything is open: part of the confinement
    #[arg(long, value_name = "UID:GID")]
    pub user: Option<User>,
}

/// Why arguments were not understood.
#[derive(Debug, thiserror::Error)]
#[error("{option} {text}: {why}")]
pub struct ArgumentError {
    option: &'static str,
    text: String,
    why: NetdevError,
}

fn transport(text: &str) -> Result<Transport, String> {
    match text {
        "pci" => Ok(Transport::Pci),
        "mmio" => Ok(Transport::Mmio),
        _ => Err("a transport is pci or mmio".to_owned()),
    }
}

impl RunArgs {
    /// The VM that is asked for.
    ///
    /// # Errors
    /// A list of options that is none.
    pub fn config(self) -> Result<VmConfig, ArgumentError> {
        let mut config = VmConfig {
            kernel: self.kernel,
            initrd: self.initrd,
            cmdline: self.cmdline,
            cpus: self.cpus,
            memory: self.memory.size,
            hugepages: self.memory.hugepages,
            serial: self.serial,
            disks: Vec::new(),
            netdevs: Vec::new(),
            transport: self.transport,
            pins: Vec::new(),
            confine: confine::confine(&self.confine, self.user)?,
        };
        for text in self.disk {
            let disk = netdev::disk(&text).map_err(wrong("--disk", &text))?;
            config.disks.push(disk);
        }
        for (i, text) in self.netdev.into_iter().enumerate() {
            let netdev = netdev::netdev(&text, i).map_err(wrong("--netdev", &text))?;
            config.netdevs.push(netdev);
        }
        for text in self.pin {
            let pins = pin::pins(&text).map_err(wrong("--pin", &text))?;
            config.pins.extend(pins);
        }
        let mut used = Vec::new();
        for text in self.device {
            netdev::device(&text, &mut config.netdevs, &mut used)
                .map_err(wrong("--device", &text))?;
        }
        Ok(config)
    }
}

fn wrong<E: Into<NetdevError>>(
    option: &'static str,
    text: &str,
) -> impl FnOnce(E) -> ArgumentError {
    let text = text.to_owned();
    move |why| ArgumentError {
        option,
        text,
        why: why.into(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(arguments: &[&str]) -> Result<VmConfig, String> {
        let all = ["ringwire", "run", "--kernel", "k"].iter().chain(arguments);
        let cli = Cli::try_parse_from(all).map_err(|e| e.to_string())?;
        match cli.command {
            Command::Run(run) => run.config().map_err(|e| e.to_string()),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn the_command_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn arguments_become_a_configuration() {
        let config = parse(&[
            "--memory",
            "8G",
            "--cpus",
            "3",
            "--serial",
            "file=/tmp/log",
            "--disk",
            "path=a",
            "--disk",
            "path=b,readonly=on",
            "--netdev",
            "af-xdp,ifname=eth1",
            "--netdev",
            "af-xdp,ifname=eth2",
            "--device",
            "virtio-net-pci,netdev=net1,mac=02:00:00:00:00:01",
            "--transport",
            "mmio",
            "--pin",
            "vcpu0=1,net0=0",
            "--pin",
            "net1=7",
        ])
        .unwrap();
        assert_eq!((config.memory, config.cpus), (8 << 30, 3));
        let (path, limit) = ("/tmp/log".into(), Some(16 << 20));
        assert_eq!(config.serial, SerialConfig::File { path, limit });
        assert_eq!(config.disks.len(), 2);
        assert_eq!((config.pins.len(), config.pins[2].cpu), (3, 7));
        assert_eq!(config.netdevs[1].mac, Some([2, 0, 0, 0, 0, 1]));
        use Transport::{Mmio, Pci};
        assert_eq!(config.transports(), [Mmio, Mmio, Mmio, Mmio, Pci]);
        let unconfined = parse(&["--confine", "off"]).unwrap();
        assert_eq!(unconfined, VmConfig::new("k"));
    }

    #[test]
    fn wrong_arguments_are_named() {
        for (arguments, words) in [
            (["--memory", "lots"], "'lots' is not a size"),
            (["--cpus", "-1"], "unexpected argument"),
            (["--cpus", "two"], "invalid digit"),
            (["--transport", "isa"], "a transport is pci or mmio"),
            (["--confine", "a bit"], "[possible values: on, off]"),
            (["--user", "nobody"], "a user is UID:GID"),
            (["--serial", "pty"], "stdio, null or file=PATH"),
            (["--serial", "file="], "stdio, null or file=PATH"),
            (
                ["--netdev", "user"],
                "--netdev user: there is no netdev 'user'",
            ),
            (["--disk", "x"], "--disk x: 'x' is not an option"),
            (
                ["--pin", "net0=x"],
                "--pin net0=x: 'x' is no value for net0",
            ),
            (
                ["--device", "x,netdev=a"],
                "--device x,netdev=a: there is no device 'x'",
            ),
        ] {
            let sentence = parse(&arguments).unwrap_err();
            assert!(sentence.contains(words), "{sentence}");
        }
    }
}
