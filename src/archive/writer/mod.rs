//! Writes a tar archive that GNU tar reads, in the way of `tar -C DIRECTORY -c .`.
//!
//! Names start with `./`, so that extracting restores the root directory's attributes; directories end in `/`.
//! Each member is a ustar header; what does not fit in it (long names, big numbers, nanoseconds, extended
//! attributes) goes into a PAX header before it, with exactly the records needed. A file with holes is stored as
//! PAX sparse 1.0, or with zeros for its holes where that is asked for. The bytes are a function of the members alone.
//!
//! Programs that skip PAX headers, or some of their records, must not be misled by what the ustar header has instead: a
//! number that is too big is there in base 256 (a file with setuid whose owner were 0 there would become root's), and a
//! name that is too long or not the member's own is one that no other member has.

use std::io::Write;
use std::ops::Range;

use self::body::Body;
use super::limits::{HEADER_BYTES_MAX, SPARSE_PIECES_MAX};
use super::{BLOCK, BLOCK_BYTES, Member, MemberKind, acl, number, pax, sparse};
use crate::error::{Error, Result, Subject};
use crate::path::TreePath;

mod body;
#[cfg(test)]
mod tests;

const NAME_BYTES: usize = 100;
const PREFIX_BYTES: usize = 155;
/// The directories that GNU tar puts between a member's directory and its name, for headers whose own name only programs
/// see that don't know their form.
const SPARSE_DIRECTORY: &str = "GNUSparseFile";
const PAX_DIRECTORY: &str = "PaxHeaders";

/// Writes members to any [`Write`]. Give it a buffered one: headers are small.
#[must_use = "an archive has no end until it is finished"]
pub struct Writer<W: Write> {
    out: W,
    body: Body,
    fills_holes: bool,
}

impl<W: Write> Writer<W> {
    /// Starts an archive.
    pub fn new(out: W) -> Self {
        Self { out, body: Body::default(), fills_holes: false }
    }

    /// Writes zeros for the holes of files, for programs that don't know sparse ones.
    pub fn filling_holes(self) -> Self {
        Self { fills_holes: true, ..self }
    }

    /// Starts the next member; a hard link must come after its target. `data` says where in a file its data is, in
    /// bytes, ascending and apart: `&[0..size]` for a file without holes, nothing for what is no file. As many
    /// bytes must then be [written](Self::write).
    pub fn append(&mut self, member: &Member, data: &[Range<u64>]) -> Result<()> {
        self.end_body()?;
        let size = check(member, data)?;
        let map = if self.fills_holes { None } else { sparse_map(data, size) };
        let map_text = map.as_deref().map(sparse::map_text).unwrap_or_default();
        let whole = 0..size;
        let pieces = map.as_deref().unwrap_or(std::slice::from_ref(&whole));
        let body = Body::new(member.path.clone(), data, pieces);
        let stored = length(map_text.len()) + pieces.iter().map(|piece| piece.end - piece.start).sum::<u64>();
        let (header, records) = encode(member, stored, map.is_some().then_some(size));
        if !records.is_empty() {
            self.extended_header(member, &records)?;
        }
        self.raw(header.as_bytes())?;
        self.raw(&map_text)?;
        self.body = body;
        Ok(())
    }

    /// Writes the next bytes of the data of the file last appended, its holes left out.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.body.write(bytes, &mut self.out)
    }

    /// Ends the archive and gives back what it was written to, not flushed.
    pub fn finish(mut self) -> Result<W> {
        self.end_body()?;
        self.raw(&[0; 2 * BLOCK])?;
        Ok(self.out)
    }

    fn end_body(&mut self) -> Result<()> {
        std::mem::take(&mut self.body).finish(&mut self.out)
    }

    fn extended_header(&mut self, member: &Member, records: &[u8]) -> Result<()> {
        if length(records.len()) > HEADER_BYTES_MAX {
            let message =
                format!("has names and attributes of more than {HEADER_BYTES_MAX} bytes, too many for tar");
            return Err(Error::unsupported(Subject::Path(member.path.clone()), message));
        }
        let mut header = tar::Header::new_ustar();
        put_name(&mut header, &in_directory(PAX_DIRECTORY, &member.path));
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(length(records.len()));
        header.set_entry_type(tar::EntryType::XHeader);
        header.set_cksum();
        self.raw(header.as_bytes())?;
        self.raw(records)?;
        self.raw(&vec![0; records.len().next_multiple_of(BLOCK) - records.len()])
    }

    fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(write_error)
    }
}

/// Setuid and setgid.
const SET_ID_BITS: u16 = 0o6000;

/// Refuses a member that no archive could hold; the bytes of its file.
fn check(member: &Member, data: &[Range<u64>]) -> Result<u64> {
    let refuse = |message: &str| Err(Error::invalid(Subject::Path(member.path.clone()), message));
    let size = match &member.kind {
        MemberKind::Directory => 0,
        _ if member.path.is_root() => return refuse("is the root and must be a directory"),
        MemberKind::File(size) => *size,
        MemberKind::Symlink(target) if target.is_empty() || target.contains(&0) => {
            return refuse("is a symbolic link whose target is empty or has a zero byte");
        }
        _ => 0,
    };
    if member.mode > 0o7777 || member.mtime.nanos >= 1_000_000_000 || i64::try_from(size).is_err() {
        return refuse("has a mode, a time or a size out of range");
    }
    if member.xattrs.iter().any(|(name, _)| name.is_empty() || name.contains(&0)) {
        return refuse("has an extended attribute whose name is empty or has a zero byte");
    }
    let mut end = 0;
    for range in data {
        if range.start < end || range.end <= range.start || range.end > size {
            return refuse("has data ranges that are empty, do not ascend or go beyond its end");
        }
        end = range.end;
    }
    Ok(size)
}

/// The map of a file that has holes. GNU tar starts every piece at a block of the archive, so all but the last have
/// whole blocks: parts of a block around a hole are stored as zeros, and so are the smallest holes where there are
/// too many pieces for a reader. A file that ends in a hole ends its map with an empty piece, from which GNU tar
/// takes the size.
fn sparse_map(data: &[Range<u64>], size: u64) -> Option<Vec<Range<u64>>> {
    let mut gaps: Vec<Range<u64>> = Vec::new();
    let mut end = 0_u64;
    let mut push = |from: u64, to: u64| {
        let from = from.next_multiple_of(BLOCK_BYTES);
        if from < to {
            gaps.push(from..to);
        }
    };
    for range in data {
        push(end, range.start / BLOCK_BYTES * BLOCK_BYTES);
        end = range.end;
    }
    push(end, size);
    if gaps.is_empty() {
        return None;
    }
    // Each hole has at most one piece before it, and one comes after the last.
    if gaps.len() >= SPARSE_PIECES_MAX {
        gaps.sort_by_key(|gap| (std::cmp::Reverse(gap.end - gap.start), gap.start));
        gaps.truncate(SPARSE_PIECES_MAX - 1);
        gaps.sort_by_key(|gap| gap.start);
    }
    let mut pieces = Vec::with_capacity(gaps.len() + 1);
    let mut start = 0;
    for gap in gaps {
        if gap.start > start {
            pieces.push(start..gap.start);
        }
        start = gap.end;
    }
    pieces.push(start..size);
    Some(pieces)
}

/// The member's header for a body of `stored` bytes, and the PAX records that must come before it. `sparse` is the
/// file's size if it is stored with its map.
fn encode(member: &Member, stored: u64, sparse: Option<u64>) -> (tar::Header, Vec<u8>) {
    let mut header = tar::Header::new_ustar();
    let mut records = Vec::new();
    let name = archive_name(&member.path, matches!(member.kind, MemberKind::Directory));
    if let Some(size) = sparse {
        pax::push_record(&mut records, b"GNU.sparse.major", b"1");
        pax::push_record(&mut records, b"GNU.sparse.minor", b"0");
        pax::push_record(&mut records, b"GNU.sparse.name", &name);
        pax::push_record(&mut records, b"GNU.sparse.realsize", size.to_string().as_bytes());
        let directory = format!("{SPARSE_DIRECTORY}.{}", digest(&name));
        put_name(&mut header, &in_directory(&directory, &member.path));
    } else if !put_name(&mut header, &name) {
        pax::push_record(&mut records, b"path", &name);
    }
    put_kind(&mut header, &member.kind, &mut records);
    // Programs leave to root what belongs to such a user or group, which is none.
    let has_owner = member.uid != number::NO_ID && member.gid != number::NO_ID;
    header.set_mode(u32::from(if has_owner { member.mode } else { member.mode & !SET_ID_BITS }));
    let fields = header.as_old_mut();
    put_number(&mut fields.uid, member.uid.into(), b"uid", &mut records);
    put_number(&mut fields.gid, member.gid.into(), b"gid", &mut records);
    put_number(&mut fields.size, stored.cast_signed(), b"size", &mut records);
    if !number::put_field(&mut fields.mtime, member.mtime.seconds) || member.mtime.nanos != 0 {
        pax::push_record(&mut records, b"mtime", number::time_text(member.mtime).as_bytes());
    }
    for (name, value) in &member.xattrs {
        // `tar --acls` looks at the text alone, `tar --xattrs` at the attribute.
        if let Some((key, text)) = acl::record(name, value) {
            pax::push_record(&mut records, key, text.as_bytes());
        }
        pax::push_record(&mut records, &pax::xattr_key(name), value);
    }
    header.set_cksum();
    (header, records)
}

fn put_kind(header: &mut tar::Header, kind: &MemberKind, records: &mut Vec<u8>) {
    let entry_type = match kind {
        MemberKind::Directory => tar::EntryType::Directory,
        MemberKind::File(_) => tar::EntryType::Regular,
        MemberKind::HardLink(_) => tar::EntryType::Link,
        MemberKind::Symlink(_) => tar::EntryType::Symlink,
        MemberKind::CharDevice { .. } => tar::EntryType::Char,
        MemberKind::BlockDevice { .. } => tar::EntryType::Block,
        MemberKind::Fifo => tar::EntryType::Fifo,
    };
    header.set_entry_type(entry_type);
    match kind {
        MemberKind::HardLink(target) => put_link(header, &archive_name(target, false), records),
        MemberKind::Symlink(target) => put_link(header, target, records),
        MemberKind::CharDevice { major, minor } | MemberKind::BlockDevice { major, minor } => {
            if let Some(ustar) = header.as_ustar_mut() {
                put_number(&mut ustar.dev_major, (*major).into(), b"SCHILY.devmajor", records);
                put_number(&mut ustar.dev_minor, (*minor).into(), b"SCHILY.devminor", records);
            }
        }
        MemberKind::Directory | MemberKind::File(_) | MemberKind::Fifo => {}
    }
}

fn put_link(header: &mut tar::Header, link: &[u8], records: &mut Vec<u8>) {
    let field = &mut header.as_old_mut().linkname;
    if link.len() <= NAME_BYTES {
        put(field, link);
    } else {
        pax::push_record(records, b"linkpath", link);
        put(field, &stand_in(link));
    }
}

/// Puts a name into the name field, or split at a `/` into that and the prefix. Returns whether it fits; if not, another
/// stands for it.
fn put_name(header: &mut tar::Header, name: &[u8]) -> bool {
    let split = if name.len() <= NAME_BYTES {
        Some((&[][..], name))
    } else {
        // The last `/` is no place for it: the name must not be empty.
        let places = name.iter().enumerate().take(PREFIX_BYTES + 1).filter(|(_, byte)| **byte == b'/');
        let mut splits = places.filter_map(|(at, _)| Some((name.get(..at)?, name.get(at + 1..)?)));
        splits.find(|(_, name)| (1..=NAME_BYTES).contains(&name.len()))
    };
    let Some(ustar) = header.as_ustar_mut() else { return false };
    if let Some((prefix, name)) = split {
        put(&mut ustar.prefix, prefix);
        put(&mut ustar.name, name);
    } else {
        put(&mut ustar.name, &stand_in(name));
    }
    split.is_some()
}

/// A name of [`NAME_BYTES`] for one that is longer: its beginning, and what tells it from others that begin alike.
fn stand_in(name: &[u8]) -> Vec<u8> {
    let end = format!("~{:016x}", digest(name));
    [name.get(..NAME_BYTES - end.len()).unwrap_or(name), end.as_bytes()].concat()
}

/// A number that no two names have in common, but by a chance of one in 2^64.
fn digest(name: &[u8]) -> u64 {
    blake3::hash(name).as_bytes().first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

/// Puts a number into a field, and into a record, too, if octal digits don't hold it.
fn put_number(field: &mut [u8], value: i64, key: &[u8], records: &mut Vec<u8>) {
    if !number::put_field(field, value) {
        pax::push_record(records, key, value.to_string().as_bytes());
    }
}

fn archive_name(path: &TreePath, directory: bool) -> Vec<u8> {
    let mut name = b"./".to_vec();
    name.extend(path.to_relative());
    if directory && !path.is_root() {
        name.push(b'/');
    }
    name
}

/// The name that a member would have in a directory of its own beside it.
fn in_directory(directory: &str, path: &TreePath) -> Vec<u8> {
    let mut name = archive_name(&path.parent().unwrap_or_default(), true);
    name.extend_from_slice(directory.as_bytes());
    name.push(b'/');
    name.extend_from_slice(path.file_name().unwrap_or(b"."));
    name
}

/// Puts as much of `bytes` into a field as fits.
fn put(field: &mut [u8], bytes: &[u8]) {
    field.iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte);
}

fn length(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

fn write_error(error: std::io::Error) -> Error {
    Error::io(Subject::Archive, "write", error)
}
