//! Refusals before anything is touched.

use super::*;

fn refusal(change: impl FnOnce(&mut PortConfig)) -> String {
    let mut config = PortConfig {
        ifname: "lo".to_owned(),
        ..PortConfig::default()
    };
    change(&mut config);
    Port::open(&config).unwrap_err().to_string()
}

#[test]
fn bad_numbers_are_refused_before_anything_is_touched() {
    assert_eq!(
        refusal(|config| config.queues = 0),
        "at least one queue must be opened"
    );
    for frames in [0, 1, 32, 65, 4095, 1 << 19, u32::MAX] {
        let text = refusal(|config| config.frames = frames);
        assert!(
            text.starts_with(&format!("{frames} frames per queue are not")),
            "{text}"
        );
    }
}

#[test]
fn what_is_required_must_be_possible() {
    let text = refusal(|config| {
        config.require = Require::ZeroCopy;
        config.force_copy = true;
    });
    assert_eq!(
        text,
        "zerocopy can't be required together with forced copy mode: take one of them out"
    );
    for require in [Require::Native, Require::ZeroCopy] {
        let text = refusal(|config| {
            config.require = require;
            config.mode = Some(AttachMode::Skb);
        });
        let start = format!("{require} can't be required together with skb mode");
        assert!(text.starts_with(&start), "{text}");
    }
}

#[test]
fn too_many_queues_say_how_many_there_are() {
    let text = refusal(|config| config.queues = 100_000);
    assert!(text.starts_with("lo has "), "{text}");
    // Its driver can't change that.
    assert!(text.ends_with("asked for. Ask for fewer"), "{text}");
    let text = refusal(|config| config.start_queue = u32::MAX);
    assert!(
        text.contains("1 from 4294967295 on was asked for"),
        "{text}"
    );
}

#[test]
fn a_missing_interface_is_an_error_of_its_own() {
    let text = refusal(|config| config.ifname = "rw-not-there".to_owned());
    assert!(text.contains("there is no network interface"), "{text}");
}
