//! Removing trees: unfinished checkouts, and workspaces that ended.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, IFlags, Mode, OFlags, ResolveFlags, fchmod, ioctl_getflags, ioctl_setflags, openat,
    openat2, renameat, unlinkat,
};
use rustix::io::Errno;

use crate::error::{Error, Result, Subject};
use crate::host::failed;
use crate::host::stat::{FileKind, Stat};
use crate::id::random_uuid;
use crate::path::TreePath;

use super::private::PRIVATE;

/// Why something was not removed.
#[derive(Debug)]
enum Reason {
    Failed(Errno),
    /// It is not what was to be removed.
    Foreign,
}

/// What was not removed, and the first reason.
#[derive(Debug, Default)]
pub(super) struct Stuck {
    first: Option<(TreePath, Reason)>,
    more: u64,
}

impl Stuck {
    pub(super) fn is_nothing(&self) -> bool {
        self.first.is_none()
    }

    fn note(&mut self, path: &TreePath, outcome: rustix::io::Result<()>) {
        match (outcome, &self.first) {
            (Ok(()) | Err(Errno::NOENT), _) => {}
            // A mount point is not entered.
            (Err(Errno::XDEV), _) => self.add(path, Reason::Failed(Errno::BUSY)),
            (Err(error), _) => self.add(path, Reason::Failed(error)),
        }
    }

    fn add(&mut self, path: &TreePath, reason: Reason) {
        match self.first {
            None => self.first = Some((path.clone(), reason)),
            Some(_) => self.more += 1,
        }
    }
}

/// An error about something in a directory of the store that the store did not put there.
pub(crate) fn foreign(path: PathBuf) -> Error {
    let message = "is not what the store made; move it away";
    Error::conflict(Subject::Host(path), message)
}

/// Removes a directory with all that is in it, if it is there: of what can't be removed, the first is named, and all else
/// goes. A directory on which something is mounted stays with all that is in it.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    remove_own(path, |_| true)
}

/// The same for a directory in which only some names are to be removed: others stay, and the directory with them.
///
/// Error: [`Conflict`](crate::ErrorKind::Conflict) naming the first of those others.
pub(crate) fn remove_own(path: &Path, owns: impl Fn(&[u8]) -> bool) -> Result<()> {
    let remove = || {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = openat(CWD, path, flags, Mode::empty())?;
        if Stat::of(&root, b"")?.is_mount_point {
            return Err(Errno::BUSY);
        }
        let stuck = empty(root.as_fd(), owns)?;
        if stuck.is_nothing() {
            unlinkat(CWD, path, AtFlags::REMOVEDIR)?;
        }
        Ok(stuck)
    };
    let io = |error| failed(path.to_owned(), "remove it", error);
    match remove() {
        Err(Errno::NOENT) | Ok(Stuck { first: None, .. }) => Ok(()),
        Err(error) => Err(io(error)),
        Ok(Stuck { first: Some((stuck, reason)), more }) => {
            let place = path.join(OsStr::from_bytes(&stuck.to_relative()));
            let Reason::Failed(error) = reason else { return Err(foreign(place)) };
            let action = if more > 0 { format!("remove it and {more} more") } else { "remove it".to_owned() };
            Err(failed(place, &action, error))
        }
    }
}

/// Removes everything in a directory that this process made, whatever modes and flags it got meanwhile, but for what can't be
/// removed and names of the directory itself that are not to be. It follows no link, enters no mount, and holds few descriptors
/// at a time, whatever the depth.
pub(super) fn empty(root: BorrowedFd<'_>, owns: impl Fn(&[u8]) -> bool) -> rustix::io::Result<Stuck> {
    let mut directories = vec![TreePath::root()];
    let mut stuck = Stuck::default();
    let mut next = 0;
    while let Some(path) = directories.get(next).cloned() {
        next += 1;
        match open_own(root, &path) {
            Ok(directory) => {
                let is_to_go = |name: &[u8]| !path.is_root() || owns(name);
                empty_one(root, (&path, &directory), is_to_go, &mut directories, &mut stuck);
            }
            Err(error) if path.is_root() => return Err(error),
            Err(error) => stuck.note(&path, Err(error)),
        }
    }
    for path in directories.iter().skip(1).rev() {
        let parent = open_here(root, &path.parent().unwrap_or_default(), OFlags::RDONLY | OFlags::DIRECTORY);
        let name = path.file_name().unwrap_or_default();
        match parent.and_then(|parent| remove(&parent, name, AtFlags::REMOVEDIR)) {
            // It was noted already, or what is in it.
            Err(_) if !stuck.is_nothing() => {}
            outcome => stuck.note(path, outcome),
        }
    }
    Ok(stuck)
}

/// Removes what is in a directory, but for directories, which are added to the list.
fn empty_one(
    root: BorrowedFd<'_>,
    (path, directory): (&TreePath, &OwnedFd),
    is_to_go: impl Fn(&[u8]) -> bool,
    directories: &mut Vec<TreePath>,
    stuck: &mut Stuck,
) {
    let entries = match Dir::read_from(directory) {
        Ok(entries) => entries,
        Err(error) => return stuck.note(path, Err(error)),
    };
    for entry in entries {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => return stuck.note(path, Err(error)),
        };
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        let joined = path.join(name);
        if !is_to_go(name) {
            stuck.add(joined.as_ref().unwrap_or(path), Reason::Foreign);
            continue;
        }
        match remove(directory, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => match joined.map_or_else(|_| move_up(root, directory, name), Ok) {
                Ok(path) => directories.push(path),
                Err(error) => stuck.note(path, Err(error)),
            },
            outcome => stuck.note(joined.as_ref().unwrap_or(path), outcome),
        }
    }
}

/// Removes a name, also where flags forbid it, if this process may clear those.
fn remove(directory: &OwnedFd, name: &[u8], flags: AtFlags) -> rustix::io::Result<()> {
    let outcome = unlinkat(directory, name, flags);
    if outcome != Err(Errno::PERM) {
        return outcome;
    }
    clear_flags(directory);
    // Opening a device could act on it; only these have flags.
    let kind = Stat::of(directory, name)?.kind;
    let has_flags = matches!(kind, FileKind::File | FileKind::Directory);
    let open = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let entry = has_flags.then(|| openat(directory, name, open, Mode::empty()).ok()).flatten();
    let cleared = entry.as_ref().and_then(|entry| Some((entry, clear_flags(entry)?)));
    let outcome = unlinkat(directory, name, flags);
    if let Some((entry, flags)) = cleared
        && kind == FileKind::File
        && Stat::of(entry, b"").is_ok_and(|stat| stat.links > 0)
    {
        // Another name of it is not ours to change.
        let _ = ioctl_setflags(entry, flags);
    }
    match outcome {
        // Where it is a directory, what is in it may go all the same.
        Err(Errno::PERM) if kind == FileKind::Directory && flags.is_empty() => Err(Errno::ISDIR),
        outcome => outcome,
    }
}

/// Lets a file be changed and removed that is immutable or can only grow (`chattr +i`, `+a`), if this process may. Gives the
/// flags that it had.
fn clear_flags(file: &OwnedFd) -> Option<IFlags> {
    let fixed = IFlags::IMMUTABLE | IFlags::APPEND;
    let flags = ioctl_getflags(file).ok().filter(|flags| flags.intersects(fixed))?;
    ioctl_setflags(file, flags - fixed).ok().map(|()| flags)
}

/// Lets what is in a directory be removed where flags of the directory forbid it, if this process may clear those.
pub(crate) fn loosen(directory: &Path) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if let Ok(directory) = openat(CWD, directory, flags, Mode::empty()) {
        clear_flags(&directory);
    }
}

/// Moves a directory whose path is too long to be opened by, or of which a component is, to where it is short.
fn move_up(root: BorrowedFd<'_>, directory: &OwnedFd, name: &[u8]) -> rustix::io::Result<TreePath> {
    let short = format!("{PRIVATE}{}", random_uuid().simple());
    renameat(directory, name, root, &short)?;
    TreePath::parse(short.as_bytes()).map_err(|_| Errno::NAMETOOLONG)
}

fn open_here(root: BorrowedFd<'_>, path: &TreePath, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let relative = if path.is_root() { b".".to_vec() } else { path.to_relative() };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    openat2(root, relative, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// Opens a directory so that what is in it can be listed and removed.
fn open_own(root: BorrowedFd<'_>, path: &TreePath) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let opened = match open_here(root, path, flags) {
        Err(Errno::ACCESS) => {
            let place = open_here(root, path, OFlags::PATH | OFlags::DIRECTORY)?;
            super::attributes::Handle::Place(place.as_fd()).set_mode(Mode::from_raw_mode(0o700))?;
            open_here(root, path, flags)
        }
        other => other,
    }?;
    if fchmod(&opened, Mode::from_raw_mode(0o700)) == Err(Errno::PERM) {
        clear_flags(&opened);
        // Another's may still be writable.
        let _ = fchmod(&opened, Mode::from_raw_mode(0o700));
    }
    Ok(opened)
}
