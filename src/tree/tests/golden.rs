//! The format's bytes. A change here is a change of the format version.

use super::super::node;
use super::given::{entry, file, hex, inode, path, wide};
use super::*;
use crate::id::ObjectId;

#[test]
fn a_leaf() {
    let link = InodeKind::Symlink(b"bin".as_slice().into());
    let device = InodeKind::CharDevice { major: 1, minor: 3 };
    let items = [
        (path(""), Entry::Inode(inode(InodeKind::Directory))),
        (path("etc/a"), entry(1)),
        (path("etc/ab"), Entry::HardLink(path("etc/a"))),
        (path("etc/null"), Entry::Inode(inode(device))),
        (path("lib"), Entry::Inode(inode(link))),
        (path("one"), file(Content { size: 300, body: Body::Chunk(ObjectId::from_bytes([0xaa; 32])) })),
    ];
    let bytes = node::encode(0, &items);
    let expected = [
        "0006",
        "0000 0100a403000080c49fd50c05",
        "00056574630061 0200a403000080c49fd50c05010031",
        "050162 00056574630061",
        "04046e756c6c 0400a403000080c49fd50c050103",
        "00036c6962 0300a403000080c49fd50c050362696e",
        "00036f6e65 0200a403000080c49fd50c05ac0201aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    ];
    assert_eq!(hex(&bytes), expected.concat().replace(' ', ""));
}

#[test]
fn a_branch() {
    let child = |id, height| Root { id: ObjectId::from_bytes([id; 32]), height, entries: 300, bytes: 70_000 };
    let items = [(path("a/b"), child(0x11, 2)), (path("a/c"), child(0x22, 0))];
    let expected = [
        "010302",
        "0003610062 1111111111111111111111111111111111111111111111111111111111111111 02 ac02 f0a204",
        "020163 2222222222222222222222222222222222222222222222222222222222222222 00 ac02 f0a204",
    ];
    assert_eq!(hex(&node::encode(3, &items)), expected.concat().replace(' ', ""));
}

#[test]
fn roots() {
    let objects = MemoryObjects::default();
    let id = |map: &given::Map| build_map(&objects, map).id.to_string();
    let ids = [id(&given::Map::new()), id(&wide(3)), id(&wide(2000))];
    let expected = [
        "57e2d5d02867d5618732d9d83c470ad24f99dd816989e66c74abd7a133d07320",
        "3b86b4b46536ef85345acf0aebcc1f56aff1aa99724430ecc3f281109e91b49e",
        "e411a32039dcbf3ac674cea0d933acad11b596d7ebfe9c43af88cadf87074ffa",
    ];
    assert_eq!(ids, expected);
}
