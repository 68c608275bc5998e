//! Writing the tree into the private directory.
//!
//! Entries come in the order of paths. Directories are made at once; files are collected, put into the order in which
//! their content is stored, and written by several threads, so that each frame is unpacked once and read in a row. What is
//! held in memory is what was collected, the directories, and the names of hard links.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, linkat, syncfs};

use crate::error::{Error, ErrorKind, Result, Subject};
use crate::host::source::Xattr;
use crate::host::stat::Stat;
use crate::host::state::{SegmentRows, StateRow, Unset};
use crate::path::TreePath;
use crate::sync::lock;
use crate::threads::{join, run_all};
use crate::tree::{Inode, InodeKind, Timestamp};

use super::entry::EntryWriter;
use super::shared::{FileCache, SharedName};
use super::{Checkout, ContentSource, WriteOptions};

/// Files that are put into order together.
const WINDOW_FILES: usize = 16 << 10;
/// Files and bytes that a thread takes at once: neighbours, so that they share a directory and frames.
const BATCH_FILES: usize = 128;
const BATCH_BYTES: u64 = 3 << 20;
/// Batches that may wait for each thread.
const WAITING_BATCHES: usize = 4;

/// One path to write.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    /// An inode and its extended attributes.
    Inode(Inode, Vec<Xattr>),
    /// A further name of the inode at this path.
    HardLink(TreePath),
}

/// An inode, its path and its extended attributes.
struct Named {
    path: TreePath,
    inode: Inode,
    xattrs: Vec<Xattr>,
}

type Batch = Vec<Named>;
/// Each further name of an inode, and the first.
type Links = Vec<(TreePath, TreePath)>;

/// What was written.
#[derive(Default)]
pub(crate) struct Written {
    /// A row for every path.
    pub(crate) rows: SegmentRows,
    /// The latest change of anything that was written.
    pub(crate) newest_change: Timestamp,
    /// Paths.
    pub(crate) entries: u64,
    /// Paths whose owner could not be set.
    pub(crate) owners_unset: u64,
    /// Paths whose mode could not be set.
    pub(crate) modes_unset: u64,
    /// Paths whose modification time the file system can't hold.
    pub(crate) times_unset: u64,
    /// Paths that lack extended attributes.
    pub(crate) xattrs_unset: u64,
    /// Paths that were not made.
    pub(crate) omitted: u64,
    /// Files that the cache had.
    pub(crate) files_shared: u64,
    /// Files that the cache has not.
    fresh: Vec<(TreePath, SharedName)>,
    /// The first names of hard link groups: their rows are true only once all links are made.
    linked: BTreeMap<TreePath, StateRow>,
}

impl Written {
    fn push(&mut self, path: &TreePath, row: &StateRow) {
        self.newest_change = self.newest_change.max(row.ctime);
        self.entries += 1;
        if let Some(unset) = &row.unset {
            self.owners_unset += u64::from(unset.owner.is_some());
            self.modes_unset += u64::from(unset.mode.is_some());
            self.times_unset += u64::from(unset.time);
            self.xattrs_unset += u64::from(!unset.xattrs.is_empty());
            self.omitted += u64::from(unset.omitted);
        }
        self.rows.push(path, row);
    }
}

impl Checkout {
    /// Writes `items`, ascending by path, the root first.
    pub(crate) fn write(
        &self,
        items: impl Iterator<Item = Result<(TreePath, Item)>>,
        content: &impl ContentSource,
        options: WriteOptions<'_>,
    ) -> Result<Written> {
        let written = Mutex::new(Written::default());
        let writer = EntryWriter::new(self, options);
        let (directories, links) = std::thread::scope(|scope| {
            let threads = options.threads.max(1);
            let (sender, receiver) = sync_channel(threads * WAITING_BATCHES);
            let receiver = Arc::new(Mutex::new(receiver));
            let workers: Vec<_> = (0..threads)
                .map(|_| {
                    let (receiver, written) = (Arc::clone(&receiver), &written);
                    scope.spawn(move || self.write_batches(&receiver, content, options, written))
                })
                .collect();
            // The workers have the only receivers: if they all fail, sending does too.
            drop(receiver);
            let handed_out = self.hand_out(items, content, options, &sender);
            // No more batches: the workers end once they have written what waits.
            drop(sender);
            workers.into_iter().try_for_each(join)?;
            handed_out
        })?;
        let mut written = written.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(cache) = options.cache {
            self.leave(std::mem::take(&mut written.fresh), cache, options)?;
        }
        for (path, first) in &links {
            self.task.advance(1, 0)?;
            self.link(first, path, &mut written.linked)?;
        }
        // Every link changed the inode's ctime, so only the row made after a group's last link is true of its names.
        let linked = std::mem::take(&mut written.linked);
        for (path, first) in &links {
            if let Some(row) = linked.get(first) {
                written.push(path, row);
            }
        }
        for (path, row) in &linked {
            written.push(path, row);
        }
        for Named { path, inode, xattrs } in directories.iter().rev() {
            self.task.advance(1, 0)?;
            written.push(path, &writer.finish_directory(path, inode, xattrs)?);
        }
        Ok(written)
    }

    /// Makes the directories and hands out the files; gives the directories, and each further name of an inode with the
    /// first.
    fn hand_out<C: ContentSource>(
        &self,
        items: impl Iterator<Item = Result<(TreePath, Item)>>,
        content: &C,
        options: WriteOptions<'_>,
        sender: &SyncSender<Batch>,
    ) -> Result<(Vec<Named>, Links)> {
        let mut writer = EntryWriter::new(self, options);
        let (mut directories, mut links, mut window) = (Vec::new(), Vec::new(), Vec::new());
        for item in items {
            self.task.check()?;
            match item? {
                (path, Item::HardLink(first)) => links.push((path, first)),
                (path, Item::Inode(inode, xattrs)) if inode.kind == InodeKind::Directory => {
                    if !path.is_root() {
                        writer.make_directory(&path)?;
                    }
                    directories.push(Named { path, inode, xattrs });
                }
                (path, Item::Inode(inode, xattrs)) => {
                    let place = match &inode.kind {
                        InodeKind::File(bytes) => content.place(bytes)?,
                        _ => C::Place::default(),
                    };
                    window.push((place, Named { path, inode, xattrs }));
                    if window.len() >= WINDOW_FILES {
                        send_in_order(std::mem::take(&mut window), sender)?;
                    }
                }
            }
        }
        send_in_order(window, sender)?;
        Ok((directories, links))
    }

    fn write_batches(
        &self,
        receiver: &Mutex<Receiver<Batch>>,
        content: &impl ContentSource,
        options: WriteOptions<'_>,
        written: &Mutex<Written>,
    ) -> Result<()> {
        let mut writer = EntryWriter::new(self, options);
        loop {
            let batch = lock(receiver).recv();
            let Ok(batch) = batch else {
                let mut written = lock(written);
                written.files_shared += writer.files_shared;
                written.fresh.append(&mut writer.fresh);
                return Ok(());
            };
            let mut rows = Vec::with_capacity(batch.len());
            for Named { path, inode, xattrs } in batch {
                self.task.advance(1, size(&inode))?;
                let row = writer.make(&path, &inode, &xattrs, content)?;
                rows.push((path, row, !inode.links.is_empty()));
            }
            rows.sort_unstable_by(|(one, ..), (other, ..)| one.cmp(other));
            let mut written = lock(written);
            for (path, row, is_linked) in rows {
                if is_linked {
                    written.linked.insert(path, row);
                } else {
                    written.push(&path, &row);
                }
            }
        }
    }

    /// Leaves files that were written in the cache.
    fn leave(
        &self,
        mut fresh: Vec<(TreePath, SharedName)>,
        cache: &FileCache,
        options: WriteOptions<'_>,
    ) -> Result<()> {
        // What is left must be whole after a power cut too, when its size and time would say that it is.
        if fresh.is_empty() || syncfs(&self.root).is_err() {
            return Ok(());
        }
        fresh.sort_unstable_by_key(|(_, name)| *name);
        fresh.dedup_by_key(|(_, name)| *name);
        // Neighbours share a directory.
        fresh.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let batches = Mutex::new(fresh.chunks(BATCH_FILES));
        run_all(options.threads, &AtomicBool::new(false), || {
            let mut writer = EntryWriter::new(self, options);
            loop {
                let batch = lock(&batches).next();
                let Some(batch) = batch else { return Ok(()) };
                self.task.check()?;
                for (path, name) in batch {
                    let folder = writer.parent_of(path)?;
                    // Full, deleted meanwhile, or not for such a file: the checkout is as good without.
                    let _ = cache.leave(*name, folder, path.file_name().unwrap_or_default());
                }
            }
        })
    }

    /// Makes a further name of an inode that was made, and makes the row of its first name anew.
    fn link(&self, first: &TreePath, path: &TreePath, rows: &mut BTreeMap<TreePath, StateRow>) -> Result<()> {
        let Some(row) = rows.get_mut(first).filter(|row| !row.is_omitted()) else { return Ok(()) };
        let (from, to) = (self.parent_of(first)?, self.parent_of(path)?);
        let names = (first.file_name().unwrap_or_default(), path.file_name().unwrap_or_default());
        linkat(&from, names.0, &to, names.1, AtFlags::empty())
            .map_err(|error| self.failed(path, "make the hard link", error))?;
        let stat = Stat::of(&to, names.1).map_err(|error| self.failed(path, "read its metadata", error))?;
        if stat.inode != row.inode {
            let message = "another program changed the checkout while it was written; check out again";
            return Err(Error::conflict(Subject::Host(self.host_path(path)), message));
        }
        *row = StateRow { unset: row.unset.take(), ..StateRow::new(&stat, Unset::default()) };
        Ok(())
    }
}

/// Sends files in the order of their places, in batches.
fn send_in_order<P: Ord>(mut window: Vec<(P, Named)>, sender: &SyncSender<Batch>) -> Result<()> {
    let stopped =
        |_| Error::new(ErrorKind::Cancelled, Subject::Argument("checkout"), "its files could not be written");
    // Stable: files of the same content, and those without any, stay in the order of paths.
    window.sort_by(|(one, _), (other, _)| one.cmp(other));
    let (mut batch, mut bytes) = (Batch::new(), 0);
    for (_, named) in window {
        bytes += size(&named.inode);
        batch.push(named);
        if batch.len() >= BATCH_FILES || bytes >= BATCH_BYTES {
            sender.send(std::mem::take(&mut batch)).map_err(stopped)?;
            bytes = 0;
        }
    }
    if batch.is_empty() { Ok(()) } else { sender.send(batch).map_err(stopped) }
}

/// Bytes of the content of a file.
fn size(inode: &Inode) -> u64 {
    if let InodeKind::File(content) = &inode.kind { content.size } else { 0 }
}
