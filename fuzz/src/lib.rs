//! Fuzz targets: what bytes of strangers reach, guests' and the wire's and files', each as a function of
//! bytes. A target panics if a property that must hold for all bytes does not.
//!
//! `make fuzz T=target TIME=seconds` runs them under libFuzzer and the address sanitizer; the test `replay` runs the
//! corpora of `corpus/` through the same functions, with any toolchain, in no time. `docs/fuzzing.md` has the rest.
//!
//! Most targets read their bytes as a script: `arbitrary` makes choices and numbers of them, and where they
//! end all further choices are the first ones.

pub mod block;
pub mod card;
pub mod coalesce;
pub mod frames;
pub mod hidden;
pub mod kernel;
pub mod options;
pub mod registers;
pub mod ring;
pub mod segment;

/// A target: what it is called, and what takes the bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All of them. Each has a directory of its name in `corpus/` and a file of its name in `targets/`.
pub const TARGETS: &[Target] = &[
    ("block", block::run),
    ("card", card::frames),
    ("coalesce", coalesce::run),
    ("control", card::control),
    ("hidden", hidden::run),
    ("kernel", kernel::run),
    ("mmio", registers::mmio),
    ("options", options::run),
    ("pci", registers::pci),
    ("ring", ring::run),
    ("segment", segment::run),
];
