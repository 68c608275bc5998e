//! Cutting a file's bytes into pieces: data chunks and holes.
//!
//! Owns where the cuts are, which is part of the format: the same bytes give the same pieces in every store,
//! however they arrive. Nothing here stores or names anything.
//!
//! - A file of at most [`BLOCK_BYTES`] is one data piece.
//! - A larger one is seen as aligned blocks of [`BLOCK_BYTES`], the last perhaps shorter. A maximal run of
//!   all-zero blocks is a hole; so holes follow from content, not from what the source happened to allocate.
//! - Each run of other blocks is cut by `FastCDC` (`gear.rs`) from its own start, so what comes before a hole does
//!   not move the cuts behind it.
//!
//! [`pieces`] does it over bytes in memory, [`Splitter`] over a stream in bounded memory; a property test
//! holds them equal for every division of the input.

mod gear;

/// The block in which zeros are looked for, and the largest file that is never cut: 64 KiB.
pub(crate) const BLOCK_BYTES: usize = 64 << 10;
/// No chunk but a segment's last is smaller: 16 KiB.
pub(crate) const CHUNK_BYTES_MIN: usize = 16 << 10;
/// What chunks tend to: 64 KiB.
pub(crate) const CHUNK_BYTES_AVERAGE: usize = 64 << 10;
/// No chunk is larger: 256 KiB.
pub(crate) const CHUNK_BYTES_MAX: usize = 256 << 10;

/// What was cut off is kept up to this size.
const CUT_BYTES_MAX: usize = 512 << 10;
/// What a [`Splitter`] holds at most: that, less than a chunk that can be cut, and a block.
const BUFFER_BYTES: usize = CUT_BYTES_MAX + CHUNK_BYTES_MAX + BLOCK_BYTES;

static ZEROS: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];

/// A run of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// Bytes that make one chunk; never empty.
    Data(&'a [u8]),
    /// This many zero bytes; never none.
    Hole(u64),
}

/// The pieces of a whole file in memory, in order.
#[must_use]
pub(crate) fn pieces(bytes: &[u8]) -> Pieces<'_> {
    Pieces { segment: &[], rest: bytes, whole: bytes.len() <= BLOCK_BYTES }
}

/// Iterator of [`pieces`].
pub(crate) struct Pieces<'a> {
    /// Data up to the next hole, not cut yet.
    segment: &'a [u8],
    /// What follows the segment: block-aligned, and starting with a hole once a segment was taken.
    rest: &'a [u8],
    /// Whether the file is too small to be cut.
    whole: bool,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        if self.segment.is_empty() {
            if self.rest.is_empty() {
                return None;
            }
            if self.whole {
                return Some(Piece::Data(std::mem::take(&mut self.rest)));
            }
            let hole = split_run(&mut self.rest, true);
            if !hole.is_empty() {
                return Some(Piece::Hole(hole.len() as u64));
            }
            self.segment = split_run(&mut self.rest, false);
        }
        let (chunk, segment) = self.segment.split_at_checked(gear::cut(self.segment))?;
        self.segment = segment;
        Some(Piece::Data(chunk))
    }
}

/// Takes the leading blocks that are all zero (or are not) off the front of `rest`.
fn split_run<'a>(rest: &mut &'a [u8], zero: bool) -> &'a [u8] {
    let len = rest.chunks(BLOCK_BYTES).take_while(|block| is_zero(block) == zero).map(<[u8]>::len).sum();
    let (run, after) = rest.split_at_checked(len).unwrap_or((rest, &[]));
    *rest = after;
    run
}

fn is_zero(block: &[u8]) -> bool {
    // A comparison of slices is one `memcmp`, fast in every build.
    ZEROS.get(..block.len()).is_some_and(|zeros| zeros == block)
}

/// Cuts a stream of any length, in at most 1 MiB of memory.
///
/// Pieces go to the `emit` that each call takes; its error ends the call and leaves the splitter unusable.
pub(crate) struct Splitter {
    /// What was cut off already, then the current segment's uncut data, then the block that is being filled.
    buffer: Vec<u8>,
    /// Where in `buffer` the uncut data begins.
    start: usize,
    /// Up to where `buffer` is known to be data; the rest is the open block.
    settled: usize,
    /// Zeros of settled blocks, not emitted yet.
    hole: u64,
    /// Bytes of all settled blocks; saturates.
    before: u64,
}

impl Default for Splitter {
    fn default() -> Self {
        Self::new()
    }
}

impl Splitter {
    /// A splitter at the start of a file.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self { buffer: Vec::new(), start: 0, settled: 0, hole: 0, before: 0 }
    }

    /// Bytes of the file so far; at most `u64::MAX`.
    #[must_use]
    pub(crate) fn size(&self) -> u64 {
        self.before.saturating_add(self.open_bytes() as u64)
    }

    /// The next bytes of the file.
    pub(crate) fn push<E>(
        &mut self,
        mut bytes: &[u8],
        mut emit: impl FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        while !bytes.is_empty() {
            if self.open_bytes() == BLOCK_BYTES {
                self.settle(&mut emit)?;
            }
            let room = BLOCK_BYTES - self.open_bytes();
            let (now, later) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
            self.buffer.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    /// A run of `len` zero bytes, exactly as if they were pushed, at no cost per byte.
    pub(crate) fn push_hole<E>(
        &mut self,
        len: u64,
        mut emit: impl FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let room = (BLOCK_BYTES - self.open_bytes()) as u64;
        if len <= room {
            return self.push(zeros(len), emit);
        }
        self.push(zeros(room), &mut emit)?;
        self.settle(&mut emit)?;
        // The file is larger than a block by now, so whole blocks are holes whatever comes after them.
        let last = (len - room) % BLOCK_BYTES as u64;
        let blocks = len - room - last;
        if blocks > 0 {
            self.end_segment(&mut emit)?;
            self.hole = self.hole.saturating_add(blocks);
            self.before = self.before.saturating_add(blocks);
        }
        self.push(zeros(last), emit)
    }

    /// The end of the file.
    pub(crate) fn finish<E>(mut self, mut emit: impl FnMut(Piece<'_>) -> Result<(), E>) -> Result<(), E> {
        if self.before == 0 {
            return if self.buffer.is_empty() { Ok(()) } else { emit(Piece::Data(&self.buffer)) };
        }
        self.settle(&mut emit)?;
        self.end_segment(&mut emit)?;
        if self.hole == 0 { Ok(()) } else { emit(Piece::Hole(self.hole)) }
    }

    /// Bytes of the block that is being filled.
    fn open_bytes(&self) -> usize {
        self.buffer.len() - self.settled
    }

    /// Decides whether the open block is hole or data. The file must be known to be larger than one block.
    fn settle<E>(&mut self, emit: &mut impl FnMut(Piece<'_>) -> Result<(), E>) -> Result<(), E> {
        // At once and no more than that: doubling a length that is no power of two would go past 1 MiB.
        self.buffer.reserve_exact(BUFFER_BYTES.saturating_sub(self.buffer.len()));
        let block = self.buffer.get(self.settled..).unwrap_or_default();
        let len = block.len() as u64;
        self.before = self.before.saturating_add(len);
        if is_zero(block) {
            self.buffer.truncate(self.settled);
            self.end_segment(emit)?;
            self.hole = self.hole.saturating_add(len);
            return Ok(());
        }
        if self.hole > 0 {
            emit(Piece::Hole(std::mem::take(&mut self.hole)))?;
        }
        self.settled = self.buffer.len();
        // A cut depends on no byte further than the largest chunk.
        while self.settled - self.start >= CHUNK_BYTES_MAX {
            self.emit_chunk(emit)?;
        }
        Ok(())
    }

    /// Cuts what is left of the segment; the open block must be empty.
    fn end_segment<E>(&mut self, emit: &mut impl FnMut(Piece<'_>) -> Result<(), E>) -> Result<(), E> {
        while self.settled > self.start {
            self.emit_chunk(emit)?;
        }
        Ok(())
    }

    fn emit_chunk<E>(&mut self, emit: &mut impl FnMut(Piece<'_>) -> Result<(), E>) -> Result<(), E> {
        let segment = self.buffer.get(self.start..self.settled).unwrap_or_default();
        let len = gear::cut(segment);
        emit(Piece::Data(segment.get(..len).unwrap_or_default()))?;
        self.start += len;
        // Not after each chunk: what remains is moved.
        if self.start >= CUT_BYTES_MAX {
            self.buffer.drain(..self.start);
            self.settled -= self.start;
            self.start = 0;
        }
        Ok(())
    }
}

fn zeros(len: u64) -> &'static [u8] {
    usize::try_from(len).ok().and_then(|len| ZEROS.get(..len)).unwrap_or(&ZEROS)
}

#[cfg(test)]
pub(crate) mod tests;
