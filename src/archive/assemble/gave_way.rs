//! What of an archive gave way to later entries with other paths.

use serde::Serialize;

use crate::path::TreePath;

/// Paths that gave way to a later entry above or below them, since no path is both a file and a directory. One that comes
/// again after that is counted, too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GaveWay {
    /// How many.
    pub paths: u64,
    /// The first of them.
    pub example: TreePath,
}

impl GaveWay {
    /// Counts a path.
    pub(crate) fn note(noted: &mut Option<Self>, path: &TreePath) {
        noted.get_or_insert_with(|| Self { paths: 0, example: path.clone() }).paths += 1;
    }

    /// Counts what another archive says.
    pub(crate) fn add(noted: &mut Option<Self>, more: Option<Self>) {
        match (noted.as_mut(), more) {
            (Some(noted), Some(more)) => noted.paths += more.paths,
            (None, more) => *noted = more,
            (Some(_), None) => {}
        }
    }
}
