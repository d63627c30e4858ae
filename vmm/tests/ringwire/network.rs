//! Network cards on a veth pair of our own, and rights that are missing. Needs root.

use std::{
    os::fd::AsRawFd,
    path::Path,
    process::{Command, Stdio},
};

use net_afxdp::{Port, PortConfig, Prepared};

use crate::{
    guest::Code,
    process::{Outcome, Process, outcome},
    wire::{Wire, can_run, ip},
};

/// `ringwire run` under `setpriv` or the like.
fn run_under(wrapper: &[&str], kernel: &Path, arguments: &[&str]) -> Command {
    let program = env!("CARGO_BIN_EXE_ringwire");
    let (first, rest) = wrapper.split_first().unwrap();
    let mut command = Command::new(first);
    command
        .args(rest)
        .args([program, "run", "--memory", "64M", "--kernel"]);
    command.arg(kernel).args(arguments);
    command
}

fn with_netdev(wire: &Wire, wrapper: &[&str], code: &Code) -> Outcome {
    let kernel = code.kernel();
    let netdev = wire.netdev();
    let arguments = ["--netdev", netdev.as_str()];
    outcome(&mut run_under(wrapper, kernel.as_path(), &arguments))
}

#[test]
fn the_interface_is_clean_after_every_end() {
    if !can_run() {
        return;
    }
    let wire = Wire::new();
    let end = with_netdev(&wire, &["env"], &Code::new().power_off());
    assert_eq!((end.code(), end.stderr.as_str()), (0, ""));
    wire.assert_clean();

    let kernel = Code::new().print("ready").spin().kernel();
    for (signal, status) in [(libc::SIGTERM, Some(143)), (libc::SIGKILL, None)] {
        let netdev = wire.netdev();
        let mut command = run_under(&["env"], kernel.as_path(), &["--netdev", &netdev]);
        let mut running = Process::start(&mut command);
        running.wait_for("ready");
        assert!(
            ip(&["-details", "link", "show", &wire.name])
                .unwrap()
                .contains("xdp")
        );
        running.signal(signal);
        assert_eq!(running.wait().code(), status);
        wire.assert_clean();
    }
}

#[test]
fn an_interface_that_is_down_is_a_warning() {
    if !can_run() {
        return;
    }
    let wire = Wire::new();
    ip(&["link", "set", &wire.name, "down"]).unwrap();
    let end = with_netdev(&wire, &["env"], &Code::new().power_off());
    assert_eq!(end.code(), 0, "{end:?}");
    assert!(
        end.stderr.contains("is down; the guest sees its link down"),
        "{end:?}"
    );
}

#[test]
fn the_vm_survives_its_interface() {
    if !can_run() {
        return;
    }
    let wire = Wire::new();
    let netdev = wire.netdev();
    let kernel = Code::new().print("ready").echo().power_off().kernel();
    let mut command = run_under(&["env"], kernel.as_path(), &["--netdev", &netdev]);
    let mut running = Process::start(&mut command);
    running.wait_for("ready");
    ip(&["link", "delete", &wire.name]).unwrap();
    running.send(b"alive");
    running.wait_for("alive");
    running.send(b"q");
    let end = running.finish();
    assert_eq!(end.code(), 0, "{end:?}");
    assert!(end.stderr.contains("its interface is gone"), "{end:?}");
}

#[test]
fn counters_are_logged_on_a_signal() {
    if !can_run() {
        return;
    }
    let wire = Wire::new();
    let netdev = wire.netdev();
    let kernel = Code::new().print("ready").echo().power_off().kernel();
    let mut command = run_under(&["env"], kernel.as_path(), &["--netdev", &netdev]);
    let mut running = Process::start(&mut command);
    running.wait_for("ready");
    for _ in 0..2 {
        running.signal(libc::SIGUSR1);
        let guest = running.wait_for_message("netdev 'net0': guest");
        let start = format!("on {} in native mode with copy: rx_frames=0", wire.name);
        assert!(guest.contains(&start), "{guest}");
        let queue = running.wait_for_message("pair 0:");
        for name in [
            "xdp_rx_dropped=",
            "xdp_rx_ring_full=",
            "xdp_tx_invalid_descs=0",
        ] {
            assert!(queue.contains(name), "{queue}");
        }
    }
    // This guest is no Linux: it has no driver.
    running.signal(libc::SIGUSR2);
    running.wait_for_message("net0': the guest has no driver that can announce it");
    running.send(b"q");
    let end = running.finish();
    assert_eq!((end.code(), end.stderr.as_str()), (0, ""));
}

/// Whoever has the other end of a veth can do that as often as he likes.
#[test]
fn a_link_that_flaps_does_not_flood_the_log() {
    if !can_run() {
        return;
    }
    const FLAPS: usize = 300;
    let wire = Wire::new();
    let netdev = wire.netdev();
    let kernel = Code::new().print("ready").echo().power_off().kernel();
    let arguments = ["-v", "--netdev", &netdev];
    let mut running = Process::start(&mut run_under(&["env"], kernel.as_path(), &arguments));
    running.wait_for("ready");
    for _ in 0..FLAPS {
        for state in ["down", "up"] {
            ip(&["link", "set", &wire.peer, state]).unwrap();
        }
    }
    running.send(b"q");
    let end = running.finish();
    assert_eq!(end.code(), 0, "{end:?}");
    let told = end.stderr.matches(": link ").count();
    assert!((8..FLAPS / 3).contains(&told), "{told}");
}

#[test]
fn several_queues_are_opened_all_or_none() {
    if !can_run() {
        return;
    }
    let wire = Wire::with_queues(3);
    let netdev = |options: &str| format!("{},{options}", wire.netdev());
    let kernel = Code::new().print("ready").echo().power_off().kernel();
    let two = netdev("queues=2,start-queue=1");
    let mut command = run_under(&["env"], kernel.as_path(), &["--netdev", &two]);
    let mut running = Process::start(&mut command);
    running.wait_for_message("1 to 2 are opened: what arrives on 0 goes past them to the host");
    running.wait_for("ready");
    running.signal(libc::SIGUSR1);
    running.wait_for_message("pair 0:");
    running.wait_for_message("pair 1:");
    running.send(b"q");
    assert_eq!(running.finish().code(), 0);
    wire.assert_clean();

    let refused = |options: &str, words: &str| {
        let netdev = netdev(options);
        let mut command = run_under(&["env"], kernel.as_path(), &["--netdev", &netdev]);
        outcome(&mut command).assert_fails(1, words);
    };
    refused(
        "queues=3,start-queue=1",
        &format!("ethtool -L {} rx 4 tx 4", wire.name),
    );
    refused("require=zerocopy", "zero-copy is required, but was refused");
    wire.assert_clean();
    // Queue 1 in the hands of somebody whose program is not there any more.
    let mut port = Port::open(&PortConfig {
        ifname: wire.name.clone(),
        start_queue: 1,
        frames: 64,
        ..PortConfig::default()
    })
    .unwrap();
    let busy = port.take_queues();
    drop(port);
    refused("queues=2", &format!("queue 1 of {}: ", wire.name));
    wire.assert_clean();
    drop(busy);
}

#[test]
fn a_program_of_others_that_goes_is_reported() {
    if !can_run() {
        return;
    }
    let wire = Wire::new();
    let port = PortConfig {
        ifname: wire.name.clone(),
        frames: 1024,
        ..PortConfig::default()
    };
    let mut others = Prepared::open(&port).unwrap();
    others.let_children_inherit().unwrap();
    let socket = others.sockets()[0].as_raw_fd();
    let netdev = format!("{},inhibit=on,sock-fds={socket}", wire.netdev());
    let kernel = Code::new().print("ready").echo().power_off().kernel();
    let mut command = run_under(&["env"], kernel.as_path(), &["--netdev", &netdev]);
    let mut running = Process::start(&mut command);
    drop(others.take_sockets());
    running.wait_for("ready");
    drop(others);
    running.wait_for_message("the XDP program was taken off");
    let again = Prepared::open(&port).unwrap();
    running.wait_for_message("another XDP program took the place of the one");
    drop(again);
    running.send(b"q");
    assert_eq!(running.finish().code(), 0);
}

#[test]
fn a_program_of_others_may_come_later() {
    if !can_run() {
        return;
    }
    let wire = Wire::new();
    let port = PortConfig {
        ifname: wire.name.clone(),
        frames: 1024,
        ..PortConfig::default()
    };
    let mut others = Prepared::open(&port).unwrap();
    others.let_children_inherit().unwrap();
    let sockets = others.take_sockets();
    drop(others);
    let socket = sockets[0].as_raw_fd();
    let netdev = format!("{},inhibit=on,sock-fds={socket}", wire.netdev());
    let kernel = Code::new().print("ready").echo().power_off().kernel();
    let arguments = ["-v", "--netdev", &netdev];
    let mut running = Process::start(&mut run_under(&["env"], kernel.as_path(), &arguments));
    drop(sockets);
    running.wait_for_message("there is no XDP program on the interface");
    running.wait_for("ready");
    let later = Prepared::open(&port).unwrap();
    running.wait_for_message("there is an XDP program on");
    drop(later);
    running.wait_for_message("there is no XDP program on");
    running.send(b"q");
    assert_eq!(running.finish().code(), 0);
}

#[test]
fn rights_that_are_missing_are_named() {
    if !can_run() {
        return;
    }
    let wire = Wire::new();
    let sleep = Code::new().sleep();
    let no_xdp = ["setpriv", "--bounding-set=-net_admin,-bpf,-sys_admin"];
    with_netdev(&wire, &no_xdp, &sleep).assert_fails(1, "CAP_NET_ADMIN");
    let little = [
        "prlimit",
        "--memlock=65536",
        "setpriv",
        "--bounding-set=-ipc_lock",
    ];
    with_netdev(&wire, &little, &sleep).assert_fails(1, "ulimit -l");
    wire.assert_clean();
}

#[test]
fn guest_memory_that_may_not_be_locked_is_named() {
    if !can_run() {
        return;
    }
    let wire = Wire::new();
    // Enough for the frames.
    let little = [
        "prlimit",
        "--memlock=1048576",
        "setpriv",
        "--bounding-set=-ipc_lock",
    ];
    let kernel = Code::new().sleep().kernel();
    let netdev = format!("af-xdp,ifname={},frames=64,zero-copy-tx=on", wire.name);
    let arguments = ["--serial", "null", "--netdev", &netdev];
    let end = outcome(&mut run_under(&little, kernel.as_path(), &arguments));
    end.assert_fails(
        1,
        "cannot lock 65792 KiB of memory for the frames (65536 of them",
    );
    end.assert_fails(1, "(RLIMIT_MEMLOCK) is 1024 KiB");
    end.assert_fails(1, "zero-copy-tx=on locks all of the guest's memory");
    wire.assert_clean();
}

#[test]
fn without_kvm_the_sentence_says_why() {
    if !can_run() {
        return;
    }
    let kernel = Code::new().sleep().kernel();
    let no_device = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        "mount -t tmpfs none /dev && exec \"$@\"",
        "sh",
    ];
    let mut command = run_under(&no_device, kernel.as_path(), &["--serial", "null"]);
    outcome(&mut command).assert_fails(1, "there is no /dev/kvm");
    // Somebody without the right to it, in a namespace where nobody has it.
    let no_permission = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        "mount -t tmpfs -o mode=755 none /dev && mknod -m 600 /dev/kvm c 10 232 && \
         exec setpriv --reuid=65534 --clear-groups --inh-caps=-all \"$@\"",
        "sh",
    ];
    let mut command = run_under(&no_permission, kernel.as_path(), &["--serial", "null"]);
    let end = outcome(command.stdin(Stdio::null()));
    // The program itself may be out of that user's reach.
    if end.code() != 126 && end.code() != 127 {
        end.assert_fails(1, "no permission to open /dev/kvm");
    }
}
