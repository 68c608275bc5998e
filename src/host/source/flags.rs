//! Flags of files (`chattr`) that no image keeps and that their metadata does not say.

use std::os::fd::AsFd;

use rustix::fs::{IFlags, ioctl_getflags};

/// `FS_CASEFOLD_FL`, `FS_DAX_FL` and `FS_NOCOMP_FL`.
const CASEFOLD: IFlags = IFlags::from_bits_retain(0x4000_0000);
const DAX: IFlags = IFlags::from_bits_retain(0x0200_0000);
const NOCOMP: IFlags = IFlags::from_bits_retain(0x0000_0400);

/// Each with its name. What a file system sets by itself, as ext4 does `e`, is not among them.
const UNKEPT: [(IFlags, &str); 13] = [
    (IFlags::NOATIME, "no-access-times"),
    (IFlags::SYNC, "synchronous"),
    (IFlags::DIRSYNC, "synchronous-directory"),
    (IFlags::SECURE_REMOVAL, "secure-removal"),
    (IFlags::UNRM, "undeletable"),
    (IFlags::NOTAIL, "no-tail-merging"),
    (IFlags::TOPDIR, "top-directory"),
    (IFlags::JOURNALING, "journaled-data"),
    (IFlags::NOCOW, "no-copy-on-write"),
    (NOCOMP, "no-compression"),
    (DAX, "direct-access"),
    (CASEFOLD, "case-folding"),
    (IFlags::PROJECT_INHERIT, "project-id"),
];

/// Returns the names of those that an open file or directory has.
pub(super) fn unkept(opened: impl AsFd) -> impl Iterator<Item = &'static str> {
    // File systems without flags refuse the question.
    let flags = ioctl_getflags(opened).unwrap_or(IFlags::empty());
    UNKEPT.into_iter().filter_map(move |(flag, name)| flags.contains(flag).then_some(name))
}
