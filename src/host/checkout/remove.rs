//! Removing trees: unfinished checkouts, and workspaces that ended.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, Mode, OFlags, ResolveFlags, fchmod, openat, openat2, renameat, unlinkat,
};
use rustix::io::Errno;

use crate::error::Result;
use crate::host::failed;
use crate::path::TreePath;

/// Removes a directory with all that is in it, if it is there.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    let remove = || {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        empty(openat(CWD, path, flags, Mode::empty())?.as_fd())?;
        unlinkat(CWD, path, AtFlags::REMOVEDIR)
    };
    match remove() {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(failed(path.to_owned(), "remove it", error)),
    }
}

/// Removes everything in a directory that this process made, whatever modes it got meanwhile. It follows no link, enters no
/// mount, and holds few descriptors at a time, whatever the depth.
pub(super) fn empty(root: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let mut directories = vec![TreePath::root()];
    let mut next = 0;
    while let Some(path) = directories.get(next).cloned() {
        next += 1;
        let Some(directory) = unless_gone(open_own(root, &path))? else { continue };
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            match unlinkat(&directory, name, AtFlags::empty()) {
                Err(Errno::ISDIR) => match path.join(name) {
                    Ok(path) => directories.push(path),
                    // Its path is too long to be opened by, or a component is: it is moved to where it is short.
                    Err(_) => directories.push(move_up(root, &directory, name)?),
                },
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
        }
    }
    for path in directories.iter().skip(1).rev() {
        let parent = open_here(root, &path.parent().unwrap_or_default(), OFlags::PATH | OFlags::DIRECTORY);
        let Some(parent) = unless_gone(parent)? else { continue };
        unless_gone(unlinkat(&parent, path.file_name().unwrap_or_default(), AtFlags::REMOVEDIR))?;
    }
    Ok(())
}

/// Another may remove the same.
fn unless_gone<T>(outcome: rustix::io::Result<T>) -> rustix::io::Result<Option<T>> {
    match outcome {
        Err(Errno::NOENT) => Ok(None),
        outcome => outcome.map(Some),
    }
}

fn move_up(root: BorrowedFd<'_>, directory: &OwnedFd, name: &[u8]) -> rustix::io::Result<TreePath> {
    let short = format!(".layerstone-{}", uuid::Uuid::now_v7().simple());
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
    fchmod(&opened, Mode::from_raw_mode(0o700))?;
    Ok(opened)
}
