//! Ringwire (skeleton).
fn main() {}
