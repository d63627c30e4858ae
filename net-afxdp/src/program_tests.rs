//! What errors say, and what programs look like in them.

use super::*;

#[test]
fn each_error_says_what_was_tried_what_the_system_said_and_what_to_do() {
    let system = io::Error::from_raw_os_error;
    let foreign = ForeignProgram {
        id: 7,
        name: Some("other".to_owned()),
        mode: "native",
    };
    let cases = [
        (
            ProgramError::Load(system(libc::EPERM)).to_string(),
            ["load the XDP program", "Operation not permitted", "CAP_BPF"],
        ),
        (
            ProgramError::LoadInUserNamespace(system(libc::EPERM)).to_string(),
            [
                "load the XDP program",
                "Operation not permitted",
                "load it outside of it, where CAP_NET_ADMIN and CAP_BPF do",
            ],
        ),
        (
            ProgramError::Foreign(foreign).to_string(),
            ["(id 7, name other, mode native)", "left alone", "xdp off"],
        ),
        (
            ProgramError::ForcedMode {
                mode: AttachMode::Native,
                source: system(libc::EOPNOTSUPP),
            }
            .to_string(),
            [
                "in native mode",
                "Operation not supported",
                "Leave the mode open",
            ],
        ),
        (
            ProgramError::Attach {
                native: system(libc::EOPNOTSUPP),
                skb: system(libc::EINVAL),
            }
            .to_string(),
            [
                "native mode: Operation not supported",
                "skb mode: Invalid",
                "attach",
            ],
        ),
        (
            ProgramError::Refused(system(libc::EPERM)).to_string(),
            [
                "attach the XDP program",
                "Operation not permitted",
                "CAP_NET_ADMIN",
            ],
        ),
        (
            ProgramError::Map {
                queue: 3,
                source: system(libc::E2BIG),
            }
            .to_string(),
            [
                "socket of queue 3",
                "into the XDP program's map",
                "Argument list too long",
            ],
        ),
    ];
    for (text, parts) in cases {
        for part in parts {
            assert!(text.contains(part), "{part:?} is not in {text:?}");
        }
    }
}

#[test]
fn a_program_without_a_name_is_shown_without_one() {
    let foreign = ForeignProgram {
        id: 7,
        name: None,
        mode: "skb",
    };
    assert_eq!(foreign.to_string(), "id 7, mode skb");
}

#[test]
fn the_cause_in_an_error_of_libbpf_is_kept() {
    let error = libbpf_rs::Error::from(io::Error::from_raw_os_error(libc::EPERM));
    let error = system_error(&libbpf_rs::ErrorExt::context(error, "while loading"));
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    assert_eq!(
        error.to_string(),
        "while loading: Operation not permitted (os error 1)"
    );
}
