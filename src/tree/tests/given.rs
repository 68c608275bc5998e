//! Trees to test with.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::Range;

use proptest::prelude::*;

use crate::path::TreePath;
use crate::tree::{Body, Content, Entry, Inode, InodeKind, Timestamp};

pub(crate) type Map = BTreeMap<TreePath, Entry>;

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

pub(crate) fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).unwrap()
}

/// A file whose attributes follow from the number.
pub(crate) fn entry(number: u64) -> Entry {
    let bytes: Box<[u8]> = number.to_string().into_bytes().into();
    file(Content { size: bytes.len() as u64, body: Body::Inline(bytes) })
}

pub(crate) fn file(content: Content) -> Entry {
    Entry::Inode(inode(InodeKind::File(content)))
}

pub(crate) fn inode(kind: InodeKind) -> Inode {
    Inode {
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: Timestamp { seconds: 1_700_000_000, nanos: 5 },
        xattrs: Content::empty(),
        links: Content::empty(),
        kind,
    }
}

/// So many entries spread over directories of a hundred.
pub(crate) fn wide(count: u64) -> Map {
    (0..count).map(|i| (path(&format!("usr/{}/file-{i}", i / 100)), entry(i))).collect()
}

/// Paths that often meet: few names, some with bytes around the separator, some long.
pub(crate) fn any_path() -> impl Strategy<Value = TreePath> {
    let name = prop_oneof![
        8 => "[ab]{1,3}",
        2 => "[a-c][!\u{1}-]",
        1 => Just("n".repeat(250)),
    ];
    proptest::collection::vec(name, 0..5).prop_map(|names| path(&names.join("/")))
}

pub(crate) fn any_entry() -> impl Strategy<Value = Entry> {
    prop_oneof![
        4 => (0..1000_u64).prop_map(entry),
        1 => Just(Entry::Inode(inode(InodeKind::Directory))),
        1 => "[a-z/]{1,20}".prop_map(|to| Entry::Inode(inode(InodeKind::Symlink(to.into_bytes().into())))),
        1 => any_path().prop_map(Entry::HardLink),
        1 => (any::<u64>(), any::<[u8; 32]>()).prop_map(|(size, id)| {
            file(Content { size: size >> 20, body: Body::List(crate::id::ObjectId::from_bytes(id)) })
        }),
    ]
}

pub(crate) fn map(len: Range<usize>) -> impl Strategy<Value = Map> {
    proptest::collection::btree_map(any_path(), any_entry(), len)
}

pub(crate) fn changes(len: Range<usize>) -> impl Strategy<Value = Vec<(TreePath, Option<Entry>)>> {
    let entry = prop_oneof![3 => any_entry().prop_map(Some), 2 => Just(None)];
    proptest::collection::btree_map(any_path(), entry, len).prop_map(|map| map.into_iter().collect())
}
