//! What extended headers say of entries that no image keeps.

use std::collections::BTreeSet;

use crate::path::{TreePath, escape_bytes};

/// How many keys are told apart, and how much of each is shown: an archive can have any.
const KEYS_MAX: usize = 16;
const KEY_BYTES_MAX: usize = 64;

/// A PAX record that says something of entries which no image keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnkeptRecord {
    /// Its key, escaped.
    pub key: String,
    /// How many entries had it.
    pub entries: u64,
    /// The first of them.
    pub example: TreePath,
}

/// Notes the keys of an entry's records.
pub(super) fn note(noted: &mut Vec<UnkeptRecord>, keys: BTreeSet<Vec<u8>>, path: &TreePath) {
    for key in keys {
        let key = escape_bytes(key.get(..KEY_BYTES_MAX).unwrap_or(&key));
        if let Some(record) = noted.iter_mut().find(|record| record.key == key) {
            record.entries += 1;
        } else if noted.len() < KEYS_MAX {
            noted.push(UnkeptRecord { key, entries: 1, example: path.clone() });
        }
    }
}
