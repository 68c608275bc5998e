//! Objects: immutable byte strings named by their hash, and the two traits through which the pure modules
//! reach them.

#[cfg(test)]
pub(crate) mod memory;
pub(crate) mod scratch;

use std::ops::{Deref, Range};
use std::sync::Arc;

use crate::error::Result;
use crate::id::ObjectId;

/// What an object is. The kind is part of how its id is made, except that a chunk's id is its plain hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ObjectKind {
    /// A run of a file's bytes.
    Chunk = 0,
    /// A node of a tree.
    Node = 1,
    /// A node of a file's chunk list.
    ChunkList = 2,
    /// A layer record.
    Layer = 3,
    /// An image record, kept so that images can be found again without a catalog.
    Image = 4,
}

impl ObjectKind {
    /// Every kind, in the order of their bytes.
    pub const ALL: [Self; 5] = [Self::Chunk, Self::Node, Self::ChunkList, Self::Layer, Self::Image];

    pub(crate) fn from_u8(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte)).copied()
    }

    /// The id of an object of this kind with these bytes.
    #[must_use]
    pub fn id_of(self, bytes: &[u8]) -> ObjectId {
        let context = match self {
            Self::Chunk => return ObjectId::from_bytes(blake3::hash(bytes).into()),
            Self::Node => "layerstone v1 tree node",
            Self::ChunkList => "layerstone v1 chunk list",
            Self::Layer => "layerstone v1 layer record",
            Self::Image => "layerstone v1 image record",
        };
        ObjectId::from_bytes(blake3::derive_key(context, bytes))
    }
}

/// An object's bytes: a range of a decoded frame that several objects share.
#[derive(Clone, Debug)]
pub struct ObjectBytes {
    frame: Arc<Vec<u8>>,
    range: Range<usize>,
}

impl ObjectBytes {
    /// The bytes of `frame` in `range`; `None` if the range is not inside.
    pub(crate) fn new(frame: Arc<Vec<u8>>, range: Range<usize>) -> Option<Self> {
        frame.get(range.clone())?;
        Some(Self { frame, range })
    }
}

impl From<Vec<u8>> for ObjectBytes {
    fn from(bytes: Vec<u8>) -> Self {
        let range = 0..bytes.len();
        Self { frame: Arc::new(bytes), range }
    }
}

impl Deref for ObjectBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.frame.get(self.range.clone()).unwrap_or_default()
    }
}

/// Where objects are read from. An object that is not there is [corrupt](crate::ErrorKind::Corrupt): whoever
/// asks holds a reference that promised it.
pub trait ObjectSource {
    /// The object's bytes, checked against its id.
    fn get(&self, id: &ObjectId) -> Result<ObjectBytes>;
}

/// Where objects are written to. Writing what is there already stores nothing.
pub trait ObjectSink {
    /// Stores an object and gives its id. It is durable and visible only once the session that it was written
    /// in is published.
    fn put(&mut self, kind: ObjectKind, bytes: &[u8]) -> Result<ObjectId>;

    /// Stores a chunk that is a piece of a content of `content_bytes`, as far as the size is known. It is most often read
    /// with the pieces around it, so a sink may keep it with them rather than with small files.
    fn put_piece(&mut self, bytes: &[u8], content_bytes: u64) -> Result<ObjectId> {
        let _ = content_bytes;
        self.put(ObjectKind::Chunk, bytes)
    }
}

impl<T: ObjectSource + ?Sized> ObjectSource for &T {
    fn get(&self, id: &ObjectId) -> Result<ObjectBytes> {
        (**self).get(id)
    }
}

impl<T: ObjectSource + ?Sized> ObjectSource for Arc<T> {
    fn get(&self, id: &ObjectId) -> Result<ObjectBytes> {
        (**self).get(id)
    }
}

impl<T: ObjectSink + ?Sized> ObjectSink for &mut T {
    fn put(&mut self, kind: ObjectKind, bytes: &[u8]) -> Result<ObjectId> {
        (**self).put(kind, bytes)
    }

    fn put_piece(&mut self, bytes: &[u8], content_bytes: u64) -> Result<ObjectId> {
        (**self).put_piece(bytes, content_bytes)
    }
}
