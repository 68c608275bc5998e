//! Removing trees: unfinished checkouts, and workspaces that ended.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, fchmod, openat, unlinkat};
use rustix::io::Errno;

use crate::error::Result;
use crate::host::{failed, open_beneath};
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

/// Removes everything in a directory that this process made, whatever modes it got meanwhile. It follows no link and
/// holds one descriptor at a time, whatever the depth.
pub(super) fn empty(root: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let mut directories = vec![TreePath::root()];
    let mut next = 0;
    while let Some(path) = directories.get(next).cloned() {
        next += 1;
        let directory = open_own(root, &path)?;
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            match unlinkat(&directory, name, AtFlags::empty()) {
                // What is not ours to name (see `TreePath`) is not ours to remove.
                Err(Errno::ISDIR) => directories.push(path.join(name).map_err(|_| Errno::NAMETOOLONG)?),
                other => other?,
            }
        }
    }
    for path in directories.iter().skip(1).rev() {
        let parent =
            open_beneath(root, &path.parent().unwrap_or_default(), OFlags::PATH | OFlags::DIRECTORY)?;
        unlinkat(&parent, path.file_name().unwrap_or_default(), AtFlags::REMOVEDIR)?;
    }
    Ok(())
}

/// Opens a directory so that what is in it can be listed and removed.
fn open_own(root: BorrowedFd<'_>, path: &TreePath) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let opened = match open_beneath(root, path, flags) {
        Err(Errno::ACCESS) => {
            let place = open_beneath(root, path, OFlags::PATH | OFlags::DIRECTORY)?;
            super::attributes::Handle::Place(place.as_fd()).set_mode(Mode::from_raw_mode(0o700))?;
            open_beneath(root, path, flags)
        }
        other => other,
    }?;
    fchmod(&opened, Mode::from_raw_mode(0o700))?;
    Ok(opened)
}
