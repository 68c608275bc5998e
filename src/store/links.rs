//! Hard links of a directory that is imported or committed: entries that share an inode.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::error::{Error, Result, Subject};
use crate::host::source::Found;
use crate::ingest::{ATTEMPTS, Captured, Walk, find_again};
use crate::object::ObjectSink;
use crate::path::TreePath;
use crate::tree::{self, Entry};

/// The names of each inode by the first of them.
pub(super) type Members = BTreeMap<TreePath, BTreeSet<TreePath>>;

/// Hard links that a scan found and left, while their inodes are read. Names may be removed or become another file's
/// meanwhile: groups of which the first name no longer leads to the inode are found again.
pub(super) struct Links {
    members: Members,
    captured: Vec<(Found, Captured)>,
    /// What belongs to no group yet.
    left: Vec<Found>,
    rounds: usize,
}

impl Links {
    pub(super) fn new(found: Vec<Found>) -> Self {
        Self { members: Members::new(), captured: Vec::new(), left: found, rounds: 0 }
    }

    /// The names of each inode that was read or is to be read next.
    pub(super) fn members(&self) -> &Members {
        &self.members
    }

    /// The first name of each inode that is to be read next, in the order of paths; none if all were.
    pub(super) fn firsts(&mut self) -> Option<Vec<Found>> {
        let mut first_of = HashMap::new();
        let mut firsts = Vec::new();
        for item in std::mem::take(&mut self.left) {
            let first =
                first_of.entry((item.stat.device, item.stat.inode)).or_insert_with(|| item.path.clone());
            self.members.entry(first.clone()).or_default().insert(item.path.clone());
            if *first == item.path {
                firsts.push(item);
            }
        }
        (!firsts.is_empty()).then_some(firsts)
    }

    /// Takes what was read of those.
    pub(super) fn take(
        &mut self,
        walk: &Walk<'_>,
        firsts: Vec<Found>,
        captured: Vec<Option<Captured>>,
    ) -> Result<()> {
        let mut lost = Vec::new();
        for (found, captured) in firsts.into_iter().zip(captured) {
            let is_alone = self.members.get(&found.path).is_none_or(|names| names.len() < 2);
            match captured {
                // Where there is no other name, the file that has it now is as good.
                Some(captured) if is_alone || captured.stat.is_same_file(&found.stat) => {
                    self.captured.push((found, captured));
                }
                _ => {
                    let names = self.members.remove(&found.path).unwrap_or_default();
                    let names = names.into_iter().filter(|_| !is_alone);
                    lost.extend(names.map(|path| Found { path, stat: found.stat.clone() }));
                }
            }
        }
        self.left = find_again(walk.source, &lost)?;
        self.rounds += 1;
        if self.rounds < ATTEMPTS {
            return Ok(());
        }
        std::mem::take(&mut self.left).iter().try_for_each(|found| {
            walk.pass_changed(&found.path, || {
                let message =
                    "its hard links changed each time they were read; try again when they are quiet";
                Error::conflict(Subject::Host(walk.source.host_path(&found.path)), message)
            })
        })
    }

    /// What was read of each inode, by its first name, and all names.
    pub(super) fn finish(self) -> (Vec<(Found, Captured)>, Members) {
        (self.captured, self.members)
    }
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
