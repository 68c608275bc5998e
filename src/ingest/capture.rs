//! Capturing one entry of the host: its attributes, and its content into packs.

use crate::error::{Error, Result, Subject};
use crate::host::source::{FilePiece, Found, SourceDirectory, SourceFile, Xattr};
use crate::host::stat::{FileKind, Stat};
use crate::object::ObjectSink;
use crate::path::TreePath;
use crate::tree::content::{self, ContentWriter};
use crate::tree::{Content, Inode, InodeKind, Xattrs};

/// Files below this size are read at once.
const WHOLE_BYTES: usize = 1 << 20;
/// How often a file that changes under the reader is read before it is given up.
const ATTEMPTS: usize = 3;

/// An entry as it was read from the host.
#[derive(Debug)]
pub(crate) struct Captured {
    /// Without links: a group is put together once all its members are known.
    pub(crate) inode: Inode,
    /// What the file was like when that was true.
    pub(crate) stat: Stat,
}

/// Says of one entry after the other whether it must be read; otherwise it is passed on as it was found.
pub(crate) type Judge<'w> = Box<dyn FnMut(&Found) -> bool + 'w>;

/// What an import or a commit wants of the entries that a scan finds.
pub(crate) trait Wanted: Sync {
    /// Judges neighbouring entries, in the order of paths.
    fn judge(&self) -> Judge<'_>;
    /// Corrects what was found on the disk before it is stored.
    fn correct(&self, path: &TreePath, inode: &mut Inode, xattrs: &mut Vec<Xattr>) -> Result<()>;
}

/// All of it, as it is.
pub(crate) struct Everything;

impl Wanted for Everything {
    fn judge(&self) -> Judge<'_> {
        Box::new(|_| true)
    }

    fn correct(&self, _: &TreePath, _: &mut Inode, _: &mut Vec<Xattr>) -> Result<()> {
        Ok(())
    }
}

/// One thread's way from the host into a session.
pub(super) struct Capturer<'w, W, S> {
    wanted: &'w W,
    sink: S,
    buf: Vec<u8>,
}

impl<'w, W: Wanted, S: ObjectSink> Capturer<'w, W, S> {
    pub(super) fn new(wanted: &'w W, sink: S) -> Self {
        Self { wanted, sink, buf: vec![0; WHOLE_BYTES] }
    }

    pub(super) fn into_sink(self) -> S {
        self.sink
    }

    /// The directory itself.
    pub(super) fn directory(&mut self, directory: &SourceDirectory<'_>, stat: Stat) -> Result<Captured> {
        self.finish(directory.path(), InodeKind::Directory, stat, directory.xattrs()?)
    }

    /// An entry of it that is no directory.
    pub(super) fn entry(&mut self, directory: &SourceDirectory<'_>, found: &Found) -> Result<Captured> {
        let stat = found.stat.clone();
        let kind = match stat.kind {
            FileKind::File => return self.file(found, directory.open_file(found)?),
            FileKind::Directory => InodeKind::Directory,
            FileKind::Symlink => InodeKind::Symlink(directory.read_link(found.name())?.into()),
            FileKind::CharDevice => InodeKind::CharDevice { major: stat.major, minor: stat.minor },
            FileKind::BlockDevice => InodeKind::BlockDevice { major: stat.major, minor: stat.minor },
            FileKind::Fifo => InodeKind::Fifo,
            FileKind::Socket => InodeKind::Socket,
        };
        self.finish(&found.path, kind, stat, directory.entry_xattrs(found.name())?)
    }

    /// A file changes while it is read now and then, and is quiet the next moment.
    fn file(&mut self, found: &Found, mut file: SourceFile) -> Result<Captured> {
        for _ in 0..ATTEMPTS {
            if let Some((content, xattrs)) = self.try_file(&file)? {
                return self.finish(&found.path, InodeKind::File(content), file.into_stat(), xattrs);
            }
            file = file.found_again()?;
        }
        Err(file.changed())
    }

    /// The content and the attributes, all of the moment at which the file was found; none if it changed since.
    fn try_file(&mut self, file: &SourceFile) -> Result<Option<(Content, Vec<Xattr>)>> {
        if file.stat().size < self.buf.len() as u64 {
            let Some(bytes) = file.read_whole(&mut self.buf)? else { return Ok(None) };
            let xattrs = file.xattrs()?;
            if !file.is_as_found()? {
                return Ok(None);
            }
            return Ok(Some((content::write(&mut self.sink, bytes)?, xattrs)));
        }
        let mut writer = ContentWriter::new(file.stat().size);
        let is_whole = file.read(&mut self.buf, |piece| match piece {
            FilePiece::Data(bytes) => writer.push_bytes(&mut self.sink, bytes),
            FilePiece::Hole(len) => writer.push_hole(&mut self.sink, len),
        })?;
        let xattrs = file.xattrs()?;
        if !is_whole || !file.is_as_found()? {
            return Ok(None);
        }
        Ok(Some((writer.finish(&mut self.sink)?, xattrs)))
    }

    fn finish(
        &mut self,
        path: &TreePath,
        kind: InodeKind,
        stat: Stat,
        mut found_xattrs: Vec<Xattr>,
    ) -> Result<Captured> {
        let (xattrs, links) = (Content::empty(), Content::empty());
        let Stat { mode, uid, gid, mtime, .. } = stat;
        let mut inode = Inode { mode, uid, gid, mtime, xattrs, links, kind };
        self.wanted.correct(path, &mut inode, &mut found_xattrs)?;
        inode.xattrs = store_xattrs(path, &found_xattrs, &mut self.sink)?;
        Ok(Captured { inode, stat })
    }
}

/// Stores an attribute list.
pub(super) fn store_xattrs(path: &TreePath, found: &[Xattr], sink: &mut impl ObjectSink) -> Result<Content> {
    if found.is_empty() {
        return Ok(Content::empty());
    }
    let mut xattrs = Xattrs::new();
    for (name, value) in found {
        xattrs
            .insert(name, value)
            .map_err(|error| Error::invalid(Subject::Path(path.clone()), error.to_string()))?;
    }
    xattrs.write(sink)
}
