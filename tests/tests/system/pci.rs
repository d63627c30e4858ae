//! Virtio over PCI as Linux sees it: functions, BARs and messages, and what a guest can do with them.

use std::{fs, path::Path, process::Command, time::Duration};

use ringwire_tests::{Guest, Options, Wire};

/// The network card of a guest without disks: the entropy device comes before it.
const CARD: &str = "/sys/bus/pci/devices/0000:00:02.0";

/// How often the guest got the interrupt called `name`, or `None` if there is no such one.
fn interrupts(guest: &mut Guest, name: &str) -> Option<u64> {
    let text = guest.ok("cat /proc/interrupts");
    let line = text.lines().find(|line| line.ends_with(name))?;
    // "28:", a count for each CPU, then words.
    let words = line.split_whitespace().skip(1);
    Some(words.map_while(|word| word.parse::<u64>().ok()).sum())
}

/// Start and size of each BAR that the guest has found.
fn bars(guest: &mut Guest) -> Vec<(u64, u64)> {
    let text = guest.ok(&format!("head -n 6 {CARD}/resource"));
    let number = |word: &str| {
        u64::from_str_radix(word.trim_start_matches("0x"), 16).expect("a number in hexadecimal")
    };
    let lines = text.lines().map(|line| {
        let mut words = line.split_whitespace().map(number);
        let mut next = || words.next().expect("start, last address and flags");
        (next(), next())
    });
    let used = lines.filter(|&(start, _)| start != 0);
    used.map(|(start, last)| (start, last - start + 1))
        .collect()
}

/// The end of each of these tests: no frame is lost, and nothing is left behind.
fn end(wire: &Wire, mut guest: Guest) {
    let status = guest.power_off();
    let log = guest.log();
    assert!(status.success(), "{status}: {log}");
    assert!(!log.contains("went astray"), "{log}");
    assert!(!wire.has_program(), "an XDP program was left: {log}");
}

fn ping(guest: &mut Guest) {
    guest.ok(&format!("ping -q -c 3 -i 0.2 -W 5 {}", Wire::PEER));
}

#[test]
fn a_card_is_a_function_with_a_message_for_each_queue() {
    let wire = Wire::with_queues(2);
    let mut guest = Guest::boot(Options::new().on_with(&wire, ",queues=2"));
    let text = guest.ok(&format!(
        "cd {CARD}; cat vendor device revision class; basename $(readlink driver); ls msi_irqs | wc -l"
    ));
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    // Two for each pair, and one for the configuration; the driver polls the control queue.
    let wanted = ["0x1af4", "0x1041", "0x01", "0x020000", "virtio-pci", "5"];
    assert_eq!(lines, wanted);
    let bars = bars(&mut guest);
    assert_eq!(bars.len(), 2, "{bars:x?}");
    let inside = |&(start, size): &(u64, u64)| start >= 0xe800_0000 && start + size <= 0xf000_0000;
    assert!(bars.iter().all(inside), "{bars:x?}");

    let server = wire
        .far_background("iperf3 --server --forceflush")
        .after_line("listening");
    guest.ok(&format!("iperf3 -c {} -t 2 -P 16", Wire::PEER));
    drop(server);
    for queue in ["input.0", "input.1"] {
        let count = interrupts(&mut guest, &format!("virtio1-{queue}"));
        assert!(count > Some(10), "{queue}: {count:?}");
    }
    for queue in ["output.0", "output.1", "config"] {
        let count = interrupts(&mut guest, &format!("virtio1-{queue}"));
        assert!(count.is_some(), "there is no {queue}");
    }
    // The link's state is told by the configuration's message.
    let before = interrupts(&mut guest, "virtio1-config").unwrap();
    wire.far(&format!("ip link set {} down", Wire::PEER_IFNAME));
    guest.ok("for i in $(seq 100); do [ $(cat /sys/class/net/eth0/carrier) = 0 ] && break; usleep 100000; done; \
        [ $(cat /sys/class/net/eth0/carrier) = 0 ]");
    assert!(interrupts(&mut guest, "virtio1-config").unwrap() > before);
    end(&wire, guest);
}

#[test]
fn drivers_and_functions_come_and_go_in_traffic() {
    let wire = Wire::new();
    let mut guest = Guest::boot(Options::new().on(&wire));
    ping(&mut guest);
    let flood = wire.far_background(&format!("ping -q -f {}", Wire::GUEST));
    let up = format!(
        "ip address add {}/24 dev eth0 && ip link set eth0 up",
        Wire::GUEST
    );
    guest.send(&format!(
        "cd /sys/bus/virtio/drivers/virtio_net; for i in $(seq 12); do \
         echo virtio1 >unbind && echo virtio1 >bind && {up} || break; done; [ $i = 12 ] && [ -e /sys/class/net/eth0 ]"
    ));
    let output = guest.answer(Duration::from_secs(100));
    assert_eq!(output.status, 0, "{}", output.text);
    ping(&mut guest);
    // Gone with its BARs, and found again as if it were new.
    for _ in 0..2 {
        guest.ok(&format!(
            "cd /; echo 1 >{CARD}/remove && [ ! -e {CARD} ] && [ ! -e /sys/class/net/eth0 ]"
        ));
        guest.ok(&format!(
            "echo 1 >/sys/bus/pci/rescan && [ -e {CARD} ] && {up}"
        ));
        ping(&mut guest);
    }
    drop(flood);
    end(&wire, guest);
}

#[test]
fn a_card_works_wherever_the_guest_puts_its_bars() {
    let wire = Wire::new();
    let moved = Options::new().cmdline("pci=resource_alignment=24@0000:00:02.0");
    let mut guest = Guest::boot(moved.on(&wire));
    let bars = bars(&mut guest);
    let aligned = |&(start, _): &(u64, u64)| start.is_multiple_of(1 << 24);
    assert!(bars.len() == 2 && bars.iter().all(aligned), "{bars:x?}");
    ping(&mut guest);
    assert!(interrupts(&mut guest, "virtio1-input.0") > Some(2));
    end(&wire, guest);
}

#[test]
fn messages_follow_when_a_cpu_goes_and_comes() {
    let wire = Wire::with_queues(2);
    let mut guest = Guest::boot(Options::new().on_with(&wire, ",queues=2"));
    let server = wire
        .far_background("iperf3 --server --forceflush")
        .after_line("listening");
    guest.ok(&format!(
        "iperf3 -c {} -t 6 -P 4 >/tmp/iperf 2>&1 & echo $! >/tmp/pid",
        Wire::PEER
    ));
    for online in [0, 1, 0, 1] {
        guest.ok(&format!(
            "sleep 1; echo {online} >/sys/devices/system/cpu/cpu1/online"
        ));
        assert_eq!(guest.ok("nproc").trim(), (online + 1).to_string());
    }
    guest.ok("wait $(cat /tmp/pid) && grep -q receiver /tmp/iperf");
    drop(server);
    ping(&mut guest);
    end(&wire, guest);
}

#[test]
fn more_queue_pairs_than_cpus() {
    let wire = Wire::with_queues(4);
    let mut guest = Guest::boot(Options::new().cpus(1).on_with(&wire, ",queues=4"));
    // The driver uses one pair; what the wire spreads over four arrives all the same.
    assert_eq!(
        guest
            .ok("ls -d /sys/class/net/eth0/queues/rx-*")
            .lines()
            .count(),
        1
    );
    let server = wire
        .far_background("iperf3 --server --forceflush")
        .after_line("listening");
    let text = guest.ok(&format!("iperf3 -c {} -t 2 -P 8 -R", Wire::PEER));
    assert!(text.contains("receiver"), "{text}");
    drop(server);
    end(&wire, guest);
}

/// How often vCPUs have left the kernel for a device's register, as KVM counts it in debugfs; `None` where
/// that is not mounted.
fn register_exits(guest: &Guest) -> Option<u64> {
    let debugfs = Path::new("/sys/kernel/debug");
    if std::env::var_os("RINGWIRE_LAB").is_some() && !debugfs.join("kvm").exists() {
        let mut mount = Command::new("mount");
        let status = mount.args(["-t", "debugfs", "none"]).arg(debugfs).status();
        assert!(status.is_ok_and(|status| status.success()), "mount debugfs");
    }
    let vms = fs::read_dir(debugfs.join("kvm")).ok()?.flatten();
    let prefix = format!("{}-", guest.id());
    let mut ours = vms.filter(|vm| vm.file_name().to_string_lossy().starts_with(&prefix));
    let text = fs::read_to_string(ours.next()?.path().join("mmio_exits")).ok()?;
    text.trim().parse().ok()
}

/// Exits for registers while 50 packets go each way and are answered, one at a time.
fn exits_of_50_pings(options: Options<'_>) -> Option<u64> {
    let wire = Wire::new();
    let mut guest = Guest::boot(options.on(&wire));
    ping(&mut guest);
    let before = register_exits(&guest)?;
    guest.ok(&format!("ping -q -c 50 -i 0.05 {}", Wire::PEER));
    let exits = register_exits(&guest)? - before;
    end(&wire, guest);
    Some(exits)
}

#[test]
fn a_card_on_mmio_beside_devices_on_pci() {
    let wire = Wire::new();
    let options = Options::new()
        .on(&wire)
        .arg("--device")
        .arg("virtio-net-mmio,netdev=net0,mac=52:54:00:12:34:56");
    let mut guest = Guest::boot(options);
    let text = guest.ok("readlink -f /sys/class/net/eth0/device; cat /sys/class/net/eth0/address");
    assert!(text.contains("/LNRO0005:00/"), "{text}");
    assert!(text.contains("52:54:00:12:34:56"), "{text}");
    assert!(guest.ok("ls /sys/bus/pci/devices").contains("0000:00:01.0"));
    ping(&mut guest);
    end(&wire, guest);
}

#[test]
fn neither_kicks_nor_interrupts_leave_the_kernel() {
    let Some(pci) = exits_of_50_pings(Options::new()) else {
        println!("SKIPPED: debugfs is not mounted, so KVM's counters can't be read");
        return;
    };
    // Drivers read registers when they start; a kick or an interrupt each would be 50 or more.
    assert!(pci < 10, "{pci} exits in 50 pings");
    // There, each interrupt is acknowledged by a register.
    let mmio = exits_of_50_pings(Options::new().mmio());
    println!("register exits in 50 pings: pci {pci}, mmio {mmio:?}");
}
