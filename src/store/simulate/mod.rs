//! What tests put in the place of the real thing: an index without its objects, and a machine that a seed decides about.

mod index;
mod machine;

pub use index::{IndexView, SimulatedIndex};
pub use machine::SimulatedMachine;
