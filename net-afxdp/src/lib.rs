//! An AF_XDP client (skeleton).
