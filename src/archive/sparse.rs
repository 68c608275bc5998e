//! Sparse files: what PAX records say about their pieces, and the rules that every map of pieces must hold.

use std::ops::Range;

use super::header::Pieces;
use super::{BLOCK, BLOCK_BYTES, Limits, Refusal, number, pax};

/// What `GNU.sparse.*` records said.
#[derive(Clone, Default)]
pub(super) struct Records {
    major: Option<u64>,
    minor: Option<u64>,
    name: Option<Vec<u8>>,
    size: Option<u64>,
    piece_count: Option<u64>,
    pieces: Pieces,
    /// An offset whose length did not come yet.
    offset: Option<u64>,
    /// Whether there was any record at all.
    any: bool,
}

/// How a file's sparse map is stored, as its PAX records say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Not sparse.
    Dense,
    /// 0.0 or 0.1: the map was in the records.
    InRecords {
        /// Bytes of the file, holes included.
        size: u64,
        /// Where its data is.
        pieces: Pieces,
    },
    /// 1.0: the map is in front of the data.
    InBody {
        /// Bytes of the file, holes included.
        size: u64,
    },
}

impl Records {
    /// Takes over a record `GNU.sparse.<field>`.
    pub(super) fn apply(&mut self, field: &[u8], value: &[u8], limits: &Limits) -> Result<(), Refusal> {
        self.any = true;
        let bad = || pax::malformed(&[b"GNU.sparse.", field].concat());
        match field {
            b"major" => self.major = Some(number::decimal(value).ok_or_else(bad)?),
            b"minor" => self.minor = Some(number::decimal(value).ok_or_else(bad)?),
            b"name" => self.name = pax::name(b"GNU.sparse.name", value)?,
            b"size" | b"realsize" => self.size = Some(pax::size(value).ok_or_else(bad)?),
            b"numblocks" => self.piece_count = Some(number::decimal(value).ok_or_else(bad)?),
            b"offset" if self.offset.is_none() => self.offset = Some(pax::size(value).ok_or_else(bad)?),
            b"numbytes" => {
                let offset = self.offset.take().ok_or_else(bad)?;
                self.push((offset, pax::size(value).ok_or_else(bad)?), limits)?;
            }
            b"map" => {
                self.pieces.clear();
                if value.is_empty() {
                    return Ok(());
                }
                let mut numbers = value.split(|byte| *byte == b',').map(pax::size);
                while let Some(offset) = numbers.next() {
                    let piece = offset.zip(numbers.next().flatten()).ok_or_else(bad)?;
                    self.push(piece, limits)?;
                }
            }
            // An offset without a length before it, or a record that this version does not know.
            _ => return Err(bad()),
        }
        Ok(())
    }

    fn push(&mut self, piece: (u64, u64), limits: &Limits) -> Result<(), Refusal> {
        check_count(self.pieces.len() + 1, limits)?;
        self.pieces.push(piece);
        Ok(())
    }

    /// The file's true name, if the records have it.
    pub(super) fn take_name(&mut self) -> Option<Vec<u8>> {
        self.name.take()
    }

    /// How the map is stored.
    pub(super) fn into_form(self) -> Result<Form, Refusal> {
        if !self.any {
            return Ok(Form::Dense);
        }
        let size = self.size.ok_or_else(|| Refusal::invalid("is a PAX sparse file without its real size"))?;
        match (self.major.unwrap_or(0), self.minor.unwrap_or(0)) {
            (0, 0 | 1) => {
                let complete = self.offset.is_none()
                    && self.piece_count.is_none_or(|count| usize::try_from(count) == Ok(self.pieces.len()));
                if !complete {
                    return Err(Refusal::invalid("is a PAX sparse file whose map is incomplete"));
                }
                Ok(Form::InRecords { size, pieces: self.pieces })
            }
            (1, 0) => Ok(Form::InBody { size }),
            (major, minor) => Err(Refusal::unsupported(format!(
                "is a PAX sparse file of version {major}.{minor}; expected 0.0, 0.1 or 1.0"
            ))),
        }
    }
}

/// Refuses a file of this many pieces if the limit is lower.
pub(super) fn check_count(count: usize, limits: &Limits) -> Result<(), Refusal> {
    if count > limits.sparse_pieces_max {
        let limit = limits.sparse_pieces_max;
        return Err(Refusal::limit("its number of sparse pieces", "sparse_pieces_max", limit));
    }
    Ok(())
}

/// The ranges of data in a file of `size` bytes whose stored body has `stored` bytes: ascending, none empty.
pub(super) fn ranges(pieces: Pieces, size: u64, stored: u64) -> Result<Vec<Range<u64>>, Refusal> {
    let refuse = || {
        Refusal::invalid(format!(
            "is a sparse file whose map does not fit: expected pieces that ascend, do not overlap, end within \
             its {size} bytes, are whole blocks except for the last, and add up to the {stored} bytes stored"
        ))
    };
    let mut end = 0;
    let mut total = 0_u64;
    let mut ranges = Vec::with_capacity(pieces.len());
    for (offset, len) in pieces {
        let start = Some(offset).filter(|offset| *offset >= end).ok_or_else(refuse)?;
        end = offset.checked_add(len).filter(|end| *end <= size).ok_or_else(refuse)?;
        if len > 0 {
            // GNU tar starts each piece at a block of the archive, others right after the one before.
            if !total.is_multiple_of(BLOCK_BYTES) {
                return Err(refuse());
            }
            total = total.checked_add(len).ok_or_else(refuse)?;
            ranges.push(start..end);
        }
    }
    if total == stored { Ok(ranges) } else { Err(refuse()) }
}

/// Reads the map in front of a 1.0 sparse file's data: a count, then so many offsets and lengths, each a decimal
/// number and a line feed, padded to a block.
#[derive(Default)]
pub(super) struct MapParser {
    count: Option<u64>,
    offset: Option<u64>,
    pieces: Pieces,
    /// The number being read; none between numbers.
    number: Option<u64>,
}

impl MapParser {
    /// Takes the next block of the map; whether it was the last.
    pub(super) fn block(&mut self, block: &[u8; BLOCK], limits: &Limits) -> Result<bool, Refusal> {
        let refuse = || Refusal::invalid("is a PAX 1.0 sparse file whose map is malformed");
        for byte in block {
            match byte {
                b'0'..=b'9' => {
                    let next = self.number.unwrap_or(0).checked_mul(10);
                    let next = next.and_then(|number| number.checked_add(u64::from(byte & 0x0f)));
                    self.number = Some(next.ok_or_else(refuse)?);
                }
                b'\n' => {
                    let number = self.number.take().ok_or_else(refuse)?;
                    if self.take(number, limits)? {
                        return Ok(true);
                    }
                }
                _ => return Err(refuse()),
            }
        }
        Ok(false)
    }

    /// Takes a complete number; whether the map is complete.
    fn take(&mut self, number: u64, limits: &Limits) -> Result<bool, Refusal> {
        match (self.count, self.offset.take()) {
            (None, _) => {
                check_count(usize::try_from(number).unwrap_or(usize::MAX), limits)?;
                self.count = Some(number);
            }
            (Some(_), None) => self.offset = Some(number),
            (Some(_), Some(offset)) => self.pieces.push((offset, number)),
        }
        Ok(self.count.and_then(|count| usize::try_from(count).ok()) == Some(self.pieces.len()))
    }

    pub(super) fn into_pieces(self) -> Pieces {
        self.pieces
    }
}

/// The map in front of a 1.0 sparse file's data, as [`MapParser`] reads it.
pub(super) fn map_text(pieces: &[Range<u64>]) -> Vec<u8> {
    let mut bytes = format!("{}\n", pieces.len()).into_bytes();
    for piece in pieces {
        bytes.extend_from_slice(format!("{}\n{}\n", piece.start, piece.end - piece.start).as_bytes());
    }
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}
