//! The hostile bare guest under a KVM with hardware's semantics: on the machines that the tests run on, ring 0 is often
//! emulated, and faults, exits and the order of memory accesses are another program's.

use std::process::{Command, Stdio};

use ringwire_tests::Setup;

/// 1 to 36
#[test]
fn the_whole_list_by_a_bare_guest() {
    // The same test as without Linux guests, which brings the far end of the wire along.
    let name = "hostile::the_whole_list_by_a_guest";
    let output = Command::new(Setup::vmm_tests())
        .args(["--exact", name, "--nocapture"])
        .stdin(Stdio::null())
        .output()
        .expect("the program was built");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    assert!(
        text.contains("\ntest result: ok. 1 passed"),
        "{text}{errors}"
    );
    assert!(!text.contains("SKIPPED"), "{text}");
}
