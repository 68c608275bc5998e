//! One directory of a source tree, held by its descriptor: what is in it is reached by single names.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{Dir, FileType, Mode, OFlags, openat, readlinkat};
use rustix::io::Errno;

use crate::error::{Error, Result, Subject};
use crate::host::stat::{FileKind, Stat};
use crate::host::{failed, open_beneath};
use crate::path::{PathError, TreePath};
use crate::tree::xattr;

use super::{Found, SourceFile, SourceTree, Xattr, corrected, flags};

/// A directory of a source tree.
#[derive(Debug)]
pub(crate) struct SourceDirectory<'t> {
    tree: &'t SourceTree,
    path: TreePath,
    opened: OwnedFd,
}

/// A name that a directory lists.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Listed {
    pub(crate) name: Box<[u8]>,
    /// Whether it is a directory, where the listing says what it is.
    pub(crate) is_directory: Option<bool>,
}

impl SourceTree {
    /// Opens a directory of the tree. None if it is no longer there; *conflict* if something else is.
    pub(crate) fn directory(&self, path: &TreePath) -> Result<Option<SourceDirectory<'_>>> {
        let open = |flags| open_beneath(&*self.root, path, flags | OFlags::DIRECTORY);
        // Also one that can be listed may not let through to what is in it.
        self.lend(path, open)?;
        match open(OFlags::RDONLY) {
            Ok(opened) => Ok(Some(SourceDirectory { tree: self, path: path.clone(), opened })),
            Err(Errno::NOENT) if !path.is_root() => Ok(None),
            Err(Errno::NOTDIR | Errno::LOOP) if !path.is_root() => {
                let message = "was a directory when its tree was listed, and is none now";
                Err(Error::conflict(Subject::Host(self.host_path(path)), message))
            }
            Err(error) => Err(failed(self.host_path(path), "open the directory", error)),
        }
    }
}

impl SourceDirectory<'_> {
    pub(crate) fn path(&self) -> &TreePath {
        &self.path
    }

    fn failed(&self, action: &str, error: Errno) -> Error {
        failed(self.tree.host_path(&self.path), action, error)
    }

    /// Where a name in it is on the host.
    fn host_path(&self, name: &[u8]) -> PathBuf {
        self.tree.host_path(&self.path).join(OsStr::from_bytes(name))
    }

    fn entry_failed(&self, name: &[u8], action: &str, error: Errno) -> Error {
        failed(self.host_path(name), action, error)
    }

    /// The directory's own metadata.
    pub(crate) fn stat(&self) -> Result<Stat> {
        let stat = Stat::of(&self.opened, b"").map_err(|error| self.failed("read its metadata", error))?;
        Ok(corrected(self.tree.lender.as_ref(), stat))
    }

    /// The names of the flags that it has, that no image keeps and that its own metadata does not say.
    pub(crate) fn unkept_flags(&self) -> impl Iterator<Item = &'static str> {
        flags::unkept(&self.opened)
    }

    /// What is in it, ascending by name.
    pub(crate) fn list(&self) -> Result<Vec<Listed>> {
        let mut listed = Vec::new();
        for entry in Dir::read_from(&self.opened).map_err(|error| self.failed("read the directory", error))? {
            let entry = entry.map_err(|error| self.failed("read the directory", error))?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let is_directory = match entry.file_type() {
                FileType::Unknown => None,
                known => Some(known == FileType::Directory),
            };
            listed.push(Listed { name: name.into(), is_directory });
        }
        listed.sort_unstable();
        Ok(listed)
    }

    /// The path of a name in it.
    pub(crate) fn join(&self, name: &[u8]) -> Result<TreePath> {
        let invalid =
            |error: PathError| Error::invalid(Subject::Host(self.host_path(name)), error.fault().to_string());
        self.path.join(name).map_err(invalid)
    }

    /// What is under a name; none if it was removed since it was listed.
    pub(crate) fn find(&self, name: &[u8]) -> Result<Option<Found>> {
        match Stat::of(&self.opened, name) {
            Ok(stat) => {
                let stat = corrected(self.tree.lender.as_ref(), stat);
                Ok(Some(Found { path: self.join(name)?, stat }))
            }
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(self.entry_failed(name, "read its metadata", error)),
        }
    }

    /// Opens a regular file that was found in it.
    pub(crate) fn open_file(&self, found: &Found) -> Result<SourceFile> {
        let name = found.path.file_name().unwrap_or_default();
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let open = |flags| openat(&self.opened, name, flags, Mode::empty());
        let (mut opened, mut stat) = (open(flags | OFlags::NOATIME), found.stat.clone());
        if opened.as_ref().is_err_and(|error| *error == Errno::PERM) {
            // Only the owner may leave access times alone.
            opened = open(flags);
        }
        if opened.as_ref().is_err_and(|error| *error == Errno::ACCESS) && self.tree.lend(&found.path, open)? {
            opened = open(flags);
            // Its mode's change is no change.
            stat = self.find(name)?.map_or(stat, |found| found.stat);
        }
        let (host_path, lender) = (self.tree.host_path(&found.path), self.tree.lender.clone());
        match opened {
            Ok(file) => Ok(SourceFile { host_path, file, stat, lender }),
            Err(error) => Err(failed(host_path, "open it for reading", error)),
        }
    }

    /// A symbolic link's target.
    pub(crate) fn read_link(&self, name: &[u8]) -> Result<Vec<u8>> {
        let target = readlinkat(&self.opened, name, Vec::new());
        target.map(CString::into_bytes).map_err(|error| self.entry_failed(name, "read the link", error))
    }

    /// The directory's own extended attributes.
    pub(crate) fn xattrs(&self) -> Result<Vec<Xattr>> {
        opened_xattrs(&self.opened).map_err(|error| self.failed("read its extended attributes", error))
    }

    /// The extended attributes of what can't be opened: links and special files.
    pub(crate) fn entry_xattrs(&self, name: &[u8]) -> Result<Vec<Xattr>> {
        let mut place = format!("/proc/self/fd/{}/", self.opened.as_raw_fd()).into_bytes();
        place.extend_from_slice(name);
        let found = read_xattrs(
            |buf| rustix::fs::llistxattr(place.as_slice(), buf),
            |name, buf| rustix::fs::lgetxattr(place.as_slice(), name, buf),
        );
        found.map_err(|error| self.entry_failed(name, "read its extended attributes", error))
    }
}

impl SourceFile {
    /// The file's extended attributes.
    pub(crate) fn xattrs(&self) -> Result<Vec<Xattr>> {
        opened_xattrs(&self.file)
            .map_err(|error| failed(self.host_path.clone(), "read its extended attributes", error))
    }
}

fn opened_xattrs(opened: impl AsFd) -> rustix::io::Result<Vec<Xattr>> {
    read_xattrs(
        |buf| rustix::fs::flistxattr(&opened, buf),
        |name, buf| rustix::fs::fgetxattr(&opened, name, buf),
    )
}

/// Ascending by name; a file system without them has none.
fn read_xattrs(
    list: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>,
    mut get: impl FnMut(&[u8], &mut [u8]) -> rustix::io::Result<usize>,
) -> rustix::io::Result<Vec<Xattr>> {
    let names = match whole(list) {
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        other => other?,
    };
    let mut found = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty() && !xattr::is_copy(name)) {
        match whole(|buf| get(name, buf)) {
            Ok(value) => found.push((name.to_vec(), value)),
            // Removed since it was listed.
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error),
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// All of a value whose size is not known before; it may grow between two tries.
fn whole(mut read: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut room = [0; 256];
    match read(&mut room) {
        Ok(len) => return Ok(room.get(..len).unwrap_or_default().to_vec()),
        Err(Errno::RANGE) => {}
        Err(error) => return Err(error),
    }
    // The kernel's own limit for names and for values.
    let mut room = vec![0; 64 << 10];
    let len = read(&mut room)?;
    room.truncate(len);
    Ok(room)
}

impl Found {
    /// The last part of its path.
    pub(crate) fn name(&self) -> &[u8] {
        self.path.file_name().unwrap_or_default()
    }

    /// Whether it may be one of several names of its inode.
    pub(crate) fn is_linked(&self) -> bool {
        self.stat.links > 1 && self.stat.kind != FileKind::Directory
    }
}
