//! Network cards whose driver reads and writes frames in place (XDP zero-copy). `make test` runs these, on the cards of
//! `tests/lab/run --cards`.

#![expect(
    clippy::unwrap_used,
    reason = "a panic is the failure report, in the helpers of the tests, too"
)]

mod faults;
mod frame;
mod guest;
mod port;
