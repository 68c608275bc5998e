//! The delta from one tree to another.
//!
//! Outside hard link groups it is what [`tree::diff`] says. A group's entries, though, say where its inode is
//! held and who else is in it, so one name more or less changes several entries; the delta says only which
//! names are taken away and which are put. For that, a group of `a` has at most one *heir* in `b`: the group
//! with the same inode that has the least path still there. The names that both have are kept; every other
//! name of a changed group in `b` is put.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::delta::{Delta, DeltaChange};
use crate::error::Result;
use crate::object::ObjectSource;
use crate::path::TreePath;
use crate::tree::{self, Change, Entry, Inode, Root, group, links};

/// The normal delta from `a` to `b`, both well-formed: empty if they are equal. Reads what differs; the memory
/// it takes follows that.
pub fn diff(source: &impl ObjectSource, a: &Root, b: &Root) -> Result<Delta> {
    let mut changed = BTreeMap::new();
    for change in tree::diff(source, a, b)? {
        let Change { path, before, after } = change?;
        changed.insert(path, Changed { before, after });
    }
    let mut differ = Differ { source, changed: &changed, groups: HashMap::new(), changes: Vec::new() };
    for (path, Changed { before, after }) in &changed {
        match after {
            None => differ.changes.push(DeltaChange::Whiteout(path.clone())),
            Some(Entry::Inode(after)) => differ.put_group(path, before.as_ref(), after)?,
            // Put, if need be, with the group it is in.
            Some(Entry::HardLink(_)) => {}
        }
    }
    // Also drops the whiteouts below what is gone, or is no directory any more, itself.
    Delta::new(differ.changes)
}

struct Changed {
    before: Option<Entry>,
    after: Option<Entry>,
}

/// A hard link group of `a`, or a single inode, some entry of which changed.
struct OldGroup {
    /// Without links.
    inode: Inode,
    members: BTreeSet<TreePath>,
    /// The path in `b` that holds the heir's inode.
    heir: Option<TreePath>,
}

struct Differ<'a, S> {
    source: &'a S,
    /// Every path whose entry differs. A group that changed has its holder's entry in here on both sides:
    /// that entry says all that can change about the group.
    changed: &'a BTreeMap<TreePath, Changed>,
    /// Groups of `a` that were looked at, by the path that held the inode.
    groups: HashMap<TreePath, OldGroup>,
    changes: Vec<DeltaChange>,
}

impl<S: ObjectSource> Differ<'_, S> {
    /// Puts the paths of the inode that `b` holds at `holder`, except those it has kept.
    fn put_group(&mut self, holder: &TreePath, before: Option<&Entry>, after: &Inode) -> Result<()> {
        let was_single =
            before.is_none_or(|before| before.as_inode().is_some_and(|old| old.links.is_empty()));
        if after.links.is_empty() && was_single {
            self.changes.push(DeltaChange::Put(holder.clone(), Entry::Inode(after.clone())));
            return Ok(());
        }
        let mut members = links::read(self.source, &after.links)?;
        members.insert(holder.clone());
        let inode = group::unlinked(after);
        let kept = self.kept(holder, &inode, &members)?;
        let target = kept.first().unwrap_or(holder).clone();
        for path in members.difference(&kept) {
            let entry =
                if *path == target { Entry::Inode(inode.clone()) } else { Entry::HardLink(target.clone()) };
            self.changes.push(DeltaChange::Put(path.clone(), entry));
        }
        Ok(())
    }

    /// Those of `members`, the paths of the inode that `b` holds at `holder`, that had it already.
    fn kept(
        &mut self,
        holder: &TreePath,
        inode: &Inode,
        members: &BTreeSet<TreePath>,
    ) -> Result<BTreeSet<TreePath>> {
        for member in members {
            let old_holder = match self.changed.get(member) {
                Some(Changed { before: None, .. }) => continue,
                Some(Changed { before: Some(Entry::Inode(_)), .. }) => member,
                Some(Changed { before: Some(Entry::HardLink(least)), .. }) => least,
                // Unchanged, and not the holder, since that one changed: a name of the same holder in `a`.
                None => holder,
            };
            let old = self.old_group(member, old_holder)?;
            if old.heir.as_ref() == Some(holder) && old.inode == *inode {
                return Ok(old.members.intersection(members).cloned().collect());
            }
        }
        Ok(BTreeSet::new())
    }

    /// The group of `a` that `member` was in, whose inode was held at `holder`.
    fn old_group(&mut self, member: &TreePath, holder: &TreePath) -> Result<&OldGroup> {
        if !self.groups.contains_key(holder) {
            let before = self.changed.get(holder).and_then(|changed| changed.before.as_ref());
            let old = before.and_then(Entry::as_inode).ok_or_else(|| group::broken(member, holder))?;
            let mut members = links::read(self.source, &old.links)?;
            members.insert(holder.clone());
            let inode = group::unlinked(old);
            let heir = self.heir(holder, &inode, &members)?;
            self.groups.insert(holder.clone(), OldGroup { inode, members, heir });
        }
        self.groups.get(holder).ok_or_else(|| group::broken(member, holder))
    }

    /// The path that holds, in `b`, the inode of the least of `members` that still has the same one.
    fn heir(
        &self,
        holder: &TreePath,
        inode: &Inode,
        members: &BTreeSet<TreePath>,
    ) -> Result<Option<TreePath>> {
        for member in members {
            let new_holder = match self.changed.get(member) {
                Some(Changed { after: None, .. }) => continue,
                Some(Changed { after: Some(Entry::Inode(_)), .. }) => member,
                Some(Changed { after: Some(Entry::HardLink(least)), .. }) => least,
                None => holder,
            };
            let after = self.changed.get(new_holder).and_then(|changed| changed.after.as_ref());
            let after = after.and_then(Entry::as_inode).ok_or_else(|| group::broken(member, new_holder))?;
            if group::unlinked(after) == *inode {
                return Ok(Some(new_holder.clone()));
            }
        }
        Ok(None)
    }
}
