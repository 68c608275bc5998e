//! The names of a store's files and folders, relative to its directory.

use crate::id::{DirectoryId, PackId, SegmentId};

/// The file whose lock covers one call.
pub(crate) const LOCK_FILE: &str = "lock";
/// The file that names the store's format, and its name while it is written.
pub(crate) const FORMAT_FILE: &str = "format";
pub(crate) const NEW_FORMAT_FILE: &str = "format.new";
/// The catalog, and its name while it is created or repaired.
pub(crate) const CATALOG_FILE: &str = "catalog.redb";
pub(crate) const NEW_CATALOG_FILE: &str = "catalog.redb.new";
/// The catalog's dump, and its name while it is written.
pub(crate) const DUMP_FILE: &str = "catalog.dump";
pub(crate) const NEW_DUMP_FILE: &str = "catalog.dump.new";
/// The file that reserves room for removals and collections.
pub(crate) const BALLAST_FILE: &str = "ballast";
/// The folder of the packs.
pub(crate) const PACKS: &str = "packs";
/// The folder of the index segments.
pub(crate) const SEGMENTS: &str = "segments";
/// The folder of the state files of directories.
pub(crate) const DIRECTORIES: &str = "directories";
/// The folder of the files that sessions and readers lock to keep a generation.
pub(crate) const GENERATIONS: &str = "generations";
/// The file that a collection locks for as long as it runs.
pub(crate) const COLLECTING: &str = "generations/collecting";
/// The folder of workspaces and of the lower directories that they share.
pub(crate) const WORKSPACES: &str = "workspaces";
/// The folder of what a repair set aside.
pub(crate) const QUARANTINE: &str = "quarantine";
/// The list of losses that no repair has reported yet, and its name while it is written.
pub(crate) const UNREPORTED_FILE: &str = "repair.untold";
pub(crate) const NEW_UNREPORTED_FILE: &str = "repair.untold.new";
/// What a repair appends to the names of folders that it fills.
pub(crate) const UNFINISHED: &str = ".new";

/// The folder that a file system of its own begins with.
pub(crate) const LOST_AND_FOUND: &str = "lost+found";

/// Everything that the creation of a store makes, and what a file system of its own begins with.
pub(crate) const CREATED: [&str; 13] = [
    LOCK_FILE,
    PACKS,
    SEGMENTS,
    DIRECTORIES,
    GENERATIONS,
    BALLAST_FILE,
    NEW_CATALOG_FILE,
    CATALOG_FILE,
    NEW_DUMP_FILE,
    DUMP_FILE,
    NEW_FORMAT_FILE,
    FORMAT_FILE,
    LOST_AND_FOUND,
];

/// Returns the name of a pack's file.
pub(crate) fn pack_file(pack: PackId) -> String {
    format!("{PACKS}/{:010}.pack", pack.get())
}

/// Returns the name of a segment's file.
pub(crate) fn segment_file(segment: SegmentId) -> String {
    format!("{SEGMENTS}/{:010}.segment", segment.get())
}

/// Returns the name of the file with a directory's state.
pub(crate) fn state_file(id: DirectoryId) -> String {
    format!("{DIRECTORIES}/{:010}.state", id.get())
}

/// Returns the name of the file that keeps a generation while it is locked.
pub(crate) fn generation_file(generation: u64) -> String {
    format!("{GENERATIONS}/{generation:010}")
}
