//! Any objects as a tree: entries, or an error. A node has one form; what is said of a tree holds of its entries; and they
//! can be stored again.

use layerstone::TreePath;
use layerstone::testing::{reencode_chunk_list, reencode_node};
use layerstone::tree::content::ContentReader;
use layerstone::tree::{self, Content, Entry, Inode, InodeKind, Root, Xattrs, links};

use super::objects::{Objects, Stored};

/// Entries that are looked up one by one.
const LOOKED_UP: usize = 40;
/// Bytes of a content that is read whole.
const READ_BYTES_MAX: u64 = 1 << 20;

pub fn check(bytes: &[u8]) -> bool {
    let objects = Objects::parse(bytes);
    let Some((id, first)) = objects.first() else { return false };
    if let Ok(again) = reencode_node(first) {
        assert_eq!(again, first, "a node has one form");
    }
    if let Ok(again) = reencode_chunk_list(first) {
        assert_eq!(again, first, "a chunk list has one form");
    }
    let Ok(root) = Root::open(&objects, id) else { return false };
    let Ok(entries) = tree::iter(&objects, &root) else { return false };
    let Ok(entries) = entries.collect::<layerstone::Result<Vec<_>>>() else { return false };
    check_tree(&objects, &root, &entries);
    for (_, entry) in &entries {
        if let Entry::Inode(inode) = entry {
            check_inode(&objects, inode);
        }
    }
    let mut stored = Stored::default();
    let built = tree::build(&mut stored, entries.iter().cloned()).expect("entries that ascend are a tree");
    let again: Vec<_> =
        tree::iter(&stored, &built).expect("a root").map(|entry| entry.expect("an entry")).collect();
    assert_eq!(again, entries);
    true
}

fn check_tree(objects: &Objects<'_>, root: &Root, entries: &[(TreePath, Entry)]) {
    assert!(entries.is_sorted_by(|(one, _), (other, _)| one < other), "paths ascend");
    let totals = |entries: &[(TreePath, Entry)]| {
        let bytes = entries.iter().fold(0_u64, |sum, (_, entry)| sum.saturating_add(entry.file_bytes()));
        (entries.len() as u64, bytes)
    };
    assert_eq!((root.entries(), root.bytes()), totals(entries));
    for (path, entry) in entries.iter().step_by(entries.len().div_ceil(LOOKED_UP).max(1)) {
        let found = tree::get(objects, root, path).expect("a path that was read");
        assert_eq!(found.as_ref(), Some(entry), "{path}");
        let below: Vec<_> = entries.iter().filter(|(other, _)| other.starts_with(path)).cloned().collect();
        let subtree: Vec<_> = tree::subtree(objects, root, path).expect("a subtree").flatten().collect();
        assert_eq!(subtree, below, "{path}");
        let summary = tree::summary(objects, root, path).expect("a summary");
        assert_eq!(summary, totals(&below), "{path}");
        let is_child = |child: &TreePath| child.parent().as_ref() == Some(path);
        let children: Vec<_> = tree::children(objects, root, path).expect("children").flatten().collect();
        assert!(
            children
                .iter()
                .map(|(path, _)| path)
                .eq(below.iter().map(|(path, _)| path).filter(|path| is_child(path)))
        );
    }
}

fn check_inode(objects: &Objects<'_>, inode: &Inode) {
    if let Ok(xattrs) = Xattrs::read(objects, &inode.xattrs) {
        assert_eq!(xattrs.encode().len() as u64, inode.xattrs.size);
    }
    if let Ok(paths) = links::read(objects, &inode.links) {
        assert_eq!(links::encode(&paths).len() as u64, inode.links.size);
    }
    if let InodeKind::File(content) = &inode.kind {
        check_content(objects, content);
    }
}

/// Either an error, or as many bytes as the content says, whichever way they are read.
fn check_content(objects: &Objects<'_>, content: &Content) {
    let reader = ContentReader::new(objects, content);
    if let Ok(ranges) = reader.data_ranges() {
        assert!(ranges.is_sorted_by(|one, other| one.end < other.start), "ranges are apart");
        assert!(ranges.last().is_none_or(|last| last.end <= content.size));
    }
    if content.size > READ_BYTES_MAX {
        return;
    }
    let mut bytes = Vec::new();
    if std::io::copy(&mut reader.clone().into_stream(), &mut bytes).is_ok() {
        assert_eq!(bytes.len() as u64, content.size);
        let from = bytes.len() / 3;
        let mut part = vec![0; bytes.len()];
        let read = reader.read_at(from as u64, &mut part).expect("what was read in order");
        assert_eq!(part[..read], bytes[from..]);
    }
}
