//! What is mounted where, as this process sees it.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags, makedev, statx};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use crate::error::{Error, ErrorKind, Result, Subject};

use super::failed;
use super::overlay::SOURCE;
use super::stat::Stat;

const LIST: &str = "/proc/self/mountinfo";

/// What is mounted on a workspace's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mounted {
    Nothing,
    /// The workspace's own overlay.
    Own,
    /// Anything else: another file system, a directory, an overlay with other files.
    Other,
}

/// Says what is mounted on a directory, where an overlay of this source is expected; without one, that of any workspace.
pub(crate) fn mounted(target: &Path, source: Option<&str>) -> Result<Mounted> {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    let found = match statx(CWD, target, flags, StatxFlags::BASIC_STATS | StatxFlags::MNT_ID) {
        Err(Errno::NOENT) => return Ok(Mounted::Nothing),
        other => other.map_err(|error| failed(target.to_owned(), "look at it", error))?,
    };
    if !Stat::from(&found).is_mount_point {
        return Ok(Mounted::Nothing);
    }
    let list = std::fs::read(LIST).map_err(|error| Error::host(LIST.as_ref(), "read it", error))?;
    let list = String::from_utf8_lossy(&list);
    let id = format!("{} ", found.stx_mnt_id);
    let line = list.lines().find(|line| line.starts_with(&id)).unwrap_or_default();
    let is_own = match source {
        Some(source) => device_of_overlay(line, source).is_some(),
        None => overlay_source(line).is_some_and(|found| found.starts_with(SOURCE)),
    };
    Ok(if is_own { Mounted::Own } else { Mounted::Other })
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

/// Something that is mounted in a directory, but not in or on `except`: as far as this process sees.
pub(crate) fn mount_below(directory: &Path, except: &Path) -> Result<Option<PathBuf>> {
    let mounts = std::fs::read(LIST).map_err(|error| Error::host(LIST.as_ref(), "read it", error))?;
    let targets =
        mounts.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    let mut targets = targets.map(|target| PathBuf::from(OsString::from_vec(unescape(target))));
    Ok(targets.find(|target| target.starts_with(directory) && !target.starts_with(except)))
}

/// The device number of a mount in `mountinfo`, if it is an overlay of this source.
pub(super) fn device_of_overlay(line: &str, source: &str) -> Option<u64> {
    if overlay_source(line)? != source {
        return None;
    }
    let (major, minor) = line.split(' ').nth(2)?.split_once(':')?;
    Some(makedev(major.parse().ok()?, minor.parse().ok()?))
}

/// The source of a mount in `mountinfo`, if it is an overlay.
fn overlay_source(line: &str) -> Option<&str> {
    let (_, kind) = line.split_once(" - ")?;
    let mut kind = kind.split(' ');
    if kind.next() == Some("overlay") { kind.next() } else { None }
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
