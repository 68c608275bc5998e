//! Tars: root file systems in and out.

use std::collections::BTreeSet;
use std::io::{BufWriter, Read, Write};

use crate::archive::{Member, MemberKind, Writer};
use crate::catalog::record::OriginRecord;
use crate::error::{Error, Result, Subject};
use crate::ingest::{self, ArchiveTree, Tar};
use crate::path::TreePath;
use crate::task::{Cancellable, Phase};
use crate::tree::content::{ContentReader, Piece};
use crate::tree::{self, Entry, Inode, InodeKind, Timestamp, Xattrs};

use super::import::{Draft, ImportOptions, LayerDraft, WriteReport};
use super::{Image, Project};
use crate::engine::session::WriteSession;

/// Bytes that are written at once.
const WRITE_BYTES: usize = 256 << 10;

/// How an image is written as a tar.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct ExportOptions {
    /// What errors call the tar: a file's name, say. `archive` if this is empty.
    pub name: String,
    /// Write zeros for the holes of files, instead of storing these files sparse: for programs that don't know sparse files
    /// in tars, as few besides GNU tar and bsdtar do. They would unpack a map and the data as the file.
    pub fill_holes: bool,
}

impl Project {
    /// Imports a root file system tar, plain or compressed with gzip or zstd, as an image. The same bytes imported before
    /// give the same image and store nothing; how they were compressed does not count.
    ///
    /// Errors: [`Invalid`](crate::ErrorKind::Invalid) naming the entry of an archive that is malformed or hostile, or cut
    /// short as far as that can be seen (see [`TarOptions::require_end`](crate::TarOptions::require_end));
    /// [`QuotaExceeded`](crate::ErrorKind::QuotaExceeded) or [`TimedOut`](crate::ErrorKind::TimedOut) naming the limit
    /// that it passes;
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for another compression, and for a saved image, which holds layers
    /// instead of files. Nothing is visible then.
    pub fn import_tar(&self, source: impl Read, options: &ImportOptions) -> Result<WriteReport> {
        let _span = tracing::info_span!("import", project = %self.name, from = "tar").entered();
        let catalog = self.store.catalog()?;
        catalog.read(|tx| self.check(tx))?;
        let (session, _) = self.store.begin_session(&self.store.hold(&catalog)?)?;
        drop(catalog);
        let stage = self.store.task.begin(Phase::Reading, None);
        let made = self.draft_of_tar(source, &session, options);
        drop(stage);
        self.finish(session, made)
    }

    fn draft_of_tar(
        &self,
        source: impl Read,
        session: &WriteSession,
        options: &ImportOptions,
    ) -> Result<Draft> {
        let tar = Tar { stream: source, limits: options.limits.clone(), options: &options.tar };
        let ArchiveTree { root, sha256, members, has_end_mark, report } =
            ingest::read_archive(tar, session, self.store.options.threads)
                .map_err(|error| error.in_archive(&options.tar.name))?;
        let layer = LayerDraft {
            created_by: "import tar",
            added: root.entries(),
            changed_bytes: root.bytes(),
            ..LayerDraft::default()
        };
        Ok(Draft {
            root,
            layer,
            origin: OriginRecord::Tar(sha256),
            parent: None,
            tags: options.tags.clone(),
            comment: options.comment.clone(),
            examined: members,
            source: report,
            has_end_mark: Some(has_end_mark),
            state: None,
            workspace: None,
        })
    }
}

impl Image {
    /// Writes the image as a tar of its root file system, readable by GNU tar: `./` first, then every path in order,
    /// in the PAX format where it needs more than the old one holds; files with holes are stored sparse, unless
    /// [otherwise](ExportOptions::fill_holes) asked for. The bytes are a function of the image's tree and the options.
    /// Sockets, which no tar holds, are left out and given back.
    pub fn export(&self, out: impl Write, options: &ExportOptions) -> Result<Vec<TreePath>> {
        let _span = tracing::info_span!("export", image = %self.id()).entered();
        self.write_tar(out, options).map_err(|error| error.in_archive(&options.name))
    }

    fn write_tar(&self, out: impl Write, options: &ExportOptions) -> Result<Vec<TreePath>> {
        let out = Cancellable { stream: out, task: self.reader.task() };
        let mut writer = Writer::new(BufWriter::with_capacity(WRITE_BYTES, out));
        if options.fill_holes {
            writer = writer.filling_holes();
        }
        let mut left_out = BTreeSet::new();
        let root = self.root()?;
        let task = self.reader.task();
        let _stage = task.begin(Phase::Exporting, root.entries());
        for entry in tree::iter(&self.reader, &root)? {
            task.advance(1, 0)?;
            let (path, entry) = entry?;
            let is_left_out = match &entry {
                Entry::Inode(inode) => inode.kind == InodeKind::Socket,
                Entry::HardLink(first) => left_out.contains(first),
            };
            if is_left_out {
                left_out.insert(path);
            } else {
                self.append(&mut writer, path, entry)?;
            }
        }
        let flushed = writer.finish()?.flush();
        flushed.map_err(|error| Error::io(Subject::Archive, "write it", error))?;
        Ok(left_out.into_iter().collect())
    }

    fn append(&self, writer: &mut Writer<impl Write>, path: TreePath, entry: Entry) -> Result<()> {
        let inode = match entry {
            Entry::Inode(inode) => inode,
            Entry::HardLink(first) => {
                let mtime = Timestamp::default();
                let kind = MemberKind::HardLink(first);
                let link = Member { path, mode: 0, uid: 0, gid: 0, mtime, xattrs: Vec::new(), kind };
                return writer.append(&link, &[]);
            }
        };
        let xattrs = Xattrs::read(&self.reader, &inode.xattrs)?;
        let xattrs = xattrs.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        let Inode { mode, uid, gid, mtime, kind, .. } = inode;
        let mut content = None;
        let kind = match kind {
            InodeKind::Directory => MemberKind::Directory,
            InodeKind::File(bytes) => {
                let size = bytes.size;
                content = Some(ContentReader::new(&self.reader, &bytes));
                MemberKind::File(size)
            }
            InodeKind::Symlink(target) => MemberKind::Symlink(target),
            InodeKind::CharDevice { major, minor } => MemberKind::CharDevice { major, minor },
            InodeKind::BlockDevice { major, minor } => MemberKind::BlockDevice { major, minor },
            InodeKind::Fifo => MemberKind::Fifo,
            InodeKind::Socket => return Ok(()),
        };
        let data = content.as_ref().map_or(Ok(Vec::new()), ContentReader::data_ranges)?;
        writer.append(&Member { path, mode, uid, gid, mtime, xattrs, kind }, &data)?;
        let Some(content) = content else { return Ok(()) };
        content.pieces().try_for_each(|piece| match piece? {
            Piece::Data(bytes) => {
                self.reader.task().count(0, bytes.len() as u64);
                writer.write(&bytes)
            }
            Piece::Hole(_) => Ok(()),
        })
    }
}
