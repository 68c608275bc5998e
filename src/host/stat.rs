//! What the file system says of one file.

use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Statx, StatxAttributes, StatxFlags, StatxTimestamp, statx};
use rustix::io::Errno;

use crate::error::Result;
use crate::tree::Timestamp;

use super::failed;

/// A time before all others.
pub(crate) const NEVER: Timestamp = Timestamp { seconds: i64::MIN, nanos: 0 };

/// What kind of file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    Directory,
    File,
    Symlink,
    CharDevice,
    BlockDevice,
    Fifo,
    Socket,
}

/// The metadata of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) kind: FileKind,
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) links: u32,
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Of a device: what it is a device of.
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) size: u64,
    pub(crate) allocated_bytes: u64,
    pub(crate) mtime: Timestamp,
    pub(crate) ctime: Timestamp,
    /// When it was made, where the file system knows.
    pub(crate) born: Timestamp,
    /// Whether another file system, or another part of one, is mounted here.
    pub(crate) is_mount_point: bool,
    /// What else the file system says of it, where that costs nothing.
    pub(crate) attributes: StatxAttributes,
}

/// Attributes of a file that no image keeps, each with its name.
const UNKEPT: [(StatxAttributes, &str); 6] = [
    (StatxAttributes::IMMUTABLE, "immutable"),
    (StatxAttributes::APPEND, "append-only"),
    (StatxAttributes::NODUMP, "no-dump"),
    (StatxAttributes::ENCRYPTED, "encrypted"),
    (StatxAttributes::VERITY, "verity"),
    (StatxAttributes::COMPRESSED, "compressed"),
];

impl Stat {
    /// Of `name` in the directory `at`, or of `at` itself where the name is empty.
    pub(crate) fn of(at: impl AsFd, name: &[u8]) -> rustix::io::Result<Self> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
        statx(at, name, flags, StatxFlags::BASIC_STATS | StatxFlags::BTIME).map(|found| Self::from(&found))
    }

    /// The device number of what is mounted at a place, if anything is: also where nothing else may be asked.
    pub(crate) fn device_of_mount(at: impl AsFd) -> Option<u64> {
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let found = statx(at, "", flags, StatxFlags::empty()).ok()?;
        let is_mount_point = found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
        is_mount_point.then(|| device_number(found.stx_dev_major, found.stx_dev_minor))
    }

    /// Of what is at a path, no last link followed; none if nothing is.
    pub(crate) fn find(path: &Path) -> Result<Option<Self>> {
        match Self::of(CWD, path.as_os_str().as_bytes()) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(failed(path.to_owned(), "look at it", error)),
        }
    }

    /// The names of the attributes that are set and that no image keeps.
    pub(crate) fn unkept(&self) -> impl Iterator<Item = &'static str> {
        UNKEPT.into_iter().filter_map(|(flag, name)| self.attributes.contains(flag).then_some(name))
    }

    /// This as what no file is found to be: a row of it is never trusted.
    pub(crate) fn distrusted(self) -> Self {
        Self { ctime: NEVER, ..self }
    }

    /// Whether both are of one file, whatever became of it.
    pub(crate) fn is_same_file(&self, other: &Self) -> bool {
        (self.kind, self.device, self.inode) == (other.kind, other.device, other.inode)
    }

    /// Whether the file may have holes.
    pub(crate) fn is_sparse(&self) -> bool {
        self.allocated_bytes < self.size
    }

    /// Whether the file is as it was, as far as the file system tells.
    pub(crate) fn is_unchanged(&self, now: &Self) -> bool {
        (self.kind, self.device, self.inode, self.size, self.mtime, self.ctime)
            == (now.kind, now.device, now.inode, now.size, now.mtime, now.ctime)
    }
}

/// A device's two numbers in one, as [`Stat::device`] has them.
pub(crate) fn device_number(major: u32, minor: u32) -> u64 {
    (u64::from(major) << 32) | u64::from(minor)
}

fn timestamp(found: StatxTimestamp) -> Timestamp {
    Timestamp { seconds: found.tv_sec, nanos: found.tv_nsec }
}

impl From<&Statx> for Stat {
    fn from(found: &Statx) -> Self {
        let kind = match FileType::from_raw_mode(found.stx_mode.into()) {
            FileType::Directory => FileKind::Directory,
            FileType::Symlink => FileKind::Symlink,
            FileType::CharacterDevice => FileKind::CharDevice,
            FileType::BlockDevice => FileKind::BlockDevice,
            FileType::Fifo => FileKind::Fifo,
            FileType::Socket => FileKind::Socket,
            _ => FileKind::File,
        };
        Self {
            kind,
            device: device_number(found.stx_dev_major, found.stx_dev_minor),
            inode: found.stx_ino,
            links: found.stx_nlink,
            mode: found.stx_mode & 0o7777,
            uid: found.stx_uid,
            gid: found.stx_gid,
            major: found.stx_rdev_major,
            minor: found.stx_rdev_minor,
            size: found.stx_size,
            allocated_bytes: found.stx_blocks.saturating_mul(512),
            mtime: timestamp(found.stx_mtime),
            ctime: timestamp(found.stx_ctime),
            born: timestamp(found.stx_btime),
            is_mount_point: found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
            attributes: found.stx_attributes,
        }
    }
}
