//! Filling directories for overlays: with all of a tree, with what differs from the tree below, or with its root directory
//! alone.

use std::cell::Cell;
use std::collections::BTreeMap;

use crate::error::Result;
use crate::host::checkout::{Checkout, Item, WriteOptions, Written};
use crate::host::overlay::{WHITEOUT, whiteout};
use crate::id::ObjectId;
use crate::pack::reader::ObjectReader;
use crate::path::TreePath;
use crate::store::checkout::item;
use crate::task::Phase;
use crate::tree::{self, Entry, Root, links};

/// Of an image's extended attributes those that would not show in a mount, but act on it.
const OVERLAY_XATTRS: &[u8] = b"trusted.overlay.";

/// How a directory was filled.
pub(super) struct Filled {
    /// Whether it shows its root, over what lies below.
    pub(super) is_faithful: bool,
    /// Whether it needs what lies below.
    pub(super) lies_over: bool,
}

/// What a path of a directory over another is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// To be seen.
    Entry,
    /// To hide what is below.
    Whiteout,
}

/// Writes what shows `root`, over `below` where that is much less.
pub(super) fn fill(
    checkout: &Checkout,
    reader: &ObjectReader,
    below: Option<ObjectId>,
    root: ObjectId,
    threads: usize,
) -> Result<Filled> {
    let root = Root::open(reader, root)?;
    // What is below may be no image's any more, and its tree gone: then all is written.
    let parts = below.and_then(|below| parts_over(reader, &Root::open(reader, below).ok()?, &root).ok()?);
    let acts = Cell::new(false);
    let mut entries = tree::iter(reader, &root)?;
    let shown = |entry| {
        let (path, item) = item(reader, entry)?;
        acts.set(acts.get() || acts_on_overlay(&item));
        Ok((path, item))
    };
    let lies_over = parts.is_some();
    let paths = parts.as_ref().map_or(root.entries(), |parts| parts.len() as u64);
    let _stage = reader.task().begin(Phase::Preparing, paths);
    let written = match parts {
        Some(parts) => {
            let items = parts.into_iter().filter_map(|(path, part)| match part {
                Part::Whiteout => Some(Ok((path, Item::Inode(whiteout(), Vec::new())))),
                Part::Entry => {
                    let entry = entries.find(&path).transpose()?;
                    Some(entry.and_then(|entry| shown((path, entry))))
                }
            });
            write(checkout, reader, items, threads)?
        }
        None => write(checkout, reader, entries.map(|entry| shown(entry?)), threads)?,
    };
    Ok(Filled { is_faithful: !acts.get() && is_complete(&written), lies_over })
}

/// Writes a directory that is as the root directory of a tree, but empty.
pub(super) fn fill_root(checkout: &Checkout, reader: &ObjectReader, root: ObjectId) -> Result<()> {
    let entries = tree::iter(reader, &Root::open(reader, root)?)?;
    write(checkout, reader, entries.take(1).map(|entry| item(reader, entry?)), 1).map(drop)
}

/// Writes with everything that can be set.
fn write(
    checkout: &Checkout,
    reader: &ObjectReader,
    items: impl Iterator<Item = Result<(TreePath, Item)>>,
    threads: usize,
) -> Result<Written> {
    let options = WriteOptions { devices: true, all_xattrs: true, threads, cache: None };
    checkout.write(items, reader, options)
}

/// The paths that a directory over `below` needs to show `root`; none if those are so many that all could be written.
fn parts_over(reader: &ObjectReader, below: &Root, root: &Root) -> Result<Option<BTreeMap<TreePath, Part>>> {
    let mut parts = BTreeMap::from([(TreePath::root(), Part::Entry)]);
    let mut gone = Vec::new();
    for (changes, change) in (1..).zip(tree::diff(reader.clone(), below, root)?) {
        if changes > root.entries() / 2 {
            return Ok(None);
        }
        let change = change?;
        match change.after {
            None => gone.push(change.path),
            Some(entry) => {
                for path in names(reader, root, change.path, &entry)? {
                    add(&mut parts, path, Part::Entry);
                }
            }
        }
    }
    // Below what is no directory any more nothing shows.
    let mut last: Option<(TreePath, bool)> = None;
    for path in gone {
        let Some(parent) = path.parent() else { continue };
        let is_directory = match last {
            Some((ref known, is_directory)) if *known == parent => is_directory,
            _ => tree::get(reader, root, &parent)?.is_some_and(|entry| entry.is_directory()),
        };
        if is_directory {
            add(&mut parts, path, Part::Whiteout);
        }
        last = Some((parent, is_directory));
    }
    Ok(Some(parts))
}

/// All names of an entry's inode: one that is written is written with all of them.
fn names(reader: &ObjectReader, root: &Root, path: TreePath, entry: &Entry) -> Result<Vec<TreePath>> {
    let (first, inode) = match entry {
        Entry::Inode(inode) if inode.links.is_empty() => return Ok(vec![path]),
        Entry::Inode(inode) => (path, inode.clone()),
        Entry::HardLink(_) => match tree::group::resolve(reader, root, &path)? {
            Some(found) => found,
            None => return Ok(vec![path]),
        },
    };
    let mut names: Vec<_> = links::read(reader, &inode.links)?.into_iter().collect();
    names.push(first);
    Ok(names)
}

/// Adds a path, and the directories above it.
fn add(parts: &mut BTreeMap<TreePath, Part>, path: TreePath, part: Part) {
    let mut above = path.parent();
    while let Some(directory) = above {
        above = directory.parent();
        if parts.insert(directory, Part::Entry).is_some() {
            break;
        }
    }
    parts.insert(path, part);
}

/// Whether the kernel would take this, in a lower directory, for something else than what it is.
fn acts_on_overlay(item: &Item) -> bool {
    let Item::Inode(inode, xattrs) = item else { return false };
    inode.kind == WHITEOUT || xattrs.iter().any(|(name, _)| name.starts_with(OVERLAY_XATTRS))
}

fn is_complete(written: &Written) -> bool {
    let Written { owners_unset, modes_unset, times_unset, xattrs_unset, omitted, .. } = *written;
    [owners_unset, modes_unset, times_unset, xattrs_unset, omitted] == [0; 5]
}
