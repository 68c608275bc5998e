//! The user's file system: scanned, read, and written by a checkout. Linux only.
//!
//! A tree is held by the descriptor of its root, and everything below is reached by
//! `openat2(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)`: whoever renames things meanwhile cannot lead a scan or a checkout
//! elsewhere. Attributes of what can't be opened (links, devices) are reached through `/proc/self/fd`.

pub(crate) mod checkout;
pub(crate) mod mounts;
pub(crate) mod overlay;
pub(crate) mod source;
pub(crate) mod stat;
pub(crate) mod state;
pub(crate) mod usage;
pub(crate) mod users;

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use crate::error::{Error, Subject};
use crate::path::TreePath;
use crate::tree::Timestamp;

/// Opens what is at `path` below `root`, following no link.
fn open_beneath(root: impl AsFd, path: &TreePath, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let relative = if path.is_root() { b".".to_vec() } else { path.to_relative() };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    openat2(root, relative, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// The time that the kernel would give a file now.
pub(crate) fn file_time() -> Timestamp {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    Timestamp { seconds: now.tv_sec, nanos: u32::try_from(now.tv_nsec).unwrap_or(0) }
}

/// A failure of the operating system at a path of the host.
fn failed(path: PathBuf, action: &str, error: rustix::io::Errno) -> Error {
    Error::io(Subject::Host(path), action, error)
}

#[cfg(test)]
mod tests;
