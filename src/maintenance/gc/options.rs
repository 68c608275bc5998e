//! What a collection is asked for, and what it tells.

use serde::Serialize;

use crate::store::LeftOver;

/// What a collection does.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct GcOptions {
    /// Find out what could be freed, and change nothing.
    pub dry_run: bool,
    /// Free as much as can be: also packs of which little is unneeded, and single objects that are compressed together with
    /// others. Costs reading and writing most of what is in such packs.
    pub full: bool,
    /// Free the prepared files that no workspace uses now, too; the next workspace on their images prepares them again.
    pub caches: bool,
}

/// What a collection found and did. Bytes are those of packs on the disk, unless they are said to be others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GcReport {
    /// Whether nothing was changed, and the report tells what would be.
    pub is_dry_run: bool,
    /// Images that need something, each counted in each scope that has it.
    pub images: u64,
    /// Objects that are needed.
    pub needed_objects: u64,
    /// Bytes of all packs before.
    pub bytes_before: u64,
    /// Packs that nothing was needed of, or whose needed part was copied. Those of an earlier collection that were still in
    /// use then are counted too.
    pub freed_packs: u64,
    /// Their bytes.
    pub freed_bytes: u64,
    /// Bytes that were copied out of them, and are still there.
    pub copied_bytes: u64,
    /// Packs that nothing is needed of, and that stay until those are done who began to read before.
    pub waiting_packs: u64,
    /// Their bytes.
    pub waiting_bytes: u64,
    /// About how many bytes of the packs that stay are unneeded: too few for a pack to be copied.
    pub unneeded_bytes: u64,
    /// There was no room to copy what is needed of packs that are worth collecting, or to write where it is: more may be
    /// freed by the next collection.
    pub is_short_of_room: bool,
    /// Packs that stay because they are damaged: `verify` says how.
    pub damaged_packs: u64,
    /// Bytes on the disk, before, of the files that were prepared for workspaces, which several of them share, and of what was
    /// freed of workspaces whose process is gone.
    pub workspace_bytes_before: u64,
    /// How many of them were freed: of processes that are gone, of images that are gone, of an earlier boot, more than
    /// [are kept](crate::StoreOptions::workspace_cache_bytes), or with [`caches`](GcOptions::caches) all that no workspace uses.
    pub freed_workspace_bytes: u64,
    /// How many of those that stay no workspace uses now.
    pub idle_workspace_bytes: u64,
    /// What workspaces that have ended left, and could not be removed; in a dry run nothing, since that tries nothing.
    pub left_over: Vec<LeftOver>,
}

impl GcReport {
    /// By how many bytes the packs became fewer: what was freed without what was copied for it.
    #[must_use]
    pub fn net_freed_bytes(&self) -> u64 {
        self.freed_bytes.saturating_sub(self.copied_bytes)
    }
}
