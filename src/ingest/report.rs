//! What an image does not have of the directory or the tar that it was made of.

use std::borrow::Cow;

use serde::Serialize;

use crate::archive::{GaveWay, UnkeptRecord};
use crate::path::TreePath;

/// How a directory or a tar was read, and what of it the image does not have. Paths are those of the image.
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
    /// [`one_file_system`](crate::ImportOptions::one_file_system) asks for; of a workspace that is an overlay, of which it has
    /// what lies below the mount.
    pub mounts_left_out: Vec<TreePath>,
    /// How many names were excluded; what is below a directory does not count.
    pub excluded: u64,
    /// The store's own directory, which is never part of an image.
    pub store: Option<TreePath>,
    /// What no image keeps, one of each kind.
    pub not_kept: Vec<NotKept>,
    /// Paths of a tar that the image does not have since a later entry, a file in a directory's place or the other way round,
    /// needs theirs. A later entry of the same path is no such thing.
    pub gave_way: Option<GaveWay>,
    /// Where in the uncompressed tar, behind the zero blocks that end it, other data than zeros begins: a second tar, say,
    /// that was appended. It was not read. Of several tars with such data, the first counts.
    pub other_data_at: Option<u64>,
}

/// Something that paths had and that no image keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NotKept {
    /// What it is. Of any path: `immutable`, `append-only`, `no-dump`, `encrypted`, `verity` or `compressed`. Of
    /// directories, and of files that were read: `no-access-times`, `synchronous`, `synchronous-directory`, `secure-removal`,
    /// `undeletable`, `no-tail-merging`, `top-directory`, `journaled-data`, `no-copy-on-write`, `no-compression`,
    /// `direct-access`, `case-folding` or `project-id`. Of a tar: `PAX record` and its key, or
    /// `file of an earlier dump`: an incremental dump lists it and lacks it.
    pub what: Cow<'static, str>,
    /// How many paths had it.
    pub paths: u64,
    /// The first of them.
    pub example: TreePath,
}

impl SourceReport {
    /// Returns what is to be said of a tar by what was read in all.
    pub(super) fn of_tar(records: Vec<UnkeptRecord>, other_data_at: Option<u64>) -> Self {
        let mut report = Self { other_data_at, ..Self::default() };
        for UnkeptRecord { what, entries, example } in records {
            report.add_not_kept(what.into(), entries, &example);
        }
        report
    }

    /// Adds what is to be said of a further tar.
    pub(crate) fn add_tar(&mut self, tar: Self) {
        for NotKept { what, paths, example } in tar.not_kept {
            self.add_not_kept(what, paths, &example);
        }
        GaveWay::add(&mut self.gave_way, tar.gave_way);
        self.other_data_at = self.other_data_at.or(tar.other_data_at);
    }

    /// Adds that so many paths had something that no image keeps.
    pub(super) fn add_not_kept(&mut self, what: Cow<'static, str>, paths: u64, example: &TreePath) {
        let Some(known) = self.not_kept.iter_mut().find(|known| known.what == what) else {
            self.not_kept.push(NotKept { what, paths, example: example.clone() });
            return;
        };
        known.paths += paths;
        if *example < known.example {
            known.example = example.clone();
        }
    }
}
