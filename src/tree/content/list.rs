//! Chunk lists: the nodes that say which chunks and holes a content is made of.
//!
//! ```text
//! list  = level (1) count item*
//! item  = 0x00 length           hole; level 0 only, never after another
//!       | 0x01 length id (32)   level 0: a chunk; above: the list of the level below with this many bytes
//! ```
//! Numbers are varints. All lists of a level hold items of one kind, and every list has two items at least,
//! unless the whole content is one hole. A list ends behind an item whose hash says so, so that two versions
//! of a file share the lists they have in common; but no list ends before [`ITEMS_MIN`] items, except the last
//! of a level, which bounds the depth, and none goes on beyond [`ITEMS_MAX`].

use crate::chunk::CHUNK_BYTES_MAX;
use crate::error::{Error, Result, Subject};
use crate::format::{DecodeError, Decoder, Encoder};
use crate::id::ObjectId;
use crate::object::ObjectSource;
use crate::tree::shape;

/// Bytes that a content may have: the largest file that Linux knows.
pub const MAX_CONTENT_BYTES: u64 = i64::MAX as u64;

/// Items before which no list ends by its own will.
pub(super) const ITEMS_MIN: usize = 32;
/// Items of the largest list.
pub(super) const ITEMS_MAX: usize = 512;
/// Enough for [`MAX_CONTENT_BYTES`] in chunks of one byte.
pub(super) const MAX_LEVEL: u8 = 16;

/// Beyond [`ITEMS_MIN`] one item in 96 ends its list: 128 items on average.
const BOUNDARY: u64 = u64::MAX / 96;

const HOLE: u8 = 0;
const OBJECT: u8 = 1;

/// A run of a content: what a chunk or list object holds, or a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tree) struct Item {
    /// Bytes, never 0.
    pub(super) len: u64,
    /// None for a hole.
    pub(in crate::tree) id: Option<ObjectId>,
}

impl Item {
    /// Whether a list of `level` that is long enough ends behind this item.
    pub(super) fn ends_list(&self, level: u8) -> bool {
        shape::mix(self.id.map_or(self.len, |id| id.prefix()), level) < BOUNDARY
    }
}

/// A list, decoded.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::tree) struct List {
    pub(in crate::tree) level: u8,
    pub(in crate::tree) items: Vec<Item>,
}

impl List {
    /// Bytes of all items; a decoded list never overflows.
    pub(super) fn len(items: &[Item]) -> u64 {
        items.iter().fold(0, |sum, item| item.len.saturating_add(sum))
    }

    pub(super) fn encode(level: u8, items: &[Item]) -> Vec<u8> {
        let mut encoder = Encoder::default();
        encoder.u8(level).varint(items.len() as u64);
        for item in items {
            match &item.id {
                None => encoder.u8(HOLE).varint(item.len),
                Some(id) => encoder.u8(OBJECT).varint(item.len).id(id),
            };
        }
        encoder.0
    }

    pub(in crate::tree) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut decoder = Decoder(bytes);
        let (level, count) = (decoder.u8()?, decoder.number::<usize>()?);
        if level > MAX_LEVEL || !(1..=ITEMS_MAX).contains(&count) {
            return Err(DecodeError::BadNumber);
        }
        let mut items: Vec<Item> = Vec::with_capacity(count);
        for _ in 0..count {
            let item = decode_item(&mut decoder, level)?;
            if item.id.is_none() && items.last().is_some_and(|last| last.id.is_none()) {
                return Err(DecodeError::Unordered);
            }
            items.push(item);
        }
        decoder.finish()?;
        let is_single_object = matches!(items.as_slice(), [Item { id: Some(_), .. }]);
        if is_single_object || Self::len(&items) > MAX_CONTENT_BYTES {
            return Err(DecodeError::BadNumber);
        }
        Ok(Self { level, items })
    }

    /// Reads the list `id`, which must hold `len` bytes and be of a level under `below`.
    pub(super) fn read(source: &impl ObjectSource, id: ObjectId, len: u64, below: u8) -> Result<Self> {
        let bytes = source.get(&id)?;
        let list = Self::decode(&bytes).map_err(|error| {
            Error::corrupt(Subject::Object(id), format!("as a chunk list {error}")).with_source(error)
        })?;
        if list.level < below && Self::len(&list.items) == len {
            Ok(list)
        } else {
            Err(Error::corrupt(
                Subject::Object(id),
                format!("is not the chunk list of {len} bytes expected here"),
            ))
        }
    }
}

/// The bytes of the list that these bytes are: the same, since a list has one form.
#[cfg(feature = "testing")]
pub(crate) fn reencode(bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    List::decode(bytes).map(|list| List::encode(list.level, &list.items))
}

fn decode_item(decoder: &mut Decoder<'_>, level: u8) -> Result<Item, DecodeError> {
    let (tag, len) = (decoder.u8()?, decoder.varint()?);
    let item = match tag {
        HOLE if level == 0 => Item { len, id: None },
        OBJECT => Item { len, id: Some(decoder.id()?) },
        _ => return Err(DecodeError::UnknownTag),
    };
    let is_chunk = level == 0 && item.id.is_some();
    if len == 0 || (is_chunk && len > CHUNK_BYTES_MAX as u64) {
        Err(DecodeError::BadNumber)
    } else {
        Ok(item)
    }
}
