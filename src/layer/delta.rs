//! Deltas: what a layer changes, in normal form.

use crate::error::{Error, Result, Subject};
use crate::path::TreePath;
use crate::tree::{Content, Entry};

/// One change of a [`Delta`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeltaChange {
    /// The path and all below it that the tree has are removed; what is not there needs no removal.
    Whiteout(TreePath),
    /// The path becomes this entry. Where it was another inode, or a name of a hard link group, it is that no
    /// longer, and the rest of the group stays as it was. What is below it stays if it was and is a directory,
    /// and is removed otherwise.
    ///
    /// An inode's `links` are of no account here; a further name is put as [`Entry::HardLink`] of any path
    /// that has the inode afterwards and is not itself put as a hard link.
    Put(TreePath, Entry),
}

impl DeltaChange {
    /// The path that is changed.
    #[must_use]
    pub fn path(&self) -> &TreePath {
        match self {
            Self::Whiteout(path) | Self::Put(path, _) => path,
        }
    }

    /// The place of this change among those of its path.
    fn rank(&self) -> u8 {
        match self {
            Self::Whiteout(_) => 0,
            Self::Put(..) => 1,
        }
    }
}

/// The changes of one layer, in normal form: ascending by path, for one path whiteout before put; nothing put
/// below what is put as no directory; no whiteout where another change removes the same already; and no
/// inode with links.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Delta {
    changes: Vec<DeltaChange>,
}

impl Delta {
    /// The delta of these changes, in any order.
    ///
    /// Fails with *invalid*, naming the path, on two changes of one kind for one path, on a put below one that
    /// is no directory, on a root that is none, and on a hard link to a hard link.
    pub fn new(mut changes: Vec<DeltaChange>) -> Result<Self> {
        changes.sort_unstable_by(|a, b| (a.path(), a.rank()).cmp(&(b.path(), b.rank())));
        let mut delta = Self { changes: Vec::with_capacity(changes.len()) };
        // In path order a subtree is contiguous, so the nearest of each is all there is to compare with.
        let (mut whiteout, mut file) = (None::<TreePath>, None::<TreePath>);
        for change in changes {
            let path = change.path();
            if delta.changes.last().is_some_and(|last| last.path() == path && last.rank() == change.rank()) {
                return Err(invalid(path, "is changed twice; say what becomes of it in the end"));
            }
            let is_below = |top: &Option<TreePath>| top.as_ref().is_some_and(|top| path.starts_with(top));
            match change {
                DeltaChange::Whiteout(_) if is_below(&whiteout) || is_below(&file) => {}
                DeltaChange::Whiteout(path) => {
                    whiteout = Some(path.clone());
                    delta.changes.push(DeltaChange::Whiteout(path));
                }
                DeltaChange::Put(path, _) if is_below(&file) => {
                    return Err(invalid(&path, "is put below a path that is put as no directory"));
                }
                DeltaChange::Put(path, entry) => {
                    if !entry.is_directory() {
                        file = Some(path.clone());
                        delta.changes.pop_if(|last| *last.path() == path);
                    }
                    delta.changes.push(DeltaChange::Put(path, without_links(entry)));
                }
            }
        }
        delta.check_targets()?;
        Ok(delta)
    }

    /// The changes, in normal order.
    #[must_use]
    pub fn changes(&self) -> &[DeltaChange] {
        &self.changes
    }

    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The entry that `path` is put as, if it is.
    #[must_use]
    pub fn put_at(&self, path: &TreePath) -> Option<&Entry> {
        let end = self.changes.partition_point(|change| change.path() <= path);
        match self.changes.get(end.checked_sub(1)?)? {
            DeltaChange::Put(found, entry) if found == path => Some(entry),
            _ => None,
        }
    }

    fn check_targets(&self) -> Result<()> {
        for change in &self.changes {
            match change {
                DeltaChange::Put(path, entry) if path.is_root() && !entry.is_directory() => {
                    return Err(invalid(path, "is the root, which must be a directory"));
                }
                DeltaChange::Put(path, Entry::HardLink(target))
                    if matches!(self.put_at(target), Some(Entry::HardLink(_))) =>
                {
                    let message = format!("is put as a hard link to {target}, itself put as a hard link");
                    return Err(invalid(path, message + "; name the path that has the inode"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn without_links(mut entry: Entry) -> Entry {
    if let Entry::Inode(inode) = &mut entry {
        inode.links = Content::empty();
    }
    entry
}

/// The error for a delta that cannot be.
pub(super) fn invalid(path: &TreePath, message: impl Into<String>) -> Error {
    Error::invalid(Subject::Path(path.clone()), message)
}
