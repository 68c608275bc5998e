//! Capturing one entry of the host: its attributes, and its content into packs.

use std::borrow::Cow;

use crate::error::{Error, Remedy, Result, Subject};
use crate::host::source::{FilePiece, Found, SourceDirectory, SourceFile, Xattr};
use crate::host::stat::{FileKind, Stat};
use crate::object::ObjectSink;
use crate::path::TreePath;
use crate::task::Task;
use crate::tree::content::{self, ContentWriter};
use crate::tree::{Content, Inode, InodeKind, Xattrs};

use super::walk::Walk;

/// Files below this size are read at once.
const WHOLE_BYTES: usize = 1 << 20;
/// How often what changes under the reader is looked at before it is given up.
pub(crate) const ATTEMPTS: usize = 3;

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
    walk: &'w Walk<'w>,
    wanted: &'w W,
    sink: S,
    buf: Vec<u8>,
    task: Task,
}

/// What came of reading an entry as it was found.
enum Attempt {
    Read(Box<Captured>),
    /// It changed meanwhile.
    Changed,
    /// It did not change, and has another size than its file system says.
    Misstated,
}

impl<'w, W: Wanted, S: ObjectSink> Capturer<'w, W, S> {
    pub(super) fn new(walk: &'w Walk<'w>, wanted: &'w W, sink: S, task: Task) -> Self {
        Self { walk, wanted, sink, buf: vec![0; WHOLE_BYTES], task }
    }

    pub(super) fn into_sink(self) -> S {
        self.sink
    }

    /// The directory itself.
    pub(super) fn directory(&mut self, directory: &SourceDirectory<'_>, stat: Stat) -> Result<Captured> {
        self.finish(directory.path(), InodeKind::Directory, stat, directory.xattrs()?)
    }

    /// An empty file or directory in the place of something that is mounted there and left out. What is known of it vouches for
    /// nothing.
    pub(super) fn mount_point(&mut self, found: &Found) -> Result<Captured> {
        let kind = match found.stat.kind {
            FileKind::Directory => InodeKind::Directory,
            _ => InodeKind::File(Content::empty()),
        };
        self.finish(&found.path, kind, found.stat.clone().distrusted(), Vec::new())
    }

    /// An entry of it that is no directory, as it is at one moment; none if it is gone. What changes is read again: a file
    /// changes now and then, and is quiet the next moment, and another may have taken its name.
    pub(super) fn entry(
        &mut self,
        directory: &SourceDirectory<'_>,
        found: &Found,
    ) -> Result<Option<Captured>> {
        let mut found = Cow::Borrowed(found);
        let mut is_misstated = false;
        for attempts_left in (0..ATTEMPTS).rev() {
            if found.stat.kind == FileKind::Directory {
                break;
            }
            let attempt = match self.try_entry(directory, &found) {
                Ok(Attempt::Read(captured)) => return Ok(Some(*captured)),
                Err(error) if !error.is_of_host() => return Err(error),
                attempt => attempt,
            };
            let Some(now) = directory.find(found.name())? else { return Ok(None) };
            is_misstated = matches!(attempt, Ok(Attempt::Misstated));
            if let Err(error) = attempt
                && (found.stat.is_unchanged(&now.stat)
                    || (attempts_left == 0 && found.stat.is_same_file(&now.stat)))
            {
                return Err(error);
            }
            found = Cow::Owned(now);
        }
        self.changed(directory, &found, is_misstated)
    }

    fn try_entry(&mut self, directory: &SourceDirectory<'_>, found: &Found) -> Result<Attempt> {
        let stat = found.stat.clone();
        let kind = match stat.kind {
            FileKind::File => return self.try_file(directory.open_file(found)?, &found.path),
            FileKind::Directory => InodeKind::Directory,
            FileKind::Symlink => InodeKind::Symlink(directory.read_link(found.name())?.into()),
            FileKind::CharDevice => InodeKind::CharDevice { major: stat.major, minor: stat.minor },
            FileKind::BlockDevice => InodeKind::BlockDevice { major: stat.major, minor: stat.minor },
            FileKind::Fifo => InodeKind::Fifo,
            FileKind::Socket => InodeKind::Socket,
        };
        let xattrs = directory.entry_xattrs(found.name())?;
        self.finish(&found.path, kind, stat, xattrs).map(|captured| Attempt::Read(Box::new(captured)))
    }

    /// The content and the attributes, all of the moment at which the file was found.
    fn try_file(&mut self, file: SourceFile, path: &TreePath) -> Result<Attempt> {
        // Asked before it is read: a writer that opens it later leaves a trace.
        let may_have_writer = file.may_have_writer();
        let content = if file.stat().size < self.buf.len() as u64 {
            let bytes = file.read_whole(&mut self.buf)?;
            self.task.advance(0, bytes.map_or(0, |bytes| bytes.len() as u64))?;
            bytes.map(|bytes| content::write(&mut self.sink, bytes)).transpose()?
        } else {
            let mut writer = ContentWriter::new(file.stat().size);
            let is_whole = file.read(&mut self.buf, |piece| {
                self.walk.check_time(path)?;
                push(&mut writer, &mut self.sink, piece, &self.task)
            })?;
            if is_whole { Some(writer.finish(&mut self.sink)?) } else { None }
        };
        let xattrs = file.xattrs()?;
        if !file.is_as_found()? {
            return Ok(Attempt::Changed);
        }
        let Some(content) = content else { return Ok(Attempt::Misstated) };
        self.walk.note_not_kept(path, file.unkept_flags());
        let stat = file.into_stat();
        let stat = if may_have_writer { stat.distrusted() } else { stat };
        self.finish(path, InodeKind::File(content), stat, xattrs)
            .map(|captured| Attempt::Read(Box::new(captured)))
    }

    /// What can be had of a file that changes all the time, where such files are kept.
    fn changed(
        &mut self,
        directory: &SourceDirectory<'_>,
        found: &Found,
        is_misstated: bool,
    ) -> Result<Option<Captured>> {
        self.walk.pass_changed(&found.path, || {
            let subject = Subject::Host(self.walk.source.host_path(&found.path));
            if is_misstated {
                let size = found.stat.size;
                let message = format!(
                    "does not have the {size} bytes that its file system says, as is usual in /proc and /sys"
                );
                return Error::unsupported(subject, message).with_remedy(Remedy::KeepChanging);
            }
            let message = "changed each time it was read; try again when it is quiet";
            Error::conflict(subject, message).with_remedy(Remedy::KeepChanging)
        })?;
        if found.stat.kind != FileKind::File {
            return Ok(None);
        }
        let file = directory.open_file(found)?.found_now()?;
        let mut writer = ContentWriter::new(file.stat().size);
        let take = |piece: FilePiece<'_>| {
            self.walk.check_time(&found.path)?;
            push(&mut writer, &mut self.sink, piece, &self.task)
        };
        if is_misstated {
            file.read_to_end(&mut self.buf, take)?;
        } else {
            file.read(&mut self.buf, take)?;
        }
        let (xattrs, content) = (file.xattrs()?, writer.finish(&mut self.sink)?);
        self.walk.note_not_kept(&found.path, file.unkept_flags());
        let stat = file.into_stat().distrusted();
        self.finish(&found.path, InodeKind::File(content), stat, xattrs).map(Some)
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

fn push(
    writer: &mut ContentWriter,
    sink: &mut impl ObjectSink,
    piece: FilePiece<'_>,
    task: &Task,
) -> Result<()> {
    match piece {
        FilePiece::Data(bytes) => {
            task.advance(0, bytes.len() as u64)?;
            writer.push_bytes(sink, bytes)
        }
        FilePiece::Hole(len) => writer.push_hole(sink, len),
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
