//! From members in archive order to the file system that extracting them would make, without a file system.
//!
//! The rules are those of a root file system archive extracted into an empty directory:
//!
//! - Symbolic links on the way to an entry are followed inside the tree, by the rules of [`route`](super::route()).
//! - The last entry of a path wins. A directory over a directory keeps what is below and brings new attributes;
//!   anything else drops what was there, a directory's whole subtree included, but a symbolic link drops none.
//!   [`Assembly::gave_way`] counts what other paths had to give way to.
//! - Where a path goes through something else that is no directory, that is replaced by an implicit directory.
//!   Directories that no entry named are implicit: mode `0o755`, owner 0:0, time 0.
//! - A hard link names an entry that is there at that moment and is no directory; it shares that entry's inode.
//!   Replacing one name of an inode leaves the others. A link of a name to itself changes nothing.
//!
//! # Cost
//! One ordered map from path to inode, in which implicit directories are left out until the end. **Invariant:**
//! nothing in the map is below something that is no directory. In key order nothing can then stand between such
//! an entry and a path below it, so whether a new path goes through a non-directory is one look at its
//! predecessor, however deep it is. Dropping a subtree removes each path at most once, and a path through links takes
//! 40 looks at most. So n entries cost O(n log n) in any order.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::{Found, Limits, Member, MemberKind, Refusal, is_link_to_directory, route};
use crate::error::{Error, Result, Subject};
use crate::path::TreePath;
use crate::tree::entry::Timestamp;

pub use self::assembled::{Assembled, Placed};
pub use self::gave_way::GaveWay;

mod assembled;
mod gave_way;
#[cfg(test)]
mod tests;

/// Mode of a directory that no entry named.
const IMPLICIT_MODE: u16 = 0o755;

/// Builds the file system that an archive describes. `T` is what its user keeps of a file's content.
pub struct Assembly<T> {
    limits: Limits,
    paths: BTreeMap<TreePath, InodeIndex>,
    inodes: Vec<Inode<T>>,
    gave_way: Option<GaveWay>,
}

/// Where an inode is in [`Assembly::inodes`].
type InodeIndex = usize;

struct Inode<T> {
    /// Paths that it has.
    links: u64,
    /// Its attributes and kind, without a path, which only the map holds; none once no path is left.
    member: Option<Member<T>>,
}

impl<T> Assembly<T> {
    /// An empty file system. Of the limits, those on entries and on the bytes of names count here: hostile
    /// paths imply far more directories than there are entries.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, paths: BTreeMap::new(), inodes: Vec::new(), gave_way: None }
    }

    /// Takes the archive's next member. Fails on a root that is no directory, on a way that leads through a link to no
    /// directory, on a symbolic link over a directory that is not empty, and on a hard link whose target is not there, is a
    /// directory, or is above or below it.
    pub fn add(&mut self, mut member: Member<T>) -> Result<()> {
        let named = std::mem::take(&mut member.path);
        let directory = matches!(member.kind, MemberKind::Directory);
        if named.is_root() && !directory {
            return Err(refuse(&named, "is the root and must be a directory"));
        }
        let leads = |_| route(&named, &named, |path| Ok(self.find(path)));
        let led = self.file_above(&named).map(leads).transpose()?;
        let path = led.as_ref().unwrap_or(&named);
        if directory && self.is_file(path) && is_link_to_directory(path, |path| Ok(self.find(path)))? {
            return Ok(());
        }
        let index = match &member.kind {
            MemberKind::HardLink(target) => {
                let target = route(&named, target, |path| Ok(self.find(path)))?;
                let index = self.resolve(path, &target)?;
                if target == *path {
                    return Ok(());
                }
                index
            }
            MemberKind::Symlink(_) if let Some(below) = self.first_below(path) => {
                let message = format!("is a symbolic link over a directory that already has {below}");
                return Err(refuse(&named, message));
            }
            _ => {
                self.inodes.push(Inode { links: 0, member: Some(member) });
                self.inodes.len() - 1
            }
        };
        // Only a file is left above: `route` followed the links.
        if led.is_some()
            && let Some(above) = self.file_above(path).cloned()
        {
            self.give_way(&above);
        }
        if !directory {
            self.drop_below(path);
        }
        if let Some(inode) = self.inodes.get_mut(index) {
            inode.links += 1;
        }
        if let Some(replaced) = self.paths.insert(led.unwrap_or(named), index) {
            self.unlink(replaced);
        }
        Ok(())
    }

    /// Returns what had to give way so far: paths below what became no directory, and what was no directory and above a path.
    #[must_use]
    pub fn gave_way(&self) -> Option<&GaveWay> {
        self.gave_way.as_ref()
    }

    /// The file system as it is now, all directories present.
    pub fn finish(self) -> Result<Assembled<T>> {
        self.check_limits()?;
        Ok(Assembled::new(self.paths, self.inodes))
    }

    /// The inode that a hard link at `path` shares.
    fn resolve(&self, path: &TreePath, target: &TreePath) -> Result<InodeIndex> {
        if path != target && (path.starts_with(target) || target.starts_with(path)) {
            return Err(refuse(path, "is a hard link to what is above or below it"));
        }
        let found = self.paths.get(target).copied().filter(|index| !self.is_directory(*index));
        found.ok_or_else(|| {
            refuse(
                path,
                format!("is a hard link to {target}, which is no earlier entry other than a directory"),
            )
        })
    }

    /// Returns what stands at a path. If that lies below something else than a directory, this is the entry right before it.
    fn find(&self, path: &TreePath) -> Found {
        let before = self.paths.range::<TreePath, _>((Bound::Unbounded, Bound::Included(path))).next_back();
        if let Some((at, index)) = before.filter(|(at, _)| path.starts_with(at)) {
            match self.inodes.get(*index).and_then(|inode| inode.member.as_ref()).map(|member| &member.kind) {
                Some(MemberKind::Symlink(target)) => {
                    return Found::Symlink { at: at.clone(), target: target.clone() };
                }
                Some(MemberKind::Directory) if at == path => return Found::Directory,
                Some(MemberKind::Directory) | None => {}
                Some(_) => return Found::Other { at: at.clone() },
            }
        }
        if path.is_root() || self.first_below(path).is_some() { Found::Directory } else { Found::Nothing }
    }

    /// Returns the first path below another.
    fn first_below(&self, path: &TreePath) -> Option<&TreePath> {
        let mut after = self.paths.range::<TreePath, _>((Bound::Excluded(path), Bound::Unbounded));
        after.next().map(|(found, _)| found).filter(|found| found.starts_with(path))
    }

    /// Returns what is no directory and above a path: it is the entry right before it.
    fn file_above(&self, path: &TreePath) -> Option<&TreePath> {
        let mut before = self.paths.range::<TreePath, _>((Bound::Unbounded, Bound::Excluded(path)));
        let (above, index) = before.next_back()?;
        Some(above).filter(|above| path.starts_with(above) && !self.is_directory(*index))
    }

    /// Returns whether an entry is there that is no directory.
    fn is_file(&self, path: &TreePath) -> bool {
        self.paths.get(path).is_some_and(|index| !self.is_directory(*index))
    }

    fn drop_below(&mut self, path: &TreePath) {
        while let Some(below) = self.first_below(path).cloned() {
            self.give_way(&below);
        }
    }

    fn give_way(&mut self, path: &TreePath) {
        GaveWay::note(&mut self.gave_way, path);
        self.remove(path);
    }

    fn remove(&mut self, path: &TreePath) {
        if let Some(index) = self.paths.remove(path) {
            self.unlink(index);
        }
    }

    fn unlink(&mut self, index: InodeIndex) {
        if let Some(inode) = self.inodes.get_mut(index) {
            inode.links -= 1;
            if inode.links == 0 {
                inode.member = None;
            }
        }
    }

    fn is_directory(&self, index: InodeIndex) -> bool {
        let member = self.inodes.get(index).and_then(|inode| inode.member.as_ref());
        member.is_some_and(|member| matches!(member.kind, MemberKind::Directory))
    }

    /// Counts the implicit directories, without making them.
    fn check_limits(&self) -> Result<()> {
        let mut count = 0_u64;
        let mut bytes = 0_u64;
        let mut before: &[u8] = &[];
        for path in self.paths.keys() {
            let key = path.as_key();
            let known = shared_components(before, key);
            for end in ancestor_ends(key).filter(|end| *end > known) {
                count += 1;
                bytes = bytes.saturating_add(u64::try_from(end).unwrap_or(u64::MAX));
            }
            count += 1;
            bytes = bytes.saturating_add(u64::try_from(key.len()).unwrap_or(u64::MAX));
            before = key;
        }
        if count > self.limits.entries_max {
            let what = "the number of paths, implied directories included,";
            return Err(Refusal::limit(what, "entries_max", self.limits.entries_max).at_archive());
        }
        if bytes > self.limits.metadata_bytes_max {
            let what = "the size of all paths, implied directories included,";
            return Err(
                Refusal::limit(what, "metadata_bytes_max", self.limits.metadata_bytes_max).at_archive()
            );
        }
        Ok(())
    }
}

/// How many bytes at the front of `key` are `before` or a directory above it, whole components only. In an
/// ascending walk these directories were passed already.
fn shared_components(before: &[u8], key: &[u8]) -> usize {
    let same = before.iter().zip(key).take_while(|(one, other)| one == other).count();
    let whole = |key: &[u8]| matches!(key.get(same), None | Some(0));
    if whole(before) && whole(key) {
        return same;
    }
    key.get(..same).and_then(|shared| shared.iter().rposition(|byte| *byte == 0)).unwrap_or(0)
}

/// Where the keys of the directories above `key` end, the root left out, from the top down.
fn ancestor_ends(key: &[u8]) -> impl Iterator<Item = usize> {
    key.iter().enumerate().filter(|(_, byte)| **byte == 0).map(|(end, _)| end)
}

fn implicit<T>(path: TreePath) -> Member<T> {
    let mtime = Timestamp::default();
    let kind = MemberKind::Directory;
    Member { path, mode: IMPLICIT_MODE, uid: 0, gid: 0, mtime, xattrs: Vec::new(), kind }
}

fn refuse(path: &TreePath, message: impl Into<String>) -> Error {
    Error::invalid(Subject::ArchiveEntry(path.to_string()), message)
}
