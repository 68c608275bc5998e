//! What an image does not have of the directory that it was made of.

use std::borrow::Cow;

use serde::Serialize;

use crate::path::TreePath;

/// How a directory was read, and what of it the image does not have. Paths are those of the image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SourceReport {
    /// Files that changed each time they were read, or whose size was not what their file system said: the image has what
    /// could be read of them (see [`Changing::Keep`](crate::Changing::Keep)). What became a directory meanwhile, or was one,
    /// is left out.
    pub changed: Vec<TreePath>,
    /// Where other file systems are mounted that were read, too.
    pub mounts_read: Vec<TreePath>,
    /// Mount points of which the image has no more than their names, as
    /// [`one_file_system`](crate::ImportOptions::one_file_system) asks for.
    pub mounts_left_out: Vec<TreePath>,
    /// How many names were excluded; what is below a directory does not count.
    pub excluded: u64,
    /// The store's own directory, which is never part of an image.
    pub store: Option<TreePath>,
    /// What no image keeps, one of each kind.
    pub not_kept: Vec<NotKept>,
}

/// Something that paths had and that no image keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NotKept {
    /// What it is: `immutable`, `append-only`, `no-dump`, `encrypted`, `verity`, `no-copy-on-write`, `case-folding` or
    /// `project-id`.
    pub what: Cow<'static, str>,
    /// How many paths had it.
    pub paths: u64,
    /// The first of them.
    pub example: TreePath,
}
