//! Nodes that are not what they should be.

use super::super::node::{self, Node};
use super::given::{entry, inode, path, wide};
use super::*;
use crate::format::DecodeError;
use crate::object::{ObjectKind, ObjectSink};
use crate::path::TreePath;

/// Reads a tree in every way; whatever it holds, this must return.
fn read_all(objects: &MemoryObjects, root: &Root) -> crate::Result<()> {
    let other = build(&mut &*objects, [(path("m"), entry(1))])?;
    iter(objects, root)?.collect::<crate::Result<Vec<_>>>()?;
    children(objects, root, &path("usr"))?.collect::<crate::Result<Vec<_>>>()?;
    diff(objects, root, &other)?.collect::<crate::Result<Vec<_>>>()?;
    summary(&objects, root, &path("usr"))?;
    get(&objects, root, &path("usr/7/file-700"))?;
    edit(&objects, &mut &*objects, root, [(path("usr/7/file-700"), None), (path("zz"), Some(entry(1)))])?;
    Ok(())
}

proptest! {
    #[test]
    fn decoding_anything_never_panics(bytes in vec(any::<u8>(), 0..300)) {
        let _ = Node::decode(&bytes);
    }

    #[test]
    fn what_decodes_has_one_encoding(map in given::map(1..60), at in any::<prop::sample::Index>(), byte: u8) {
        let items: Vec<_> = map.into_iter().collect();
        let mut bytes = node::encode(0, &items);
        let decoded = Node::decode(&bytes).unwrap();
        prop_assert_eq!(&decoded, &Node::Leaf(items));
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(Node::Leaf(items)) = Node::decode(&bytes) {
            prop_assert_eq!(&node::encode(0, &items), &bytes);
        }
        prop_assert!(Node::decode(&bytes[..at]).is_err());
    }

    #[test]
    fn a_changed_byte_anywhere_is_corrupt_or_harmless(which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), flip in 1..=255_u8) {
        let objects = MemoryObjects::default();
        let root = build_map(&objects, &wide(1500));
        let mut ids = vec![root.id];
        let mut next = 0;
        while let Some(id) = ids.get(next).copied() {
            if let Node::Branch(_, children) = Node::read(&&objects, id).unwrap() {
                ids.extend(children.iter().map(|(_, child)| child.id));
            }
            next += 1;
        }
        let id = ids[which.index(ids.len())];
        let mut bytes = crate::object::ObjectSource::get(&&objects, &id).unwrap().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        objects.replace(id, bytes);
        if let Err(error) = read_all(&objects, &root) {
            prop_assert!(error.is_corrupt(), "{}", error);
        }
    }
}

#[test]
fn an_attached_list_without_bytes_is_not_written_and_not_read() {
    let bare = inode(InodeKind::Fifo);
    let mut encoder = crate::format::Encoder::default();
    Entry::Inode(bare).encode(&mut encoder);
    let decode = |bytes: &[u8]| Entry::decode(&mut crate::format::Decoder(bytes));
    assert!(decode(&encoder.0).is_ok());
    for flag in [1, 2] {
        let mut bytes = encoder.0.clone();
        bytes[1] = flag;
        bytes.extend([0, 0]);
        assert_eq!(decode(&bytes), Err(DecodeError::BadNumber));
    }
}

fn branch(objects: &MemoryObjects, level: u8, children: &[(TreePath, Root)]) -> Root {
    let id = (&mut &*objects).put(ObjectKind::Node, &node::encode(level, children)).unwrap();
    node::describe(id, level, children)
}

#[test]
fn nodes_out_of_place_are_corrupt() {
    let objects = MemoryObjects::default();
    let leaf =
        |from: &str, to: &str| build(&mut &objects, [(path(from), entry(1)), (path(to), entry(2))]).unwrap();
    let (a, b) = (leaf("a", "m"), leaf("n", "z"));
    let sound = branch(&objects, 1, &[(path("a"), a), (path("n"), b)]);
    read_all(&objects, &sound).unwrap();

    let taller = Root { height: 1, ..a };
    let heavier = Root { bytes: 99, ..b };
    for (what, root) in [
        ("wrong first key", branch(&objects, 1, &[(path("a"), a), (path("o"), b)])),
        ("keys beyond the next node", branch(&objects, 1, &[(path("a"), a), (path("b"), leaf("b", "z"))])),
        ("overlap", branch(&objects, 1, &[(path("a"), leaf("a", "o")), (path("n"), b)])),
        ("wrong height", branch(&objects, 2, &[(path("a"), taller), (path("n"), b)])),
        ("wrong totals", branch(&objects, 1, &[(path("a"), a), (path("n"), heavier)])),
        (
            "child as high as its parent",
            branch(&objects, 1, &[(path("a"), sound), (path("zz"), leaf("zz", "zzz"))]),
        ),
        ("single child", branch(&objects, 1, &[(path("a"), a)])),
        ("empty child", branch(&objects, 1, &[(path("a"), a), (path("n"), empty(&mut &objects).unwrap())])),
    ] {
        let error = iter(&objects, &root).and_then(Iterator::collect::<crate::Result<Vec<_>>>).unwrap_err();
        assert!(error.is_corrupt(), "{what}: {error}");
    }
}

#[test]
fn a_cycle_ends() {
    let objects = MemoryObjects::default();
    let a = build(&mut &objects, [(path("a"), entry(1))]).unwrap();
    let b = build(&mut &objects, [(path("n"), entry(1))]).unwrap();
    let root = branch(&objects, 1, &[(path("a"), a), (path("n"), b)]);
    // A source that does not check ids: the branch is its own first child, as often as levels allow.
    for level in 1..=u8::MAX {
        let child = Root { height: level - 1, ..root };
        objects.replace(root.id, node::encode(level, &[(path("a"), child), (path("n"), b)]));
        assert!(read_all(&objects, &Root { height: level, ..root }).unwrap_err().is_corrupt());
    }
}

#[test]
fn a_lost_node_is_named() {
    let objects = MemoryObjects::default();
    let root = build_map(&objects, &wide(500));
    objects.lose(&root.id);
    let error = get(&&objects, &root, &path("a")).unwrap_err();
    assert_eq!(error.subject(), &crate::Subject::Object(root.id));
}
