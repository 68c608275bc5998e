//! What each fuzz target does with its bytes. The tests include this file too, and replay the corpora through it: see
//! `tests/suite/fuzz.rs`.
//!
//! A target's `check` panics where the bytes show a fault, and says whether they were taken: a corpus of which nothing is
//! taken tests only the first lines of a decoder.

pub mod dump;
pub mod frame;
pub mod losses;
pub mod node;
mod objects;
pub mod operations;
pub mod pax;
pub mod record;
pub mod reference;
pub mod segment;
pub mod state;
pub mod tar;

/// What a target does with its bytes.
type Check = fn(&[u8]) -> bool;

/// Every target, by the name of its file and its corpus.
pub const TARGETS: [(&str, Check); 11] = [
    ("dump", dump::check),
    ("frame", frame::check),
    ("losses", losses::check),
    ("node", node::check),
    ("operations", operations::check),
    ("pax", pax::check),
    ("record", record::check),
    ("reference", reference::check),
    ("segment", segment::check),
    ("state", state::check),
    ("tar", tar::check),
];

/// Checks the bytes as they are, and then with the checks that they should have, which no mutation finds.
fn check_corrected(bytes: &[u8], correct: impl FnOnce(&mut [u8]), check: Check) -> bool {
    let is_taken = check(bytes);
    let mut corrected = bytes.to_vec();
    correct(&mut corrected);
    let is_taken_then = corrected != bytes && check(&corrected);
    is_taken || is_taken_then
}
