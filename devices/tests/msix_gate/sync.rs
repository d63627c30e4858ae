//! What the gate is made of, as loom has it: it tries every order of accesses that the memory model
//! allows.

pub(super) use loom::sync::atomic::{AtomicBool, AtomicU8, Ordering};
