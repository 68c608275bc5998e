//! What the objects of a tree refer to: for whoever must see that all of it is there.

use super::content::list::List;
use super::entry::{Body, Content, Entry, InodeKind};
use super::node::{self, Node, Root};
use crate::error::{Error, Result, Subject};
use crate::id::ObjectId;
use crate::object::ObjectSource;
use crate::path::TreePath;

/// What a node has, by path: for a branch the first of each node's.
#[derive(Debug)]
pub(crate) enum Below {
    /// Further nodes.
    Nodes(Vec<(TreePath, Root)>),
    /// Entries.
    Entries(Vec<(TreePath, Entry)>),
}

impl Below {
    /// Reads a node.
    pub(crate) fn read(source: &impl ObjectSource, root: &Root) -> Result<Self> {
        Ok(match node::read(source, root)? {
            Node::Branch(_, children) => Self::Nodes(children),
            Node::Leaf(entries) => Self::Entries(entries),
        })
    }
}

/// An object that another refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reference {
    /// A node, and what its parent says of it.
    Node(Root),
    /// A chunk list.
    List(ObjectId),
    /// A chunk.
    Chunk(ObjectId),
}

impl Reference {
    fn of_content(content: &Content) -> Option<Self> {
        match content.body {
            Body::Inline(_) => None,
            Body::Chunk(id) => Some(Self::Chunk(id)),
            Body::List(id) => Some(Self::List(id)),
        }
    }

    /// What an entry refers to.
    pub(crate) fn of_entry(entry: &Entry) -> Vec<Self> {
        let Entry::Inode(inode) = entry else { return Vec::new() };
        let file = if let InodeKind::File(content) = &inode.kind { Some(content) } else { None };
        let contents = [Some(&inode.xattrs), Some(&inode.links), file];
        contents.into_iter().flatten().filter_map(Self::of_content).collect()
    }

    /// The object.
    pub(crate) fn id(&self) -> ObjectId {
        match self {
            Self::Node(root) => root.id,
            Self::List(id) | Self::Chunk(id) => *id,
        }
    }

    /// What the object itself refers to; a chunk is not read.
    pub(crate) fn references(&self, source: &impl ObjectSource) -> Result<Vec<Self>> {
        match self {
            Self::Chunk(_) => Ok(Vec::new()),
            Self::Node(root) => Ok(match node::read(source, root)? {
                Node::Branch(_, children) => children.into_iter().map(|(_, root)| Self::Node(root)).collect(),
                Node::Leaf(entries) => entries.iter().flat_map(|(_, entry)| Self::of_entry(entry)).collect(),
            }),
            Self::List(id) => {
                let list = List::decode(&source.get(id)?).map_err(|error| {
                    Error::corrupt(Subject::Object(*id), format!("as a chunk list {error}"))
                        .with_source(error)
                })?;
                let item = |id| if list.level == 0 { Self::Chunk(id) } else { Self::List(id) };
                Ok(list.items.iter().filter_map(|item| item.id).map(item).collect())
            }
        }
    }
}
