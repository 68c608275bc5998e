//! The finished file system, path by path.

use std::collections::{BTreeMap, btree_map};

use super::super::Member;
use super::{Inode, InodeIndex, ancestor_ends, implicit, shared_components};
use crate::path::TreePath;

/// What is at one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placed<T> {
    /// An inode, at the least of its paths.
    Inode {
        /// What it is; never a [hard link](super::super::MemberKind::HardLink).
        member: Member<T>,
        /// Its other paths, ascending; empty for most.
        links: Vec<TreePath>,
    },
    /// A further path of an inode.
    HardLink {
        /// This path.
        path: TreePath,
        /// The least path of the inode, which came before.
        first: TreePath,
    },
}

impl<T> Placed<T> {
    /// The path.
    #[must_use]
    pub fn path(&self) -> &TreePath {
        match self {
            Self::Inode { member, .. } => &member.path,
            Self::HardLink { path, .. } => path,
        }
    }
}

/// An [`Assembly`](super::Assembly)'s file system: every path in ascending order, the root first, each in a
/// directory that came before.
pub struct Assembled<T> {
    paths: std::iter::Peekable<btree_map::IntoIter<TreePath, InodeIndex>>,
    inodes: Vec<Inode<T>>,
    /// All paths of inodes that have several, ascending.
    groups: BTreeMap<InodeIndex, Vec<TreePath>>,
    /// The key of the last path given; none before the root.
    before: Option<Vec<u8>>,
}

impl<T> Assembled<T> {
    pub(super) fn new(paths: BTreeMap<TreePath, InodeIndex>, inodes: Vec<Inode<T>>) -> Self {
        let mut groups: BTreeMap<InodeIndex, Vec<TreePath>> = BTreeMap::new();
        for (path, index) in &paths {
            if inodes.get(*index).is_some_and(|inode| inode.links > 1) {
                groups.entry(*index).or_default().push(path.clone());
            }
        }
        Self { paths: paths.into_iter().peekable(), inodes, groups, before: None }
    }

    /// The next directory that no entry named but the next path needs.
    fn next_implicit(&mut self) -> Option<TreePath> {
        let next = self.paths.peek().map(|(path, _)| path.as_key());
        let Some(before) = &self.before else {
            return next.is_none_or(|key| !key.is_empty()).then(TreePath::root);
        };
        let key = next?;
        let known = shared_components(before, key);
        let end = ancestor_ends(key).find(|end| *end > known)?;
        TreePath::from_key(key.get(..end)?).ok()
    }

    fn place(&mut self, path: TreePath, index: InodeIndex) -> Option<Placed<T>> {
        let group = self.groups.get(&index);
        if let Some(first) = group.and_then(|group| group.first())
            && *first != path
        {
            return Some(Placed::HardLink { first: first.clone(), path });
        }
        let links = group.and_then(|group| group.get(1..)).unwrap_or_default().to_vec();
        let member = self.inodes.get_mut(index)?.member.take()?;
        Some(Placed::Inode { member: Member { path, ..member }, links })
    }
}

impl<T> Iterator for Assembled<T> {
    type Item = Placed<T>;

    fn next(&mut self) -> Option<Placed<T>> {
        let placed = if let Some(path) = self.next_implicit() {
            Placed::Inode { member: implicit(path), links: Vec::new() }
        } else {
            let (path, index) = self.paths.next()?;
            self.place(path, index)?
        };
        self.before = Some(placed.path().as_key().to_vec());
        Some(placed)
    }
}
