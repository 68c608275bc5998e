//! What extended headers say of entries that no image keeps.

use std::collections::BTreeSet;

use crate::path::{TreePath, escape_bytes};

/// How many keys are distinguished, and how much of each is shown: an archive can have any.
const KEYS_MAX: usize = 16;
const KEY_BYTES_MAX: usize = 64;

/// The note for files that only an earlier dump has.
pub(super) const NOT_IN_DUMP: &str = "file of an earlier dump";

/// A PAX record that says something of entries which no image keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnkeptRecord {
    /// `PAX record` and its key, escaped, or `file of an earlier dump`.
    pub what: String,
    /// How many entries had it.
    pub entries: u64,
    /// The first of them.
    pub example: TreePath,
}

/// Notes files that an incremental dump lists in a directory and does not have.
pub(super) fn note_not_in_dump(noted: &mut Vec<UnkeptRecord>, files: u64, example: TreePath) {
    match noted.iter_mut().find(|record| record.what == NOT_IN_DUMP) {
        Some(record) => record.entries += files,
        None => noted.push(UnkeptRecord { what: NOT_IN_DUMP.into(), entries: files, example }),
    }
}

/// Notes the keys of an entry's records.
pub(super) fn note(noted: &mut Vec<UnkeptRecord>, keys: BTreeSet<Vec<u8>>, path: &TreePath) {
    for key in keys {
        let what = format!("PAX record {}", escape_bytes(key.get(..KEY_BYTES_MAX).unwrap_or(&key)));
        if let Some(record) = noted.iter_mut().find(|record| record.what == what) {
            record.entries += 1;
        } else if noted.len() < KEYS_MAX {
            noted.push(UnkeptRecord { what, entries: 1, example: path.clone() });
        }
    }
}
