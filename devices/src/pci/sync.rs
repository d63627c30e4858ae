//! What [`super::gate`] is made of. The model of its protocol (tests/msix_gate) puts loom's atomics
//! in this module's place.

pub(super) use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
