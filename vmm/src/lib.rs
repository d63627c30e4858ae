//! Ringwire (skeleton).
