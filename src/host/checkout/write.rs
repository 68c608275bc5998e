//! Writing the tree into the private directory.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ftruncate, linkat, makedev, mkdirat, mknodat, openat, symlinkat,
};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::host::source::{FilePiece, Xattr};
use crate::host::stat::{FileKind, Stat};
use crate::host::state::{StateRow, Unset};
use crate::host::{failed, open_beneath};
use crate::path::TreePath;
use crate::tree::{Content, Inode, InodeKind};

use super::attributes::{self, SetError};
use super::{Checkout, WriteOptions};

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

/// Hands out a file's content in order.
pub(crate) trait ContentSource: Sync {
    fn read(&self, content: &Content, take: &mut dyn FnMut(FilePiece<'_>) -> Result<()>) -> Result<()>;
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
        for (path, _) in directories.iter().filter(|(path, _)| !path.is_root()) {
            mkdirat(&self.root, path.to_relative(), Mode::from_raw_mode(0o700))
                .map_err(|error| self.failed(path, "make the directory", error))?;
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
        let mut writer = self.writer(options);
        for (path, item) in directories.iter().rev() {
            if let Item::Inode(inode, xattrs) = item {
                let row = writer.set_attributes(path, inode, xattrs)?;
                rows.insert(path.clone(), row);
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
            let mut writer = self.writer(options);
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
        let unset = rows.get(first).map(|row| row.unset.clone()).unwrap_or_default();
        if unset.omitted {
            return Ok(());
        }
        let (from, to) = (self.parent_of(first)?, self.parent_of(path)?);
        let names = (first.file_name().unwrap_or_default(), path.file_name().unwrap_or_default());
        linkat(&from, names.0, &to, names.1, AtFlags::empty())
            .map_err(|error| self.failed(path, "make the hard link", error))?;
        let stat = Stat::of(&to, names.1).map_err(|error| self.failed(path, "read its metadata", error))?;
        rows.insert(first.clone(), StateRow::new(&stat, unset));
        Ok(())
    }

    fn parent_of(&self, path: &TreePath) -> Result<OwnedFd> {
        let directory = path.parent().unwrap_or_default();
        open_beneath(&self.root, &directory, OFlags::PATH | OFlags::DIRECTORY)
            .map_err(|error| self.failed(&directory, "open the directory", error))
    }

    fn failed(&self, path: &TreePath, action: &str, error: Errno) -> Error {
        failed(self.destination.join(std::ffi::OsStr::from_bytes(&path.to_relative())), action, error)
    }

    fn writer(&self, options: WriteOptions) -> EntryWriter<'_> {
        EntryWriter { checkout: self, options, parent: None }
    }
}

/// Writes entries; neighbours share the descriptor of their directory.
struct EntryWriter<'c> {
    checkout: &'c Checkout,
    options: WriteOptions,
    parent: Option<(TreePath, OwnedFd)>,
}

impl EntryWriter<'_> {
    fn parent_of(&mut self, path: &TreePath) -> Result<BorrowedFd<'_>> {
        let directory = path.parent().unwrap_or_default();
        if self.parent.as_ref().is_none_or(|(cached, _)| *cached != directory) {
            self.parent = Some((directory, self.checkout.parent_of(path)?));
        }
        match &self.parent {
            Some((_, parent)) => Ok(parent.as_fd()),
            None => Ok(self.checkout.root.as_fd()),
        }
    }

    fn make(
        &mut self,
        path: &TreePath,
        inode: &Inode,
        xattrs: &[Xattr],
        content: &impl ContentSource,
    ) -> Result<StateRow> {
        let (checkout, options) = (self.checkout, self.options);
        let name = path.file_name().unwrap_or_default();
        let parent = self.parent_of(path)?;
        let private = Mode::from_raw_mode(0o600);
        let made = match &inode.kind {
            InodeKind::File(bytes) => {
                write_file(checkout, parent, path, bytes, content)?;
                Ok(())
            }
            InodeKind::Symlink(target) => symlinkat(&**target, parent, name),
            InodeKind::Fifo => mknodat(parent, name, FileType::Fifo, private, 0),
            InodeKind::Socket => mknodat(parent, name, FileType::Socket, private, 0),
            InodeKind::CharDevice { .. } | InodeKind::BlockDevice { .. } if !options.devices => {
                Err(Errno::PERM)
            }
            InodeKind::CharDevice { major, minor } => {
                mknodat(parent, name, FileType::CharacterDevice, private, makedev(*major, *minor))
            }
            InodeKind::BlockDevice { major, minor } => {
                mknodat(parent, name, FileType::BlockDevice, private, makedev(*major, *minor))
            }
            InodeKind::Directory => Ok(()),
        };
        match made {
            Ok(()) => self.set_attributes(path, inode, xattrs),
            Err(Errno::PERM) => Ok(StateRow::omitted(kind_of(inode))),
            Err(error) => Err(checkout.failed(path, "make it", error)),
        }
    }

    fn set_attributes(&mut self, path: &TreePath, inode: &Inode, xattrs: &[Xattr]) -> Result<StateRow> {
        let (checkout, options) = (self.checkout, self.options);
        let parent = self.parent_of(path)?;
        let name = path.file_name().unwrap_or(b".");
        let set = attributes::set(parent, name, inode, xattrs, options.all_xattrs);
        let (stat, unset): (Stat, Unset) =
            set.map_err(|SetError { action, errno }| checkout.failed(path, action, errno))?;
        Ok(StateRow::new(&stat, unset))
    }
}

fn write_file(
    checkout: &Checkout,
    parent: BorrowedFd<'_>,
    path: &TreePath,
    bytes: &Content,
    content: &impl ContentSource,
) -> Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let name = path.file_name().unwrap_or_default();
    let file = openat(parent, name, flags, Mode::from_raw_mode(0o600))
        .map_err(|error| checkout.failed(path, "make the file", error))?;
    let mut position = 0_u64;
    let mut ends_in_hole = false;
    content.read(bytes, &mut |piece| {
        match piece {
            FilePiece::Hole(len) => position = position.saturating_add(len),
            FilePiece::Data(mut data) => {
                while !data.is_empty() {
                    match rustix::io::pwrite(&file, data, position) {
                        Ok(written) => {
                            position += written as u64;
                            data = data.get(written..).unwrap_or_default();
                        }
                        Err(Errno::INTR) => {}
                        Err(error) => return Err(checkout.failed(path, "write it", error)),
                    }
                }
            }
        }
        ends_in_hole = matches!(piece, FilePiece::Hole(_));
        Ok(())
    })?;
    if ends_in_hole {
        ftruncate(&file, position).map_err(|error| checkout.failed(path, "extend it", error))?;
    }
    Ok(())
}

fn kind_of(inode: &Inode) -> FileKind {
    match inode.kind {
        InodeKind::Directory => FileKind::Directory,
        InodeKind::File(_) => FileKind::File,
        InodeKind::Symlink(_) => FileKind::Symlink,
        InodeKind::CharDevice { .. } => FileKind::CharDevice,
        InodeKind::BlockDevice { .. } => FileKind::BlockDevice,
        InodeKind::Fifo => FileKind::Fifo,
        InodeKind::Socket => FileKind::Socket,
    }
}
