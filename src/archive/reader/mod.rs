//! Reads members from a tar stream.
//!
//! The reader owns the framing: which blocks are headers, which belong to a body, where the archive ends. It says
//! nothing about how entries relate (see [`Assembly`](super::Assembly)). After an error it stays at that error:
//! there is no resynchronising in hostile bytes.

use std::io::Read;

use self::body::Body;
use self::entry::{Pending, Resolved, Stored};
use super::dump_list::DumpList;
use super::header::{self, Header};
use super::input::{self, Input};
use super::{BLOCK, BLOCK_BYTES, Limits, Member, MemberKind, Refusal, pax};
use crate::error::{Error, Result, Subject};

/// Bytes of the two zero blocks that end an archive.
const END_BYTES: u64 = 2 * BLOCK_BYTES;
/// Bytes of memory that an extended attribute takes besides its name and value.
const XATTR_BYTES: usize = 96;

mod body;
mod entry;
#[cfg(test)]
mod tests;
mod unkept;

pub use unkept::UnkeptRecord;

/// Reads a tar archive from any [`Read`], which needs no buffer of its own.
pub struct Reader<R: Read> {
    input: Input<R>,
    limits: Limits,
    global: pax::Records,
    entries: u64,
    logical_bytes: u64,
    metadata_bytes: u64,
    has_end_mark: bool,
    /// Whether an extended header in PAX form came by.
    has_pax: bool,
    unkept: Vec<UnkeptRecord>,
    state: State,
}

enum State {
    /// At a header, after the one before was read wholly.
    Header,
    /// In or after the body of the entry last given.
    Body(Body),
    /// After the last entry.
    End,
    /// After an error.
    Failed,
}

/// A part of a file's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// So many bytes, at least one, now at the front of the buffer.
    Data(usize),
    /// So many zero bytes, at least one, that the archive does not hold.
    Hole(u64),
    /// The content is complete.
    End,
}

/// What was read, in all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TarSummary {
    /// SHA-256 of the uncompressed archive, whatever follows its end included.
    pub sha256: [u8; 32],
    /// Bytes that were hashed.
    pub bytes: u64,
    /// Members given.
    pub entries: u64,
    /// Whether the two zero blocks that end an archive were seen. Without them it may have been cut off between two members.
    pub has_end_mark: bool,
    /// Where in the uncompressed bytes the first is that follows the end mark and is not zero: nothing from there on was
    /// taken for members. None if only zeros follow.
    pub other_data_at: Option<u64>,
    /// Records that say what no image keeps.
    pub unkept: Vec<UnkeptRecord>,
}

impl<R: Read> Reader<R> {
    /// Starts to read `source`. Fails if it can't be read or is compressed in a way that is not supported.
    pub fn new(source: R, limits: Limits) -> Result<Self> {
        let input = Input::new(source, &limits)?;
        let global = pax::Records::default();
        let state = State::Header;
        Ok(Self {
            input,
            limits,
            global,
            entries: 0,
            logical_bytes: 0,
            metadata_bytes: 0,
            has_end_mark: false,
            has_pax: false,
            unkept: Vec::new(),
            state,
        })
    }

    /// The next member, none at the archive's end. What is left of the body before is skipped.
    #[expect(clippy::should_implement_trait, reason = "a member's body is read from the same reader")]
    pub fn next(&mut self) -> Result<Option<Member>> {
        match std::mem::replace(&mut self.state, State::Failed) {
            State::Header => {}
            State::Body(body) => body.skip(&mut self.input)?,
            State::End => {
                self.state = State::End;
                return Ok(None);
            }
            State::Failed => return Err(failed()),
        }
        let Some((member, body)) = self.next_entry()? else {
            self.state = State::End;
            return Ok(None);
        };
        self.state = State::Body(body);
        Ok(Some(member))
    }

    /// The next part of the content of the member last given, which has none if it is no file. `buffer` must not
    /// be empty. An archive that ends before the content does is an error.
    pub fn next_piece(&mut self, buffer: &mut [u8]) -> Result<Piece> {
        if buffer.is_empty() {
            return Err(Error::invalid(
                Subject::Argument("buffer"),
                "is empty; give room for at least one byte",
            ));
        }
        match std::mem::replace(&mut self.state, State::Failed) {
            State::Body(mut body) => {
                let piece = body.next_piece(buffer, &mut self.input)?;
                self.state = State::Body(body);
                Ok(piece)
            }
            State::Failed => Err(failed()),
            other => {
                self.state = other;
                Ok(Piece::End)
            }
        }
    }

    /// Reads what is left, members included, to the end of the source: so that all of it was checked and hashed. Fails where
    /// an archive that begins with its end goes on with other bytes than zeros.
    pub fn finish(mut self) -> Result<TarSummary> {
        while self.next()?.is_some() {}
        let begins_with_end = self.input.bytes() <= END_BYTES;
        let other_data_at = self.input.first_nonzero()?;
        if let Some(at) = other_data_at.filter(|_| begins_with_end) {
            return Err(begins_with_zeros(at));
        }
        let (entries, has_end_mark, unkept) = (self.entries, self.has_end_mark, self.unkept);
        let (sha256, bytes) = self.input.finish()?;
        Ok(TarSummary { sha256, bytes, entries, has_end_mark, other_data_at, unkept })
    }

    /// The next entry, through all headers that only prepare for it.
    fn next_entry(&mut self) -> Result<Option<(Member, Body)>> {
        let mut pending = Pending { records: self.global.clone(), ..Pending::default() };
        while let Some(block) = self.header_block(&pending)? {
            let header = Header::parse(&block).map_err(|refusal| self.at_header(&block, refusal))?;
            let prepared = self.prepare(&header, &mut pending);
            if !prepared.map_err(|failure| failure.at(&self.name_ahead(&header, &mut pending)))? {
                let name = pending.take_name(&header);
                return self.entry(name, &header, pending).map(Some);
            }
        }
        Ok(None)
    }

    /// The name of the entry that an extended header which failed is for, if that can be found out: its own is of no use to
    /// anybody. Nothing more is read after a failure.
    fn name_ahead(&mut self, failed: &Header, pending: &mut Pending) -> Vec<u8> {
        if !matches!(failed.type_flag(), b'x' | b'X') {
            return failed.name();
        }
        let next = self.block().ok().flatten().and_then(|block| Header::parse(&block).ok());
        match next {
            Some(next) if !is_preparing(next.type_flag()) => pending.take_name(&next),
            _ => failed.name(),
        }
    }

    /// Takes a header that is no entry; whether it was one.
    fn prepare(&mut self, header: &Header, pending: &mut Pending) -> Result<bool, Failure> {
        let flag = header.type_flag();
        if !is_preparing(flag) {
            return Ok(false);
        }
        pending.count += 1;
        self.has_pax |= matches!(flag, b'x' | b'X' | b'g');
        if pending.count > self.limits.pending_headers_max {
            let limit = self.limits.pending_headers_max;
            return Err(Refusal::limit("the headers before one entry", "pending_headers_max", limit).into());
        }
        if matches!(flag, b'g' | b'V') {
            if pending.open {
                return Err(Refusal::invalid("stands between an extended header and its entry").into());
            }
            let body = self.prelude(header)?;
            if flag == b'g' {
                self.global.apply_global(&body)?;
                pending.records = self.global.clone();
            }
            return Ok(true);
        }
        pending.open = true;
        let body = self.prelude(header)?;
        match flag {
            b'L' => pending.long_name = Some(long_name(body)?),
            b'K' => pending.long_link = Some(long_name(body)?),
            _ => pending.records.apply(&body, &self.limits)?,
        }
        Ok(true)
    }

    /// The body of a header that is no entry: small, or an error before anything is allocated for it.
    fn prelude(&mut self, header: &Header) -> Result<Vec<u8>, Failure> {
        let size = header.size()?;
        let limit = self.limits.header_bytes_max;
        let len = usize::try_from(size).ok().filter(|_| size <= limit);
        let len = len.ok_or_else(|| Refusal::limit("its size", "header_bytes_max", limit))?;
        let mut body = vec![0; len.next_multiple_of(BLOCK)];
        if self.input.fill(&mut body)? < body.len() {
            return Err(Refusal::invalid("is cut short: the archive ends in it").into());
        }
        body.truncate(len);
        Ok(body)
    }

    fn entry(&mut self, name: Vec<u8>, header: &Header, mut pending: Pending) -> Result<(Member, Body)> {
        let unkept = pending.records.take_unkept();
        let mut dump_list = std::mem::take(&mut pending.records.dump_list);
        let resolved = pending
            .resolve(&name, header, self.has_pax, &self.limits)
            .map_err(|refusal| refusal.at(&name))?;
        self.check_budgets(&resolved.member).map_err(|refusal| refusal.at(&name))?;
        let Resolved { member, stored } = resolved;
        unkept::note(&mut self.unkept, unkept, &member.path);
        let stored = match stored {
            Stored::DumpList(bytes) => {
                self.read_dump_list(bytes, &mut dump_list).map_err(|failure| failure.at(&name))?;
                Stored::Nothing
            }
            other => other,
        };
        if let Some((files, lacking)) = dump_list.lacking()
            && let Ok(example) = member.path.join(&lacking)
        {
            unkept::note_not_in_dump(&mut self.unkept, files, example);
        }
        let size = match member.kind {
            MemberKind::File(size) => size,
            _ => 0,
        };
        let body = Body::open(name, stored, size, &mut self.input, &self.limits)?;
        Ok((member, body))
    }

    /// Reads a list of so many bytes, and the padding behind it.
    fn read_dump_list(&mut self, bytes: u64, list: &mut DumpList) -> Result<(), Failure> {
        let (mut block, mut left) = ([0; BLOCK], bytes);
        while left > 0 {
            if self.input.fill(&mut block)? < BLOCK {
                return Err(Refusal::invalid("is cut short: the archive ends in it").into());
            }
            let now = usize::try_from(left).unwrap_or(usize::MAX).min(BLOCK);
            list.take(block.get(..now).unwrap_or_default());
            left = left.saturating_sub(BLOCK_BYTES);
        }
        Ok(())
    }

    fn check_budgets(&mut self, member: &Member) -> Result<(), Refusal> {
        self.entries += 1;
        if self.entries > self.limits.entries_max {
            return Err(Refusal::limit("the number of entries", "entries_max", self.limits.entries_max));
        }
        if let MemberKind::File(size) = member.kind {
            self.logical_bytes = self.logical_bytes.saturating_add(size);
        }
        if self.logical_bytes > self.limits.logical_bytes_max {
            let limit = self.limits.logical_bytes_max;
            return Err(Refusal::limit("the size of all files", "logical_bytes_max", limit));
        }
        let link = match &member.kind {
            MemberKind::Symlink(target) => target.len(),
            MemberKind::HardLink(target) => target.as_key().len(),
            _ => 0,
        };
        let xattr = |(name, value): &(Vec<u8>, Vec<u8>)| XATTR_BYTES + name.len() + value.len();
        let xattrs: usize = member.xattrs.iter().map(xattr).sum();
        let bytes = member.path.as_key().len() + link + xattrs;
        self.metadata_bytes = self.metadata_bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        if self.metadata_bytes > self.limits.metadata_bytes_max {
            let limit = self.limits.metadata_bytes_max;
            return Err(Refusal::limit("the size of all names and attributes", "metadata_bytes_max", limit));
        }
        Ok(())
    }

    /// The next header, none at the archive's end.
    fn header_block(&mut self, pending: &Pending) -> Result<Option<[u8; BLOCK]>> {
        let first = self.block()?;
        if let Some(block) = first.filter(|block| *block != [0; BLOCK]) {
            return Ok(Some(block));
        }
        let second = if first.is_some() { self.block()? } else { None };
        if let Some(at) = second.and_then(|second| second.iter().position(|byte| *byte != 0)) {
            let before = self.input.bytes().saturating_sub(BLOCK_BYTES);
            if before == BLOCK_BYTES {
                return Err(begins_with_zeros(before.saturating_add(u64::try_from(at).unwrap_or(u64::MAX))));
            }
            let message =
                "has a lone zero block before more data; expected two at its end: was it concatenated?";
            return Err(Error::invalid(Subject::Archive, message));
        }
        self.has_end_mark = second.is_some();
        if self.input.bytes() == 0 {
            return Err(Error::invalid(
                Subject::Archive,
                "is empty; an archive of nothing has two zero blocks",
            ));
        }
        if pending.open {
            return Err(Error::invalid(Subject::Archive, "ends after an extended header, before its entry"));
        }
        if !self.has_end_mark && self.entries == 0 {
            let message = "is no tar archive: it has neither an entry nor an end mark of two zero blocks";
            return Err(Error::invalid(Subject::Archive, message));
        }
        Ok(None)
    }

    /// The next block, none at the source's end.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        match self.input.fill(&mut block)? {
            0 => Ok(None),
            BLOCK => Ok(Some(block)),
            len if self.input.bytes() < BLOCK_BYTES => Err(no_tar(block.get(..len).unwrap_or_default())),
            len => {
                let message = format!("is cut short: expected a block of {BLOCK} bytes, found {len}");
                Err(Error::invalid(Subject::Archive, message))
            }
        }
    }

    /// The error about the header just read, whose name can't be trusted.
    fn at_header(&self, block: &[u8; BLOCK], refusal: Refusal) -> Error {
        if self.input.bytes() == BLOCK_BYTES && !header::has_magic(block) {
            return no_tar(block);
        }
        let offset = self.input.bytes().saturating_sub(BLOCK_BYTES);
        refusal.at(format!("<at byte {offset}>").as_bytes())
    }
}

/// Whether a header of this type is no entry.
fn is_preparing(flag: u8) -> bool {
    matches!(flag, b'x' | b'X' | b'g' | b'L' | b'K' | b'V')
}

/// A long name's bytes up to the zero that ends it; nothing may follow that.
fn long_name(mut body: Vec<u8>) -> Result<Vec<u8>, Refusal> {
    let end = body.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    body.truncate(end);
    if body.contains(&0) {
        return Err(Refusal::invalid("is a GNU long name with a zero byte in it"));
    }
    Ok(body)
}

/// It begins as an archive of nothing does, and as many disk images do.
fn begins_with_zeros(nonzero: u64) -> Error {
    let message = format!(
        "is no tar archive: it begins with zeros, as an empty one does, but byte {nonzero} is not zero; is it a disk image?"
    );
    Error::invalid(Subject::Archive, message)
}

/// The very first bytes are no header.
fn no_tar(bytes: &[u8]) -> Error {
    let message = match input::kind_of(bytes) {
        Some(kind) => format!("is no tar archive, but {kind}"),
        None => "is no tar archive (plain, or compressed by gzip or zstd)".to_owned(),
    };
    Error::invalid(Subject::Archive, message)
}

fn failed() -> Error {
    Error::invalid(Subject::Archive, "could not be read on: an error was reported before")
}

/// A refusal that still lacks its entry, or an error that is complete.
enum Failure {
    Refusal(Refusal),
    Error(Error),
}

impl Failure {
    fn at(self, name: &[u8]) -> Error {
        match self {
            Self::Refusal(refusal) => refusal.at(name),
            Self::Error(error) => error,
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refusal(refusal)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}
