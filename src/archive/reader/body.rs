//! An entry's body: where its data is in the file, and what of it is still to be read.

use std::io::Read;
use std::ops::Range;

use super::super::header::{Pieces, more_pieces};
use super::super::input::Input;
use super::super::{BLOCK, BLOCK_BYTES, Limits, Refusal, sparse};
use super::entry::Stored;
use super::{Failure, Piece};
use crate::error::{Error, Result};

/// What is left of an entry's body.
pub(super) struct Body {
    name: Vec<u8>,
    /// Data still to come, ascending, and the range that the reader is at.
    data: std::vec::IntoIter<Range<u64>>,
    current: Range<u64>,
    /// Where in the file the reader is, and where it ends.
    position: u64,
    size: u64,
    /// Bytes of data, and then of padding, still in the archive.
    stored: u64,
    padding: u64,
}

impl Body {
    /// The body that follows a header, of a file of `size` bytes; maps in front of the data are read.
    pub(super) fn open<R: Read>(
        name: Vec<u8>,
        stored: Stored,
        size: u64,
        input: &mut Input<R>,
        limits: &Limits,
    ) -> Result<Self> {
        let (data, stored) = data(stored, size, input, limits).map_err(|failure| failure.at(&name))?;
        let padding = stored.next_multiple_of(BLOCK_BYTES) - stored;
        Ok(Self { name, data: data.into_iter(), current: 0..0, position: 0, size, stored, padding })
    }

    /// The next part of the content; `buffer` is not empty.
    pub(super) fn next_piece<R: Read>(&mut self, buffer: &mut [u8], input: &mut Input<R>) -> Result<Piece> {
        while self.current.is_empty() {
            let Some(next) = self.data.next() else {
                let hole = self.size - self.position;
                self.position = self.size;
                return Ok(if hole == 0 { Piece::End } else { Piece::Hole(hole) });
            };
            self.current = next;
        }
        let hole = self.current.start - self.position;
        if hole > 0 {
            self.position = self.current.start;
            return Ok(Piece::Hole(hole));
        }
        let left = usize::try_from(self.current.end - self.current.start).unwrap_or(usize::MAX);
        let want = buffer.len().min(left);
        let len = input.read(buffer.get_mut(..want).unwrap_or_default())?;
        if len == 0 {
            return Err(self.short(self.stored));
        }
        let read = u64::try_from(len).unwrap_or(u64::MAX);
        self.current.start += read;
        self.position += read;
        self.stored -= read;
        Ok(Piece::Data(len))
    }

    /// Passes what is left, padding included.
    pub(super) fn skip<R: Read>(&self, input: &mut Input<R>) -> Result<()> {
        match input.skip(self.stored + self.padding)? {
            0 => Ok(()),
            missing => Err(self.short(missing)),
        }
    }

    fn short(&self, missing: u64) -> Error {
        let message = format!("is cut short: the archive ends {missing} bytes before it does");
        Refusal::invalid(message).at(&self.name)
    }
}

/// Where the file's data is, and how many bytes are stored: those of the data unless they are to be ignored.
fn data<R: Read>(
    stored: Stored,
    size: u64,
    input: &mut Input<R>,
    limits: &Limits,
) -> Result<(Vec<Range<u64>>, u64), Failure> {
    let (pieces, stored) = match stored {
        // A list of names was read before.
        Stored::Nothing | Stored::DumpList(_) => return Ok((Vec::new(), 0)),
        Stored::Ignored(stored) => return Ok((Vec::new(), stored)),
        Stored::Dense => return Ok((std::iter::once(0..size).collect(), size)),
        Stored::Pieces { pieces, stored } => (pieces, stored),
        Stored::OldSparse { pieces, more, stored } => (old_pieces(pieces, more, input, limits)?, stored),
        Stored::MapInBody { stored } => pieces_in_body(stored, input, limits)?,
    };
    Ok((sparse::ranges(pieces, size, stored)?, stored))
}

/// The pieces of an old GNU sparse file: those of its header, and of further blocks if there are `more`.
fn old_pieces<R: Read>(
    mut pieces: Pieces,
    mut more: bool,
    input: &mut Input<R>,
    limits: &Limits,
) -> Result<Pieces, Failure> {
    while more {
        let (next, still_more) = more_pieces(&map_block(input)?)?;
        pieces.extend(next);
        sparse::check_count(pieces.len(), limits)?;
        more = still_more;
    }
    Ok(pieces)
}

/// The pieces of a PAX 1.0 sparse file, and how many of the `stored` bytes are left after its map.
fn pieces_in_body<R: Read>(
    mut stored: u64,
    input: &mut Input<R>,
    limits: &Limits,
) -> Result<(Pieces, u64), Failure> {
    let mut parser = sparse::MapParser::default();
    loop {
        stored = stored
            .checked_sub(BLOCK_BYTES)
            .ok_or_else(|| Refusal::invalid("is a PAX 1.0 sparse file whose map goes beyond its body"))?;
        if parser.block(&map_block(input)?, limits)? {
            return Ok((parser.into_pieces(), stored));
        }
    }
}

fn map_block<R: Read>(input: &mut Input<R>) -> Result<[u8; BLOCK], Failure> {
    let mut block = [0; BLOCK];
    if input.fill(&mut block)? < BLOCK {
        return Err(
            Refusal::invalid("is a sparse file whose map is cut short: the archive ends in it").into()
        );
    }
    Ok(block)
}
