//! The store from outside: what its users may count on.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that can't go on has failed"
)]

mod api;
mod compare;
mod concurrency;
mod edits;
mod given;
mod kill;
mod model;
mod roundtrip;
mod unprivileged;
mod write_order;
