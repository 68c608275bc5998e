//! Writing bytes as content.

use super::builder::ChunkListBuilder;
use super::{INLINE_FILE_BYTES, inline};
use crate::chunk::{self, BLOCK_BYTES, Piece, Splitter};
use crate::error::Result;
use crate::object::{ObjectKind, ObjectSink};
use crate::tree::entry::Content;

/// Stores a whole file from memory.
pub fn write(sink: &mut impl ObjectSink, bytes: &[u8]) -> Result<Content> {
    write_within(sink, bytes, INLINE_FILE_BYTES)
}

pub(super) fn write_within(sink: &mut impl ObjectSink, bytes: &[u8], inline_bytes: usize) -> Result<Content> {
    if bytes.len() <= inline_bytes {
        return Ok(inline(bytes));
    }
    let mut builder = ChunkListBuilder::new();
    for piece in chunk::pieces(bytes) {
        store(&mut builder, sink, piece, bytes.len() as u64)?;
    }
    builder.finish(sink)
}

/// Stores a file of any size from a stream, in at most 1 MiB of memory. However the bytes are divided
/// into calls, the content is the one that [`write()`] gives. An error leaves the writer unusable.
pub struct ContentWriter {
    splitter: Splitter,
    builder: ChunkListBuilder,
    expected_bytes: u64,
}

impl ContentWriter {
    /// A writer at the start of a file that is expected to have this size, which decides how its pieces are kept, not
    /// what they are. `u64::MAX` if nothing is known.
    #[must_use]
    pub fn new(expected_bytes: u64) -> Self {
        Self { splitter: Splitter::new(), builder: ChunkListBuilder::new(), expected_bytes }
    }

    /// The next bytes of the file.
    pub fn push_bytes(&mut self, sink: &mut impl ObjectSink, bytes: &[u8]) -> Result<()> {
        let size = self.expected_bytes;
        self.splitter.push(bytes, |piece| store(&mut self.builder, sink, piece, size))
    }

    /// The next `len` bytes are zero; costs nothing per byte.
    pub fn push_hole(&mut self, sink: &mut impl ObjectSink, len: u64) -> Result<()> {
        let size = self.expected_bytes;
        self.splitter.push_hole(len, |piece| store(&mut self.builder, sink, piece, size))
    }

    /// The end of the file. Fails with *invalid* if it is over
    /// [`MAX_CONTENT_BYTES`](super::MAX_CONTENT_BYTES).
    pub fn finish(mut self, sink: &mut impl ObjectSink) -> Result<Content> {
        let mut small = None;
        let size = self.splitter.size();
        self.splitter.finish(|piece| match piece {
            Piece::Data(bytes) if size <= INLINE_FILE_BYTES as u64 => {
                small = Some(inline(bytes));
                Ok(())
            }
            piece => store(&mut self.builder, sink, piece, size),
        })?;
        small.map_or_else(|| self.builder.finish(sink), Ok)
    }
}

/// Stores the next piece of a content of `size` bytes.
fn store(
    builder: &mut ChunkListBuilder,
    sink: &mut impl ObjectSink,
    piece: Piece<'_>,
    size: u64,
) -> Result<()> {
    match piece {
        Piece::Data(bytes) => {
            let is_whole = size <= BLOCK_BYTES as u64;
            let id = if is_whole { sink.put(ObjectKind::Chunk, bytes) } else { sink.put_piece(bytes, size) }?;
            builder.push_chunk(sink, id, bytes.len())
        }
        Piece::Hole(len) => builder.push_hole(len),
    }
}
