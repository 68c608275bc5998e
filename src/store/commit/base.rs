//! What a directory that is committed is compared with.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::catalog::record::ImageVersion;
use crate::engine::state_files::StateFile;
use crate::error::Result;
use crate::host::source::Xattr;
use crate::host::state::{State, StateRow, Unset, encode_segment};
use crate::id::{ImageId, ObjectId};
use crate::ingest::{Captured, Judge, Wanted};
use crate::ledger::directories::{DirectoryPlace, KnownDirectory, StateChange, StateUpdate};
use crate::object::ObjectSource;
use crate::pack::reader::ObjectReader;
use crate::path::TreePath;
use crate::store::links::Members;
use crate::tree::xattr::{CAPABILITY, canonical};
use crate::tree::{self, Inode, Root, Timestamp, Xattrs};

use super::missing::Expected;

/// What a segment may have to be kept as a row of the catalog, and what all of a directory's may have together, unless its
/// state file has more.
const ROW_BYTES: usize = 16 << 10;
const ROWS_BYTES: u64 = 64 << 10;

/// The image that a directory is based on, and what is known of its files.
pub(in crate::store) struct Base {
    pub(in crate::store) image: ImageId,
    pub(in crate::store) root: ObjectId,
    pub(in crate::store) layer: ObjectId,
    /// Whether that image is there; if not, part of its tree may be gone too.
    pub(in crate::store) is_there: bool,
    /// What the store remembers of the directory, if anything.
    pub(in crate::store) known: Option<KnownDirectory>,
    pub(in crate::store) place: DirectoryPlace,
    /// What is known of the directory's files; none where nothing is.
    pub(in crate::store) state: Option<State>,
    /// The owner and group whose new files are root's.
    pub(in crate::store) root_user: Option<(u32, u32)>,
}

impl Base {
    pub(in crate::store) fn equal(&self) -> ImageVersion {
        ImageVersion { image: self.image, root: self.root, layer: self.layer }
    }

    /// What the directory's state becomes, if it is remembered.
    pub(in crate::store) fn state_update(
        self,
        started: Timestamp,
        rows: &BTreeMap<TreePath, StateRow>,
        gone: &[TreePath],
    ) -> Result<Option<StateUpdate>> {
        let Some(known) = self.known else { return Ok(None) };
        let segment = encode_segment(started, rows.iter(), gone);
        let rows_bytes = known.record.appended_bytes + segment.len() as u64;
        let is_small = segment.len() <= ROW_BYTES && rows_bytes <= known.record.state_bytes.max(ROWS_BYTES);
        let whole = match self.state {
            Some(_) if is_small => {
                let change = StateChange::Append(known, segment);
                return Ok(Some(StateUpdate { place: self.place, change, abandoned: Vec::new() }));
            }
            Some(state) => state.rewritten(started, rows, gone),
            None => segment,
        };
        let file = StateFile::pack(&whole)?;
        let change = StateChange::Whole(Some(known), Arc::new(file));
        Ok(Some(StateUpdate { place: self.place, change, abandoned: Vec::new() }))
    }

    /// The paths that the directory had when it was the base, in order.
    pub(super) fn expected<'b>(
        &'b self,
        reader: &'b ObjectReader,
        root: &Root,
    ) -> Result<Box<dyn Iterator<Item = Result<Expected>> + 'b>> {
        if let Some(state) = &self.state {
            let expected = |(path, row): (&TreePath, &StateRow)| Expected {
                path: path.clone(),
                was_omitted: row.is_omitted(),
            };
            return Ok(Box::new(state.iter().map(move |row| Ok(expected(row)))));
        }
        let entries = tree::iter(reader, root)?;
        Ok(Box::new(entries.map(|entry| entry.map(|(path, _)| Expected { path, was_omitted: false }))))
    }
}

/// What of a directory is to be read: what its state does not vouch for.
pub(super) struct Changed<'b> {
    pub(super) base: &'b Base,
    pub(super) reader: &'b ObjectReader,
    pub(super) root: &'b Root,
    /// The hard link groups that are being read.
    pub(super) members: &'b Members,
}

impl Changed<'_> {
    /// The path, among the names of the inode that was found first at `first`, that the state has: a further link may come
    /// before the name that was checked out.
    fn known_name<'a>(&'a self, first: &'a TreePath) -> Option<(&'a TreePath, &'a StateRow)> {
        let state = self.base.state.as_ref()?;
        let names = self.members.get(first).into_iter().flatten();
        std::iter::once(first).chain(names).find_map(|name| Some((name, state.get(name)?)))
    }

    /// What the next commit is to know of a file that was read.
    pub(super) fn row(&self, path: &TreePath, captured: &Captured) -> StateRow {
        let xattrs = self
            .known_name(path)
            .and_then(|(_, row)| Some(row.unset.as_ref()?.xattrs.clone()))
            .unwrap_or_default();
        let unset = Unset { xattrs, ..Unset::between(&captured.stat, &captured.inode) };
        StateRow::new(&captured.stat, unset)
    }
}

impl Wanted for Changed<'_> {
    fn judge(&self) -> Judge<'_> {
        match &self.base.state {
            None => Box::new(|_| true),
            Some(state) => {
                let mut is_unchanged = state.judge();
                Box::new(move |found| !is_unchanged(&found.path, &found.stat))
            }
        }
    }

    fn correct(&self, path: &TreePath, inode: &mut Inode, xattrs: &mut Vec<Xattr>) -> Result<()> {
        let known = self.known_name(path);
        keep_capability(self.reader, self.root, known.map_or(path, |(name, _)| name), xattrs)?;
        let Some((name, row)) = known else {
            if self.base.root_user == Some((inode.uid, inode.gid)) {
                (inode.uid, inode.gid) = (0, 0);
            }
            return Ok(());
        };
        match &row.unset {
            Some(unset) => {
                if let Some((_, base)) = tree::group::resolve(self.reader, self.root, name)? {
                    correct_attributes(&base, row.mtime, unset, inode);
                    correct_xattrs(self.reader, &base, unset, xattrs)?;
                }
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// Takes from the base what the checkout could not set and nobody set since; `mtime` is the time that the file got.
fn correct_attributes(base: &Inode, mtime: Timestamp, unset: &Unset, inode: &mut Inode) {
    if unset.owner == Some((inode.uid, inode.gid)) {
        (inode.uid, inode.gid) = (base.uid, base.gid);
    }
    if unset.mode == Some(inode.mode) {
        inode.mode = base.mode;
    }
    if unset.time && inode.mtime == mtime {
        inode.mtime = base.mtime;
    }
}

/// Adds the attributes of the base that the checkout could not set.
fn correct_xattrs(reader: &ObjectReader, base: &Inode, unset: &Unset, xattrs: &mut Vec<Xattr>) -> Result<()> {
    if unset.xattrs.is_empty() {
        return Ok(());
    }
    let kept = Xattrs::read(reader, &base.xattrs)?;
    for name in &unset.xattrs {
        let is_missing = xattrs.iter().all(|(found, _)| found != name);
        if let Some(value) = kept.get(name).filter(|_| is_missing) {
            xattrs.push((name.clone(), value.to_vec()));
        }
    }
    Ok(())
}

/// Puts the base's form of a capability in place of one that means the same: an image may have a form from before it was made
/// canonical, which the kernel does not give back.
pub(super) fn keep_capability(
    reader: &impl ObjectSource,
    root: &Root,
    path: &TreePath,
    xattrs: &mut [Xattr],
) -> Result<()> {
    let Some((name, found)) = xattrs.iter_mut().find(|(name, _)| name == CAPABILITY) else { return Ok(()) };
    let Some((_, base)) = tree::group::resolve(reader, root, path)? else { return Ok(()) };
    let base = Xattrs::read(reader, &base.xattrs)?;
    if let Some(value) = base.get(name).filter(|value| *canonical(name, value) == **found) {
        *found = value.to_vec();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::memory::MemoryObjects;
    use crate::tree::{Content, Entry, InodeKind};

    /// A capability of this version, with what comes behind its sets.
    fn capability(version: u8, root: &[u8]) -> Vec<u8> {
        [&[1, 0, 0, version], &[9; 16][..], root].concat()
    }

    #[test]
    fn a_capability_that_means_the_same_is_no_change() {
        let objects = MemoryObjects::default();
        let path = |text: &str| TreePath::parse(text.as_bytes()).unwrap();
        let entry = |kind, value: Option<&[u8]>| {
            let mut xattrs = Xattrs::new();
            if let Some(value) = value {
                xattrs.insert(CAPABILITY, value).unwrap();
            }
            let (xattrs, links) = (xattrs.write(&mut &objects).unwrap(), Content::empty());
            Entry::Inode(Inode { mode: 0, uid: 0, gid: 0, mtime: Timestamp::default(), xattrs, links, kind })
        };
        let file = |value: &[u8]| entry(InodeKind::File(Content::empty()), Some(value));
        let (second, third) = (capability(2, &[]), capability(3, &[0; 4]));
        let entries = [
            (TreePath::root(), entry(InodeKind::Directory, None)),
            (path("new"), file(&second)),
            (path("old"), file(&third)),
            (path("other"), file(&capability(3, &[0, 1, 0, 0]))),
            (path("plain"), entry(InodeKind::File(Content::empty()), None)),
        ];
        let root = tree::build(&mut &objects, entries).unwrap();
        for (name, kept) in
            [("new", &second), ("old", &third), ("other", &second), ("plain", &second), ("none", &second)]
        {
            let mut xattrs = vec![(b"a".to_vec(), b"b".to_vec()), (CAPABILITY.to_vec(), second.clone())];
            keep_capability(&&objects, &root, &path(name), &mut xattrs).unwrap();
            assert_eq!(&xattrs[1].1, kept, "{name}");
        }
    }
}
