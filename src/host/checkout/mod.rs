//! Checkout: an image's tree as real files.
//!
//! Everything is written in a private directory beside the destination, which a rename then puts in place: the
//! destination appears whole or not at all. Directories are made first and get their attributes last, so that
//! their modes bind nobody meanwhile and their times stay; hard links follow the files.

mod attributes;
mod entry;
mod private;
mod remove;
mod shared;
mod write;

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, fchmod, fremovexattr, fsync, openat, renameat, unlinkat};
use rustix::io::Errno;

use crate::error::{Error, ErrorKind, Result, Subject};

use super::source::FilePiece;
use super::stat::{FileKind, Stat};
use super::{failed, open_beneath};
use crate::path::TreePath;
use crate::task::{Phase, Task};
use crate::tree::Content;

pub(crate) use private::PRIVATE;
pub(crate) use remove::{foreign, loosen, remove_own, remove_tree};
pub(crate) use shared::FileCache;
pub use shared::{SharedFiles, Sharing};
pub(crate) use write::{Item, Written};

/// What a checkout writes besides what it always does.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WriteOptions<'c> {
    /// Make device nodes.
    pub(crate) devices: bool,
    /// Set every extended attribute, not only ACLs, `user.*` and `security.capability`.
    pub(crate) all_xattrs: bool,
    /// Threads that write files.
    pub(crate) threads: usize,
    /// Files that need not be written.
    pub(crate) cache: Option<&'c FileCache>,
}

/// Hands out a file's content in order.
pub(crate) trait ContentSource: Sync {
    /// Where a content is stored.
    type Place: Ord + Default;

    /// Where a content is stored: read in the order of places, nothing is unpacked twice.
    fn place(&self, content: &Content) -> Result<Self::Place>;

    fn read(&self, content: &Content, take: &mut dyn FnMut(FilePiece<'_>) -> Result<()>) -> Result<()>;
}

/// A checkout being written.
#[derive(Debug)]
pub(crate) struct Checkout {
    destination: PathBuf,
    parent: OwnedFd,
    name: OsString,
    private_name: OsString,
    root: OwnedFd,
    task: Task,
    is_published: bool,
}

impl Checkout {
    /// Prepares to write `destination`, which must be absent or an empty directory, as part of a task.
    pub(crate) fn begin(destination: &Path, task: &Task) -> Result<Self> {
        let subject = || Subject::Host(destination.to_owned());
        let name = destination
            .file_name()
            .ok_or_else(|| Error::invalid(subject(), "has no last component; name a new directory"))?;
        let folder =
            destination.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = match openat(CWD, folder, flags, Mode::empty()) {
            Err(Errno::NOENT) => {
                return Err(Error::not_found(Subject::Host(folder.to_owned()), "no such directory"));
            }
            other => other.map_err(|error| failed(folder.to_owned(), "open the directory", error))?,
        };
        check_is_free(&parent, name, destination)?;
        let (private_name, root) = private::make(&parent, name)
            .map_err(|error| failed(folder.to_owned(), "make a directory in it", error))?;
        let checkout = Self {
            destination: destination.to_owned(),
            parent,
            name: name.to_owned(),
            private_name,
            root,
            task: task.clone(),
            is_published: false,
        };
        checkout.forget_inheritance()?;
        Ok(checkout)
    }

    /// A directory takes its folder's default ACL and group: nothing written here may inherit either.
    fn forget_inheritance(&self) -> Result<()> {
        let io = |error| failed(self.destination.clone(), "prepare its directory", error);
        for name in ["system.posix_acl_default", "system.posix_acl_access"] {
            match fremovexattr(&self.root, name) {
                Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
                Err(error) => return Err(io(error)),
            }
        }
        fchmod(&self.root, Mode::from_raw_mode(0o700)).map_err(io)
    }

    /// The metadata of the checkout's own directory.
    pub(crate) fn root_stat(&self) -> Result<Stat> {
        Stat::of(&self.root, b"")
            .map_err(|error| failed(self.destination.clone(), "read its metadata", error))
    }

    /// The directory that an entry is in.
    fn parent_of(&self, path: &TreePath) -> Result<OwnedFd> {
        self.open_directory(&path.parent().unwrap_or_default(), OFlags::PATH)
    }

    fn open_directory(&self, path: &TreePath, flags: OFlags) -> Result<OwnedFd> {
        open_beneath(&self.root, path, flags | OFlags::DIRECTORY)
            .map_err(|error| self.failed(path, "open the directory", error))
    }

    fn failed(&self, path: &TreePath, action: &str, error: Errno) -> Error {
        failed(self.host_path(path), action, error)
    }

    /// Where an entry is going to be.
    fn host_path(&self, path: &TreePath) -> std::path::PathBuf {
        self.destination.join(std::ffi::OsStr::from_bytes(&path.to_relative()))
    }

    /// Puts the finished tree in place; with `sync`, all of it is durable before.
    pub(crate) fn publish(mut self, sync: bool) -> Result<()> {
        let io = |action| {
            let path = self.destination.clone();
            move |error| failed(path, action, error)
        };
        let _stage = self.task.begin(Phase::Publishing, None);
        if sync {
            rustix::fs::syncfs(&self.root).map_err(io("sync the file system"))?;
            self.task.check()?;
        }
        match renameat(&self.parent, self.private_name.as_os_str(), &self.parent, self.name.as_os_str()) {
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => return Err(taken(&self.destination)),
            other => other.map_err(io("put the checkout in place"))?,
        }
        if sync {
            fsync(&self.parent).map_err(io("sync its folder"))?;
        }
        self.is_published = true;
        Ok(())
    }
}

impl Drop for Checkout {
    /// An unfinished tree goes. An error leaves it under a name that says what it is.
    fn drop(&mut self) {
        if self.is_published {
            return;
        }
        let _stage = self.task.begin(Phase::Removing, None);
        if remove::empty(self.root.as_fd(), |_| true).is_ok_and(|stuck| stuck.is_nothing()) {
            let _ = unlinkat(&self.parent, self.private_name.as_os_str(), AtFlags::REMOVEDIR);
        }
    }
}

fn taken(destination: &Path) -> Error {
    let message = "exists and is not an empty directory; check out to a new one";
    Error::new(ErrorKind::AlreadyExists, Subject::Host(destination.to_owned()), message)
}

fn check_is_free(parent: &OwnedFd, name: &OsStr, destination: &Path) -> Result<()> {
    let io = |error| failed(destination.to_owned(), "look at it", error);
    let found = match Stat::of(parent, name.as_bytes()) {
        Err(Errno::NOENT) => return Ok(()),
        other => other.map_err(io)?,
    };
    if found.kind != FileKind::Directory {
        return Err(taken(destination));
    }
    if found.is_mount_point {
        let message = "is a mount point, which can't be replaced; check out to a new directory in it";
        return Err(Error::invalid(Subject::Host(destination.to_owned()), message));
    }
    if Stat::of(CWD, b".").is_ok_and(|current| (current.device, current.inode) == (found.device, found.inode))
    {
        let message =
            "is the current directory, which would be replaced; go elsewhere or name a new directory";
        return Err(Error::invalid(Subject::Host(destination.to_owned()), message));
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = openat(parent, name, flags, Mode::empty()).map_err(io)?;
    for entry in Dir::read_from(&directory).map_err(io)? {
        if !matches!(entry.map_err(io)?.file_name().to_bytes(), b"." | b"..") {
            return Err(taken(destination));
        }
    }
    Ok(())
}
