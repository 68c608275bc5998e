//! Merging what two trees changed since a third.
//!
//! What only one side changed is taken; where both changed a path, their inodes are merged field by field, as long as they
//! are of one kind; of two times the later stays. A directory whose time alone changed is no obstacle: its time follows from
//! what happened in it. All else that both sides touched, and differently, is a conflict: a path, what one side removed and the other put something into,
//! a hard link group that one side adds names to while the other takes some away.

use std::collections::{BTreeMap, BTreeSet};

use super::apply::apply;
use super::delta::{Delta, DeltaChange};
use super::diff::diff;
use crate::error::Result;
use crate::object::scratch::Scratch;
use crate::object::{ObjectSink, ObjectSource};
use crate::path::TreePath;
use crate::tree::{self, Entries, Entry, Inode, InodeKind, Root, group};

/// What came of a [`merge`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Merged {
    /// The tree with the changes of both sides.
    Clean(Root),
    /// Where they contradict each other, ascending by path; at least one.
    Conflicting(Vec<Conflict>),
}

/// A path that both sides changed so that not both can have it their way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The path.
    pub path: TreePath,
    /// Its entry before both.
    pub base: Option<Entry>,
    /// Its entry on one side.
    pub ours: Option<Entry>,
    /// Its entry on the other.
    pub theirs: Option<Entry>,
}

/// The tree with what changed from `base` to `ours` and from `base` to `theirs`.
///
/// It is the same whichever side is which. Reads what differs from `base`, and the subtrees that are removed; the memory it
/// takes follows these.
pub fn merge(
    source: &impl ObjectSource,
    sink: &mut impl ObjectSink,
    base: &Root,
    ours: &Root,
    theirs: &Root,
) -> Result<Merged> {
    match merge_delta(source, base, ours, theirs)? {
        Ok(delta) => apply(source, sink, ours, &delta).map(Merged::Clean),
        Err(conflicts) => Ok(Merged::Conflicting(conflicts)),
    }
}

/// What a [`merge`] changes in `ours`, or the conflicts.
pub(crate) fn merge_delta(
    source: &impl ObjectSource,
    base: &Root,
    ours: &Root,
    theirs: &Root,
) -> Result<std::result::Result<Delta, Vec<Conflict>>> {
    if ours == theirs || theirs == base {
        return Ok(Ok(Delta::default()));
    }
    if ours == base {
        return diff(source, base, theirs).map(Ok);
    }
    let [our_side, their_side] = [ours, theirs].map(|side| diff(source, base, side).map(Side::new));
    let mut merger = Merger {
        base: tree::iter(source, base)?,
        ours: &our_side?,
        theirs: &their_side?,
        kept: Vec::new(),
        conflicts: BTreeSet::new(),
    };
    merger.merge_paths()?;
    merger.compare_groups()?;
    let Merger { kept, conflicts, .. } = merger;
    if conflicts.is_empty() {
        return Delta::new(kept).map(Ok);
    }
    let conflicts = conflicts.into_iter().map(|path| {
        let [base, ours, theirs] = [base, ours, theirs].map(|root| tree::get(source, root, &path));
        Ok(Conflict { base: base?, ours: ours?, theirs: theirs?, path })
    });
    conflicts.collect::<Result<_>>().map(Err)
}

/// The tree `onto` with what `delta` changes in `base`: a [`merge`] of both, in which `onto` is ours.
pub fn rebase(
    source: &impl ObjectSource,
    sink: &mut impl ObjectSink,
    base: &Root,
    delta: &Delta,
    onto: &Root,
) -> Result<Merged> {
    let scratch = Scratch::new(source);
    let theirs = apply(&&scratch, &mut &scratch, base, delta)?;
    merge(&&scratch, sink, base, onto, &theirs)
}

/// The one delta that does to `base` what `deltas` do one after the other.
///
/// It takes the tree: a hard link that one delta adds to an inode of the tree stays when the next takes away the name it
/// was given by, and then only the tree says what the inode is.
pub fn squash<'d>(
    source: &impl ObjectSource,
    base: &Root,
    deltas: impl IntoIterator<Item = &'d Delta>,
) -> Result<Delta> {
    let scratch = Scratch::new(source);
    let applied =
        deltas.into_iter().try_fold(*base, |root, delta| apply(&&scratch, &mut &scratch, &root, delta))?;
    diff(&&scratch, base, &applied)
}

/// What one side changed: one change for each path.
struct Side {
    delta: Delta,
    /// Paths that hard links are put to.
    linked: BTreeSet<TreePath>,
}

impl Side {
    fn new(delta: Delta) -> Self {
        let linked = delta.changes().iter().filter_map(|change| match change {
            DeltaChange::Put(_, Entry::HardLink(target)) => Some(target.clone()),
            _ => None,
        });
        let linked = linked.collect();
        Self { delta, linked }
    }

    fn at(&self, path: &TreePath) -> Option<&DeltaChange> {
        let changes = self.delta.changes();
        let place = changes.binary_search_by(|change| change.path().cmp(path)).ok()?;
        changes.get(place)
    }

    /// The changes below a path, without its own.
    fn below<'s>(&'s self, path: &'s TreePath) -> impl Iterator<Item = &'s DeltaChange> {
        let changes = self.delta.changes();
        let start = changes.partition_point(|change| change.path() <= path);
        let rest = changes.get(start..).unwrap_or_default();
        rest.iter().take_while(move |change| change.path().starts_with(path))
    }

    /// Whether it removes a directory that the path is in.
    fn removes_above(&self, path: &TreePath) -> bool {
        let mut above = path.parent();
        while let Some(directory) = above {
            if self.at(&directory).is_some_and(removes_below) {
                return true;
            }
            above = directory.parent();
        }
        false
    }
}

/// Whether what is below the path is gone afterwards.
fn removes_below(change: &DeltaChange) -> bool {
    match change {
        DeltaChange::Whiteout(_) => true,
        DeltaChange::Put(_, entry) => !entry.is_directory(),
    }
}

struct Merger<'a, S> {
    base: Entries<&'a S>,
    ours: &'a Side,
    theirs: &'a Side,
    /// What is to be changed in ours.
    kept: Vec<DeltaChange>,
    conflicts: BTreeSet<TreePath>,
}

impl<S: ObjectSource> Merger<'_, S> {
    fn merge_paths(&mut self) -> Result<()> {
        for theirs in self.theirs.delta.changes() {
            let path = theirs.path();
            match self.ours.at(path) {
                Some(ours) if ours == theirs => {}
                Some(ours) => self.merge_path(path, ours, theirs)?,
                None if !self.ours.removes_above(path) => self.kept.push(theirs.clone()),
                None => self.refuse_put(theirs)?,
            }
            if removes_below(theirs) {
                self.ours.below(path).try_for_each(|ours| self.refuse_put(ours))?;
            }
        }
        Ok(())
    }

    /// Where one side's directory is gone, the other must have put nothing into it.
    fn refuse_put(&mut self, change: &DeltaChange) -> Result<()> {
        if matches!(change, DeltaChange::Put(..)) && !self.is_time_only(change)? {
            self.conflicts.insert(change.path().clone());
        }
        Ok(())
    }

    fn merge_path(&mut self, path: &TreePath, ours: &DeltaChange, theirs: &DeltaChange) -> Result<()> {
        if removes_below(theirs) && self.is_time_only(ours)? {
            self.kept.push(theirs.clone());
            return Ok(());
        }
        if removes_below(ours) && self.is_time_only(theirs)? {
            return Ok(());
        }
        let is_linked = self.ours.linked.contains(path) || self.theirs.linked.contains(path);
        if let (DeltaChange::Put(_, Entry::Inode(ours)), DeltaChange::Put(_, Entry::Inode(theirs)), false) =
            (ours, theirs, is_linked)
        {
            let base = self.base.find(path)?;
            let base = base.as_ref().and_then(Entry::as_inode).map(group::unlinked);
            if let Some(merged) = merge_inodes(base.as_ref(), ours, theirs) {
                if merged != *ours {
                    self.kept.push(DeltaChange::Put(path.clone(), Entry::Inode(merged)));
                }
                return Ok(());
            }
        }
        self.conflicts.insert(path.clone());
        Ok(())
    }

    /// Whether a directory only gets another time.
    fn is_time_only(&mut self, change: &DeltaChange) -> Result<bool> {
        let DeltaChange::Put(path, Entry::Inode(after)) = change else { return Ok(false) };
        if after.kind != InodeKind::Directory {
            return Ok(false);
        }
        let before = self.base.find(path)?;
        Ok(before
            .as_ref()
            .and_then(Entry::as_inode)
            .is_some_and(|before| Inode { mtime: after.mtime, ..before.clone() } == *after))
    }

    /// Finds inodes of the base that one side adds names to, and that the other side touches as well.
    fn compare_groups(&mut self) -> Result<()> {
        let [ours, theirs] = [self.ours, self.theirs].map(|side| self.touched(side));
        let (ours, theirs) = (ours?, theirs?);
        for (holder, our_touches) in &ours {
            let Some(their_touches) = theirs.get(holder).filter(|touches| *touches != our_touches) else {
                continue;
            };
            let touches = our_touches.iter().chain(their_touches);
            let gained = touches.filter(|(_, touch)| matches!(touch, Touch::Gained(_)));
            self.conflicts.extend(gained.map(|(path, _)| path.clone()));
        }
        Ok(())
    }

    /// What a side does to the names of each inode of the base that is no directory, by the path that holds the inode.
    fn touched(&mut self, side: &Side) -> Result<BTreeMap<TreePath, Touches>> {
        let mut touched: BTreeMap<TreePath, Touches> = BTreeMap::new();
        for change in side.delta.changes() {
            let top = change.path();
            self.base.seek(top)?;
            while self
                .base
                .peek()?
                .is_some_and(|(path, _)| path == top || (removes_below(change) && path.starts_with(top)))
            {
                let Some((path, entry)) = self.base.next().transpose()? else { break };
                if let Some(holder) = holder(&path, &entry) {
                    touched.entry(holder).or_default().insert((path, Touch::Lost));
                }
            }
            if let DeltaChange::Put(path, Entry::HardLink(target)) = change
                && !matches!(side.delta.put_at(target), Some(Entry::Inode(_)))
                && let Some(holder) = self.base.find(target)?.and_then(|entry| holder(target, &entry))
            {
                touched.entry(holder).or_default().insert((path.clone(), Touch::Gained(target.clone())));
            }
        }
        Ok(touched)
    }
}

/// Paths, and what happens to each.
type Touches = BTreeSet<(TreePath, Touch)>;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Touch {
    /// The path is another inode's afterwards, or nothing's.
    Lost,
    /// The path becomes a name of the inode that this one has.
    Gained(TreePath),
}

/// The path that holds the inode of an entry; none for a directory.
fn holder(path: &TreePath, entry: &Entry) -> Option<TreePath> {
    match entry {
        Entry::HardLink(least) => Some(least.clone()),
        Entry::Inode(inode) => (inode.kind != InodeKind::Directory).then(|| path.clone()),
    }
}

/// Both sides' inode, if no field of it was changed by both to different values.
fn merge_inodes(base: Option<&Inode>, ours: &Inode, theirs: &Inode) -> Option<Inode> {
    fn pick<T: Clone + PartialEq>(base: Option<&T>, ours: &T, theirs: &T) -> Option<T> {
        if ours == theirs || base == Some(theirs) {
            return Some(ours.clone());
        }
        (base == Some(ours)).then(|| theirs.clone())
    }
    // Fields of different kinds of file don't belong together.
    if std::mem::discriminant(&ours.kind) != std::mem::discriminant(&theirs.kind) {
        return None;
    }
    let field = |field: fn(&Inode) -> u32| pick(base.map(field).as_ref(), &field(ours), &field(theirs));
    let mtime = pick(base.map(|base| &base.mtime), &ours.mtime, &theirs.mtime);
    Some(Inode {
        mode: pick(base.map(|base| &base.mode), &ours.mode, &theirs.mode)?,
        uid: field(|inode| inode.uid)?,
        gid: field(|inode| inode.gid)?,
        mtime: mtime.unwrap_or(ours.mtime.max(theirs.mtime)),
        xattrs: pick(base.map(|base| &base.xattrs), &ours.xattrs, &theirs.xattrs)?,
        links: ours.links.clone(),
        kind: pick(base.map(|base| &base.kind), &ours.kind, &theirs.kind)?,
    })
}
