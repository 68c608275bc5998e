//! Reading content back.

use std::io;
use std::ops::Range;

use super::list::{Item, List, MAX_LEVEL};
use crate::error::{Error, Result, Subject};
use crate::id::ObjectId;
use crate::object::{ObjectBytes, ObjectSource};
use crate::tree::entry::{Body, Content};

/// A run of a content, as it is read.
#[derive(Clone, Debug)]
pub enum Piece {
    /// These bytes.
    Data(ObjectBytes),
    /// This many zero bytes.
    Hole(u64),
}

impl Piece {
    /// Bytes of the piece, zeros of a hole included.
    fn len(&self) -> u64 {
        match self {
            Self::Data(bytes) => bytes.len() as u64,
            Self::Hole(len) => *len,
        }
    }

    /// Copies the bytes from `from` on into `buffer`, as many as there are and fit, and says how many.
    fn copy(&self, from: u64, buffer: &mut [u8]) -> usize {
        let left = self.len().saturating_sub(from);
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let target = buffer.get_mut(..count).unwrap_or_default();
        match self {
            Self::Hole(_) => target.fill(0),
            Self::Data(bytes) => {
                let rest = usize::try_from(from).ok().and_then(|from| bytes.get(from..)).unwrap_or_default();
                target.iter_mut().zip(rest).for_each(|(to, byte)| *to = *byte);
            }
        }
        count
    }
}

/// Reads a content in order or at any offset. Lengths are checked on the way: a chunk or list that does not
/// have as many bytes as was said of it is *corrupt*.
#[derive(Clone, Debug)]
pub struct ContentReader<S> {
    source: S,
    content: Content,
}

impl<S: ObjectSource> ContentReader<S> {
    /// A reader of `content`; reads nothing yet.
    #[must_use]
    pub fn new(source: S, content: &Content) -> Self {
        Self { source, content: content.clone() }
    }

    /// Bytes of the content.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.content.size
    }

    /// The whole content in order.
    pub fn pieces(&self) -> Pieces<&S> {
        Pieces::new(&self.source, &self.content)
    }

    /// The whole content in order, as a byte stream.
    pub fn into_stream(self) -> ContentStream<S> {
        let pieces = Pieces::new(self.source, &self.content);
        ContentStream { pieces, piece: Piece::Hole(0), position: 0 }
    }

    /// The first chunk, if the content has any. Reads lists, but no chunks.
    pub fn first_chunk(&self) -> Result<Option<ObjectId>> {
        let mut pieces = self.pieces();
        while let Some(extent) = pieces.next_extent()? {
            if let Extent::Chunk(id, _) = extent {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    /// Where the content has data, in bytes, ascending; the rest are holes. Reads lists, but no chunks.
    pub fn data_ranges(&self) -> Result<Vec<Range<u64>>> {
        let mut pieces = self.pieces();
        let mut ranges: Vec<Range<u64>> = Vec::new();
        let mut position = 0;
        while let Some(extent) = pieces.next_extent()? {
            let len = match &extent {
                Extent::Inline(bytes) => bytes.len() as u64,
                Extent::Chunk(_, len) | Extent::Hole(len) => *len,
            };
            let end = position + len;
            match ranges.last_mut().filter(|last| last.end == position) {
                _ if matches!(extent, Extent::Hole(_)) => {}
                Some(last) => last.end = end,
                None => ranges.push(position..end),
            }
            position = end;
        }
        Ok(ranges)
    }

    /// Fills `buffer` from `offset` on and says how many bytes there were: fewer than it has room for only at
    /// the end. Reads one list per level and the chunks that it needs.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let mut pieces = self.pieces();
        let mut from = pieces.skip_to(offset)?;
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let Some(piece) = pieces.next().transpose()? else { break };
            filled += piece.copy(from, rest);
            from = from.saturating_sub(piece.len());
        }
        Ok(filled)
    }
}

/// A run of a content before it is read.
enum Extent {
    Inline(Box<[u8]>),
    Chunk(ObjectId, u64),
    Hole(u64),
}

/// Iterator over a content's pieces; none is empty. It ends after an error.
#[derive(Debug)]
pub struct Pieces<S> {
    source: S,
    inline: Option<Box<[u8]>>,
    /// The lists on the way to the next piece, the top one first, each with the items still to come.
    stack: Vec<(u8, std::vec::IntoIter<Item>)>,
}

impl<S: ObjectSource> Pieces<S> {
    fn new(source: S, content: &Content) -> Self {
        // A single chunk, or the top list, is read like the only item of a list of its own.
        let single = |level, id| (level, vec![Item { len: content.size, id: Some(id) }].into_iter());
        let (inline, stack) = match &content.body {
            Body::Inline(bytes) => (Some(bytes.clone()).filter(|bytes| !bytes.is_empty()), Vec::new()),
            Body::Chunk(id) => (None, vec![single(0, *id)]),
            Body::List(id) => (None, vec![single(MAX_LEVEL + 1, *id)]),
        };
        Self { source, inline, stack }
    }

    /// Leaves out what ends at or before `offset`, and says how far into the next piece `offset` is.
    fn skip_to(&mut self, mut offset: u64) -> Result<u64> {
        while let Some((level, items)) = self.stack.last_mut() {
            while let Some(item) = items.as_slice().first()
                && item.len <= offset
            {
                offset -= item.len;
                items.next();
            }
            if *level == 0 || items.as_slice().is_empty() {
                break;
            }
            let (level, item) = (*level, items.next());
            self.enter(level, item)?;
        }
        Ok(offset)
    }

    /// Goes down into the list that `item` of a list of `level` names.
    fn enter(&mut self, level: u8, item: Option<Item>) -> Result<()> {
        if let Some(Item { len, id: Some(id) }) = item {
            // Of a lower level, so the stack stays short whatever the bytes say.
            let list = List::read(&self.source, id, len, level)?;
            self.stack.push((list.level, list.items.into_iter()));
        }
        Ok(())
    }

    fn next_extent(&mut self) -> Result<Option<Extent>> {
        if let Some(bytes) = self.inline.take() {
            return Ok(Some(Extent::Inline(bytes)));
        }
        while let Some((level, items)) = self.stack.last_mut() {
            let (level, item) = (*level, items.next());
            match item {
                None => drop(self.stack.pop()),
                Some(Item { len, id: None }) => return Ok(Some(Extent::Hole(len))),
                Some(Item { len, id: Some(id) }) if level == 0 => return Ok(Some(Extent::Chunk(id, len))),
                item => self.enter(level, item)?,
            }
        }
        Ok(None)
    }

    fn advance(&mut self) -> Result<Option<Piece>> {
        match self.next_extent()? {
            None => Ok(None),
            Some(Extent::Inline(bytes)) => Ok(Some(Piece::Data(bytes.into_vec().into()))),
            Some(Extent::Hole(len)) => Ok(Some(Piece::Hole(len))),
            Some(Extent::Chunk(id, len)) => {
                let bytes = self.source.get(&id)?;
                if bytes.len() as u64 == len {
                    return Ok(Some(Piece::Data(bytes)).filter(|_| len > 0));
                }
                let message = format!("has {} bytes where {len} are expected", bytes.len());
                Err(Error::corrupt(Subject::Object(id), message))
            }
        }
    }
}

impl<S: ObjectSource> Iterator for Pieces<S> {
    type Item = Result<Piece>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.advance();
        if next.is_err() {
            self.stack.clear();
        }
        next.transpose()
    }
}

/// A content as a [`Read`](io::Read); a failure's source is the [`Error`].
#[derive(Debug)]
pub struct ContentStream<S> {
    pieces: Pieces<S>,
    piece: Piece,
    /// Bytes of `piece` that were given out.
    position: u64,
}

impl<S: ObjectSource> io::Read for ContentStream<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position >= self.piece.len() {
            let next = self.pieces.next().transpose().map_err(io::Error::other)?;
            (self.piece, self.position) = (next.unwrap_or(Piece::Hole(0)), 0);
        }
        let count = self.piece.copy(self.position, buffer);
        self.position += count as u64;
        Ok(count)
    }
}
