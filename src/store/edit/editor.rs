//! Taking the steps of an edit.

use std::collections::HashMap;
use std::io::Read;

use crate::engine::session::{SessionContext, WriteSession};
use crate::error::{Error, Result, Subject};
use crate::ingest::SourceReport;
use crate::layer::{Changeset, Delta};
use crate::pack::reader::ObjectReader;
use crate::pack::session::ObjectWriter;
use crate::path::TreePath;
use crate::tree::content::ContentWriter;
use crate::tree::xattr;
use crate::tree::{
    self, Body, Content, Followed, Inode, InodeKind, MAX_TARGET_BYTES, Root, Timestamp, Xattrs, content,
};

use super::{Permissions, Step};

/// Bytes that are read at once; a file that has fewer is stored as what it is from the first.
const READ_BYTES: usize = 256 << 10;
const FILE_MODE: u16 = 0o644;
const DIRECTORY_MODE: u16 = 0o755;
const ALL_MODE_BITS: u16 = 0o7777;

/// An image's tree while it is edited.
pub(super) struct Editor<'s> {
    pub(super) session: &'s WriteSession,
    pub(super) threads: usize,
    reader: &'s ObjectReader,
    writer: ObjectWriter<'s, SessionContext>,
    pub(super) changes: Changeset<&'s ObjectReader>,
    time: Timestamp,
    /// Steps that were taken, members of tars among them.
    pub(super) examined: u64,
    /// Whether all tars that were applied had their end mark; none if there was none.
    pub(super) has_end_mark: Option<bool>,
    /// The report on the tars that were applied.
    pub(super) source: SourceReport,
    /// Attribute lists that were stored here and can't be read back yet.
    xattrs: HashMap<Content, Xattrs>,
    buf: Vec<u8>,
}

impl<'s> Editor<'s> {
    pub(super) fn new(
        session: &'s WriteSession,
        threads: usize,
        reader: &'s ObjectReader,
        root: &Root,
        time: Timestamp,
    ) -> Result<Self> {
        let (changes, writer) = (Changeset::new(reader, root)?, session.writer()?);
        Ok(Self {
            session,
            threads,
            reader,
            writer,
            changes,
            time,
            examined: 0,
            has_end_mark: None,
            source: SourceReport::default(),
            xattrs: HashMap::new(),
            buf: vec![0; READ_BYTES],
        })
    }

    /// What all steps come to.
    pub(super) fn finish(mut self) -> Result<Delta> {
        self.writer.flush()?;
        self.changes.finish()
    }

    pub(super) fn take(&mut self, step: Step<'_>) -> Result<()> {
        self.examined += u64::from(!matches!(step, Step::ApplyTar(..)));
        match step {
            Step::Write { path, bytes, permissions } => {
                let content = self.store(&path, bytes.open()?)?;
                self.write(&path, content, permissions)
            }
            Step::Mkdir(path) => match self.follow(&path, true)? {
                Followed::To(_, inode) if inode.kind == InodeKind::Directory => Ok(()),
                Followed::To(path, _) => Err(conflict(&path, "is there and no directory; remove it first")),
                Followed::Missing(path) => self.make_directories(&path),
            },
            Step::Symlink { path, target } => {
                if !(1..=MAX_TARGET_BYTES).contains(&target.len()) || target.contains(&0) {
                    let message =
                        format!("needs a target of 1 to {MAX_TARGET_BYTES} bytes, none of them zero");
                    return Err(invalid(&path, message));
                }
                let path = self.place(&path)?;
                self.changes
                    .put(&path, Inode { mode: 0o777, ..self.new_inode(InodeKind::Symlink(target.into())) })
            }
            Step::HardLink { path, existing } => {
                let existing = self.lead(&existing, false)?;
                let path = self.place(&path)?;
                if path == existing { Ok(()) } else { self.changes.link(&path, &existing) }
            }
            Step::Remove(path) => {
                let path = self.lead(&path, false)?;
                self.changes.remove(&path)
            }
            Step::Rename { from, to } => self.rename(&from, &to),
            Step::Chmod(path, mode) if mode & !ALL_MODE_BITS != 0 => {
                Err(invalid(&path, format!("can't have mode {mode:o}: the bits are at most 7777")))
            }
            Step::Chmod(path, mode) => self.change(&path, |inode| inode.mode = mode),
            Step::Chown(path, uid, gid) => {
                check_owner(&path, uid, gid)?;
                self.change(&path, |inode| (inode.uid, inode.gid) = (uid, gid))
            }
            Step::Touch(path, time) => self.change(&path, |inode| inode.mtime = time),
            Step::SetXattr { path, name, value } => self.set_xattr(&path, &name, value.as_deref()),
            Step::ApplyTar(tar, options) => {
                self.apply_tar(tar.open()?, &options).map_err(|error| error.in_archive(&options.name))
            }
        }
    }

    /// Stores a stream's bytes as a content.
    fn store(&mut self, path: &TreePath, mut stream: impl Read) -> Result<Content> {
        let task = self.reader.task();
        let mut fill = |buf: &mut [u8]| {
            let mut filled = 0;
            while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
                match stream.read(rest) {
                    Ok(0) => break,
                    Ok(read) => {
                        task.advance(0, read as u64)?;
                        filled += read;
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        return Err(Error::io(Subject::Path(path.clone()), "read what it is to hold", error));
                    }
                }
            }
            Ok(filled)
        };
        let mut len = fill(&mut self.buf)?;
        if len < self.buf.len() {
            return content::write(&mut self.writer, self.buf.get(..len).unwrap_or_default());
        }
        // Its size is not known before its end: it is taken for a large one.
        let mut writer = ContentWriter::new(u64::MAX);
        while len > 0 {
            writer.push_bytes(&mut self.writer, self.buf.get(..len).unwrap_or_default())?;
            len = fill(&mut self.buf)?;
        }
        writer.finish(&mut self.writer)
    }

    fn write(&mut self, path: &TreePath, content: Content, permissions: Option<Permissions>) -> Result<()> {
        let (path, old) = match self.follow(path, true)? {
            Followed::To(path, inode) => (path, Some(inode)),
            Followed::Missing(path) => (path, None),
        };
        let kind = InodeKind::File(content);
        let mut inode = match &old {
            Some(Inode { kind: InodeKind::Directory, .. }) => {
                return Err(conflict(&path, "is a directory; remove it first"));
            }
            Some(old @ Inode { kind: InodeKind::File(_), .. }) => {
                let mtime = if old.kind == kind { old.mtime } else { self.time };
                Inode { mtime, kind, ..old.clone() }
            }
            Some(_) | None => {
                self.make_parents(&path)?;
                self.new_inode(kind)
            }
        };
        if let Some(Permissions { mode, uid, gid }) = permissions {
            if mode & !ALL_MODE_BITS != 0 {
                return Err(invalid(&path, format!("can't have mode {mode:o}: the bits are at most 7777")));
            }
            check_owner(&path, uid, gid)?;
            inode = Inode { mode, uid, gid, ..inode };
        }
        // What is as it was stays a name of its inode.
        if old.as_ref() == Some(&inode) { Ok(()) } else { self.changes.put(&path, inode) }
    }

    fn rename(&mut self, from: &TreePath, to: &TreePath) -> Result<()> {
        let from = self.lead(from, false)?;
        let to = match self.follow(to, false)? {
            Followed::Missing(to) => {
                self.make_parents(&to)?;
                to
            }
            Followed::To(to, _) if to == from => return Ok(()),
            Followed::To(to, there) => {
                let is_directory = |inode: &Inode| inode.kind == InodeKind::Directory;
                if is_directory(&there) || self.changes.find(&from)?.as_ref().is_some_and(is_directory) {
                    return Err(conflict(&to, "is there already; remove it first"));
                }
                self.changes.remove(&to)?;
                to
            }
        };
        self.changes.rename(&from, &to)
    }

    fn change(&mut self, path: &TreePath, change: impl FnOnce(&mut Inode)) -> Result<()> {
        let path = self.lead(path, true)?;
        self.changes.change(&path, change)
    }

    fn set_xattr(&mut self, path: &TreePath, name: &[u8], value: Option<&[u8]>) -> Result<()> {
        let path = self.lead(path, true)?;
        let Some(inode) = self.changes.find(&path)? else { return Ok(()) };
        let mut xattrs = match self.xattrs.get(&inode.xattrs) {
            Some(xattrs) => xattrs.clone(),
            None => Xattrs::read(self.reader, &inode.xattrs)?,
        };
        match value {
            Some(value) => {
                let value = xattr::canonical(name, value);
                xattrs.insert(name, &value).map_err(|error| invalid(&path, error.to_string()))?;
            }
            None => xattrs.remove(name),
        }
        let stored = xattrs.write(&mut self.writer)?;
        self.xattrs.insert(stored.clone(), xattrs);
        self.changes.change(&path, |inode| inode.xattrs = stored)
    }

    /// Keeps an inode's attribute list that was stored in this session, where it can't be read back yet.
    pub(super) fn remember_xattrs(
        &mut self,
        path: &TreePath,
        inode: &Inode,
        found: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<()> {
        if matches!(inode.xattrs.body, Body::Inline(_)) || self.xattrs.contains_key(&inode.xattrs) {
            return Ok(());
        }
        let mut xattrs = Xattrs::new();
        for (name, value) in found {
            xattrs.insert(name, value).map_err(|error| invalid(path, error.to_string()))?;
        }
        self.xattrs.insert(inode.xattrs.clone(), xattrs);
        Ok(())
    }

    /// Where a path leads.
    pub(super) fn follow(&mut self, path: &TreePath, follow_last: bool) -> Result<Followed> {
        tree::follow(path, follow_last, |path| self.changes.find(path))
    }

    /// The path of something that is there.
    pub(super) fn lead(&mut self, path: &TreePath, follow_last: bool) -> Result<TreePath> {
        match self.follow(path, follow_last)? {
            Followed::To(path, _) => Ok(path),
            Followed::Missing(_) => Err(Error::not_found(Subject::Path(path.clone()), "not in the image")),
        }
    }

    /// Where something that is no directory can be put.
    fn place(&mut self, path: &TreePath) -> Result<TreePath> {
        match self.follow(path, false)? {
            Followed::To(path, inode) if inode.kind == InodeKind::Directory => {
                Err(conflict(&path, "is a directory; remove it first"))
            }
            Followed::To(path, _) => Ok(path),
            Followed::Missing(path) => {
                self.make_parents(&path)?;
                Ok(path)
            }
        }
    }

    /// Makes the directories that a path is in.
    pub(super) fn make_parents(&mut self, path: &TreePath) -> Result<()> {
        path.parent().map_or(Ok(()), |parent| self.make_directories(&parent))
    }

    /// Makes a directory and those that it is in, as far as they are not there.
    fn make_directories(&mut self, path: &TreePath) -> Result<()> {
        if self.changes.find(path)?.is_some() {
            return Ok(());
        }
        self.make_parents(path)?;
        let directory = self.new_inode(InodeKind::Directory);
        self.changes.put(path, Inode { mode: DIRECTORY_MODE, ..directory })
    }

    fn new_inode(&self, kind: InodeKind) -> Inode {
        let (xattrs, links) = (Content::empty(), Content::empty());
        Inode { mode: FILE_MODE, uid: 0, gid: 0, mtime: self.time, xattrs, links, kind }
    }
}

pub(super) fn invalid(path: &TreePath, message: impl Into<String>) -> Error {
    Error::invalid(Subject::Path(path.clone()), message)
}

fn conflict(path: &TreePath, message: &str) -> Error {
    Error::conflict(Subject::Path(path.clone()), message)
}

/// Refuses the number that is no user's and no group's: to the kernel it means that an owner stays as it is.
fn check_owner(path: &TreePath, uid: u32, gid: u32) -> Result<()> {
    if uid == u32::MAX || gid == u32::MAX {
        return Err(invalid(path, format!("can't belong to user or group {}, which is none", u32::MAX)));
    }
    Ok(())
}
