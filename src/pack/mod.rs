//! Objects at rest: frames in packs, and the index that finds them.
//!
//! A [`Session`](session::Session) takes new objects, batches them into frames and appends the frames to packs; what it wrote exists
//! only once the catalog says so. An [`ObjectIndex`](index::ObjectIndex) is one reader's view of what exists, and a
//! [`PackReader`](reader::PackReader) turns its locators into bytes. Nothing here knows about images, trees or the catalog.

mod early;
pub(crate) mod frame;
pub(crate) mod generation;
pub(crate) mod index;
pub(crate) mod reader;
pub(crate) mod segment;
pub(crate) mod session;
pub(crate) mod walk;

use crate::id::PackId;

/// Where an object is: its place in the table of a frame of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Locator {
    /// The pack.
    pub(crate) pack: PackId,
    /// Where the frame begins in the pack, below 2^48.
    pub(crate) offset: u64,
    /// Bytes of the whole frame.
    pub(crate) frame_bytes: u32,
    /// Which of the frame's objects.
    pub(crate) slot: u16,
}
