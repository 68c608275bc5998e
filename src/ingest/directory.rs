//! Capturing entries of a directory of the host.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Result, Subject};
use crate::host::source::{FilePiece, Found, SourceReader, SourceTree, Xattr};
use crate::host::stat::{FileKind, Stat};
use crate::object::ObjectSink;
use crate::pack::session::{PackHost, Session};
use crate::path::TreePath;
use crate::tree::content::{self, ContentWriter};
use crate::tree::{Content, Inode, InodeKind, Xattrs};

/// File bytes that make a batch, and entries that do where they are small.
const BATCH_BYTES: u64 = 1 << 20;
const BATCH_ENTRIES: usize = 256;
/// Bytes of one read of a large file.
const READ_BYTES: usize = 1 << 20;
/// Files up to this size are read whole.
const WHOLE_BYTES: u64 = 64 << 10;

/// An entry as it was read from the host.
#[derive(Debug)]
pub(crate) struct Captured {
    /// Without links: a group is put together once all its members are known.
    pub(crate) inode: Inode,
    /// Names of its extended attributes with their values' sizes are part of the inode; this is the rest.
    pub(crate) stat: Stat,
}

/// Reads entries of a source tree and stores their content, in the order of `found`. `attributes` may correct what
/// was found on the disk before it is stored.
pub(crate) fn capture<H: PackHost>(
    source: &SourceTree,
    found: &[Found],
    session: &Session<H>,
    threads: usize,
    attributes: &(impl Fn(&TreePath, &mut Inode, &mut Vec<Xattr>) -> Result<()> + Sync),
) -> Result<Vec<Captured>> {
    let batches = batches(found);
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let done = Mutex::new(Vec::with_capacity(batches.len()));
    let work = || -> Result<()> {
        let mut reader = source.reader();
        let mut writer = session.writer()?;
        let mut buf = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(batch) = batches.get(number) else { break };
            let captured = batch
                .iter()
                .map(|found| capture_one(&mut reader, found, &mut writer, &mut buf, attributes))
                .collect::<Result<Vec<_>>>()?;
            done.lock().unwrap_or_else(PoisonError::into_inner).push((number, captured));
        }
        writer.flush()
    };
    crate::threads::run_all(threads.min(batches.len()), &stop, work)?;
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_unstable_by_key(|(number, _)| *number);
    Ok(done.into_iter().flat_map(|(_, captured)| captured).collect())
}

fn batches(found: &[Found]) -> Vec<&[Found]> {
    let mut bytes = 0;
    let mut count = 0;
    let is_together = |_: &Found, next: &Found| {
        bytes += next.stat.size;
        count += 1;
        let is_full = bytes >= BATCH_BYTES || count >= BATCH_ENTRIES;
        if is_full {
            (bytes, count) = (0, 0);
        }
        !is_full
    };
    found.chunk_by(is_together).collect()
}

fn capture_one(
    reader: &mut SourceReader<'_>,
    found: &Found,
    sink: &mut impl ObjectSink,
    buf: &mut Vec<u8>,
    attributes: &impl Fn(&TreePath, &mut Inode, &mut Vec<Xattr>) -> Result<()>,
) -> Result<Captured> {
    let mut stat = found.stat.clone();
    let path = &found.path;
    let kind = match stat.kind {
        FileKind::Directory => InodeKind::Directory,
        FileKind::File => {
            let file = reader.open_file(path, &stat)?;
            stat = file.stat.clone();
            InodeKind::File(read_content(&file, sink, buf)?)
        }
        FileKind::Symlink => InodeKind::Symlink(reader.read_link(path)?.into()),
        FileKind::CharDevice => InodeKind::CharDevice { major: stat.major, minor: stat.minor },
        FileKind::BlockDevice => InodeKind::BlockDevice { major: stat.major, minor: stat.minor },
        FileKind::Fifo => InodeKind::Fifo,
        FileKind::Socket => InodeKind::Socket,
    };
    let mut found_xattrs = reader.xattrs(path)?;
    let (xattrs, links) = (Content::empty(), Content::empty());
    let Stat { mode, uid, gid, mtime, .. } = stat;
    let mut inode = Inode { mode, uid, gid, mtime, xattrs, links, kind };
    attributes(path, &mut inode, &mut found_xattrs)?;
    inode.xattrs = store_xattrs(path, &found_xattrs, sink)?;
    Ok(Captured { inode, stat })
}

/// Stores an attribute list.
pub(crate) fn store_xattrs(path: &TreePath, found: &[Xattr], sink: &mut impl ObjectSink) -> Result<Content> {
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

fn read_content(
    file: &crate::host::source::SourceFile,
    sink: &mut impl ObjectSink,
    buf: &mut Vec<u8>,
) -> Result<Content> {
    if file.stat.size <= WHOLE_BYTES {
        let mut whole = Vec::with_capacity(usize::try_from(file.stat.size).unwrap_or(0));
        buf.resize(READ_BYTES, 0);
        file.read(buf, |piece| {
            match piece {
                FilePiece::Data(bytes) => whole.extend_from_slice(bytes),
                FilePiece::Hole(len) => whole.resize(whole.len() + usize::try_from(len).unwrap_or(0), 0),
            }
            Ok(())
        })?;
        return content::write(sink, &whole);
    }
    let mut writer = ContentWriter::new();
    buf.resize(READ_BYTES, 0);
    file.read(buf, |piece| match piece {
        FilePiece::Data(bytes) => writer.push_bytes(sink, bytes),
        FilePiece::Hole(len) => writer.push_hole(sink, len),
    })?;
    writer.finish(sink)
}
