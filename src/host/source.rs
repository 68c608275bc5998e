//! A directory of the host as the source of an import or a commit.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, Dir, Mode, OFlags, SeekFrom, openat, readlinkat};
use rustix::io::Errno;

use crate::error::{Error, Result, Subject};
use crate::path::TreePath;

use super::stat::{FileKind, Stat};
use super::{failed, open_beneath};

/// An extended attribute: name and value.
pub(crate) type Xattr = (Vec<u8>, Vec<u8>);

/// A directory tree held by the descriptor of its root.
#[derive(Clone, Debug)]
pub(crate) struct SourceTree {
    path: PathBuf,
    root: Arc<OwnedFd>,
}

/// One entry that a walk found.
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

    /// Every entry, the root included, in ascending order of paths. The directory with the device and inode
    /// `refused` may not be in the tree: it is the store's own.
    pub(crate) fn walk(&self, refused: Option<(u64, u64)>) -> Result<Walk<'_>> {
        let pending = vec![Found { path: TreePath::root(), stat: self.root_stat()? }];
        Ok(Walk { tree: self, refused, pending })
    }

    /// A reader for one thread.
    pub(crate) fn reader(&self) -> SourceReader<'_> {
        SourceReader { tree: self, parent: None }
    }
}

/// A depth-first walk. It holds one descriptor at a time, whatever the depth, and the entries that are still to
/// come of the directories above the current one.
pub(crate) struct Walk<'t> {
    tree: &'t SourceTree,
    refused: Option<(u64, u64)>,
    /// What comes next, last first.
    pending: Vec<Found>,
}

impl Walk<'_> {
    fn push_children(&mut self, directory: &Found) -> Result<()> {
        let at = |action: &'static str| {
            let path = self.tree.host_path(&directory.path);
            move |error| failed(path, action, error)
        };
        if self.refused == Some((directory.stat.device, directory.stat.inode)) {
            let message = "is the store itself; a store can't import a directory that it lies in";
            return Err(Error::invalid(Subject::Host(self.tree.host_path(&directory.path)), message));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let opened = match open_beneath(&*self.tree.root, &directory.path, flags) {
            // Removed or replaced since it was listed: as if it had been an instant before.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if !directory.path.is_root() => return Ok(()),
            other => other.map_err(at("open the directory"))?,
        };
        let mut children = Vec::new();
        for entry in Dir::read_from(&opened).map_err(at("read the directory"))? {
            let entry = entry.map_err(at("read the directory"))?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let stat = match Stat::of(&opened, name) {
                Err(Errno::NOENT) => continue,
                other => other.map_err(at("read the metadata of an entry of the directory"))?,
            };
            let path = directory.path.join(name).map_err(|error| {
                let host = self.tree.host_path(&directory.path).join(std::ffi::OsStr::from_bytes(name));
                Error::invalid(Subject::Host(host), error.to_string())
            })?;
            children.push(Found { path, stat });
        }
        children.sort_unstable_by(|a, b| b.path.cmp(&a.path));
        self.pending.extend(children);
        Ok(())
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<Found>;

    fn next(&mut self) -> Option<Self::Item> {
        let found = self.pending.pop()?;
        if found.stat.kind == FileKind::Directory
            && let Err(error) = self.push_children(&found)
        {
            self.pending.clear();
            return Some(Err(error));
        }
        Some(Ok(found))
    }
}

/// Reads entries of a tree; neighbours share the descriptor of their directory.
pub(crate) struct SourceReader<'t> {
    tree: &'t SourceTree,
    parent: Option<(TreePath, OwnedFd)>,
}

impl SourceReader<'_> {
    fn failed(&self, path: &TreePath, action: &str, error: Errno) -> Error {
        failed(self.tree.host_path(path), action, error)
    }

    /// The directory of an entry, and the entry's name in it; the root is `.` in itself.
    fn parent_of(&mut self, path: &TreePath) -> Result<(&OwnedFd, Vec<u8>)> {
        let directory = path.parent().unwrap_or_default();
        if self.parent.as_ref().is_none_or(|(cached, _)| *cached != directory) {
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            let opened = open_beneath(&*self.tree.root, &directory, flags)
                .map_err(|error| self.failed(&directory, "open the directory", error))?;
            self.parent = Some((directory, opened));
        }
        let name = path.file_name().unwrap_or(b".").to_vec();
        match &self.parent {
            Some((_, parent)) => Ok((parent, name)),
            None => Err(self.failed(path, "open its directory", Errno::NOENT)),
        }
    }

    /// Opens a regular file, which must still be the one that `stat` describes.
    pub(crate) fn open_file(&mut self, path: &TreePath, stat: &Stat) -> Result<SourceFile> {
        let (parent, name) = self.parent_of(path)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = match openat(parent, name.as_slice(), flags | OFlags::NOATIME, Mode::empty()) {
            // Only the owner may leave access times alone.
            Err(Errno::PERM) => openat(parent, name.as_slice(), flags, Mode::empty()),
            other => other,
        };
        let file = opened.map_err(|error| self.failed(path, "open it for reading", error))?;
        let now = Stat::of(&file, b"").map_err(|error| self.failed(path, "read its metadata", error))?;
        let file = SourceFile { host_path: self.tree.host_path(path), file, stat: now };
        if (file.stat.kind, file.stat.inode, file.stat.device) != (stat.kind, stat.inode, stat.device) {
            return Err(file.changed());
        }
        Ok(file)
    }

    /// A symbolic link's target.
    pub(crate) fn read_link(&mut self, path: &TreePath) -> Result<Vec<u8>> {
        let (parent, name) = self.parent_of(path)?;
        let target = readlinkat(parent, name.as_slice(), Vec::new());
        target.map(CString::into_bytes).map_err(|error| self.failed(path, "read the link", error))
    }

    /// An entry's extended attributes, ascending by name; a file system without them has none.
    pub(crate) fn xattrs(&mut self, path: &TreePath) -> Result<Vec<Xattr>> {
        let (parent, name) = self.parent_of(path)?;
        let mut place = format!("/proc/self/fd/{}/", parent.as_raw_fd()).into_bytes();
        place.extend_from_slice(&name);
        let names = match whole(|buf| rustix::fs::llistxattr(place.as_slice(), buf)) {
            Ok(names) => names,
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(error) => return Err(self.failed(path, "list its extended attributes", error)),
        };
        let mut found = Vec::new();
        for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            match whole(|buf| rustix::fs::lgetxattr(place.as_slice(), name, buf)) {
                Ok(value) => found.push((name.to_vec(), value)),
                // Removed since it was listed.
                Err(Errno::NODATA) => {}
                Err(error) => return Err(self.failed(path, "read an extended attribute", error)),
            }
        }
        found.sort_unstable();
        Ok(found)
    }
}

/// All of a value whose size is not known before; it may grow between two tries.
fn whole(mut read: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut buf = vec![0; 256];
    loop {
        match read(&mut buf) {
            Ok(len) => {
                buf.truncate(len);
                return Ok(buf);
            }
            // 64 KiB is the kernel's own limit for names and for values.
            Err(Errno::RANGE) if buf.len() < 64 << 10 => buf.resize(64 << 10, 0),
            Err(error) => return Err(error),
        }
    }
}

/// An open file of a source tree.
#[derive(Debug)]
pub(crate) struct SourceFile {
    host_path: PathBuf,
    file: OwnedFd,
    pub(crate) stat: Stat,
}

/// A run of a file's bytes.
pub(crate) enum FilePiece<'b> {
    Data(&'b [u8]),
    Hole(u64),
}

impl SourceFile {
    /// The file changed while it was looked at.
    fn changed(&self) -> Error {
        Error::conflict(
            Subject::Host(self.host_path.clone()),
            "changed while it was read; try again when it is quiet",
        )
    }

    /// Hands the whole content to `take`, in order: what the file system knows to be holes without reading them.
    /// `buf` is the size of a read. A file that changes meanwhile is an error.
    pub(crate) fn read(
        &self,
        buf: &mut [u8],
        mut take: impl FnMut(FilePiece<'_>) -> Result<()>,
    ) -> Result<()> {
        let io = |error| failed(self.host_path.clone(), "read it", error);
        let size = self.stat.size;
        let is_sparse = self.stat.allocated_bytes < size;
        let mut position = 0;
        while position < size {
            let data_end = if is_sparse {
                let data = self.seek(SeekFrom::Data(position), size).map_err(io)?;
                if data > position {
                    take(FilePiece::Hole(data - position))?;
                    position = data;
                    continue;
                }
                self.seek(SeekFrom::Hole(position), size).map_err(io)?
            } else {
                size
            };
            while position < data_end {
                let want = usize::try_from(data_end - position).unwrap_or(usize::MAX).min(buf.len());
                let read =
                    match rustix::io::pread(&self.file, buf.get_mut(..want).unwrap_or_default(), position) {
                        Err(Errno::INTR) => continue,
                        other => other.map_err(io)?,
                    };
                if read == 0 {
                    return Err(self.changed());
                }
                take(FilePiece::Data(buf.get(..read).unwrap_or_default()))?;
                position += read as u64;
            }
        }
        let now = Stat::of(&self.file, b"").map_err(io)?;
        if self.stat.is_unchanged(&now) { Ok(()) } else { Err(self.changed()) }
    }

    /// The next data or hole from a position; the file's end where there is none.
    fn seek(&self, to: SeekFrom, size: u64) -> rustix::io::Result<u64> {
        match rustix::fs::seek(self.file.as_fd(), to) {
            Ok(position) => Ok(position.min(size)),
            Err(Errno::NXIO) => Ok(size),
            Err(error) => Err(error),
        }
    }
}
