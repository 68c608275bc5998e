//! Setting what a file is besides its content, and finding out what could not be set.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{
    AtFlags, CWD, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat, fchmod, fgetxattr,
    fsetxattr, getxattr, setxattr, utimensat,
};
use rustix::io::Errno;

use crate::host::source::Xattr;
use crate::host::stat::Stat;
use crate::host::state::Unset;
use crate::tree::{Inode, InodeKind, Timestamp, xattr};

/// The file whose attributes are set, held by its descriptor: whoever renames things meanwhile changes nothing.
#[derive(Clone, Copy)]
pub(super) enum Handle<'f> {
    /// Opened for reading or writing.
    Open(BorrowedFd<'f>),
    /// Opened as a place (`O_PATH`), as everything that is no file and no directory is.
    Place(BorrowedFd<'f>),
}

impl<'f> Handle<'f> {
    fn descriptor(self) -> BorrowedFd<'f> {
        match self {
            Self::Open(file) | Self::Place(file) => file,
        }
    }

    /// The name under which the kernel leads to exactly this file, even if it is a symbolic link.
    pub(super) fn magic_link(self) -> String {
        format!("/proc/self/fd/{}", self.descriptor().as_raw_fd())
    }

    pub(super) fn set_mode(self, mode: Mode) -> rustix::io::Result<()> {
        match self {
            Self::Open(file) => fchmod(file, mode),
            Self::Place(_) => chmodat(CWD, self.magic_link(), mode, AtFlags::empty()),
        }
    }

    fn set_xattr(self, name: &[u8], value: &[u8]) -> rustix::io::Result<()> {
        match self {
            Self::Open(file) => fsetxattr(file, name, value, XattrFlags::empty()),
            Self::Place(_) => setxattr(self.magic_link(), name, value, XattrFlags::empty()),
        }
    }

    /// Whether an attribute that was set is there: an ACL that says no more than the mode does is dropped by the kernel.
    fn keeps_xattr(self, name: &[u8]) -> rustix::io::Result<bool> {
        if name != ACCESS_ACL {
            return Ok(true);
        }
        let found = match self {
            Self::Open(file) => fgetxattr(file, name, &mut [0_u8; 0]),
            Self::Place(_) => getxattr(self.magic_link(), name, &mut [0_u8; 0]),
        };
        match found {
            Ok(_) => Ok(true),
            Err(Errno::NODATA) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

const ACCESS_ACL: &[u8] = b"system.posix_acl_access";

/// Whether an extended attribute is set by default: those that the file system's owner means for files.
pub(super) fn is_default(name: &[u8]) -> bool {
    name.starts_with(b"user.")
        || matches!(name, ACCESS_ACL | b"system.posix_acl_default" | b"security.capability")
}

/// What stands for lack of privilege or support rather than for a failure.
fn is_refusal(error: Errno) -> bool {
    matches!(error, Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP | Errno::INVAL)
}

/// The part of a failure that a user sees: which call it was.
pub(super) struct SetError {
    pub(super) action: &'static str,
    pub(super) errno: Errno,
}

fn at(action: &'static str) -> impl Fn(Errno) -> SetError {
    move |errno| SetError { action, errno }
}

/// The mode to make a file with, if it will then have its owner and mode without further ado, as most files do: of the
/// `own` user and group of the process, without set-id bits and attributes. What the process's umask takes away is found out at the end.
pub(super) fn mode_to_make(inode: &Inode, xattrs: &[Xattr], own: (u32, u32)) -> Option<Mode> {
    let is_plain = xattrs.is_empty() && inode.mode <= 0o777 && (inode.uid, inode.gid) == own;
    is_plain.then(|| Mode::from_raw_mode(inode.mode.into()))
}

/// Gives a file that was made with its [mode](mode_to_make) the rest. None if it has not the owner and mode that it should.
pub(super) fn finish_made(file: BorrowedFd<'_>, inode: &Inode) -> Result<Option<(Stat, Unset)>, SetError> {
    let (stat, unset) = finish(file, inode)?;
    let is_right = unset.owner.is_none() && unset.mode.is_none();
    Ok(is_right.then_some((stat, unset)))
}

/// Sets the time, which any other change would change, and finds what the file has become.
fn finish(file: BorrowedFd<'_>, inode: &Inode) -> Result<(Stat, Unset), SetError> {
    set_time(file, inode.mtime).map_err(at("set its time"))?;
    // File systems round times and keep them in their bounds without a word, so what was set is read back.
    let stat = Stat::of(file, b"").map_err(at("read its metadata"))?;
    let unset = Unset::between(&stat, inode);
    Ok((stat, unset))
}

pub(super) fn set_time(file: BorrowedFd<'_>, time: Timestamp) -> rustix::io::Result<()> {
    let time = Timespec { tv_sec: time.seconds, tv_nsec: time.nanos.into() };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(file, "", &times, AtFlags::EMPTY_PATH)
}

/// Gives a file its owner, extended attributes, mode and time, and says what is on the disk and what is missing. In this
/// order none undoes another: a new owner takes capabilities and setuid away, a mode can forbid to set attributes, an
/// ACL changes the mode.
pub(super) fn set(
    file: Handle<'_>,
    inode: &Inode,
    xattrs: &[Xattr],
    all_xattrs: bool,
) -> Result<(Stat, Unset), SetError> {
    let descriptor = file.descriptor();
    let owner = (Some(Uid::from_raw(inode.uid)), Some(Gid::from_raw(inode.gid)));
    let owner_is_right = match chownat(descriptor, "", owner.0, owner.1, AtFlags::EMPTY_PATH) {
        // To the kernel this number is no owner: the file keeps the one it has.
        Ok(()) => inode.uid != u32::MAX && inode.gid != u32::MAX,
        Err(error) if is_refusal(error) => {
            let found = Stat::of(descriptor, b"").map_err(at("read its metadata"))?;
            (found.uid, found.gid) == (inode.uid, inode.gid)
        }
        Err(error) => return Err(at("set its owner")(error)),
    };
    let mut unset_xattrs = Vec::new();
    for (name, value) in xattrs {
        let is_wanted = (all_xattrs || is_default(name)) && !xattr::is_copy(name);
        match if is_wanted { file.set_xattr(name, value) } else { Err(Errno::OPNOTSUPP) } {
            Ok(()) if file.keeps_xattr(name).map_err(at("read an extended attribute"))? => {}
            Ok(()) => unset_xattrs.push(name.clone()),
            Err(error) if is_refusal(error) => unset_xattrs.push(name.clone()),
            Err(error) => return Err(at("set an extended attribute")(error)),
        }
    }
    if !matches!(inode.kind, InodeKind::Symlink(_)) {
        // A program that runs as its owner must not run as somebody else.
        let mode = if owner_is_right { inode.mode } else { inode.mode & 0o1777 };
        file.set_mode(Mode::from_raw_mode(mode.into())).map_err(at("set its mode"))?;
    }
    let (stat, found) = finish(descriptor, inode)?;
    Ok((stat, Unset { xattrs: unset_xattrs, ..found }))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::tree::Content;

    #[test]
    fn a_file_of_no_owner_never_runs_as_the_one_that_made_it() {
        for (uid, gid) in [(u32::MAX, 0), (0, u32::MAX), (u32::MAX, u32::MAX)] {
            let file = tempfile::tempfile().unwrap();
            let (xattrs, links) = (Content::empty(), Content::empty());
            let (mtime, kind) = (Timestamp::default(), InodeKind::File(Content::empty()));
            let inode = Inode { mode: 0o6755, uid, gid, mtime, xattrs, links, kind };
            let (stat, unset) = set(Handle::Open(file.as_fd()), &inode, &[], false).ok().unwrap();
            assert_eq!(stat.mode, 0o755, "{uid}:{gid}");
            assert!(unset.owner.is_some() && unset.mode.is_some(), "{uid}:{gid}");
        }
    }
}
