//! Hard links of a directory that is imported or committed: entries that share an inode.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::error::Result;
use crate::host::source::Found;
use crate::ingest::Captured;
use crate::object::ObjectSink;
use crate::path::TreePath;
use crate::tree::{self, Entry};

/// The names of each inode by the first of them.
pub(super) type Members = BTreeMap<TreePath, BTreeSet<TreePath>>;

/// Groups the entries by inode: the first name of each, in their order, and all names.
pub(super) fn group(found: Vec<Found>) -> (Vec<Found>, Members) {
    let mut first_of = HashMap::new();
    let mut members = Members::new();
    let mut firsts = Vec::new();
    for item in found {
        let first = first_of.entry((item.stat.device, item.stat.inode)).or_insert_with(|| item.path.clone());
        members.entry(first.clone()).or_default().insert(item.path.clone());
        if *first == item.path {
            firsts.push(item);
        }
    }
    (firsts, members)
}

/// The entries of the groups whose first names were captured.
pub(super) fn entries(
    sink: &mut impl ObjectSink,
    captured: impl IntoIterator<Item = (Found, Captured)>,
    members: &Members,
) -> Result<BTreeMap<TreePath, Entry>> {
    let mut entries = BTreeMap::new();
    for (found, captured) in captured {
        let names = members.get(&found.path).cloned().unwrap_or_default();
        entries.extend(tree::group::entries(sink, captured.inode, names)?);
    }
    Ok(entries)
}
