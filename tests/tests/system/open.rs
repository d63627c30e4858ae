//! `ringwire open`, and a guest whose VMM has no rights.

use std::process::{Command, Stdio};

use ringwire_tests::Setup;

#[test]
fn a_guest_whose_vmm_has_no_rights() {
    // A script, so that people can run it by themselves: it shows each step.
    let script = Setup::top().join("vmm/tests/unprivileged-guest");
    let output = Command::new(&script)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", script.display()));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {text}", output.status);
    assert!(text.contains("no capability in any set"), "{text}");
}
