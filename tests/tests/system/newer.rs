//! Linux 6.12 and 7.x as guests. One start each: what other tests do with 6.1, and what only newer drivers can.

use std::fs;

use ringwire_tests::{Guest, Options, Setup, TempDir, Wire};

use crate::{control, resize};

#[test]
fn newer_kernels_have_disk_network_statistics_and_rings_that_change() {
    let disk = TempDir::new();
    let path = disk.path().join("disk");
    fs::write(&path, [0x5a; 4096]).expect("a file in our own directory");
    for (kernel, initrd) in Setup::other_kernels() {
        let wire = Wire::with_queues(2);
        let options = Options::new().kernel(kernel).initrd(initrd);
        let options = options
            .arg("--disk")
            .arg(format!("path={},readonly=on", path.display()));
        let mut guest = Guest::boot(options.on_with(&wire, ",queues=2"));
        println!("{}", guest.ok("uname -r").trim());
        let text = guest.ok(&format!("ping -q -c 5 -i 0.2 -W 5 {}", Wire::PEER));
        assert!(text.contains("5 packets received"), "{text}");
        wire.far(&format!("ping -q -c 5 -i 0.2 -W 5 {}", Wire::GUEST));
        assert_eq!(guest.ok("tr -d Z </dev/vda | wc -c").trim(), "0");
        control::shows_what_the_card_counts(&mut guest);
        resize::resizes(&wire, &mut guest);
        resize::end(&wire, guest);
    }
}
