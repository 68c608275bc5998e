//! Layers: the steps from one tree to the next.
//!
//! Owns the [delta](Delta), which says what a step changes, the algebra on it ([`diff`], [`apply`], [`merge`],
//! [`rebase`], [`squash`]), and the [record](LayerRecord) that a step leaves behind. Deltas live in memory only; a record is an object.
//!
//! The algebra is over *well-formed* trees: empty, or with the root directory and, for every other path, its
//! parent as a directory; and with every hard link group in its [one form](crate::tree::group). Each result is
//! well-formed again. Where both sides are defined:
//! - `apply(a, diff(a, b)) = b`, by the very root;
//! - `diff(a, a)` is empty;
//! - `apply(a, squash(a, [d, e])) = apply(apply(a, d), e)`;
//! - `merge(a, b, c) = merge(a, c, b)`, `merge(a, b, a) = b`, and what one side leaves alone is as on the other.

mod apply;
mod changeset;
mod delta;
mod diff;
mod merge;
mod record;

pub use apply::apply;
pub(crate) use apply::edits;
pub(crate) use changeset::Changeset;
pub use delta::{Delta, DeltaChange};
pub use diff::diff;
pub(crate) use merge::merge_delta;
pub use merge::{Conflict, Merged, merge, rebase, squash};
pub use record::{History, LayerRecord, MAX_HISTORY, history};

#[cfg(test)]
mod tests;
