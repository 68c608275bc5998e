//! Content: how the bytes of files, attribute lists and link groups are held.
//!
//! Which form a content takes follows from its bytes alone, so that the entry which holds it is canonical:
//! - at most [`INLINE_FILE_BYTES`] ([`INLINE_BLOB_BYTES`] for lists): in the entry itself;
//! - otherwise it is cut by content into chunks of 16 to 256 KiB; if that gives one chunk, as it does up to
//!   64 KiB, the content is that chunk;
//! - otherwise a chunk list (see `list`).
//!
//! [`ContentWriter`] takes bytes. [`ContentReader`] gives the bytes back in order or from any offset.

mod builder;
pub(super) mod list;
mod reader;
mod writer;

pub use list::MAX_CONTENT_BYTES;
#[cfg(feature = "testing")]
pub(crate) use list::reencode as reencode_list;
pub use reader::{ContentReader, ContentStream, Piece, Pieces};
pub use writer::{ContentWriter, write};

use super::entry::{Body, Content};
use crate::error::{Error, Result, Subject};
use crate::object::{ObjectSink, ObjectSource};

/// Bytes that a file may have to be held in its entry.
pub const INLINE_FILE_BYTES: usize = 64;
/// Bytes that an encoded attribute list or link group may have to be held in its entry.
pub const INLINE_BLOB_BYTES: usize = 512;
/// Bytes that an encoded attribute list or link group may have at all.
pub const MAX_BLOB_BYTES: u64 = 64 << 20;

/// The content that holds these bytes right where it stands.
fn inline(bytes: &[u8]) -> Content {
    Content { size: bytes.len() as u64, body: Body::Inline(bytes.into()) }
}

/// The error for stored bytes that are not the list they should be.
pub(super) fn damaged(content: &Content, message: impl Into<String>) -> Error {
    let subject = match content.body {
        Body::Inline(_) => Subject::Argument("content"),
        Body::Chunk(id) | Body::List(id) => Subject::Object(id),
    };
    Error::corrupt(subject, message)
}

/// Stores an encoded list.
pub(super) fn write_blob(sink: &mut impl ObjectSink, bytes: &[u8]) -> Result<Content> {
    writer::write_within(sink, bytes, INLINE_BLOB_BYTES)
}

/// Reads an encoded list, all of it.
pub(super) fn read_blob(source: &impl ObjectSource, content: &Content) -> Result<Vec<u8>> {
    if content.size > MAX_BLOB_BYTES {
        return Err(damaged(content, "is larger than any attribute list or hard link list"));
    }
    let mut bytes = Vec::new();
    for piece in ContentReader::new(source, content).pieces() {
        match piece? {
            Piece::Data(data) => bytes.extend_from_slice(&data),
            // Within the limit above, which the pieces add up to.
            Piece::Hole(len) => bytes.resize(bytes.len() + usize::try_from(len).unwrap_or_default(), 0),
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
