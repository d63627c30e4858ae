//! What `ringwire check` says about a card that spreads what it receives.

use ringwire_tests::{Setup, Wire};

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
