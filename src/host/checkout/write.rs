//! Writing the tree into the private directory.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::fs::{AtFlags, linkat};

use crate::error::{Error, Result, Subject};
use crate::host::source::Xattr;
use crate::host::stat::Stat;
use crate::host::state::StateRow;
use crate::path::TreePath;
use crate::tree::{Inode, InodeKind};

use super::entry::EntryWriter;
use super::{Checkout, ContentSource, WriteOptions};

/// Entries that a thread takes at once: neighbours, so that they share a directory and frames.
const BATCH_ENTRIES: usize = 64;

/// One path to write.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    /// An inode and its extended attributes.
    Inode(Inode, Vec<Xattr>),
    /// A further name of the inode at this path.
    HardLink(TreePath),
}

/// What was written.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// A row for every path.
    pub(crate) rows: BTreeMap<TreePath, StateRow>,
}

impl Checkout {
    /// Writes `items`, ascending by path, the root first.
    pub(crate) fn write(
        &self,
        items: &[(TreePath, Item)],
        content: &impl ContentSource,
        options: WriteOptions,
    ) -> Result<Written> {
        let is_directory =
            |item: &Item| matches!(item, Item::Inode(inode, _) if inode.kind == InodeKind::Directory);
        let (directories, others): (Vec<_>, Vec<_>) = items.iter().partition(|(_, item)| is_directory(item));
        let mut writer = EntryWriter::new(self, options);
        for (path, _) in directories.iter().filter(|(path, _)| !path.is_root()) {
            writer.make_directory(path)?;
        }
        let (links, files): (Vec<_>, Vec<_>) =
            others.into_iter().partition(|(_, item)| matches!(item, Item::HardLink(_)));
        let mut rows = self.write_in_parallel(&files, content, options)?;
        for (path, item) in &links {
            if let Item::HardLink(first) = item {
                self.link(first, path, &mut rows)?;
            }
        }
        // Every link changed the inode's ctime, so only the row made after a group's last link is true of its names.
        for (path, item) in &links {
            if let Item::HardLink(first) = item
                && let Some(row) = rows.get(first).cloned()
            {
                rows.insert(path.clone(), row);
            }
        }
        for (path, item) in directories.iter().rev() {
            if let Item::Inode(inode, xattrs) = item {
                rows.insert(path.clone(), writer.finish_directory(path, inode, xattrs)?);
            }
        }
        Ok(Written { rows })
    }

    fn write_in_parallel(
        &self,
        files: &[&(TreePath, Item)],
        content: &impl ContentSource,
        options: WriteOptions,
    ) -> Result<BTreeMap<TreePath, StateRow>> {
        let batches: Vec<_> = files.chunks(BATCH_ENTRIES).collect();
        let next = AtomicUsize::new(0);
        let stop = AtomicBool::new(false);
        let rows = Mutex::new(BTreeMap::new());
        let work = || -> Result<()> {
            let mut writer = EntryWriter::new(self, options);
            while !stop.load(Ordering::Relaxed) {
                let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
                let mut made = Vec::with_capacity(batch.len());
                for (path, item) in *batch {
                    if let Item::Inode(inode, xattrs) = item {
                        made.push((path.clone(), writer.make(path, inode, xattrs, content)?));
                    }
                }
                rows.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend(made);
            }
            Ok(())
        };
        crate::threads::run_all(options.threads, &stop, work)?;
        Ok(rows.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Makes a further name of an inode that was made, and makes the row of its first name anew.
    fn link(&self, first: &TreePath, path: &TreePath, rows: &mut BTreeMap<TreePath, StateRow>) -> Result<()> {
        let Some(row) = rows.get_mut(first).filter(|row| !row.unset.omitted) else { return Ok(()) };
        let (from, to) = (self.parent_of(first)?, self.parent_of(path)?);
        let names = (first.file_name().unwrap_or_default(), path.file_name().unwrap_or_default());
        linkat(&from, names.0, &to, names.1, AtFlags::empty())
            .map_err(|error| self.failed(path, "make the hard link", error))?;
        let stat = Stat::of(&to, names.1).map_err(|error| self.failed(path, "read its metadata", error))?;
        if stat.inode != row.inode {
            let message = "another program changed the checkout while it was written; check out again";
            return Err(Error::conflict(Subject::Host(self.host_path(path)), message));
        }
        *row = StateRow::new(&stat, std::mem::take(&mut row.unset));
        Ok(())
    }
}
