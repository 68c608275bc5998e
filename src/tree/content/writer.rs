//! Writing bytes as content.

use super::builder::ChunkListBuilder;
use super::{INLINE_FILE_BYTES, inline};
use crate::chunk::{self, Piece, Splitter};
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
        store(&mut builder, sink, piece)?;
    }
    builder.finish(sink)
}

/// Stores a file of any size from a stream, in at most about 320 KiB of memory. However the bytes are divided
/// into calls, the content is the one that [`write()`] gives. An error leaves the writer unusable.
#[derive(Default)]
pub struct ContentWriter {
    splitter: Splitter,
    builder: ChunkListBuilder,
}

impl ContentWriter {
    /// A writer at the start of a file.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The next bytes of the file.
    pub fn push_bytes(&mut self, sink: &mut impl ObjectSink, bytes: &[u8]) -> Result<()> {
        self.splitter.push(bytes, |piece| store(&mut self.builder, sink, piece))
    }

    /// The next `len` bytes are zero; costs nothing per byte.
    pub fn push_hole(&mut self, sink: &mut impl ObjectSink, len: u64) -> Result<()> {
        self.splitter.push_hole(len, |piece| store(&mut self.builder, sink, piece))
    }

    /// The end of the file. Fails with *invalid* if it is over
    /// [`MAX_CONTENT_BYTES`](super::MAX_CONTENT_BYTES).
    pub fn finish(mut self, sink: &mut impl ObjectSink) -> Result<Content> {
        let mut small = None;
        let is_small = self.splitter.size() <= INLINE_FILE_BYTES as u64;
        self.splitter.finish(|piece| match piece {
            Piece::Data(bytes) if is_small => {
                small = Some(inline(bytes));
                Ok(())
            }
            piece => store(&mut self.builder, sink, piece),
        })?;
        small.map_or_else(|| self.builder.finish(sink), Ok)
    }
}

fn store(builder: &mut ChunkListBuilder, sink: &mut impl ObjectSink, piece: Piece<'_>) -> Result<()> {
    match piece {
        Piece::Data(bytes) => {
            let id = sink.put(ObjectKind::Chunk, bytes)?;
            builder.push_chunk(sink, id, bytes.len())
        }
        Piece::Hole(len) => builder.push_hole(len),
    }
}
