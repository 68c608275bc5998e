//! Writing one entry.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ftruncate, makedev, mkdirat, mknodat, openat, symlinkat};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};

use crate::error::Result;
use crate::host::source::{FilePiece, Xattr};
use crate::host::stat::FileKind;
use crate::host::state::StateRow;
use crate::path::TreePath;
use crate::tree::{Content, Inode, InodeKind};

use super::attributes::{self, Handle, SetError};
use super::shared::SharedName;
use super::{Checkout, ContentSource, WriteOptions};

/// What is made while its attributes are still to come is nobody else's.
const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

/// Writes entries; neighbours share the descriptor of their directory.
pub(super) struct EntryWriter<'c> {
    checkout: &'c Checkout,
    options: WriteOptions<'c>,
    /// The user and the group that what is made belongs to.
    own: (u32, u32),
    parent: Option<(TreePath, OwnedFd)>,
    /// Files that were written and may be left in the cache.
    pub(super) fresh: Vec<(TreePath, SharedName)>,
    /// Files that were taken from it.
    pub(super) files_shared: u64,
}

impl<'c> EntryWriter<'c> {
    pub(super) fn new(checkout: &'c Checkout, options: WriteOptions<'c>) -> Self {
        let own = (geteuid().as_raw(), getegid().as_raw());
        Self { checkout, options, own, parent: None, fresh: Vec::new(), files_shared: 0 }
    }

    pub(super) fn parent_of(&mut self, path: &TreePath) -> Result<BorrowedFd<'_>> {
        let directory = path.parent().unwrap_or_default();
        if self.parent.as_ref().is_none_or(|(cached, _)| *cached != directory) {
            self.parent = Some((directory, self.checkout.parent_of(path)?));
        }
        Ok(self.parent.as_ref().map_or(self.checkout.root.as_fd(), |(_, parent)| parent.as_fd()))
    }

    /// Makes a directory, whose attributes come once everything in it was made.
    pub(super) fn make_directory(&mut self, path: &TreePath) -> Result<()> {
        let checkout = self.checkout;
        let parent = self.parent_of(path)?;
        mkdirat(parent, path.file_name().unwrap_or_default(), Mode::from_raw_mode(0o700))
            .map_err(|error| checkout.failed(path, "make the directory", error))
    }

    /// Gives a directory its attributes.
    pub(super) fn finish_directory(
        &self,
        path: &TreePath,
        inode: &Inode,
        xattrs: &[Xattr],
    ) -> Result<StateRow> {
        let directory = self.checkout.open_directory(path, OFlags::RDONLY)?;
        self.set_attributes(path, Handle::Open(directory.as_fd()), inode, xattrs)
    }

    /// Makes anything but a directory, with all its attributes.
    pub(super) fn make(
        &mut self,
        path: &TreePath,
        inode: &Inode,
        xattrs: &[Xattr],
        content: &impl ContentSource,
    ) -> Result<StateRow> {
        if let InodeKind::File(bytes) = &inode.kind {
            return self.make_file(path, inode, bytes, xattrs, content);
        }
        let checkout = self.checkout;
        let devices = self.options.devices;
        let parent = self.parent_of(path)?;
        let name = path.file_name().unwrap_or_default();
        match make_special(parent, name, &inode.kind, devices) {
            Ok(()) => {}
            Err(Errno::PERM) => return Ok(StateRow::omitted(kind_of(inode))),
            Err(error) => return Err(checkout.failed(path, "make it", error)),
        }
        let place = openat(parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| checkout.failed(path, "open it", error))?;
        self.set_attributes(path, Handle::Place(place.as_fd()), inode, xattrs)
    }

    /// Makes a file: by the cache where that has it, else by writing it.
    fn make_file(
        &mut self,
        path: &TreePath,
        inode: &Inode,
        bytes: &Content,
        xattrs: &[Xattr],
        content: &impl ContentSource,
    ) -> Result<StateRow> {
        let (checkout, own) = (self.checkout, self.own);
        let file_name = path.file_name().unwrap_or_default();
        let cached = self.options.cache.and_then(|cache| Some((cache, cache.name_of(path, inode, xattrs)?)));
        let parent = self.parent_of(path)?;
        if let Some((cache, name)) = cached {
            let linked = cache.link(name, inode, parent, file_name);
            if let Some(row) = linked.map_err(|error| checkout.failed(path, "link it", error))? {
                self.files_shared += 1;
                return Ok(row);
            }
        }
        let mode = attributes::mode_to_make(inode, xattrs, own);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(parent, file_name, flags, mode.unwrap_or(PRIVATE))
            .map_err(|error| checkout.failed(path, "make the file", error))?;
        let is_shared = match cached {
            None => false,
            Some((cache, name)) => cache
                .reflink(name, file.as_fd(), bytes.size)
                .map_err(|error| checkout.failed(path, "empty it", error))?,
        };
        if !is_shared {
            write_content(checkout, path, &file, bytes, content)?;
        }
        let made = if mode.is_some() { attributes::finish_made(file.as_fd(), inode) } else { Ok(None) };
        let made = made.map_err(|SetError { action, errno }| checkout.failed(path, action, errno))?;
        let mut row = match made {
            Some((stat, unset)) => StateRow::new(&stat, unset),
            None => self.set_attributes(path, Handle::Open(file.as_fd()), inode, xattrs)?,
        };
        self.files_shared += u64::from(is_shared);
        if let Some((cache, name)) = cached
            && !is_shared
            && cache.accepts(&mut row)
        {
            self.fresh.push((path.clone(), name));
        }
        Ok(row)
    }

    fn set_attributes(
        &self,
        path: &TreePath,
        file: Handle<'_>,
        inode: &Inode,
        xattrs: &[Xattr],
    ) -> Result<StateRow> {
        let set = attributes::set(file, inode, xattrs, self.options.all_xattrs);
        let (stat, unset) =
            set.map_err(|SetError { action, errno }| self.checkout.failed(path, action, errno))?;
        Ok(StateRow::new(&stat, unset))
    }
}

/// Makes what is neither file nor directory. `EPERM` where it may not be made.
fn make_special(
    parent: BorrowedFd<'_>,
    name: &[u8],
    kind: &InodeKind,
    devices: bool,
) -> rustix::io::Result<()> {
    match kind {
        InodeKind::Symlink(target) => symlinkat(&**target, parent, name),
        InodeKind::Fifo => mknodat(parent, name, FileType::Fifo, PRIVATE, 0),
        InodeKind::Socket => mknodat(parent, name, FileType::Socket, PRIVATE, 0),
        InodeKind::CharDevice { .. } | InodeKind::BlockDevice { .. } if !devices => Err(Errno::PERM),
        InodeKind::CharDevice { major, minor } => {
            mknodat(parent, name, FileType::CharacterDevice, PRIVATE, makedev(*major, *minor))
        }
        InodeKind::BlockDevice { major, minor } => {
            mknodat(parent, name, FileType::BlockDevice, PRIVATE, makedev(*major, *minor))
        }
        InodeKind::Directory | InodeKind::File(_) => Err(Errno::INVAL),
    }
}

fn write_content(
    checkout: &Checkout,
    path: &TreePath,
    file: &OwnedFd,
    bytes: &Content,
    content: &impl ContentSource,
) -> Result<()> {
    let mut position = 0_u64;
    let mut ends_in_hole = false;
    content.read(bytes, &mut |piece| {
        match piece {
            FilePiece::Hole(len) => position = position.saturating_add(len),
            FilePiece::Data(mut data) => {
                while !data.is_empty() {
                    match rustix::io::pwrite(file, data, position) {
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
        ftruncate(file, position).map_err(|error| checkout.failed(path, "extend it", error))?;
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
