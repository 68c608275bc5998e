//! Reading a root file system tar. One thread reads the archive; small files go in batches to the others, large ones
//! are cut where they are read.

use std::io::Read;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use crate::archive::{Assembly, Limits, Member, MemberKind, Piece, Placed, Reader, TarSummary};
use crate::error::{Error, ErrorKind, Result, Subject};
use crate::object::ObjectSink;
use crate::pack::session::{PackHost, Session};
use crate::path::TreePath;
use crate::sync::lock;
use crate::task::{Cancellable, Deadline, Task};
use crate::tree::content::{self, ContentWriter};
use crate::tree::{self, Content, Entry, Inode, InodeKind, Root};

use super::capture::store_xattrs;
use super::report::SourceReport;
use super::saved_image::{self, Evidence};

/// Files up to this size are held whole and handed to another thread.
const WHOLE_BYTES: u64 = 1 << 20;
/// File bytes that make a batch.
const BATCH_BYTES: usize = 1 << 20;
const BATCH_FILES: usize = 256;
/// Batches that may wait for each thread.
const WAITING_BATCHES: usize = 2;
const READ_BYTES: usize = 256 << 10;

/// Where a file's content will be in the list of contents.
type Slot = usize;
type Batch = Vec<(Slot, Vec<u8>)>;

/// A tar to read.
pub(crate) struct Tar<'o, R> {
    pub(crate) stream: R,
    pub(crate) limits: Limits,
    pub(crate) options: &'o TarOptions,
}

/// The expectations of a tar, and its name in errors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct TarOptions {
    /// What errors call the tar: a file's name, say. `archive` if this is empty.
    pub name: String,
    /// Refuse a tar that does not end with the two zero blocks of an end, and zeros at most behind them: without them, a tar
    /// that was cut off between two members looks complete, and other data behind them is not read.
    pub require_end: bool,
    /// Take a saved image (what `docker save` writes, or an OCI image layout) as the files that it consists of, instead of
    /// refusing it.
    pub accept_saved_image: bool,
}

/// What an archive holds.
pub(crate) struct ArchiveTree {
    /// Its file system.
    pub(crate) root: Root,
    /// SHA-256 of the uncompressed archive.
    pub(crate) sha256: [u8; 32],
    /// Members read, those that later ones replaced included.
    pub(crate) members: u64,
    /// The report on the tar.
    pub(crate) report: SourceReport,
    /// Whether the two zero blocks that end it were seen.
    pub(crate) has_end_mark: bool,
}

/// What a layer's archive holds.
pub(crate) struct LayerTar {
    /// Its members, in their order.
    pub(crate) members: Vec<(TreePath, LayerMember)>,
    /// Whether the two zero blocks that end it were seen.
    pub(crate) has_end_mark: bool,
    /// The report on the tar.
    pub(crate) report: SourceReport,
}

/// What a layer's archive says of one path.
pub(crate) enum LayerMember {
    /// It becomes this inode, which has these extended attributes.
    Inode(Inode, Vec<(Vec<u8>, Vec<u8>)>),
    /// It becomes a further name of the inode at this path.
    HardLink(TreePath),
}

/// Reads an archive of a whole file system to its end and stores it, as a tree that is built while its paths come: those
/// that are only implied by others may be far more than were read.
pub(crate) fn read_archive<H: PackHost>(
    tar: Tar<'_, impl Read>,
    session: &Session<H>,
    threads: usize,
) -> Result<ArchiveTree> {
    let mut assembly = Assembly::new(tar.limits.clone());
    let deadline = Deadline::after(tar.limits.time_max);
    let (contents, summary) = read_contents(tar, false, session, threads, |member| assembly.add(member))?;
    let mut writer = session.writer()?;
    let task = session.task();
    let mut place = |placed| match placed {
        Placed::Inode { member, links } => {
            task.check()?;
            deadline.check(|| Subject::Archive)?;
            let path = member.path.clone();
            let mut inode = inode(member, &contents, &mut writer)?;
            if !links.is_empty() {
                inode.links = tree::links::write(&mut writer, &links.into_iter().collect())?;
            }
            Ok((path, Entry::Inode(inode)))
        }
        Placed::HardLink { path, first } => Ok((path, Entry::HardLink(first))),
    };
    let gave_way = assembly.gave_way().cloned();
    let mut failure = None;
    let entries =
        assembly.finish()?.map_while(|placed| place(placed).map_err(|error| failure = Some(error)).ok());
    let mut tree_writer = session.writer()?;
    let root = tree::build(&mut tree_writer, entries);
    let root = failure.map_or(root, Err)?;
    writer.flush()?;
    tree_writer.flush()?;
    // Not to be published behind its time.
    deadline.check(|| Subject::Archive)?;
    let TarSummary { sha256, entries: members, has_end_mark, unkept, other_data_at, .. } = summary;
    let report = SourceReport { gave_way, ..SourceReport::of_tar(unkept, other_data_at) };
    Ok(ArchiveTree { root, sha256, members, report, has_end_mark })
}

/// Reads an archive of what a layer changes to its end, stores its files' content, and gives its members in their order.
pub(crate) fn read_layer<H: PackHost>(
    tar: Tar<'_, impl Read>,
    session: &Session<H>,
    threads: usize,
) -> Result<LayerTar> {
    let mut members = Vec::new();
    let (contents, summary) = read_contents(tar, true, session, threads, |member| {
        members.push(member);
        Ok(())
    })?;
    let mut writer = session.writer()?;
    let place = |member: Member<Slot>| {
        let path = member.path.clone();
        if let MemberKind::HardLink(target) = member.kind {
            return Ok((path, LayerMember::HardLink(target)));
        }
        let xattrs = member.xattrs.clone();
        let placed = LayerMember::Inode(inode(member, &contents, &mut writer)?, xattrs);
        Ok((path, placed))
    };
    let members = members.into_iter().map(place).collect::<Result<_>>()?;
    writer.flush()?;
    let TarSummary { has_end_mark, unkept, other_data_at, .. } = summary;
    Ok(LayerTar { members, has_end_mark, report: SourceReport::of_tar(unkept, other_data_at) })
}

/// Reads an archive to its end, gives each member to `take`, and stores the contents of files: by the slots that members
/// have in their place.
fn read_contents<H: PackHost>(
    tar: Tar<'_, impl Read>,
    is_layer: bool,
    session: &Session<H>,
    threads: usize,
    mut take: impl FnMut(Member<Slot>) -> Result<()>,
) -> Result<(Vec<(Slot, Content)>, TarSummary)> {
    let Tar { stream, limits, options } = tar;
    let task = session.task();
    let mut reader = Reader::new(Cancellable { stream, task: &task }, limits)?;
    let mut evidence = (!options.accept_saved_image).then(|| Evidence::new(is_layer));
    let mut contents = std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel(threads * WAITING_BATCHES);
        let receiver = Arc::new(Mutex::new(receiver));
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                let receiver = Arc::clone(&receiver);
                scope.spawn(move || store_batches(&receiver, session))
            })
            .collect();
        // The workers have the only receivers: if they all fail, sending does too.
        drop(receiver);
        let mut take = |member| task.advance(1, 0).and_then(|()| take(member));
        let read = read_members(&mut reader, evidence.as_mut(), &mut take, session, &sender);
        // No more batches: the workers end once they have stored what waits.
        drop(sender);
        let mut contents = Vec::new();
        for worker in workers {
            contents.extend(crate::threads::join(worker)?);
        }
        contents.extend(read?);
        Ok::<_, Error>(contents)
    })?;
    contents.sort_unstable_by_key(|(slot, _)| *slot);
    let summary = reader.finish()?;
    evidence.map_or(Ok(()), |evidence| evidence.judge())?;
    if options.require_end {
        check_end(&summary)?;
    }
    Ok((contents, summary))
}

/// Fails where an archive does not end as one should.
fn check_end(summary: &TarSummary) -> Result<()> {
    if !summary.has_end_mark {
        let message =
            "ends without the two zero blocks of a tar's end: it may have been cut short; write it again";
        return Err(Error::invalid(Subject::Archive, message));
    }
    match summary.other_data_at {
        None => Ok(()),
        Some(at) => {
            let message = format!(
                "goes on behind its end mark with other data than zeros at byte {at}, which is not read: remove it, or \
                 import it by itself"
            );
            Err(Error::invalid(Subject::Archive, message))
        }
    }
}

fn store_batches<H: PackHost>(
    receiver: &Mutex<Receiver<Batch>>,
    session: &Session<H>,
) -> Result<Vec<(Slot, Content)>> {
    let mut writer = session.writer()?;
    let mut contents = Vec::new();
    loop {
        let batch = lock(receiver).recv();
        let Ok(batch) = batch else { break };
        for (slot, bytes) in batch {
            contents.push((slot, content::write(&mut writer, &bytes)?));
        }
    }
    writer.flush()?;
    Ok(contents)
}

/// Reads every member; gives the contents of the large files.
fn read_members<R: Read, H: PackHost>(
    reader: &mut Reader<R>,
    mut evidence: Option<&mut Evidence>,
    take: &mut impl FnMut(Member<Slot>) -> Result<()>,
    session: &Session<H>,
    sender: &SyncSender<Batch>,
) -> Result<Vec<(Slot, Content)>> {
    let mut writer = session.writer()?;
    let task = session.task();
    let mut buf = vec![0; READ_BYTES];
    let mut large = Vec::new();
    let mut batch = Batch::new();
    let mut batch_bytes = 0;
    let mut files = 0;
    let send = |batch: Batch| {
        let stopped =
            |_| Error::new(ErrorKind::Cancelled, Subject::Archive, "its content could not be stored");
        sender.send(batch).map_err(stopped)
    };
    while let Some(member) = reader.next()? {
        if let Some(evidence) = &mut evidence {
            evidence.member(&member);
        }
        let path = member.path.clone();
        let whole_max = if saved_image::may_tell(&path) { saved_image::BYTES_MAX } else { WHOLE_BYTES };
        let member = member.try_map_file(|size| {
            let slot = files;
            files += 1;
            if size > whole_max {
                large.push((slot, read_large(reader, size, &mut writer, &mut buf, &task)?));
            } else {
                let bytes = read_whole(reader, size, &mut buf)?;
                evidence.as_mut().map_or(Ok(()), |evidence| evidence.file(&path, &bytes))?;
                task.count(0, bytes.len() as u64);
                batch_bytes += bytes.len();
                batch.push((slot, bytes));
            }
            Ok(slot)
        })?;
        take(member)?;
        if batch_bytes >= BATCH_BYTES || batch.len() >= BATCH_FILES {
            send(std::mem::take(&mut batch))?;
            batch_bytes = 0;
        }
    }
    send(batch)?;
    writer.flush()?;
    Ok(large)
}

fn read_large<R: Read>(
    reader: &mut Reader<R>,
    size: u64,
    sink: &mut impl ObjectSink,
    buf: &mut [u8],
    task: &Task,
) -> Result<Content> {
    let mut writer = ContentWriter::new(size);
    loop {
        match reader.next_piece(buf)? {
            Piece::Data(len) => {
                task.advance(0, len as u64)?;
                writer.push_bytes(sink, buf.get(..len).unwrap_or_default())?;
            }
            Piece::Hole(len) => writer.push_hole(sink, len)?,
            Piece::End => return writer.finish(sink),
        }
    }
}

fn read_whole<R: Read>(reader: &mut Reader<R>, size: u64, buf: &mut [u8]) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(usize::try_from(size.min(WHOLE_BYTES)).unwrap_or(0));
    loop {
        match reader.next_piece(buf)? {
            Piece::Data(len) => bytes.extend_from_slice(buf.get(..len).unwrap_or_default()),
            Piece::Hole(len) => bytes.resize(bytes.len() + usize::try_from(len).unwrap_or(0), 0),
            Piece::End => return Ok(bytes),
        }
    }
}

fn inode(member: Member<Slot>, contents: &[(Slot, Content)], sink: &mut impl ObjectSink) -> Result<Inode> {
    let lost = || Error::invalid(Subject::Path(member.path.clone()), "its content was not read");
    let mut mode = member.mode;
    let kind = match member.kind {
        MemberKind::Directory => InodeKind::Directory,
        MemberKind::File(slot) => {
            let content = contents.get(slot).filter(|(found, _)| *found == slot).ok_or_else(lost)?;
            InodeKind::File(content.1.clone())
        }
        // Linux knows one mode for links; archives say what they like.
        MemberKind::Symlink(target) => {
            mode = 0o777;
            InodeKind::Symlink(target)
        }
        MemberKind::CharDevice { major, minor } => InodeKind::CharDevice { major, minor },
        MemberKind::BlockDevice { major, minor } => InodeKind::BlockDevice { major, minor },
        MemberKind::Fifo => InodeKind::Fifo,
        MemberKind::HardLink(_) => return Err(lost()),
    };
    let xattrs = store_xattrs(&member.path, &member.xattrs, sink)?;
    let Member { uid, gid, mtime, .. } = member;
    Ok(Inode { mode, uid, gid, mtime, xattrs, links: Content::empty(), kind })
}
