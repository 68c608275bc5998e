//! A tree's nodes and their bytes.
//!
//! ```text
//! node   = 0x00 count (path entry)*             leaf, level 0
//!        | 0x01 level count (path child)*       branch, level 1 and up
//! child  = id (32) height (1) entries bytes     the path is the first key below the child
//! ```
//! Numbers are varints; paths are written as [`prefix`] does, entries as [`entry`](super::entry) does.
//!
//! A branch of level L has the nodes of level L-1 for items. Where such a node would have a single child it is
//! not stored, and the child stands in its place; so each child carries its height, which is at most L-1.
//! A leaf without items is the empty tree. Every decode checks that keys ascend, that counts are within the
//! caps and that each number has its one form; [`read`] also checks a node against what its parent says.

use super::entry::Entry;
use super::{prefix, shape};
use crate::error::{Error, Result, Subject};
use crate::format::{DecodeError, Decoder, Encoder};
use crate::id::ObjectId;
use crate::object::ObjectSource;
use crate::path::TreePath;

const LEAF: u8 = 0;
const BRANCH: u8 = 1;

/// A whole tree, by its root node. A branch's children are such trees themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Root {
    /// The root node, which names the whole map: equal maps have equal ids, in every store.
    pub id: ObjectId,
    pub(super) height: u8,
    pub(super) entries: u64,
    pub(super) bytes: u64,
}

impl Root {
    /// The tree with this root node; reads that node alone.
    pub fn open(source: &impl ObjectSource, id: ObjectId) -> Result<Self> {
        Node::read(source, id).map(|node| node.root(id))
    }

    /// Levels of branches above the leaves.
    #[must_use]
    pub fn height(&self) -> u8 {
        self.height
    }

    /// Paths in the tree.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Bytes of file content in the tree, a hard link group's counted once; at most `u64::MAX`.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether there is no path in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }
}

/// What a node has many of: an [`Entry`] in a leaf, a [`Root`] in a branch.
pub(super) trait Item: Sized {
    /// This level's items of `node`, if they are of this type.
    fn items(node: Node) -> Option<Vec<(TreePath, Self)>>;
    /// Appends the item without its key.
    fn encode(&self, encoder: &mut Encoder);
    /// Takes an item from inside a node of `level`.
    fn decode(decoder: &mut Decoder<'_>, level: u8) -> Result<Self, DecodeError>;
    /// Entries and bytes that it stands for.
    fn totals(&self) -> (u64, u64);
    /// The node that stands for a node of this item alone, where such a one is not stored.
    fn alone(&self) -> Option<Root>;
    /// The item that stands for a node of its own.
    fn standing(path: &TreePath, node: &Root) -> Option<(TreePath, Self)>;
}

impl Item for Entry {
    fn items(node: Node) -> Option<Vec<(TreePath, Self)>> {
        if let Node::Leaf(entries) = node { Some(entries) } else { None }
    }

    fn encode(&self, encoder: &mut Encoder) {
        Self::encode(self, encoder);
    }

    fn decode(decoder: &mut Decoder<'_>, _: u8) -> Result<Self, DecodeError> {
        Self::decode(decoder)
    }

    fn totals(&self) -> (u64, u64) {
        (1, self.file_bytes())
    }

    fn alone(&self) -> Option<Root> {
        None
    }

    fn standing(_: &TreePath, _: &Root) -> Option<(TreePath, Self)> {
        None
    }
}

impl Item for Root {
    fn items(node: Node) -> Option<Vec<(TreePath, Self)>> {
        if let Node::Branch(_, children) = node { Some(children) } else { None }
    }

    fn encode(&self, encoder: &mut Encoder) {
        encoder.id(&self.id).u8(self.height).varint(self.entries).varint(self.bytes);
    }

    fn decode(decoder: &mut Decoder<'_>, level: u8) -> Result<Self, DecodeError> {
        let (id, height) = (decoder.id()?, decoder.u8()?);
        // Strictly below its parent: so a walk down ends, whatever the bytes say.
        if height >= level {
            return Err(DecodeError::BadNumber);
        }
        Ok(Self { id, height, entries: decoder.varint()?, bytes: decoder.varint()? })
    }

    fn totals(&self) -> (u64, u64) {
        (self.entries, self.bytes)
    }

    fn alone(&self) -> Option<Root> {
        Some(*self)
    }

    fn standing(path: &TreePath, node: &Root) -> Option<(TreePath, Self)> {
        Some((path.clone(), *node))
    }
}

/// A node, decoded.
#[derive(Debug, PartialEq)]
pub(super) enum Node {
    /// Level 0.
    Leaf(Vec<(TreePath, Entry)>),
    /// A level above 0, and its items.
    Branch(u8, Vec<(TreePath, Root)>),
}

impl Node {
    /// The node that these bytes are.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut decoder = Decoder(bytes);
        let node = match decoder.u8()? {
            LEAF => Self::Leaf(decode_items(&mut decoder, 0)?),
            BRANCH => {
                let level = decoder.u8()?;
                let children = decode_items(&mut decoder, level)?;
                if children.len() < 2 {
                    return Err(DecodeError::BadNumber);
                }
                Self::Branch(level, children)
            }
            _ => return Err(DecodeError::UnknownTag),
        };
        decoder.finish()?;
        Ok(node)
    }

    /// Reads and decodes a node.
    pub(super) fn read(source: &impl ObjectSource, id: ObjectId) -> Result<Self> {
        let bytes = source.get(&id)?;
        Self::decode(&bytes).map_err(|error| {
            Error::corrupt(Subject::Object(id), format!("as a tree node {error}")).with_source(error)
        })
    }

    /// What a parent would say of this node, whose id is `id`.
    pub(super) fn root(&self, id: ObjectId) -> Root {
        let ((entries, bytes), height) = match self {
            Self::Leaf(items) => (totals(items), 0),
            Self::Branch(level, items) => (totals(items), *level),
        };
        Root { id, height, entries, bytes }
    }

    /// The first key, none in the empty tree.
    pub(super) fn first(&self) -> Option<&TreePath> {
        match self {
            Self::Leaf(items) => items.first().map(|(path, _)| path),
            Self::Branch(_, items) => items.first().map(|(path, _)| path),
        }
    }

    /// The last key that is in this node itself.
    pub(super) fn last(&self) -> Option<&TreePath> {
        match self {
            Self::Leaf(items) => items.last().map(|(path, _)| path),
            Self::Branch(_, items) => items.last().map(|(path, _)| path),
        }
    }
}

/// Reads the node that `root` names and checks that it is of that height and has those totals.
pub(super) fn read(source: &impl ObjectSource, root: &Root) -> Result<Node> {
    let node = Node::read(source, root.id)?;
    if node.root(root.id) == *root { Ok(node) } else { Err(misplaced(root.id)) }
}

/// The error for a sound node in a place where it cannot be.
pub(super) fn misplaced(id: ObjectId) -> Error {
    Error::corrupt(Subject::Object(id), "is a tree node, but not the one that its parent describes")
}

/// A node's bytes.
pub(super) fn encode<T: Item>(level: u8, items: &[(TreePath, T)]) -> Vec<u8> {
    let mut encoder = Encoder::default();
    if level == 0 {
        encoder.u8(LEAF);
    } else {
        encoder.u8(BRANCH).u8(level);
    }
    encoder.varint(items.len() as u64);
    let mut previous = None;
    for (path, item) in items {
        prefix::encode(&mut encoder, previous, path);
        item.encode(&mut encoder);
        previous = Some(path);
    }
    encoder.0
}

/// The bytes of the node that these bytes are: the same, since a node has one form.
#[cfg(feature = "testing")]
pub(crate) fn reencode(bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    Ok(match Node::decode(bytes)? {
        Node::Leaf(items) => encode(0, &items),
        Node::Branch(level, items) => encode(level, &items),
    })
}

/// What a parent says of the node of `level` with these items and bytes, stored as `id`.
pub(super) fn describe<T: Item>(id: ObjectId, level: u8, items: &[(TreePath, T)]) -> Root {
    let (entries, bytes) = totals(items);
    Root { id, height: level, entries, bytes }
}

fn decode_items<T: Item>(decoder: &mut Decoder<'_>, level: u8) -> Result<Vec<(TreePath, T)>, DecodeError> {
    let count = decoder.number::<usize>()?;
    if count > shape::MAX_ITEMS {
        return Err(DecodeError::BadNumber);
    }
    let mut items: Vec<(TreePath, T)> = Vec::with_capacity(count);
    let mut key_bytes = 0;
    for _ in 0..count {
        let path = prefix::decode(decoder, items.last().map(|(path, _)| path))?;
        key_bytes += path.as_key().len();
        items.push((path, T::decode(decoder, level)?));
    }
    if shape::exceeds_caps(count, key_bytes) { Err(DecodeError::BadNumber) } else { Ok(items) }
}

/// Saturating, so that absurd sizes are no error and the order of adding does not matter.
fn totals<T: Item>(items: &[(TreePath, T)]) -> (u64, u64) {
    items.iter().fold((0, 0), |(entries, bytes): (u64, u64), (_, item)| {
        let (more_entries, more_bytes) = item.totals();
        (entries.saturating_add(more_entries), bytes.saturating_add(more_bytes))
    })
}
