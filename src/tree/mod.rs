//! The tree: an ordered map from path to entry, copy-on-write and canonical.
//!
//! Owns the map's shape and bytes: nodes (`node`), where they begin (`shape`), reading, editing and comparing
//! them, and the values that live outside a leaf (file content, attribute lists, link groups). A tree is
//! named by its [`Root`], which is a function of the map alone: whatever the order of edits, equal maps have
//! equal roots. Reaches objects through [`ObjectSource`](crate::object::ObjectSource) and
//! [`ObjectSink`](crate::object::ObjectSink) and does no I/O.

pub mod content;
mod cursor;
mod diff;
mod edit;
mod entries;
pub(crate) mod entry;
mod follow;
pub mod group;
pub mod links;
mod node;
mod prefix;
mod references;
mod shape;
pub mod xattr;

pub use diff::{Change, Diff, diff};
pub use edit::{build, edit, empty};
pub use entries::{Children, Entries, children, get, iter, range, subtree, summary};
pub use entry::{Body, Content, Entry, Inode, InodeKind, MAX_TARGET_BYTES, Timestamp};
pub(crate) use follow::{Followed, follow};
pub use node::Root;
pub(crate) use references::{Below, Reference};
pub use xattr::Xattrs;
#[cfg(feature = "testing")]
pub(crate) use {content::reencode_list, node::reencode as reencode_node};

#[cfg(test)]
pub(crate) mod tests;
