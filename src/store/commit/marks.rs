//! The marks of overlays: what an upper directory says besides what was written.
//!
//! Three programs leave three kinds. The kernel sets attributes `trusted.overlay.*`, which only root can set and see, or, in
//! a mount with `userxattr`, `user.overlay.*`; and it makes a character device 0/0 where something is gone. fuse-overlayfs
//! makes such a device, or a file `.wh.NAME` where it may not; in each directory that hides what is below a file
//! `.wh..wh..opq`, and `trusted.overlay.opaque`, `user.overlay.opaque` or `user.fuseoverlayfs.opaque`; and where it may not
//! set owners and modes, an attribute that says them.
//!
//! What is a mark to one is a file or an attribute to another. Read as the wrong kind, what was removed would show again, so
//! marks of another kind are refused, unless the caller says that they are the image's own.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, FoundMarks, Remedy, Result, Subject};
use crate::host::overlay::whiteout;
use crate::host::source::{Found, SourceTree, Xattr};
use crate::host::stat::FileKind;
use crate::ingest::{Judge, Walk, Wanted};
use crate::pack::reader::ObjectReader;
use crate::path::{TreePath, escape_bytes};
use crate::sync::lock;
use crate::tree::{Inode, Root};

use super::base::keep_capability;

/// Which marks an overlay's upper directory has: what says there that something is gone or hidden.
///
/// Marks of another overlay are refused, since what they hide would show again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OverlayMarks {
    /// Attributes `trusted.overlay.*`, which only root can set and see: of every mount without `userxattr`.
    #[default]
    Trusted,
    /// Attributes `user.overlay.*`, of a mount with `userxattr`.
    User,
    /// Files `.wh.NAME` and attributes `user.fuseoverlayfs.*`: of fuse-overlayfs, which rootless Podman uses.
    FuseOverlayfs,
    /// As [`Trusted`](Self::Trusted), and what looks like another overlay's marks is the image's own: of an overlay whose
    /// users could make anything in it.
    OnlyTrusted,
    /// As [`User`](Self::User), and what looks like another overlay's marks is the image's own.
    OnlyUser,
}

const TRUSTED: &[u8] = b"trusted.overlay.";
const USER: &[u8] = b"user.overlay.";
const FUSE: &[u8] = b"user.fuseoverlayfs.";
/// Attributes in which fuse-overlayfs keeps owner and mode of a file, besides one of its own.
const STAT_OVERRIDES: [&[u8]; 2] =
    [b"security.fuseoverlayfs.override_stat", b"user.containers.override_stat"];

/// What follows where an attribute is not this overlay's own but of one that lies in it.
const ESCAPE: &[u8] = b"overlay.";

/// How fuse-overlayfs begins the name of a file that hides the one with the rest of the name.
const WHITEOUT: &[u8] = b".wh.";
/// The rest of the name of a file that hides what is below its directory.
const OPAQUE: &[u8] = b".wh..opq";

/// What of the lower layer does not show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hides {
    /// The names in the directory.
    Below,
    /// The path itself.
    Path,
}

/// What the overlay says of a path by its attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    pub(super) hides: Option<Hides>,
    /// Content is the lower file's.
    pub(super) is_metacopy: bool,
    /// Other names of the lower inode are names of this one.
    pub(super) is_indexed: bool,
    /// Where in the lower layer it was: absolute, or another name in its directory.
    pub(super) redirect: Option<Vec<u8>>,
}

/// What an attribute is to an overlay.
enum Attribute<'n> {
    /// The image's.
    Own,
    /// The image's under another name: what lies in the overlay is an overlay, too.
    Escaped(Vec<u8>),
    /// A mark.
    Mark(&'n [u8]),
    /// A mark of this kind of overlay, which is another one.
    Foreign(OverlayMarks),
}

impl OverlayMarks {
    /// The prefix of the kernel's attributes, and whether all others are the image's.
    fn kernel(self) -> Option<(&'static [u8], bool)> {
        match self {
            Self::Trusted => Some((TRUSTED, false)),
            Self::OnlyTrusted => Some((TRUSTED, true)),
            Self::User => Some((USER, false)),
            Self::OnlyUser => Some((USER, true)),
            Self::FuseOverlayfs => None,
        }
    }

    /// Fails where this process would not see the marks.
    pub(super) fn check_are_seen(self, upper: &SourceTree) -> Result<()> {
        let is_trusted = matches!(self, Self::Trusted | Self::OnlyTrusted);
        if !is_trusted || upper.shows_trusted_xattrs() {
            return Ok(());
        }
        let message = "may have marks that only root sees (trusted.overlay.*)";
        let subject = Subject::Host(upper.host_path(&TreePath::root()));
        Err(Error::unsupported(subject, message).with_remedy(Remedy::VisibleMarks))
    }

    fn sort(self, name: &[u8]) -> Attribute<'_> {
        let Some((prefix, keeps_others)) = self.kernel() else { return sort_for_fuse(name) };
        if let Some(own) = name.strip_prefix(prefix) {
            return match own.strip_prefix(ESCAPE) {
                Some(inner) => Attribute::Escaped([prefix, inner].concat()),
                None => Attribute::Mark(own),
            };
        }
        if keeps_others {
            return Attribute::Own;
        }
        if name.starts_with(TRUSTED) {
            Attribute::Foreign(Self::Trusted)
        } else if name.starts_with(USER) {
            Attribute::Foreign(Self::User)
        } else if name.starts_with(FUSE) || STAT_OVERRIDES.contains(&name) {
            Attribute::Foreign(Self::FuseOverlayfs)
        } else {
            Attribute::Own
        }
    }
}

fn sort_for_fuse(name: &[u8]) -> Attribute<'_> {
    if STAT_OVERRIDES.contains(&name) {
        return Attribute::Mark(b"override_stat");
    }
    if let Some(own) = name.strip_prefix(FUSE) {
        return Attribute::Mark(own);
    }
    for (prefix, kind) in [(TRUSTED, OverlayMarks::Trusted), (USER, OverlayMarks::User)] {
        match name.strip_prefix(prefix) {
            Some(own @ (b"opaque" | b"origin")) => return Attribute::Mark(own),
            Some(_) => return Attribute::Foreign(kind),
            None => {}
        }
    }
    Attribute::Own
}

/// Takes an overlay's own attributes away from what is read, and keeps what they say.
pub(super) struct MarkReader<'r> {
    kind: OverlayMarks,
    walk: &'r Walk<'r>,
    reader: &'r ObjectReader,
    /// The image that is the lower layer.
    lower: &'r Root,
    marks: Mutex<HashMap<TreePath, Marks>>,
}

impl Wanted for MarkReader<'_> {
    fn judge(&self) -> Judge<'_> {
        Box::new(|_| true)
    }

    fn correct(&self, path: &TreePath, inode: &mut Inode, xattrs: &mut Vec<Xattr>) -> Result<()> {
        let mut marks = Marks::default();
        let mut kept = Vec::with_capacity(xattrs.len());
        for (name, value) in xattrs.drain(..) {
            match self.kind.sort(&name) {
                Attribute::Own => kept.push((name, value)),
                Attribute::Escaped(inner) => kept.push((inner, value)),
                Attribute::Mark(own) => self.take(path, own, value, &mut marks, inode)?,
                Attribute::Foreign(kind) => {
                    let name = format!("the attribute {}, a mark", escape_bytes(&name));
                    return Err(self.foreign(path, &name, kind));
                }
            }
        }
        *xattrs = kept;
        keep_capability(self.reader, self.lower, path, xattrs)?;
        // The root shows the lower layer's, whatever its attributes say to the kernel.
        if path.is_root() && self.kind.kernel().is_some() {
            marks = Marks::default();
        }
        if marks != Marks::default() {
            lock(&self.marks).insert(path.clone(), marks);
        }
        Ok(())
    }
}

impl<'r> MarkReader<'r> {
    pub(super) fn new(
        kind: OverlayMarks,
        walk: &'r Walk<'r>,
        reader: &'r ObjectReader,
        lower: &'r Root,
    ) -> Self {
        Self { kind, walk, reader, lower, marks: Mutex::default() }
    }

    pub(super) fn into_marks(self) -> HashMap<TreePath, Marks> {
        self.marks.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what a mark says of a path.
    fn take(
        &self,
        path: &TreePath,
        mark: &[u8],
        value: Vec<u8>,
        marks: &mut Marks,
        inode: &mut Inode,
    ) -> Result<()> {
        let is_fuse = self.kind == OverlayMarks::FuseOverlayfs;
        match mark {
            b"opaque" if value == b"y" => marks.hides = Some(Hides::Below),
            b"whiteout" if !is_fuse => marks.hides = Some(Hides::Path),
            b"nlink" if !is_fuse => marks.is_indexed = true,
            b"metacopy" | b"redirect" if matches!(self.kind, OverlayMarks::User | OverlayMarks::OnlyUser) => {
                // Anyone can set them, and they would show any file of the lower layer.
                let mark = String::from_utf8_lossy(mark).into_owned();
                let message = format!(
                    "has the attribute user.overlay.{mark}, which no overlay with userxattr follows; commit a directory \
                     that has the merged view's files"
                );
                return Err(Error::unsupported(Subject::Path(path.clone()), message));
            }
            b"metacopy" => marks.is_metacopy = true,
            b"redirect" => marks.redirect = Some(value),
            b"protattr" if !is_fuse => self.walk.note_not_kept(path, protected(&value)),
            b"override_stat" if is_fuse => override_stat(path, &value, inode)?,
            _ => {}
        }
        Ok(())
    }

    /// Whether what was found is a whiteout whatever other names its inode has: an overlay makes one and links it wherever
    /// it needs one.
    pub(super) fn is_whiteout(&self, found: &Found) -> bool {
        let is_device =
            found.stat.kind == FileKind::CharDevice && (found.stat.major, found.stat.minor) == (0, 0);
        is_device || (self.kind == OverlayMarks::FuseOverlayfs && found.name().starts_with(WHITEOUT))
    }

    /// Refuses an empty file that is a whiteout to fuse-overlayfs, but a file of the image to this overlay.
    pub(super) fn check_name(&self, path: &TreePath, is_empty_file: bool) -> Result<()> {
        let is_strict = self.kind.kernel().is_some_and(|(_, keeps_others)| !keeps_others);
        let name = path.file_name().unwrap_or_default();
        if is_strict && is_empty_file && name.starts_with(WHITEOUT) && name.len() > WHITEOUT.len() {
            return Err(self.foreign(path, "the name of a mark", OverlayMarks::FuseOverlayfs));
        }
        Ok(())
    }

    /// Refuses a mark of another kind of overlay.
    fn foreign(&self, path: &TreePath, what: &str, found: OverlayMarks) -> Error {
        let found = match found {
            OverlayMarks::User | OverlayMarks::OnlyUser => FoundMarks::User,
            OverlayMarks::Trusted | OverlayMarks::OnlyTrusted => FoundMarks::Trusted,
            OverlayMarks::FuseOverlayfs => FoundMarks::FuseOverlayfs,
        };
        let or_own = self.kind != OverlayMarks::FuseOverlayfs;
        let message = format!("has {what} of another kind of overlay");
        Error::invalid(Subject::Path(path.clone()), message).with_remedy(Remedy::Marks { found, or_own })
    }
}

/// Returns the names of the flags (`chattr`) that a file of the merged view has: its file in the upper directory has a letter
/// for each, and not the flag, which would keep the overlay itself from changing it.
fn protected(letters: &[u8]) -> impl Iterator<Item = &'static str> {
    let has = |letter| letters.contains(&letter);
    let append_only = has(b'a').then_some("append-only");
    append_only.into_iter().chain(has(b'i').then_some("immutable"))
}

/// Takes owner, group and mode from what fuse-overlayfs wrote where it could not set them.
fn override_stat(path: &TreePath, value: &[u8], inode: &mut Inode) -> Result<()> {
    let mut parts = value.trim_ascii_end().split(|byte| *byte == b':');
    let mut part = |radix| {
        let text = std::str::from_utf8(parts.next()?).ok()?;
        // The largest is no owner.
        u32::from_str_radix(text, radix).ok().filter(|number| *number != u32::MAX && !text.starts_with('+'))
    };
    let (uid, gid, mode) = (part(10), part(10), part(8));
    let (Some(uid), Some(gid), Some(mode), None) = (uid, gid, mode, parts.next()) else {
        let value = String::from_utf8_lossy(value).escape_debug().to_string();
        let message = format!("has '{value}' for owner and mode; expected the form 'uid:gid:mode'");
        return Err(Error::unsupported(Subject::Path(path.clone()), message));
    };
    (inode.uid, inode.gid) = (uid, gid);
    inode.mode = u16::try_from(mode & 0o7777).unwrap_or(inode.mode);
    Ok(())
}

/// Puts the kernel's whiteouts and marks where fuse-overlayfs has files that are called as such.
pub(super) fn take_named_whiteouts(
    inodes: &mut BTreeMap<TreePath, Inode>,
    marks: &mut HashMap<TreePath, Marks>,
) -> Result<()> {
    let is_named = |path: &&TreePath| path.file_name().is_some_and(|name| name.starts_with(WHITEOUT));
    let named: Vec<_> = inodes.keys().filter(is_named).cloned().collect();
    for path in named {
        remove_subtree(inodes, &path);
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { continue };
        let hidden = name.strip_prefix(WHITEOUT).unwrap_or_default();
        if hidden == OPAQUE {
            marks.entry(parent).or_default().hides = Some(Hides::Below);
            continue;
        }
        let hidden = parent.join(hidden).map_err(|_| {
            Error::invalid(Subject::Path(path.clone()), "is a whiteout of nothing that a directory can hold")
        })?;
        // fuse-overlayfs shows nothing there either, whatever is there beside the whiteout.
        remove_subtree(inodes, &hidden);
        inodes.insert(hidden, whiteout());
    }
    Ok(())
}

fn remove_subtree(inodes: &mut BTreeMap<TreePath, Inode>, path: &TreePath) {
    let below = inodes.range(path.clone()..).map(|(below, _)| below);
    let below: Vec<_> = below.take_while(|below| below.starts_with(path)).cloned().collect();
    for path in below {
        inodes.remove(&path);
    }
}
