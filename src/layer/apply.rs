//! Applying a delta to a tree.
//!
//! The work is in the hard link groups, whose members may be anywhere: first all that the delta takes away is
//! noted with the groups it is taken from, then what it puts with the groups it joins, and at last every group
//! touched is written in its one form. All of it becomes one [edit](tree::edit).

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::delta::{Delta, DeltaChange, invalid};
use crate::error::Result;
use crate::object::{ObjectSink, ObjectSource};
use crate::path::TreePath;
use crate::tree::{self, Entries, Entry, Root, group, links};

/// The tree `root` with the changes of `delta`.
///
/// Reads what the delta touches: the entries it replaces, the subtrees it removes, the groups it changes. The
/// memory it takes follows these. Fails with *invalid*, naming the path, on a put into what is no directory
/// afterwards, and on a hard link to what is not there afterwards or is a directory.
pub fn apply(
    source: &impl ObjectSource,
    sink: &mut impl ObjectSink,
    root: &Root,
    delta: &Delta,
) -> Result<Root> {
    if delta.is_empty() {
        return Ok(*root);
    }
    let edits = edits(source, sink, root, delta)?;
    tree::edit(source, sink, root, edits)
}

/// What [`apply`] makes of each path that it changes; none for one that is taken away.
pub(crate) fn edits(
    source: &impl ObjectSource,
    sink: &mut impl ObjectSink,
    root: &Root,
    delta: &Delta,
) -> Result<BTreeMap<TreePath, Option<Entry>>> {
    let mut plan = Plan::new(source, root, delta)?;
    for change in delta.changes() {
        plan.remove(change)?;
    }
    for change in delta.changes() {
        plan.put(change)?;
    }
    plan.finish(sink)
}

struct Plan<'a, S> {
    source: &'a S,
    delta: &'a Delta,
    /// The tree before, read wherever the delta needs it.
    before: Entries<&'a S>,
    /// What becomes of each path; none for one that is taken away.
    edits: BTreeMap<TreePath, Option<Entry>>,
    /// Further names of inodes that are put, by the path they are put at.
    linked: BTreeMap<TreePath, BTreeSet<TreePath>>,
    /// Groups of the tree before that change, by the path that holds the inode.
    groups: BTreeMap<TreePath, Group>,
    /// Directories known to be there afterwards.
    parents: HashSet<TreePath>,
}

/// Paths that a group loses and gains; one may be in both.
#[derive(Default)]
struct Group {
    lost: BTreeSet<TreePath>,
    gained: BTreeSet<TreePath>,
}

impl<'a, S: ObjectSource> Plan<'a, S> {
    fn new(source: &'a S, root: &Root, delta: &'a Delta) -> Result<Self> {
        Ok(Self {
            source,
            delta,
            before: tree::iter(source, root)?,
            edits: BTreeMap::new(),
            linked: BTreeMap::new(),
            groups: BTreeMap::new(),
            parents: HashSet::new(),
        })
    }

    /// Notes what a change takes away.
    fn remove(&mut self, change: &DeltaChange) -> Result<()> {
        match change {
            DeltaChange::Whiteout(path) => self.remove_subtree(path),
            DeltaChange::Put(path, entry) => match self.before.find(path)? {
                None => Ok(()),
                Some(old) if old.is_directory() && !entry.is_directory() => self.remove_subtree(path),
                Some(old) => {
                    self.remove_path(path.clone(), &old);
                    Ok(())
                }
            },
        }
    }

    fn remove_subtree(&mut self, top: &TreePath) -> Result<()> {
        self.before.seek(top)?;
        while self.before.peek()?.is_some_and(|(path, _)| path.starts_with(top)) {
            if let Some((path, entry)) = self.before.next().transpose()? {
                self.remove_path(path, &entry);
            }
        }
        Ok(())
    }

    fn remove_path(&mut self, path: TreePath, old: &Entry) {
        let least = match old {
            Entry::HardLink(least) => Some(least),
            Entry::Inode(inode) if !inode.links.is_empty() => Some(&path),
            Entry::Inode(_) => None,
        };
        if let Some(least) = least {
            self.groups.entry(least.clone()).or_default().lost.insert(path.clone());
        }
        self.edits.insert(path, None);
    }

    /// Notes what a change puts; all removals are known.
    fn put(&mut self, change: &DeltaChange) -> Result<()> {
        let DeltaChange::Put(path, entry) = change else { return Ok(()) };
        self.check_parent(path)?;
        let Entry::HardLink(target) = entry else { return Ok(()) };
        if let Some(Entry::Inode(_)) = self.delta.put_at(target) {
            self.linked.entry(target.clone()).or_default().insert(path.clone());
            return Ok(());
        }
        let least = match self.kept(target)? {
            Some(Entry::HardLink(least)) => least,
            Some(entry) if !entry.is_directory() => target.clone(),
            _ => {
                let message =
                    format!("is put as a hard link to {target}, which is not there or is a directory");
                return Err(invalid(path, message));
            }
        };
        self.groups.entry(least).or_default().gained.insert(path.clone());
        Ok(())
    }

    /// The entry that the tree before has at `path`, unless it is taken away.
    fn kept(&mut self, path: &TreePath) -> Result<Option<Entry>> {
        if self.edits.contains_key(path) { Ok(None) } else { self.before.find(path) }
    }

    fn check_parent(&mut self, path: &TreePath) -> Result<()> {
        let Some(parent) = path.parent() else { return Ok(()) };
        if self.parents.contains(&parent) {
            return Ok(());
        }
        let is_directory = match self.delta.put_at(&parent) {
            Some(entry) => entry.is_directory(),
            None => self.kept(&parent)?.is_some_and(|entry| entry.is_directory()),
        };
        if !is_directory {
            return Err(invalid(
                path,
                format!("is put into {parent}, which is not a directory; put that too"),
            ));
        }
        self.parents.insert(parent);
        Ok(())
    }

    /// The edits that the delta comes to.
    fn finish(mut self, sink: &mut impl ObjectSink) -> Result<BTreeMap<TreePath, Option<Entry>>> {
        for change in self.delta.changes() {
            let DeltaChange::Put(path, Entry::Inode(inode)) = change else { continue };
            let Some(mut names) = self.linked.remove(path) else {
                self.edits.insert(path.clone(), Some(Entry::Inode(inode.clone())));
                continue;
            };
            names.insert(path.clone());
            let entries = group::entries(sink, inode.clone(), names)?;
            self.edits.extend(entries.into_iter().map(|(path, entry)| (path, Some(entry))));
        }
        for (least, group) in std::mem::take(&mut self.groups) {
            self.regroup(sink, &least, group)?;
        }
        Ok(self.edits)
    }

    /// Writes a group of the tree before anew: its least path may have changed, and its list has.
    fn regroup(&mut self, sink: &mut impl ObjectSink, least: &TreePath, group: Group) -> Result<()> {
        let Group { lost, mut gained } = group;
        let stray = || lost.first().unwrap_or(least);
        let Some(Entry::Inode(inode)) = self.before.find(least)? else {
            return Err(group::broken(stray(), least));
        };
        let mut members = links::read(self.source, &inode.links)?;
        members.insert(least.clone());
        if let Some(stray) = lost.iter().find(|path| !members.contains(path)) {
            return Err(group::broken(stray, least));
        }
        members.retain(|path| !lost.contains(path));
        gained.extend(members.iter().cloned());
        for (path, entry) in group::entries(sink, inode, gained)? {
            // A member that says the same as before is not edited, so the leaf it is in is not read.
            let is_same = members.contains(&path) && matches!(&entry, Entry::HardLink(to) if to == least);
            if !is_same {
                self.edits.insert(path, Some(entry));
            }
        }
        Ok(())
    }
}
