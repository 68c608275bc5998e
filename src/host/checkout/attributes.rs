//! Setting what a file is besides its content, and finding out what could not be set.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, CWD, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat, lsetxattr,
    openat, utimensat,
};
use rustix::io::Errno;

use crate::host::source::Xattr;
use crate::host::stat::{FileKind, Stat};
use crate::host::state::Unset;
use crate::tree::{Inode, InodeKind, Timestamp};

/// Whether an extended attribute is set by default: those that the file system's owner means for files.
fn is_default(name: &[u8]) -> bool {
    name.starts_with(b"user.")
        || matches!(name, b"system.posix_acl_access" | b"system.posix_acl_default" | b"security.capability")
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

/// Gives the file `name` in `parent` its owner, mode, extended attributes and time, in an order in which none
/// undoes another, and says what is on the disk and what is missing.
pub(super) fn set(
    parent: BorrowedFd<'_>,
    name: &[u8],
    inode: &Inode,
    xattrs: &[Xattr],
    all_xattrs: bool,
) -> Result<(Stat, Unset), SetError> {
    let nofollow = AtFlags::SYMLINK_NOFOLLOW;
    let owner = (Some(Uid::from_raw(inode.uid)), Some(Gid::from_raw(inode.gid)));
    let before = Stat::of(parent, name).map_err(at("read its metadata"))?;
    let mut owner_is_right = (before.uid, before.gid) == (inode.uid, inode.gid);
    if !owner_is_right {
        match chownat(parent, name, owner.0, owner.1, nofollow) {
            Ok(()) => owner_is_right = true,
            Err(error) if is_refusal(error) => {}
            Err(error) => return Err(at("set its owner")(error)),
        }
    }
    let is_symlink = matches!(inode.kind, InodeKind::Symlink(_));
    if !is_symlink {
        // A program that runs as its owner must not run as somebody else.
        let mode = if owner_is_right { inode.mode } else { inode.mode & 0o1777 };
        set_mode(parent, name, mode)?;
    }
    let mut unset = Unset::default();
    let mut place = format!("/proc/self/fd/{}/", parent.as_raw_fd()).into_bytes();
    place.extend_from_slice(name);
    for (xattr, value) in xattrs {
        let is_wanted = all_xattrs || is_default(xattr);
        let set = if is_wanted {
            lsetxattr(place.as_slice(), xattr.as_slice(), value, XattrFlags::empty())
        } else {
            Err(Errno::OPNOTSUPP)
        };
        match set {
            Ok(()) => {}
            Err(error) if is_refusal(error) => unset.xattrs.push(xattr.clone()),
            Err(error) => return Err(at("set an extended attribute")(error)),
        }
    }
    let time = timespec(inode.mtime);
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(parent, name, &times, nofollow).map_err(at("set its time"))?;

    let stat = Stat::of(parent, name).map_err(at("read its metadata"))?;
    if (stat.uid, stat.gid) != (inode.uid, inode.gid) {
        unset.owner = Some((stat.uid, stat.gid));
    }
    // Linux gives every link the mode 0777 and has no call to change it.
    if stat.mode != inode.mode && stat.kind != FileKind::Symlink {
        unset.mode = Some(stat.mode);
    }
    Ok((stat, unset))
}

/// Sets a mode without following a link that somebody put there: by a descriptor of the file itself.
fn set_mode(parent: BorrowedFd<'_>, name: &[u8], mode: u16) -> Result<(), SetError> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file: OwnedFd = openat(parent, name, flags, Mode::empty()).map_err(at("open it"))?;
    let place = format!("/proc/self/fd/{}", file.as_raw_fd());
    chmodat(CWD, place, Mode::from_raw_mode(mode.into()), AtFlags::empty()).map_err(at("set its mode"))
}

fn timespec(time: Timestamp) -> Timespec {
    Timespec { tv_sec: time.seconds, tv_nsec: time.nanos.into() }
}
