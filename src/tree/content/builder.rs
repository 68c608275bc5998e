//! Building a content from chunks that are already stored.

use super::list::{ITEMS_MAX, ITEMS_MIN, Item, List, MAX_CONTENT_BYTES, MAX_LEVEL};
use crate::chunk::CHUNK_BYTES_MAX;
use crate::error::{Error, Result, Subject};
use crate::id::ObjectId;
use crate::object::{ObjectKind, ObjectSink};
use crate::tree::entry::{Body, Content};

/// Makes a content of chunks and holes given in order, in memory that grows with the depth alone.
///
/// Given the [pieces](crate::chunk::pieces) of a file's bytes it makes the content that
/// [`write`](super::write) makes of the bytes, except that it never holds any inline: a file of at most
/// [`INLINE_FILE_BYTES`](super::INLINE_FILE_BYTES) is not for it.
#[derive(Default)]
pub(super) struct ChunkListBuilder {
    size: u64,
    /// A hole that the next one is joined to.
    hole: u64,
    levels: Vec<Level>,
}

/// The items of one level that are in no list yet; never none once there is the level.
#[derive(Default)]
struct Level {
    /// A list that is complete unless a single item is left over behind it, which then joins it.
    ready: Vec<Item>,
    /// The items after it; one at most while anything is ready.
    open: Vec<Item>,
}

impl ChunkListBuilder {
    /// A builder of a content that has no bytes yet.
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// The next `len` bytes are the chunk `id`. Fails with *invalid* on a chunk that is empty or over
    /// [`CHUNK_BYTES_MAX`], and on a content over [`MAX_CONTENT_BYTES`].
    pub(super) fn push_chunk(&mut self, sink: &mut impl ObjectSink, id: ObjectId, len: usize) -> Result<()> {
        if !(1..=CHUNK_BYTES_MAX).contains(&len) {
            return Err(Error::invalid(
                Subject::Object(id),
                format!("has {len} bytes, but a chunk has 1 to {CHUNK_BYTES_MAX}"),
            ));
        }
        self.grow(len as u64)?;
        self.end_hole(sink)?;
        self.push(sink, 0, Item { len: len as u64, id: Some(id) })
    }

    /// The next `len` bytes are zero; holes in a row become one. Fails with *invalid* on a content over
    /// [`MAX_CONTENT_BYTES`].
    pub(super) fn push_hole(&mut self, len: u64) -> Result<()> {
        self.grow(len)?;
        self.hole += len;
        Ok(())
    }

    /// The content: nothing, the one chunk, or a list.
    pub(super) fn finish(mut self, sink: &mut impl ObjectSink) -> Result<Content> {
        self.end_hole(sink)?;
        let size = self.size;
        // Each level's rest is a list of the level above; the first level with none above it is the top.
        let mut depth = 0;
        while let Some(mut level) = self.levels.get_mut(depth).map(std::mem::take) {
            let mut items = level.ready;
            items.append(&mut level.open);
            // Only the whole content can be a single object: what is above has two lists below it.
            if let [Item { id: Some(chunk), .. }] = items.as_slice() {
                return Ok(Content { size, body: Body::Chunk(*chunk) });
            }
            let id = store(sink, depth, &items)?;
            if self.levels.len() == depth + 1 {
                return Ok(Content { size, body: Body::List(id) });
            }
            depth += 1;
            self.push(sink, depth, Item { len: List::len(&items), id: Some(id) })?;
        }
        Ok(Content::empty())
    }

    fn grow(&mut self, len: u64) -> Result<()> {
        let size = self.size.checked_add(len).filter(|size| *size <= MAX_CONTENT_BYTES);
        self.size = size.ok_or_else(|| {
            Error::invalid(
                Subject::Argument("size"),
                format!("is over {MAX_CONTENT_BYTES} bytes for one file"),
            )
        })?;
        Ok(())
    }

    fn end_hole(&mut self, sink: &mut impl ObjectSink) -> Result<()> {
        match std::mem::take(&mut self.hole) {
            0 => Ok(()),
            len => self.push(sink, 0, Item { len, id: None }),
        }
    }

    /// Adds an item to a level; where that completes lists, they are stored and become items above.
    fn push(&mut self, sink: &mut impl ObjectSink, mut depth: usize, mut item: Item) -> Result<()> {
        loop {
            if self.levels.len() == depth {
                self.levels.push(Level::default());
            }
            let Some(level) = self.levels.get_mut(depth) else { return Ok(()) };
            let ready = level.push(item, level_number(depth)?);
            if ready.is_empty() {
                return Ok(());
            }
            item = Item { len: List::len(&ready), id: Some(store(sink, depth, &ready)?) };
            depth += 1;
        }
    }
}

impl Level {
    /// Adds an item and gives the list that can now be stored, or nothing.
    fn push(&mut self, item: Item, level: u8) -> Vec<Item> {
        self.open.push(item);
        // With two items behind it, the list before keeps its end whatever comes.
        let ready = if self.open.len() == 2 { std::mem::take(&mut self.ready) } else { Vec::new() };
        let is_full = self.open.len() >= ITEMS_MAX - 1;
        if is_full || (self.open.len() >= ITEMS_MIN && item.ends_list(level)) {
            self.ready = std::mem::take(&mut self.open);
        }
        ready
    }
}

fn store(sink: &mut impl ObjectSink, depth: usize, items: &[Item]) -> Result<ObjectId> {
    sink.put(ObjectKind::ChunkList, &List::encode(level_number(depth)?, items))
}

/// Every list but a level's last holds [`ITEMS_MIN`] items, so no content reaches the limit.
fn level_number(depth: usize) -> Result<u8> {
    u8::try_from(depth).ok().filter(|level| *level <= MAX_LEVEL).ok_or_else(|| {
        Error::invalid(Subject::Argument("size"), "makes a chunk list deeper than its format allows")
    })
}
