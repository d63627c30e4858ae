//! What `ringwire check` says about a card that spreads what it receives.

use ringwire_tests::{Guest, Options, Setup, Wire};

/// What it says about one queue of the card.
fn check(wire: &Wire) -> String {
    let program = Setup::ringwire();
    wire.near(&format!(
        "{} check af-xdp,ifname={}",
        program.display(),
        Wire::IFNAME
    ))
}

#[test]
fn what_goes_past_the_guest_is_noted_until_the_card_does_as_the_note_says() {
    let wire = Wire::of_cards();
    let before = check(&wire);
    let fix = format!("ethtool -X {} equal 1", Wire::IFNAME);
    // One queue or more besides the first: the driver makes one for each CPU.
    for words in ["what arrives on 1", "goes past them to the host", &fix] {
        assert!(before.contains(words), "'{words}': {before}");
    }
    wire.near(&fix);
    let after = check(&wire);
    assert!(!after.contains("goes past"), "{after}");
}

/// What `ringwire open` says on standard error.
fn open(wire: &Wire) -> String {
    let netdev = format!("af-xdp,ifname={},mode=skb", Wire::IFNAME);
    let mut command = wire.vmm_command(&Setup::ringwire());
    command.args(["open", "--netdev", &netdev, "--", "true", "{netdev}"]);
    let output = command.output().expect("it can be started");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn tags_that_the_card_takes_off_are_told_by_all() {
    let wire = Wire::of_cards();
    let what = format!("{} takes VLAN tags off the frames", Wire::IFNAME);
    let fix = format!("ethtool -K {} rxvlan off", Wire::IFNAME);
    let mut guest = Guest::boot(Options::new().on(&wire));
    let status = guest.power_off();
    assert!(status.success(), "{status}: {}", guest.log());
    for said in [check(&wire), guest.log(), open(&wire)] {
        assert!(said.contains(&what) && said.contains(&fix), "{said}");
    }
    wire.near(&fix);
    for said in [check(&wire), open(&wire)] {
        assert!(!said.contains("VLAN tags"), "{said}");
    }
}
