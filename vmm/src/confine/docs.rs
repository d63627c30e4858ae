//! The tables of docs/confinement.md.

use std::{env, fmt::Write as _, fs};

use super::{
    allowed::{self, Call, Only},
    kind::{AttendantKind, ThreadKind},
    names,
};

/// What follows this line in the file is made here.
const MARK: &str = "<!-- The rest is made from vmm/src/confine/allowed.rs, by `RINGWIRE_WRITE_DOCS=1 cargo test -p vmm confine::docs`. -->\n";

/// The processes that only wait.
const ATTENDANTS: [(AttendantKind, &str); 2] = [
    (
        AttendantKind::Holder,
        "`open`'s keeper, and a jail's first process: all of it",
    ),
    (
        AttendantKind::Remover,
        "A jail's remover of its cgroup: all of it",
    ),
];

fn only(only: Only) -> String {
    let names = |values: &[(u64, &str)]| {
        let names: Vec<_> = values.iter().map(|(_, name)| *name).collect();
        names.join(", ")
    };
    match only {
        Only::Any => String::new(),
        Only::OneOf(_, values) => names(values),
        Only::Without(_, bits) => format!("not {}", names(&[bits])),
        Only::Null(_, what) => what.to_owned(),
        Only::OwnPid(_) => "this process".to_owned(),
        Only::Both(one, other) => format!("{}; {}", self::only(*one), self::only(*other)),
    }
}

fn table(text: &mut String, calls: &[Call]) {
    text.push_str("\n| system call | only | why |\n|---|---|---|\n");
    let mut rows: Vec<_> = calls
        .iter()
        .map(|call| (names::of(call.number).unwrap(), call))
        .collect();
    rows.sort_by_key(|(name, _)| *name);
    for (name, call) in rows {
        writeln!(text, "| {name} | {} | {} |", only(call.only), call.why).unwrap();
    }
}

fn tables() -> String {
    let mut text = String::from("\n## How many\n\n| threads | system calls |\n|---|---|\n");
    for kind in ThreadKind::ALL {
        writeln!(text, "| `{kind}` | {} |", allowed::all(kind).len()).unwrap();
    }
    text.push_str("\n## Every thread\n");
    table(&mut text, allowed::COMMON);
    text.push_str("\n## Not carried out, answered by EACCES\n");
    table(&mut text, allowed::REFUSED);
    text.push_str("\n## Not carried out on `spawner`, answered by ENOSYS\n");
    table(&mut text, allowed::ABSENT);
    for kind in ThreadKind::ALL {
        write!(text, "\n## `{kind}`, besides\n").unwrap();
        table(&mut text, &allowed::own(kind));
    }
    for (kind, title) in ATTENDANTS {
        write!(text, "\n## {title}\n").unwrap();
        table(&mut text, &allowed::of_attendant(kind));
    }
    text
}

#[test]
fn the_documentation_has_what_is_allowed() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/confinement.md");
    let file = fs::read_to_string(path).unwrap();
    let (start, written) = file.split_once(MARK).expect("the mark");
    let made = tables();
    if env::var_os("RINGWIRE_WRITE_DOCS").is_some() {
        fs::write(path, format!("{start}{MARK}{made}")).unwrap();
        return;
    }
    assert!(
        written == made,
        "the tables of docs/confinement.md are not those of the code: RINGWIRE_WRITE_DOCS=1 makes them anew"
    );
}

#[test]
fn no_call_is_twice_in_a_table() {
    let unique = |calls: &[Call]| {
        let mut numbers: Vec<_> = calls.iter().map(|call| call.number).collect();
        numbers.sort_unstable();
        numbers.windows(2).all(|pair| pair[0] != pair[1])
    };
    assert!(unique(allowed::COMMON) && unique(allowed::REFUSED));
    for kind in ThreadKind::ALL {
        assert!(unique(&allowed::own(kind)), "{kind}");
        assert!(
            unique(&[&allowed::all(kind), allowed::REFUSED, allowed::ABSENT].concat()),
            "{kind}"
        );
    }
}

/// A thread's first steps happen under its maker's filter.
#[test]
fn the_spawner_may_do_what_its_threads_may() {
    let spawner = allowed::all(ThreadKind::Spawner);
    for kind in [
        ThreadKind::Net,
        ThreadKind::NetControl,
        ThreadKind::Blk,
        ThreadKind::Rng,
    ] {
        for call in allowed::all(kind) {
            let same = spawner.iter().find(|it| it.number == call.number).unwrap();
            let wider = |wide: &[(u64, &str)], narrow: &[(u64, &str)]| {
                narrow.iter().all(|value| wide.contains(value))
            };
            let fits = match (same.only, call.only) {
                (Only::OneOf(a, wide), Only::OneOf(b, narrow)) => a == b && wider(wide, narrow),
                (wide, narrow) => wide == narrow || wide == Only::Any,
            };
            assert!(fits, "{kind}: {}", names::of(call.number).unwrap());
        }
    }
}
