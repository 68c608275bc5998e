//! The mounts that this process sees.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};

use crate::error::{Error, ErrorKind, Result, Subject};

use super::failed;
use super::overlay::SOURCE;
use super::stat::{Stat, device_number};

const LIST: &str = "/proc/self/mountinfo";

/// The mount on a workspace's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mounted {
    Nothing,
    /// The workspace's own overlay.
    Own,
    /// Anything else: another file system, a directory, an overlay with other files.
    Other,
}

/// How the overlay of one workspace is known.
#[derive(Clone, Debug)]
pub(crate) struct OwnMount {
    /// Its source in lists of mounts (see [`overlay::source`](super::overlay::source)).
    pub(crate) source: String,
    /// Its device number, if it was mounted in this boot.
    pub(crate) device: Option<u64>,
}

/// A line of a list of mounts.
#[derive(Debug)]
pub(super) struct Mount {
    pub(super) id: u64,
    pub(super) device: u64,
    /// Which directory of the file system is mounted.
    pub(super) root: Vec<u8>,
    pub(super) target: PathBuf,
    /// Its source, if it is an overlay.
    pub(super) overlay: Option<Vec<u8>>,
}

impl Mount {
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ');
        let id = number(fields.next()?)?;
        let mut device = fields.nth(1)?.split(|byte| *byte == b':').map(number);
        let (major, minor) = (device.next()??, device.next()??);
        let device = device_number(major.try_into().ok()?, minor.try_into().ok()?);
        let root = unescape(fields.next()?);
        let target = PathBuf::from(OsString::from_vec(unescape(fields.next()?)));
        // Options and optional fields, which a dash ends.
        let mut kind = fields.skip_while(|field| *field != b"-").skip(1);
        let overlay = if kind.next()? == b"overlay" { kind.next().map(unescape) } else { None };
        Some(Self { id, device, root, target, overlay })
    }

    fn is(&self, own: &OwnMount) -> bool {
        self.overlay.as_deref() == Some(own.source.as_bytes())
            && own.device.is_none_or(|device| device == self.device)
    }
}

/// Says what is mounted on a directory, where this overlay is expected, all of it; without one, that of any workspace.
pub(crate) fn mounted(target: &Path, own: Option<&OwnMount>) -> Result<Mounted> {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    let found = match statx(CWD, target, flags, StatxFlags::BASIC_STATS | StatxFlags::MNT_ID) {
        Err(Errno::NOENT) => return Ok(Mounted::Nothing),
        other => other.map_err(|error| failed(target.to_owned(), "look at it", error))?,
    };
    if !Stat::from(&found).is_mount_point {
        return Ok(Mounted::Nothing);
    }
    let mount = list()?.into_iter().find(|mount| mount.id == found.stx_mnt_id);
    let is_own = mount.is_some_and(|mount| {
        let is_expected = match own {
            Some(own) => mount.is(own),
            None => mount.overlay.as_ref().is_some_and(|source| source.starts_with(SOURCE.as_bytes())),
        };
        is_expected && mount.root == b"/"
    });
    Ok(if is_own { Mounted::Own } else { Mounted::Other })
}

/// Returns a place other than `target` at which an overlay of this source is mounted, or a part of it.
pub(crate) fn other_place_of(source: &str, target: &Path) -> Result<Option<PathBuf>> {
    let mounts = list()?.into_iter().filter(|mount| mount.overlay.as_deref() == Some(source.as_bytes()));
    Ok(mounts.map(|mount| mount.target).find(|place| place != target))
}

/// The number of the mount that what a path leads to lies in.
pub(super) fn mount_id(path: &Path) -> Option<u64> {
    statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID).ok().map(|found| found.stx_mnt_id)
}

/// A mount that can be put back once it has ended.
#[derive(Debug)]
pub(crate) struct Spare {
    target: PathBuf,
    mount: OwnedFd,
}

impl Spare {
    /// Returns one of what is mounted on a directory; none where the kernel has no such.
    pub(crate) fn of(target: &Path) -> Option<Self> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let mount = open_tree(CWD, target, flags).ok()?;
        Some(Self { target: target.to_owned(), mount })
    }

    /// Mounts it where it was.
    pub(crate) fn put_back(self) {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        let _ = move_mount(&self.mount, "", CWD, &self.target, flags);
    }
}

/// Ends a mount. [`InUse`](ErrorKind::InUse) while anything in it is open, or somebody's current directory.
pub(crate) fn end_mount(target: &Path) -> Result<()> {
    match unmount(target, UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(Errno::BUSY) => {
            let message = "is busy: a process works in it or has a file of it open; end that first";
            Err(Error::new(ErrorKind::InUse, Subject::Host(target.to_owned()), message))
        }
        Err(error) => Err(failed(target.to_owned(), "unmount it", error)),
    }
}

/// Returns where this process sees anything mounted below a directory, not on it.
pub(crate) fn mounts_below(directory: &Path) -> Result<Vec<PathBuf>> {
    let targets = list()?.into_iter().map(|mount| mount.target);
    Ok(targets.filter(|target| target.starts_with(directory) && target != directory).collect())
}

fn list() -> Result<Vec<Mount>> {
    let list = std::fs::read(LIST).map_err(|error| Error::host(LIST.as_ref(), "read it", error))?;
    Ok(parse(&list))
}

/// The lines of a list of mounts.
pub(super) fn parse(list: &[u8]) -> Vec<Mount> {
    list.split(|byte| *byte == b'\n').filter_map(Mount::parse).collect()
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Text of a list of mounts, in which some characters are three octal digits.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let code =
            after.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = code.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        plain.push(escaped.unwrap_or(*first));
        rest = after.get(if escaped.is_some() { 3 } else { 0 }..).unwrap_or_default();
    }
    plain
}
