//! A directory tree of the host as the source of an import or a commit.

mod directory;
mod file;

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use crate::error::{Error, Result, Subject};
use crate::path::TreePath;

use super::failed;
use super::stat::Stat;

pub(crate) use directory::{Listed, SourceDirectory};
pub(crate) use file::{FilePiece, SourceFile};

/// An extended attribute: name and value.
pub(crate) type Xattr = (Vec<u8>, Vec<u8>);

/// A directory tree held by the descriptor of its root.
#[derive(Clone, Debug)]
pub(crate) struct SourceTree {
    path: PathBuf,
    root: Arc<OwnedFd>,
}

/// One entry as it was found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) path: TreePath,
    pub(crate) stat: Stat,
}

impl SourceTree {
    /// Opens a directory; a symbolic link to one is followed, since the user named it.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match openat(CWD, path, flags, Mode::empty()) {
            Ok(root) => Ok(Self { path: path.to_owned(), root: Arc::new(root) }),
            Err(Errno::NOENT) => Err(Error::not_found(Subject::Host(path.to_owned()), "no such directory")),
            Err(Errno::NOTDIR) => Err(Error::invalid(Subject::Host(path.to_owned()), "is not a directory")),
            Err(error) => Err(failed(path.to_owned(), "open the directory", error)),
        }
    }

    /// The root directory's own metadata.
    pub(crate) fn root_stat(&self) -> Result<Stat> {
        Stat::of(&*self.root, b"").map_err(|error| failed(self.path.clone(), "read its metadata", error))
    }

    /// Where an entry is on the host.
    pub(crate) fn host_path(&self, path: &TreePath) -> PathBuf {
        if path.is_root() {
            return self.path.clone();
        }
        self.path.join(std::ffi::OsStr::from_bytes(&path.to_relative()))
    }
}
