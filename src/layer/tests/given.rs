//! Generated file systems, and what deltas mean for them.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::layer::{Delta, DeltaChange};
use crate::object::memory::MemoryObjects;
use crate::path::TreePath;
use crate::tree::tests::given::{entry, inode, path};
use crate::tree::{self, Entry, Inode, InodeKind, Root, group};

pub(super) fn dir() -> Entry {
    Entry::Inode(inode(InodeKind::Directory))
}

pub(super) fn dirs(paths: &[&str]) -> Vec<(TreePath, Entry)> {
    paths.iter().map(|at| (path(at), dir())).collect()
}

/// A tree of 200 directories in `usr`, each with 100 files.
pub(super) fn large(objects: &MemoryObjects) -> Root {
    let mut entries = dirs(&["", "usr"]);
    for directory in 0..200 {
        entries.extend(dirs(&[&format!("usr/{directory}")]));
        entries.extend((0..100).map(|i| (path(&format!("usr/{directory}/{i}")), entry(i))));
    }
    entries.sort_by(|(a, _), (b, _)| a.cmp(b));
    tree::build(&mut &*objects, entries).unwrap()
}

/// A step of somebody's work on a file system.
#[derive(Clone, Debug)]
pub(super) enum Op {
    /// A new inode, even where it is the same again; its directories are made.
    Write(TreePath, Entry),
    /// A further name for the n-th path that is no directory.
    Link(usize, TreePath),
    Remove(TreePath),
    /// Changes the inode, under all its names.
    Chmod(TreePath, u16),
}

impl Op {
    /// The same below a directory; none for a link, which may be of any file.
    pub(super) fn below(&self, directory: &str) -> Option<Self> {
        let moved =
            |at: &TreePath| path(&format!("{directory}/{}", String::from_utf8(at.to_relative()).unwrap()));
        match self {
            Self::Write(path, entry) => Some(Self::Write(moved(path), entry.clone())),
            Self::Link(..) => None,
            Self::Remove(path) => Some(Self::Remove(moved(path))),
            Self::Chmod(path, mode) => Some(Self::Chmod(moved(path), *mode)),
        }
    }
}

pub(super) fn name() -> impl Strategy<Value = TreePath> {
    proptest::collection::vec("[abc]", 1..4).prop_map(|names| path(&names.join("/")))
}

fn written() -> impl Strategy<Value = Entry> {
    prop_oneof![
        4 => (0..3_u64).prop_map(entry),
        1 => Just(dir()),
        1 => Just(Entry::Inode(inode(InodeKind::Symlink(b"a".as_slice().into())))),
        1 => Just(Entry::Inode(inode(InodeKind::CharDevice { major: 0, minor: 0 }))),
    ]
}

pub(super) fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (name(), written()).prop_map(|(path, entry)| Op::Write(path, entry)),
        4 => (any::<usize>(), name()).prop_map(|(nth, path)| Op::Link(nth, path)),
        2 => name().prop_map(Op::Remove),
        1 => (name(), 0..2_u16).prop_map(|(path, mode)| Op::Chmod(path, mode)),
    ]
}

pub(super) fn delta_changes() -> impl Strategy<Value = Vec<DeltaChange>> {
    let change = prop_oneof![
        2 => name().prop_map(DeltaChange::Whiteout),
        2 => (name(), written()).prop_map(|(path, entry)| DeltaChange::Put(path, entry)),
        2 => (name(), name()).prop_map(|(path, to)| DeltaChange::Put(path, Entry::HardLink(to))),
    ];
    proptest::collection::vec(change, 0..5)
}

/// A file system as the kernel has it: names of inodes.
#[derive(Clone, Default)]
pub(super) struct Model {
    names: BTreeMap<TreePath, usize>,
    inodes: Vec<Inode>,
}

impl Model {
    pub(super) fn run(&mut self, ops: &[Op]) {
        for op in ops {
            match op {
                Op::Write(path, entry) => {
                    self.make_parents(path);
                    self.write(path, entry.as_inode().unwrap().clone());
                }
                Op::Link(nth, path) => {
                    let files: Vec<_> =
                        self.names.values().filter(|number| !self.is_directory(**number)).collect();
                    if let Some(&&number) = files.get(nth % files.len().max(1)) {
                        self.make_parents(path);
                        self.remove(path);
                        self.names.insert(path.clone(), number);
                    }
                }
                Op::Remove(path) => self.remove(path),
                Op::Chmod(path, mode) => {
                    if let Some(number) = self.names.get(path) {
                        self.inodes[*number].mode = *mode;
                    }
                }
            }
        }
    }

    /// The path that an [`Op::Link`] links to.
    pub(super) fn nth_file(&self, nth: usize) -> Option<TreePath> {
        let files: Vec<_> = self.names.iter().filter(|(_, number)| !self.is_directory(**number)).collect();
        files.get(nth % files.len().max(1)).map(|(path, _)| (*path).clone())
    }

    /// Every path and its inode.
    pub(super) fn inodes(&self) -> Vec<(TreePath, Inode)> {
        self.names.iter().map(|(path, number)| (path.clone(), self.inodes[*number].clone())).collect()
    }

    /// Moves what is at one path to another where nothing is, in a directory; whether it could.
    pub(super) fn rename(&mut self, from: &TreePath, to: &TreePath) -> bool {
        let is_placed = to
            .parent()
            .is_some_and(|parent| self.names.get(&parent).is_some_and(|number| self.is_directory(*number)));
        if !self.names.contains_key(from) || self.names.contains_key(to) || to.starts_with(from) || !is_placed
        {
            return false;
        }
        let moved: Vec<_> = self.names.keys().filter(|path| path.starts_with(from)).cloned().collect();
        for old in moved {
            let number = self.names.remove(&old).unwrap();
            let rest = &old.as_key()[from.as_key().len()..];
            self.names.insert(TreePath::from_key(&[to.as_key(), rest].concat()).unwrap(), number);
        }
        true
    }

    /// Empties a directory; whether it was one.
    pub(super) fn clear(&mut self, top: &TreePath) -> bool {
        let is_directory = self.names.get(top).is_some_and(|number| self.is_directory(*number));
        if is_directory {
            self.names.retain(|path, _| path == top || !path.starts_with(top));
        }
        is_directory
    }

    /// What the delta says, step by step; none if it cannot be.
    pub(super) fn apply(&mut self, delta: &Delta) -> Option<()> {
        let before = self.names.clone();
        for change in delta.changes() {
            match change {
                DeltaChange::Put(path, entry)
                    if entry.is_directory()
                        && before.get(path).is_some_and(|number| self.is_directory(*number)) => {}
                change => self.remove(change.path()),
            }
        }
        let puts = || {
            delta.changes().iter().filter_map(|change| match change {
                DeltaChange::Put(path, entry) => Some((path, entry)),
                DeltaChange::Whiteout(_) => None,
            })
        };
        for (path, entry) in puts() {
            if let Entry::Inode(inode) = entry {
                self.write(path, inode.clone());
            }
        }
        for (path, entry) in puts() {
            if let Entry::HardLink(target) = entry {
                let number = *self.names.get(target).filter(|number| !self.is_directory(**number))?;
                self.names.insert(path.clone(), number);
            }
        }
        let is_placed = |path: &TreePath| {
            path.parent()
                .is_none_or(|parent| self.names.get(&parent).is_some_and(|number| self.is_directory(*number)))
        };
        self.names.keys().all(is_placed).then_some(())
    }

    pub(super) fn store(&self, objects: &MemoryObjects) -> Root {
        let mut members: BTreeMap<usize, std::collections::BTreeSet<TreePath>> = BTreeMap::new();
        for (path, number) in &self.names {
            members.entry(*number).or_default().insert(path.clone());
        }
        let entries = members.into_iter().flat_map(|(number, paths)| {
            group::entries(&mut &*objects, self.inodes[number].clone(), paths).unwrap()
        });
        tree::build(&mut &*objects, entries.collect::<BTreeMap<_, _>>()).unwrap()
    }

    fn is_directory(&self, number: usize) -> bool {
        self.inodes[number].kind == InodeKind::Directory
    }

    /// Puts a new inode; what is below stays only between directories.
    fn write(&mut self, path: &TreePath, inode: Inode) {
        let was_directory = self.names.get(path).is_some_and(|number| self.is_directory(*number));
        if !(was_directory && inode.kind == InodeKind::Directory) {
            self.remove(path);
        }
        self.inodes.push(inode);
        self.names.insert(path.clone(), self.inodes.len() - 1);
    }

    fn make_parents(&mut self, path: &TreePath) {
        let Some(parent) = path.parent() else { return };
        if !self.names.get(&parent).is_some_and(|number| self.is_directory(*number)) {
            self.make_parents(&parent);
            self.write(&parent, inode(InodeKind::Directory));
        }
    }

    fn remove(&mut self, top: &TreePath) {
        self.names.retain(|path, _| !path.starts_with(top));
    }
}
