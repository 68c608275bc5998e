//! Files that checkouts have in common: a directory of whole files, from which a checkout takes what it would otherwise
//! write.
//!
//! ```text
//! CACHE/ab/cdef…    one file; the name is 32 bytes in hexadecimal, the folder the first of them
//! ```
//! A reflinked file is named by its content's object id: a chunk's or a chunk list's. A hard-linked one by the hash of its
//! path and its inode, so that within one tree no two paths ever become one inode. The two never meet, by their hashes.
//!
//! **Invariant:** what has a name here is whole and on the disk: a checkout's new files are synced together before the
//! first gets a name, which it gets by `linkat`, from the checkout or from a file that had none. So neither a kill nor a
//! power cut leaves half a file, and nothing need be cleaned up.
//!
//! A file is first taken and then looked at, so that there is no moment between the two. One whose size or time is not
//! what it was left with was written to: it is removed, and the checkout writes its own. Nothing here can fail a checkout
//! once the directory is open: what can't be taken is written, what can't be left is not.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ftruncate, ioctl_ficlone, linkat, mkdirat, openat, unlinkat};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::error::{Error, Result, Subject};
use crate::format::Encoder;
use crate::host::failed;
use crate::host::source::Xattr;
use crate::host::stat::{FileKind, Stat};
use crate::host::state::StateRow;
use crate::id::ObjectId;
use crate::path::TreePath;
use crate::tree::{Body, Entry, Inode, InodeKind, Timestamp};

use super::Checkout;
use super::attributes::{self, Handle};

/// A directory of files that checkouts have in common. The first checkout leaves its files there; later ones take them
/// instead of unpacking and writing them. Contents of up to 64 bytes, which are in the tree itself, are always written.
///
/// The directory is made where it is absent (not the one that it is in), and must be on the checkouts' file system. It may
/// serve several stores and projects, which then see from the time that a checkout takes what others have checked out. It
/// grows without bounds and may be deleted at any time, also while it is in use: what was checked out stays whole.
///
/// A file in it that was written to is noticed by its size or modification time and replaced. A program that restores both
/// is not noticed, so the directory must belong to the user, and nobody else may be able to write to it. A power cut leaves
/// nothing in it that is not whole: a checkout that has new files for it waits until they are on the disk.
///
/// ```no_run
/// use layerstone::{CheckoutOptions, SharedFiles, Sharing, Store};
///
/// let project = Store::open("/data/store")?.default_project()?;
/// let shared = SharedFiles { directory: "/data/files".into(), sharing: Sharing::Reflink };
/// let options = CheckoutOptions { shared: Some(shared), ..CheckoutOptions::default() };
/// let report = project.find(&"debian:12".parse()?)?.check_out("/data/work", options)?;
/// println!("{} files were there already", report.files_shared);
/// # Ok::<(), layerstone::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedFiles {
    /// The directory.
    pub directory: PathBuf,
    /// How its files are shared.
    pub sharing: Sharing,
}

/// How a checkout shares files with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sharing {
    /// Private files that share their blocks until one is changed, as XFS, btrfs and a few others can. On a file system
    /// that can't, everything is written as without a cache.
    Reflink,
    /// Hard links: a file is the same inode in every checkout that has it at the same path with the same attributes.
    ///
    /// **Whoever changes such a file in place changes it in all these checkouts, and for later ones.** So this is only for
    /// trees that nobody can write to, such as a read-only mount or the lower directory of an overlay. A later checkout
    /// notices another size, mode, owner or modification time and writes its own file; it does not notice other
    /// extended attributes, nor a program that restores the time. Hard link groups of the image are never shared.
    ///
    /// Each new link changes the inode's ctime in all checkouts, so a commit of one reads these files to see that they
    /// are as they were.
    HardLink,
}

/// The modification time of reflinked files: one that no program sets by habit, and that every file system can keep.
const MARK: Timestamp = Timestamp { seconds: 987_654_321, nanos: 0 };

const READ: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// What a file is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SharedName(ObjectId);

impl SharedName {
    /// The folder, and the path in the directory.
    fn place(self) -> (String, String) {
        let mut name = self.0.to_string();
        let rest = name.split_off(2);
        let path = format!("{name}/{rest}");
        (name, path)
    }
}

/// The directory, opened.
#[derive(Debug)]
pub(crate) struct FileCache {
    directory: OwnedFd,
    sharing: Sharing,
    all_xattrs: bool,
    /// Whether the file system can share as it should.
    is_useful: bool,
    /// Where it was made for this checkout, which has not succeeded yet.
    made: Option<PathBuf>,
}

impl Drop for FileCache {
    fn drop(&mut self) {
        if let Some(path) = &self.made {
            // One that others have put something into meanwhile stays.
            let _ = unlinkat(CWD, path, AtFlags::REMOVEDIR);
        }
    }
}

impl FileCache {
    /// Opens the directory for a checkout.
    pub(crate) fn open(shared: &SharedFiles, checkout: &Checkout, all_xattrs: bool) -> Result<Self> {
        let path = &shared.directory;
        let (directory, is_made) = open_own(path)?;
        let made = is_made.then(|| path.clone());
        let mut cache = Self { directory, sharing: shared.sharing, all_xattrs, is_useful: true, made };
        cache.is_useful = match cache.sharing {
            Sharing::Reflink => {
                let probe = make_unnamed(&checkout.root);
                let copied = probe.and_then(|probe| ioctl_ficlone(make_unnamed(&cache.directory)?, probe));
                copied.is_ok()
            }
            Sharing::HardLink => {
                let stat = Stat::of(&cache.directory, b"")
                    .map_err(|error| failed(path.clone(), "read its metadata", error))?;
                if stat.device != checkout.root_stat()?.device {
                    let message = "is on another file system than the checkout, so no file can be linked";
                    return Err(Error::invalid(Subject::Host(path.clone()), message));
                }
                true
            }
        };
        Ok(cache)
    }

    /// Returns it where the file system can share as it should.
    pub(crate) fn useful(&self) -> Option<&Self> {
        self.is_useful.then_some(self)
    }

    /// Lets the directory stay, though it may be empty.
    pub(crate) fn keep(&mut self) {
        self.made = None;
    }

    /// The name of a file that may be shared. None of what is better written.
    pub(super) fn name_of(&self, path: &TreePath, inode: &Inode, xattrs: &[Xattr]) -> Option<SharedName> {
        let InodeKind::File(content) = &inode.kind else { return None };
        let (Body::Chunk(id) | Body::List(id)) = &content.body else { return None };
        if self.sharing == Sharing::Reflink {
            return Some(SharedName(*id));
        }
        // A group is one inode of this tree, whose links are its own; and an inode has all of its attributes or is not
        // shared, as other checkouts may want others.
        let has_all = self.all_xattrs || xattrs.iter().all(|(name, _)| attributes::is_default(name));
        (inode.links.is_empty() && has_all).then(|| {
            let mut key = Encoder::default();
            key.bytes(path.as_key());
            Entry::Inode(inode.clone()).encode(&mut key);
            let hash = blake3::derive_key("layerstone v1 hard-linked file", &key.0);
            SharedName(ObjectId::from_bytes(hash))
        })
    }

    /// Makes a file of the checkout one with the cache's, if it is there and as it should be.
    pub(super) fn link(
        &self,
        name: SharedName,
        inode: &Inode,
        to: BorrowedFd<'_>,
        to_name: &[u8],
    ) -> rustix::io::Result<Option<StateRow>> {
        if self.sharing != Sharing::HardLink {
            return Ok(None);
        }
        match linkat(&self.directory, name.place().1, to, to_name, AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::MLINK) => {
                // The inode has all the names that it can have; the next one to be left here begins anew.
                self.remove(name);
                return Ok(None);
            }
            Err(_) => return Ok(None),
        }
        let stat = Stat::of(to, to_name)?;
        let size = if let InodeKind::File(content) = &inode.kind { content.size } else { 0 };
        let is_intact = (stat.kind, stat.size, stat.mtime) == (FileKind::File, size, inode.mtime)
            && (stat.mode, stat.uid, stat.gid) == (inode.mode, inode.uid, inode.gid);
        if is_intact {
            return Ok(Some(StateRow::of_shared(&stat)));
        }
        self.remove(name);
        unlinkat(to, to_name, AtFlags::empty())?;
        Ok(None)
    }

    /// Gives an empty file the cache's content, if it is there and as it should be.
    pub(super) fn reflink(
        &self,
        name: SharedName,
        to: BorrowedFd<'_>,
        size: u64,
    ) -> rustix::io::Result<bool> {
        if self.sharing != Sharing::Reflink {
            return Ok(false);
        }
        let Ok(file) = openat(&self.directory, name.place().1, READ, Mode::empty()) else { return Ok(false) };
        let is_cloned = ioctl_ficlone(to, &file).is_ok();
        let found = Stat::of(&file, b"").map(|stat| (stat.kind, stat.size, stat.mtime));
        if found == Ok((FileKind::File, size, MARK)) {
            if is_cloned {
                return Ok(true);
            }
        } else {
            self.remove(name);
        }
        // It may have got a part.
        ftruncate(to, 0)?;
        Ok(false)
    }

    /// Whether a file that was written may be left here; if other checkouts then have its inode, its row says so.
    pub(super) fn accepts(&self, row: &mut StateRow) -> bool {
        match self.sharing {
            Sharing::Reflink => true,
            Sharing::HardLink if row.unset.is_none() => {
                row.distrust();
                true
            }
            Sharing::HardLink => false,
        }
    }

    /// Leaves a file of the checkout here; if there is one, that one stays.
    pub(super) fn leave(
        &self,
        name: SharedName,
        from: BorrowedFd<'_>,
        from_name: &[u8],
    ) -> rustix::io::Result<()> {
        if self.sharing == Sharing::HardLink {
            return self.name(name, from, from_name, AtFlags::empty());
        }
        let file = openat(from, from_name, READ, Mode::empty())?;
        let copy = make_unnamed(&self.directory)?;
        ioctl_ficlone(&copy, &file)?;
        attributes::set_time(copy.as_fd(), MARK)?;
        let unnamed = Handle::Open(copy.as_fd()).magic_link();
        self.name(name, CWD, unnamed.as_bytes(), AtFlags::SYMLINK_FOLLOW)
    }

    /// Gives a file its name, in a folder that is made where it is missing.
    fn name(
        &self,
        name: SharedName,
        from: BorrowedFd<'_>,
        from_name: &[u8],
        flags: AtFlags,
    ) -> rustix::io::Result<()> {
        let (folder, path) = name.place();
        let link = || linkat(from, from_name, &self.directory, &path, flags);
        match link() {
            Err(Errno::NOENT) => match mkdirat(&self.directory, folder, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => link(),
                other => other,
            },
            other => other,
        }
    }

    /// Another checkout may have replaced it meanwhile: then that one's is lost, and left again later.
    fn remove(&self, name: SharedName) {
        let _ = unlinkat(&self.directory, name.place().1, AtFlags::empty());
    }
}

fn make_unnamed(folder: impl AsFd) -> rustix::io::Result<OwnedFd> {
    openat(folder, ".", OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, Mode::RUSR)
}

/// How often the directory is made when it is deleted before it is open. A link that leads nowhere is there and is not.
const TIMES_MADE: usize = 10;

/// Opens the directory, or makes it. Whoever else may write to it could put anything into later checkouts.
/// Opens the directory, and says whether it was made for that.
fn open_own(path: &Path) -> Result<(OwnedFd, bool)> {
    let io = |action| move |error| failed(path.to_owned(), action, error);
    let opened = (0..TIMES_MADE).find_map(|_| match make_and_open(path) {
        Err((_, Errno::NOENT)) => None,
        other => Some(other),
    });
    let Some(opened) = opened else {
        let message = "can't be made: the directory that it is to be in is not there";
        return Err(Error::not_found(Subject::Host(path.to_owned()), message));
    };
    let (directory, is_made) = opened.map_err(|(action, error)| io(action)(error))?;
    let stat = Stat::of(&directory, b"").map_err(io("read its metadata"))?;
    if stat.uid != geteuid().as_raw() || stat.mode & 0o022 != 0 {
        let message = "must belong to you, and nobody else may be able to write to it";
        return Err(Error::invalid(Subject::Host(path.to_owned()), message));
    }
    Ok((directory, is_made))
}

fn make_and_open(path: &Path) -> std::result::Result<(OwnedFd, bool), (&'static str, Errno)> {
    let is_made = match mkdirat(CWD, path, Mode::RWXU) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(error) => return Err(("make the directory", error)),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = openat(CWD, path, flags, Mode::empty()).map_err(|error| ("open the directory", error))?;
    Ok((opened, is_made))
}
