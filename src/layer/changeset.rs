//! Steps on a tree, one after the other, as a kernel would take them; what they come to is one delta.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

use super::delta::{Delta, DeltaChange, invalid};
use crate::error::{Error, Result, Subject};
use crate::object::ObjectSource;
use crate::path::TreePath;
use crate::tree::{self, Entries, Entry, Inode, InodeKind, Root, group, links};

/// Answers of the base that are kept.
const FOUND_MAX: usize = 4096;

/// A tree and what was changed in it so far. The memory it takes follows the changes.
pub(crate) struct Changeset<S> {
    source: S,
    root: Root,
    base: Entries<S>,
    /// What was asked of the base: neighbours ask for the same directories.
    found: HashMap<TreePath, Option<Entry>>,
    /// Subtrees of the base that are gone, none in another.
    gone: BTreeSet<TreePath>,
    /// Paths that are not as in the base, and what they are names of. **Invariant:** nothing is below what is no directory.
    names: BTreeMap<TreePath, InodeIndex>,
    inodes: Vec<Changed>,
    /// Those that are the base's, by the path that holds them there.
    kept: HashMap<TreePath, InodeIndex>,
}

/// Where an inode is in [`Changeset::inodes`].
type InodeIndex = usize;

/// An inode that has names which are not as in the base.
enum Changed {
    /// One that the base has not; without links.
    New(Inode),
    /// The one that this path holds in the base.
    Kept(TreePath),
}

impl<S: ObjectSource + Clone> Changeset<S> {
    /// No changes of a tree.
    pub(crate) fn new(source: S, root: &Root) -> Result<Self> {
        let base = tree::iter(source.clone(), root)?;
        let (found, gone, names, inodes, kept) = Default::default();
        Ok(Self { source, root: *root, base, found, gone, names, inodes, kept })
    }

    /// The inode at a path as it is now, without links.
    pub(crate) fn find(&mut self, path: &TreePath) -> Result<Option<Inode>> {
        match self.names.get(path).and_then(|index| self.inodes.get(*index)) {
            Some(Changed::New(inode)) => Ok(Some(inode.clone())),
            Some(Changed::Kept(holder)) => self.base_inode(&holder.clone()).map(Some),
            None => self.holder(path)?.map(|holder| self.base_inode(&holder)).transpose(),
        }
    }

    /// The entry of the base at a path, whatever was changed.
    pub(crate) fn base_entry(&mut self, path: &TreePath) -> Result<Option<Entry>> {
        if let Some(found) = self.found.get(path) {
            return Ok(found.clone());
        }
        let found = self.base.find(path)?;
        if self.found.len() >= FOUND_MAX {
            self.found.clear();
        }
        self.found.insert(path.clone(), found.clone());
        Ok(found)
    }

    /// Makes the path one of a new inode. What is below a directory stays if that becomes a directory again, and is removed
    /// otherwise. Fails with *invalid* where the path is in no directory.
    pub(crate) fn put(&mut self, path: &TreePath, inode: Inode) -> Result<()> {
        let is_directory = inode.kind == InodeKind::Directory;
        if path.is_root() && !is_directory {
            return Err(invalid(path, "is the root, which must be a directory"));
        }
        // What is so already costs nothing further, unless the path has to part with other names of the inode.
        if !self.names.contains_key(path)
            && !self.kept.contains_key(path)
            && !self.is_gone(path)
            && matches!(self.base_entry(path)?, Some(Entry::Inode(old)) if old == inode)
        {
            return Ok(());
        }
        self.check_parent(path)?;
        if !is_directory {
            self.cut(path)?;
        }
        self.inodes.push(Changed::New(Inode { links: tree::Content::empty(), ..inode }));
        self.names.insert(path.clone(), self.inodes.len() - 1);
        Ok(())
    }

    /// Makes the path a further name of the inode at another. Fails with *invalid* where that is not there or a directory.
    pub(crate) fn link(&mut self, path: &TreePath, target: &TreePath) -> Result<()> {
        let is_file = self.find(target)?.is_some_and(|inode| inode.kind != InodeKind::Directory);
        if !is_file || path == target {
            let message = format!("is to be a hard link to {target}, which is not there or no other file");
            return Err(invalid(path, message));
        }
        self.check_parent(path)?;
        let index = self.index(target)?;
        self.cut(path)?;
        self.names.insert(path.clone(), index);
        Ok(())
    }

    /// Changes the inode at a path, under all its names.
    pub(crate) fn change(&mut self, path: &TreePath, change: impl FnOnce(&mut Inode)) -> Result<()> {
        let mut inode = self.find(path)?.ok_or_else(|| missing(path))?;
        change(&mut inode);
        let index = self.index(path)?;
        if let Some(Changed::Kept(holder)) = self.inodes.get(index) {
            let holder = holder.clone();
            for member in self.kept_members(&holder)? {
                self.names.insert(member, index);
            }
            self.kept.remove(&holder);
        }
        if let Some(place) = self.inodes.get_mut(index) {
            *place = Changed::New(inode);
        }
        self.names.insert(path.clone(), index);
        Ok(())
    }

    /// Removes a path and all below it. Fails with *not found* where nothing is.
    pub(crate) fn remove(&mut self, path: &TreePath) -> Result<()> {
        if path.is_root() {
            return Err(invalid(path, "is the root, which stays"));
        }
        if self.find(path)?.is_none() {
            return Err(missing(path));
        }
        self.cut(path)?;
        self.names.remove(path);
        if self.holder(path)?.is_some() {
            self.set_gone(path);
        }
        Ok(())
    }

    /// Removes all below a directory, which stays.
    pub(crate) fn clear(&mut self, path: &TreePath) -> Result<()> {
        let directory = self.find(path)?.filter(|inode| inode.kind == InodeKind::Directory);
        let directory = directory.ok_or_else(|| invalid(path, "is no directory"))?;
        self.cut(path)?;
        self.put(path, directory)
    }

    /// Gives a path, and all below it, another place, where nothing may be.
    pub(crate) fn rename(&mut self, from: &TreePath, to: &TreePath) -> Result<()> {
        if from.is_root() || to.starts_with(from) {
            return Err(invalid(from, format!("can't become {to}, which it holds or is")));
        }
        if self.find(to)?.is_some() {
            return Err(Error::conflict(Subject::Path(to.clone()), "is there already; remove it first"));
        }
        self.check_parent(to)?;
        let subtree = self.subtree(from)?;
        self.remove(from)?;
        for (path, index) in subtree {
            self.names.insert(moved(&path, from, to)?, index);
        }
        Ok(())
    }

    /// Puts into a directory what the base has below a path, whether or not it is still there.
    pub(crate) fn graft(&mut self, from: &TreePath, to: &TreePath) -> Result<()> {
        let mut below = tree::range(self.source.clone(), &self.root, from)?;
        while let Some((path, entry)) = below.next().transpose()?.filter(|(path, _)| path.starts_with(from)) {
            if path == *from {
                continue;
            }
            let to = moved(&path, from, to)?;
            let index = match entry {
                Entry::Inode(inode) if inode.links.is_empty() => {
                    self.inodes.push(Changed::New(inode));
                    self.inodes.len() - 1
                }
                Entry::Inode(_) => self.kept_index(path),
                Entry::HardLink(holder) => self.kept_index(holder),
            };
            self.names.insert(to, index);
        }
        Ok(())
    }

    /// The path that holds the inode of a path of the base, if that has several names there.
    pub(crate) fn base_group(&mut self, path: &TreePath) -> Result<Option<TreePath>> {
        Ok(match self.base_entry(path)? {
            Some(Entry::HardLink(holder)) => Some(holder),
            Some(Entry::Inode(inode)) if !inode.links.is_empty() => Some(path.clone()),
            _ => None,
        })
    }

    /// Makes all names that an inode of the base has now names of the inode at `path`.
    pub(crate) fn take_over(&mut self, path: &TreePath, holder: &TreePath) -> Result<()> {
        let index = self.index(path)?;
        let members = self.kept_members(holder)?;
        if let Some(kept) = self.kept.remove(holder) {
            self.names.values_mut().filter(|name| **name == kept).for_each(|name| *name = index);
        }
        self.names.extend(members.into_iter().map(|member| (member, index)));
        Ok(())
    }

    /// What all changes come to.
    pub(crate) fn finish(mut self) -> Result<Delta> {
        self.found = HashMap::new();
        let mut changes = Vec::with_capacity(self.gone.len() + self.names.len());
        changes.extend(self.gone.iter().cloned().map(DeltaChange::Whiteout));
        let mut names: Vec<Vec<TreePath>> = vec![Vec::new(); self.inodes.len()];
        for (path, index) in &self.names {
            if let Some(names) = names.get_mut(*index) {
                names.push(path.clone());
            }
        }
        for (changed, names) in std::mem::take(&mut self.inodes).into_iter().zip(names) {
            let mut names = names.into_iter();
            let inode = match changed {
                Changed::New(inode) => inode,
                Changed::Kept(holder) => {
                    if let Some(member) = self.kept_members(&holder)?.into_iter().next() {
                        let links = names.map(|path| DeltaChange::Put(path, Entry::HardLink(member.clone())));
                        changes.extend(links);
                        continue;
                    }
                    self.base_inode(&holder)?
                }
            };
            let Some(first) = names.next() else { continue };
            changes.extend(names.map(|path| DeltaChange::Put(path, Entry::HardLink(first.clone()))));
            changes.push(DeltaChange::Put(first, Entry::Inode(inode)));
        }
        Delta::new(changes)
    }

    /// The inode that a path is a name of now.
    fn index(&mut self, path: &TreePath) -> Result<InodeIndex> {
        if let Some(index) = self.names.get(path) {
            return Ok(*index);
        }
        let holder = self.holder(path)?.ok_or_else(|| missing(path))?;
        Ok(self.kept_index(holder))
    }

    /// The inode that this path holds in the base.
    fn kept_index(&mut self, holder: TreePath) -> InodeIndex {
        let next = self.inodes.len();
        let index = *self.kept.entry(holder.clone()).or_insert(next);
        if index == next {
            self.inodes.push(Changed::Kept(holder));
        }
        index
    }

    /// The path that holds the inode of a path of the base, if that is not gone.
    fn holder(&mut self, path: &TreePath) -> Result<Option<TreePath>> {
        if self.is_gone(path) {
            return Ok(None);
        }
        Ok(self.base_entry(path)?.map(|entry| match entry {
            Entry::Inode(_) => path.clone(),
            Entry::HardLink(least) => least,
        }))
    }

    /// Whether a path of the base is gone, with a directory above it or by itself.
    fn is_gone(&self, path: &TreePath) -> bool {
        // What is below a directory follows it directly, and of what is gone nothing is below another.
        self.gone.range(..=path).next_back().is_some_and(|gone| path.starts_with(gone))
    }

    fn set_gone(&mut self, path: &TreePath) {
        let below = self.gone.range::<TreePath, _>((Bound::Excluded(path), Bound::Unbounded));
        let below: Vec<_> = below.take_while(|below| below.starts_with(path)).cloned().collect();
        for path in below {
            self.gone.remove(&path);
        }
        self.gone.insert(path.clone());
    }

    /// An inode of the base, without links, whether or not it is gone.
    fn base_inode(&mut self, holder: &TreePath) -> Result<Inode> {
        match self.base_entry(holder)? {
            Some(Entry::Inode(inode)) => Ok(group::unlinked(&inode)),
            _ => Err(group::broken(holder, holder)),
        }
    }

    /// The names that an inode of the base still has there.
    fn kept_members(&mut self, holder: &TreePath) -> Result<BTreeSet<TreePath>> {
        let Some(Entry::Inode(inode)) = self.base_entry(holder)? else {
            return Err(group::broken(holder, holder));
        };
        let mut members = links::read(&self.source, &inode.links)?;
        members.insert(holder.clone());
        members.retain(|path| !self.names.contains_key(path) && !self.is_gone(path));
        Ok(members)
    }

    /// Removes what is below a path.
    fn cut(&mut self, path: &TreePath) -> Result<()> {
        let below = self.names.range::<TreePath, _>((Bound::Excluded(path), Bound::Unbounded));
        let below: Vec<_> =
            below.map(|(path, _)| path.clone()).take_while(|below| below.starts_with(path)).collect();
        for path in below {
            self.names.remove(&path);
        }
        if !self.is_gone(path) && self.base_entry(path)?.is_some_and(|entry| entry.is_directory()) {
            self.set_gone(path);
        }
        Ok(())
    }

    /// All paths from one down as they are now, each with its inode.
    fn subtree(&mut self, top: &TreePath) -> Result<BTreeMap<TreePath, InodeIndex>> {
        let mut paths = BTreeSet::new();
        self.base.seek(top)?;
        while let Some((path, _)) = self.base.peek()?.filter(|(path, _)| path.starts_with(top)) {
            paths.insert(path.clone());
            self.base.next().transpose()?;
        }
        paths.retain(|path| !self.is_gone(path));
        let changed = self.names.range::<TreePath, _>((Bound::Included(top), Bound::Unbounded));
        paths.extend(changed.map(|(path, _)| path.clone()).take_while(|path| path.starts_with(top)));
        paths.into_iter().map(|path| self.index(&path).map(|index| (path, index))).collect()
    }

    fn check_parent(&mut self, path: &TreePath) -> Result<()> {
        let Some(parent) = path.parent() else { return Ok(()) };
        if self.find(&parent)?.is_some_and(|inode| inode.kind == InodeKind::Directory) {
            return Ok(());
        }
        Err(invalid(path, format!("is to be in {parent}, which is not there or no directory")))
    }
}

/// The path that one which is `from` or below it has below `to`.
fn moved(path: &TreePath, from: &TreePath, to: &TreePath) -> Result<TreePath> {
    let rest = path.components().skip(from.depth());
    let moved = rest.into_iter().try_fold(to.clone(), |to, name| to.join(name));
    moved.map_err(|error| invalid(path, format!("as a part of {to} {error}")))
}

fn missing(path: &TreePath) -> Error {
    Error::not_found(Subject::Path(path.clone()), "not in the image")
}
