//! Looking inside images without checking them out, and comparing them.

use std::io::Read;

use serde::Serialize;

use crate::error::{Error, Result, Subject};
use crate::json;
use crate::path::TreePath;
use crate::tree::content::ContentReader;
use crate::tree::{self, Entry, Followed, Inode, InodeKind, Root, Timestamp};

use super::image::Image;

/// What kind of file an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// One path of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EntryInfo {
    /// The path, absolute in the image.
    #[serde(flatten)]
    pub path: TreePath,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits with setuid, setgid and sticky; in JSON four octal digits.
    #[serde(serialize_with = "json::octal")]
    #[cfg_attr(feature = "schema", schemars(with = "json::Octal"))]
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// When its content last changed: seconds since 1970.
    pub mtime_seconds: i64,
    /// And nanoseconds.
    pub mtime_nanos: u32,
    /// Bytes of a file's content; nothing for all else.
    pub size: u64,
    /// Where a symbolic link points.
    #[serde(flatten, serialize_with = "json::target")]
    #[cfg_attr(feature = "schema", schemars(with = "json::Target"))]
    pub target: Option<Vec<u8>>,
    /// The least other name of the same inode, where this is a further one.
    #[serde(flatten, serialize_with = "json::hard_link_to")]
    #[cfg_attr(feature = "schema", schemars(with = "json::HardLinkTo"))]
    pub hard_link_to: Option<TreePath>,
}

/// How two images differ at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum DifferenceKind {
    /// Only the second has it.
    Added,
    /// Only the first has it.
    Removed,
    /// Both have it, and it differs.
    Modified,
}

/// One path at which two images differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Difference {
    /// The path.
    #[serde(flatten)]
    pub path: TreePath,
    /// How they differ.
    pub kind: DifferenceKind,
    /// What is different, where it is in both: `type`, `content`, `mode`, `owner`, `mtime`, `xattrs`, `target`, `device`,
    /// `links`.
    pub what: Vec<&'static str>,
    /// Bytes of content in the first; none if it lacks the path.
    pub size_before: Option<u64>,
    /// Bytes of content in the second; none if it lacks the path.
    pub size_after: Option<u64>,
}

impl Image {
    /// The entry at `path`, or for a directory what it holds, by name. Links on the way are followed inside the image;
    /// the last component is not.
    ///
    /// Errors: [`NotFound`](crate::ErrorKind::NotFound), and [`Invalid`](crate::ErrorKind::Invalid) for a path through
    /// something that is no directory.
    pub fn list(&self, path: &TreePath) -> Result<Vec<EntryInfo>> {
        let root = self.root()?;
        let (path, entry) = self.locate(&root, path, false)?;
        if !entry.is_directory() {
            return Ok(vec![self.entry_info(&root, path, entry)?]);
        }
        tree::children(&self.reader, &root, &path)?
            .map(|child| child.and_then(|(path, entry)| self.entry_info(&root, path, entry)))
            .collect()
    }

    /// The entry that `path` leads to: links are followed inside the image, also the last, and the entry's path is where they
    /// lead.
    ///
    /// Errors: as of [`list`](Self::list).
    pub fn entry(&self, path: &TreePath) -> Result<EntryInfo> {
        let root = self.root()?;
        let (path, entry) = self.locate(&root, path, true)?;
        self.entry_info(&root, path, entry)
    }

    /// A file's content as a stream. Links are followed inside the image.
    ///
    /// Errors: [`NotFound`](crate::ErrorKind::NotFound), and [`Invalid`](crate::ErrorKind::Invalid) for what is no
    /// regular file.
    pub fn read_file(&self, path: &TreePath) -> Result<impl Read + use<>> {
        let root = self.root()?;
        let (path, entry) = self.locate(&root, path, true)?;
        let inode = match entry {
            Entry::Inode(inode) => Some(inode),
            Entry::HardLink(_) => tree::group::resolve(&self.reader, &root, &path)?.map(|(_, inode)| inode),
        };
        match inode.map(|inode| inode.kind) {
            Some(InodeKind::File(content)) => {
                Ok(ContentReader::new(self.reader.clone(), &content).into_stream())
            }
            Some(InodeKind::Directory) => Err(wrong(&path, "is a directory, not a file")),
            _ => Err(wrong(&path, "is no regular file")),
        }
    }

    /// Every path at which `other` differs from this image, ascending; the cost follows the difference.
    pub fn diff(&self, other: &Self) -> Result<impl Iterator<Item = Result<Difference>> + use<>> {
        let (before, after) = (self.root()?, other.root()?);
        // Either image may have been found before the other was made: a view of now has the objects of both.
        let store = &self.project.store;
        let holds = [self, other].map(|image| image.reader.hold());
        let older = holds.into_iter().min_by_key(|hold| hold.generation()).unwrap_or(holds[0]);
        let reader = store.reader(&*store.catalog()?, older)?;
        Ok(tree::diff(reader, &before, &after)?.map(|change| change.map(|change| difference(&change))))
    }

    /// The path that `wanted` leads to, and its entry.
    fn locate(&self, root: &Root, wanted: &TreePath, follow_last: bool) -> Result<(TreePath, Entry)> {
        let find = |path: &TreePath| {
            let found = tree::group::resolve(&self.reader, root, path)?;
            Ok(found.map(|(_, inode)| inode))
        };
        let missing =
            || Error::not_found(Subject::Path(wanted.clone()), format!("not in image {}", self.id()));
        // What is in the tree has directories all the way: most paths need one look-up.
        if let Some(entry) = tree::get(&self.reader, root, wanted)? {
            let is_link = match &entry {
                _ if !follow_last => false,
                Entry::Inode(inode) => matches!(inode.kind, InodeKind::Symlink(_)),
                Entry::HardLink(_) => {
                    matches!(find(wanted)?, Some(Inode { kind: InodeKind::Symlink(_), .. }))
                }
            };
            if !is_link {
                return Ok((wanted.clone(), entry));
            }
        }
        match tree::follow(wanted, follow_last, find)? {
            Followed::To(path, _) => {
                let entry = tree::get(&self.reader, root, &path)?.ok_or_else(missing)?;
                Ok((path, entry))
            }
            Followed::Missing(_) => Err(missing()),
        }
    }

    fn entry_info(&self, root: &Root, path: TreePath, entry: Entry) -> Result<EntryInfo> {
        let (inode, hard_link_to) = match entry {
            Entry::Inode(inode) => (inode, None),
            Entry::HardLink(first) => {
                let (_, inode) = tree::group::resolve(&self.reader, root, &path)?
                    .ok_or_else(|| Error::corrupt(Subject::Path(path.clone()), "links to nothing"))?;
                (inode, Some(first))
            }
        };
        let Inode { mode, uid, gid, mtime: Timestamp { seconds, nanos }, kind, .. } = inode;
        let (kind, size, target) = match kind {
            InodeKind::Directory => (EntryKind::Directory, 0, None),
            InodeKind::File(content) => (EntryKind::File, content.size, None),
            InodeKind::Symlink(target) => (EntryKind::Symlink, 0, Some(target.into())),
            InodeKind::CharDevice { .. } => (EntryKind::CharDevice, 0, None),
            InodeKind::BlockDevice { .. } => (EntryKind::BlockDevice, 0, None),
            InodeKind::Fifo => (EntryKind::Fifo, 0, None),
            InodeKind::Socket => (EntryKind::Socket, 0, None),
        };
        let (mtime_seconds, mtime_nanos) = (seconds, nanos);
        Ok(EntryInfo { path, kind, mode, uid, gid, mtime_seconds, mtime_nanos, size, target, hard_link_to })
    }
}

fn wrong(path: &TreePath, message: &str) -> Error {
    Error::invalid(Subject::Path(path.clone()), message)
}

fn difference(change: &tree::Change) -> Difference {
    let (before, after) = (change.before.as_ref(), change.after.as_ref());
    let kind = match (before, after) {
        (None, _) => DifferenceKind::Added,
        (_, None) => DifferenceKind::Removed,
        _ => DifferenceKind::Modified,
    };
    let what = match (before, after) {
        (Some(before), Some(after)) => what_differs(before, after),
        _ => Vec::new(),
    };
    let size = |entry: Option<&Entry>| entry.map(Entry::file_bytes);
    Difference { path: change.path.clone(), kind, what, size_before: size(before), size_after: size(after) }
}

fn what_differs(before: &Entry, after: &Entry) -> Vec<&'static str> {
    let (Some(a), Some(b)) = (before.as_inode(), after.as_inode()) else { return vec!["links"] };
    let content = match (&a.kind, &b.kind) {
        (InodeKind::File(a), InodeKind::File(b)) => (a != b).then_some("content"),
        (InodeKind::Symlink(a), InodeKind::Symlink(b)) => (a != b).then_some("target"),
        (a, b) if std::mem::discriminant(a) != std::mem::discriminant(b) => Some("type"),
        (a, b) => (a != b).then_some("device"),
    };
    let parts = [
        content,
        (a.mode != b.mode).then_some("mode"),
        ((a.uid, a.gid) != (b.uid, b.gid)).then_some("owner"),
        (a.mtime != b.mtime).then_some("mtime"),
        (a.xattrs != b.xattrs).then_some("xattrs"),
        (a.links != b.links).then_some("links"),
    ];
    parts.into_iter().flatten().collect()
}
