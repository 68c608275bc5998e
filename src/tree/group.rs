//! Hard link groups: several paths of one inode.
//!
//! The least path of a group holds the inode, with the others in its [`links`]; each other one
//! is [`Entry::HardLink`] of the least. So every member is one more look-up away from the inode, and a group
//! has one form in a tree.

use std::collections::BTreeSet;

use super::entry::{Content, Entry, Inode, InodeKind};
use super::node::Root;
use super::{get, links};
use crate::error::{Error, Result, Subject};
use crate::object::{ObjectSink, ObjectSource};
use crate::path::TreePath;

/// The entries of the inode whose paths are `members`, in ascending order; what `inode` says of links is
/// replaced. No members give no entries.
///
/// Fails with *invalid* if a directory has more than one path.
pub fn entries(
    sink: &mut impl ObjectSink,
    mut inode: Inode,
    mut members: BTreeSet<TreePath>,
) -> Result<Vec<(TreePath, Entry)>> {
    let Some(least) = members.pop_first() else { return Ok(Vec::new()) };
    if inode.kind == InodeKind::Directory && !members.is_empty() {
        return Err(Error::invalid(Subject::Path(least), "is a directory, which cannot have hard links"));
    }
    inode.links = links::write(sink, &members)?;
    let others = members.into_iter().map(|path| (path, Entry::HardLink(least.clone())));
    let mut entries: Vec<_> = others.collect();
    entries.insert(0, (least, Entry::Inode(inode)));
    Ok(entries)
}

/// The inode at `path`, through its hard link group where it is in one, and the path that holds it; none if
/// there is nothing at `path`.
///
/// A further name whose inode does not list it is *corrupt*.
pub fn resolve(
    source: &impl ObjectSource,
    root: &Root,
    path: &TreePath,
) -> Result<Option<(TreePath, Inode)>> {
    let least = match get(source, root, path)? {
        None => return Ok(None),
        Some(Entry::Inode(inode)) => return Ok(Some((path.clone(), inode))),
        Some(Entry::HardLink(least)) => least,
    };
    let Some(Entry::Inode(inode)) = get(source, root, &least)? else {
        return Err(broken(path, &least));
    };
    if links::read(source, &inode.links)?.contains(path) {
        Ok(Some((least, inode)))
    } else {
        Err(broken(path, &least))
    }
}

/// The error for a further name that is in no group.
pub(crate) fn broken(path: &TreePath, least: &TreePath) -> Error {
    let message = format!("is a hard link to {least}, which does not list it");
    Error::corrupt(Subject::Path(path.clone()), message)
}

/// The inode without its links: what all members of its group share.
pub(crate) fn unlinked(inode: &Inode) -> Inode {
    Inode { links: Content::empty(), ..inode.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::memory::MemoryObjects;
    use crate::tree::build;
    use crate::tree::tests::given::{entry, inode, path};

    #[test]
    fn every_member_leads_to_the_inode() {
        let objects = MemoryObjects::default();
        let fifo = inode(InodeKind::Fifo);
        let members = BTreeSet::from(["b", "a/x", "c"].map(path));
        let mut all = entries(&mut &objects, fifo.clone(), members.clone()).unwrap();
        assert_eq!(all.first().map(|(path, _)| path.clone()), Some(path("a/x")));
        all.push((path("d"), entry(1)));
        let root = build(&mut &objects, all).unwrap();
        for member in members {
            let (least, found) = resolve(&&objects, &root, &member).unwrap().unwrap();
            assert_eq!((least, unlinked(&found)), (path("a/x"), fifo.clone()));
        }
        assert_eq!(resolve(&&objects, &root, &path("d")).unwrap().unwrap().0, path("d"));
        assert_eq!(resolve(&&objects, &root, &path("e")).unwrap(), None);

        let single = entries(&mut &objects, fifo.clone(), [path("b")].into()).unwrap();
        assert_eq!(single, [(path("b"), Entry::Inode(fifo))]);
        let directory = inode(InodeKind::Directory);
        let error = entries(&mut &objects, directory, [path("a"), path("b")].into()).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Invalid);
    }

    #[test]
    fn a_name_without_its_inode_is_corrupt() {
        let objects = MemoryObjects::default();
        let link = |to| Entry::HardLink(path(to));
        let all =
            [(path("a"), entry(1)), (path("b"), link("a")), (path("c"), link("b")), (path("d"), link("x"))];
        let root = build(&mut &objects, all).unwrap();
        for member in ["b", "c", "d"] {
            assert!(resolve(&&objects, &root, &path(member)).unwrap_err().is_corrupt(), "{member}");
        }
    }
}
