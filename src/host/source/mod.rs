//! A directory tree of the host as the source of an import or a commit.

mod directory;
mod file;
mod flags;
mod lend;
mod writers;

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, StatxAttributes, XattrFlags, openat, setxattr};
use rustix::io::Errno;

use crate::error::{Error, Result, Subject};
use crate::path::TreePath;

use super::overlay;
use super::stat::{FileKind, Stat};
use super::{failed, open_beneath};

pub(crate) use directory::{Listed, SourceDirectory};
pub(crate) use file::{FilePiece, SourceFile};
use lend::Lender;

/// An extended attribute: name and value.
pub(crate) type Xattr = (Vec<u8>, Vec<u8>);

/// A directory tree held by the descriptor of its root.
#[derive(Clone, Debug)]
pub(crate) struct SourceTree {
    path: PathBuf,
    root: Arc<OwnedFd>,
    lender: Option<Arc<Lender>>,
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
        // As a place: whether it can be read shows when it is.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match openat(CWD, path, flags, Mode::empty()) {
            Ok(root) => Ok(Self { path: path.to_owned(), root: Arc::new(root), lender: None }),
            Err(Errno::NOENT) => Err(Error::not_found(Subject::Host(path.to_owned()), "no such directory")),
            Err(Errno::NOTDIR) => Err(Error::invalid(Subject::Host(path.to_owned()), "is not a directory")),
            Err(error) => Err(failed(path.to_owned(), "open the directory", error)),
        }
    }

    /// The same tree, in which what its owner has forbidden himself to read is read all the same: its modes are changed for as
    /// long as the tree is there, and noted in a journal of this path.
    pub(crate) fn lending(self, journal: &Path) -> Result<Self> {
        let lender = Lender::new(Arc::clone(&self.root), journal)?;
        Ok(Self { lender: Some(Arc::new(lender)), ..self })
    }

    /// Makes what was found at a path readable, if that can be lent; gives whether it was made so.
    fn lend(
        &self,
        path: &TreePath,
        open: impl FnOnce(OFlags) -> rustix::io::Result<OwnedFd>,
    ) -> Result<bool> {
        let Some(lender) = &self.lender else { return Ok(false) };
        if path.is_root() {
            return lender.lend(path, &self.root);
        }
        match open(OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC) {
            Ok(place) => lender.lend(path, &place),
            Err(_) => Ok(false),
        }
    }

    /// The root directory's own metadata.
    pub(crate) fn root_stat(&self) -> Result<Stat> {
        Stat::of(&*self.root, b"").map_err(|error| failed(self.path.clone(), "read its metadata", error))
    }

    /// What can be known of a path if something is mounted there that this process may not even look at (another user's FUSE), or
    /// that does not answer any more: that it is there. Owner and mode are those of the directory that it lies in.
    pub(crate) fn hidden_mount(&self, path: &TreePath) -> Option<Stat> {
        let parent = open_beneath(&*self.root, &path.parent()?, OFlags::PATH).ok()?;
        let open = |flags| open_beneath(&*self.root, path, OFlags::PATH | OFlags::NOFOLLOW | flags);
        let (place, kind) = match open(OFlags::DIRECTORY) {
            Ok(place) => (place, FileKind::Directory),
            Err(_) => (open(OFlags::empty()).ok()?, FileKind::File),
        };
        let device = Stat::device_of_mount(&place)?;
        let stat = Stat::of(&parent, b"").ok()?;
        let (mode, links, inode, attributes) = (stat.mode & 0o777, 1, 0, StatxAttributes::empty());
        Some(Stat { kind, device, inode, links, mode, size: 0, is_mount_point: true, attributes, ..stat })
    }

    /// Whether this is the root of a mounted overlay, or, if `or_fuse`, of a FUSE: what programs see there is merged already.
    pub(crate) fn is_merged_view(&self, or_fuse: bool) -> Result<bool> {
        Ok(self.root_stat()?.is_mount_point && overlay::has(&*self.root, or_fuse).unwrap_or(false))
    }

    /// Whether this process sees attributes `trusted.*`, which others are not even listed.
    pub(crate) fn shows_trusted_xattrs(&self) -> bool {
        // This changes nothing, since there is no such attribute to replace.
        let root = format!("/proc/self/fd/{}", self.root.as_raw_fd());
        setxattr(root, "trusted.layerstone.probe", b"", XattrFlags::REPLACE) != Err(Errno::PERM)
    }

    /// Where an entry is on the host.
    pub(crate) fn host_path(&self, path: &TreePath) -> PathBuf {
        if path.is_root() {
            return self.path.clone();
        }
        self.path.join(std::ffi::OsStr::from_bytes(&path.to_relative()))
    }
}

/// Metadata as it is when nothing is lent.
fn corrected(lender: Option<&Arc<Lender>>, stat: Stat) -> Stat {
    match lender.and_then(|lender| lender.mode(&stat)) {
        Some(mode) => Stat { mode, ..stat },
        None => stat,
    }
}
