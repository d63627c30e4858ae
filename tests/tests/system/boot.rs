//! The guest comes up with what the command line says.

use ringwire_tests::{Guest, Options, Setup};

/// What the guest's kernel calls its memory, in MiB.
fn memory_mib(guest: &mut Guest) -> u64 {
    let text = guest.ok("sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo");
    text.trim().parse::<u64>().expect("a number of KiB") / 1024
}

#[test]
fn a_bzimage_boots_and_powers_off() {
    let mut guest = Guest::boot(Options::new().kernel(Setup::bzimage()));
    assert!(guest.ok("uname -m").contains("x86_64"));
    let status = guest.power_off();
    assert!(status.success(), "{status}: {}", guest.log());
}

fn has_its_devices(options: Options<'_>, transport: &str) {
    let mut guest = Guest::boot(options);
    assert_eq!(guest.ok("nproc").trim(), "2");
    let path = guest.ok("readlink -f /sys/bus/virtio/devices/virtio0");
    assert!(path.contains(transport), "{path}");
    // A clean boot. Warnings are not counted: some are about the host's CPU.
    assert_eq!(
        guest
            .run("dmesg | grep -E 'BUG:|Oops|lockup|nobody cared'")
            .status,
        1,
        "{}",
        guest.transcript()
    );
    assert_eq!(guest.ok("head -c 64 /dev/hwrng | wc -c").trim(), "64");
    assert!(guest.power_off().success());
}

#[test]
fn an_elf_kernel_boots_through_pvh_and_has_its_devices() {
    has_its_devices(Options::new(), "/pci0000:00/");
}

#[test]
fn the_devices_are_there_on_mmio_too() {
    has_its_devices(Options::new().mmio(), "/LNRO0005:00/");
}

#[test]
fn as_many_cpus_as_asked_for() {
    // The others' guests have two.
    let mut guest = Guest::boot(Options::new().cpus(1));
    assert_eq!(guest.ok("nproc").trim(), "1");
    assert_eq!(guest.ok("grep -c ^processor /proc/cpuinfo").trim(), "1");
    assert!(guest.power_off().success());
}

#[test]
fn memory_small_and_across_the_hole_below_4_gib() {
    // The kernel's own share is taken off: 8G needs 128 MiB for page structures alone.
    for (size, least, most) in [("128M", 64, 128), ("8G", 7600, 8192)] {
        let mut guest = Guest::boot(Options::new().memory(size));
        let seen = memory_mib(&mut guest);
        assert!(
            (least..=most).contains(&seen),
            "--memory {size}: the guest sees {seen} MiB"
        );
        assert!(guest.power_off().success());
    }
}

#[test]
fn the_console_loses_nothing_in_either_direction() {
    let mut guest = Guest::boot(Options::new());
    // Each byte is an exit from the guest, which in the lab takes up to milliseconds.
    let text = guest.ok("seq 1 1500");
    assert!(
        text.lines()
            .map(str::to_owned)
            .eq((1..=1500).map(|number| number.to_string())),
        "lines are missing"
    );
    // Longer than any FIFO on the way.
    let long = "0123456789abcdef".repeat(100);
    assert_eq!(guest.ok(&format!("echo {long}")).trim(), long);
    assert!(guest.power_off().success());
}

/// A virtio device's interrupt arrives.
fn devices_answer(guest: &mut Guest) {
    assert_eq!(guest.ok("head -c 64 /dev/hwrng | wc -c").trim(), "64");
}

#[test]
fn a_guest_without_the_apics_timer_has_ticks() {
    let mut guest = Guest::boot(Options::new().cpus(1).cmdline("nolapic_timer"));
    let timers = guest.ok("cat /proc/timer_list");
    assert!(timers.contains("Clock Event Device: pit"), "{timers}");
    guest.ok("sleep 1");
    assert!(guest.power_off().success());
}

#[test]
fn a_guest_without_kvms_clock_finds_another() {
    let mut guest = Guest::boot(Options::new().cmdline("no-kvmclock nolapic_timer"));
    assert_eq!(guest.ok("nproc").trim(), "2");
    guest.ok("sleep 1");
    devices_answer(&mut guest);
    assert!(guest.power_off().success());
}

#[test]
fn without_acpi_all_cpus_are_there_and_the_halt_is_the_end() {
    // The MultiProcessor table tells of them, and of the IO-APIC. Debian's kernels are built without what finds
    // virtio devices then.
    let mut guest = Guest::boot(Options::new().cmdline("acpi=off"));
    assert_eq!(guest.ok("nproc").trim(), "2");
    assert!(guest.ok("cat /proc/interrupts").contains("IO-APIC"));
    let status = guest.power_off();
    assert!(status.success(), "{status}");
    assert!(guest.log().contains("the guest halted all of its CPUs"));
}

#[test]
fn without_io_apic_or_local_apics_the_guest_runs_on_the_pics() {
    // A line that nobody masked would be an exception to it: "overflow", of the serial port.
    for (words, options) in [
        ("noapic", Options::new()),
        ("nosmp", Options::new()),
        ("nolapic", Options::new().mmio()),
    ] {
        let mut guest = Guest::boot(options.cmdline(words));
        let interrupts = guest.ok("cat /proc/interrupts");
        assert!(interrupts.contains("XT-PIC"), "{words}: {interrupts}");
        devices_answer(&mut guest);
        assert!(guest.power_off().success(), "{words}");
    }
}
