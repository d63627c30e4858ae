//! Bus Master Enable as Linux sets and clears it: by hand, and before another kernel is started in its place.

use std::fs;

use ringwire_tests::{Guest, Options, Setup, Wire};

/// The network card of a guest without disks: the entropy device comes before it.
const CARD: &str = "/sys/bus/pci/devices/0000:00:02.0";

/// What a queue fault says in the log.
const FAULT: &str = "until the guest resets the device";

fn set_bus_master(guest: &mut Guest, on: bool) {
    let byte = if on { "\\006" } else { "\\002" };
    guest.ok(&format!(
        "printf '{byte}' | dd of={CARD}/config bs=1 seek=4 conv=notrunc 2>/dev/null"
    ));
}

fn ping(guest: &mut Guest) {
    guest.ok(&format!("ping -q -c 3 -i 0.2 -W 5 {}", Wire::PEER));
}

fn received(guest: &mut Guest) -> String {
    guest.ok("cat /sys/class/net/eth0/statistics/rx_packets")
}

/// The end of each of these tests: nothing was broken, no frame is lost, and nothing is left behind.
fn end(wire: &Wire, mut guest: Guest) {
    let status = guest.power_off();
    let log = guest.log();
    assert!(status.success(), "{status}: {log}");
    assert!(!log.contains(FAULT), "{log}");
    assert!(!log.contains("went astray"), "{log}");
    assert!(!wire.has_program(), "an XDP program was left: {log}");
}

#[test]
fn a_card_rests_without_it_and_goes_on_with_it() {
    let wire = Wire::new();
    let mut guest = Guest::boot(Options::new().on(&wire));
    ping(&mut guest);
    let flood = wire.far_background(&format!("ping -q -f {}", Wire::GUEST));
    for _ in 0..3 {
        set_bus_master(&mut guest, false);
        // What was there before is taken; after that nothing comes any more.
        guest.ok("sleep 0.5");
        let before = received(&mut guest);
        let ping_status = guest.run(&format!("ping -q -c 2 -W 1 {}", Wire::PEER));
        assert_ne!(ping_status.status, 0, "{}", ping_status.text);
        assert_eq!(received(&mut guest), before, "a frame came");
        set_bus_master(&mut guest, true);
        ping(&mut guest);
        assert_ne!(received(&mut guest), before);
    }
    drop(flood);
    ping(&mut guest);
    end(&wire, guest);
}

/// Linux clears it for all functions before it starts another kernel (pci_device_shutdown), and older ones do no more than
/// that, to virtio devices: the new kernel's memory must be its own.
#[test]
fn the_kernel_that_kexec_starts_finds_its_memory_and_its_devices() {
    let wire = Wire::new();
    let files = [Setup::bzimage(), Setup::initrd()];
    let mut options = Options::new().memory("768M").on(&wire);
    for file in &files {
        options = options
            .arg("--disk")
            .arg(format!("path={},readonly=on", file.display()));
    }
    let mut guest = Guest::boot(options);
    ping(&mut guest);
    for (file, disk) in files.iter().zip(["vda", "vdb"]) {
        let bytes = fs::metadata(file).expect("it was built").len();
        guest.ok(&format!("head -c {bytes} /dev/{disk} >/tmp/{disk}"));
    }
    // Frames arrive from before the old kernel's end until the new one works.
    let flood = wire.far_background(&format!("ping -q -f {}", Wire::GUEST));
    guest.send("kexec /tmp/vda /tmp/vdb \"$(cat /proc/cmdline)\"");
    guest.wait_for("ringwire-guest: ready");
    ping(&mut guest);
    drop(flood);
    guest.ok("head -c 4096 /dev/vda >/dev/null && head -c 16 /dev/hwrng >/dev/null");
    end(&wire, guest);
}
