//! The private directory that a checkout is written in, beside its destination.
//!
//! Its name is the destination's own, so that the next checkout to the same place finds what one left that was killed. While
//! it is written it is locked; so a directory of that name that can be locked has no owner, and is removed. **Why nothing
//! else is removed**: the holder of the lock looks whether the name still leads to what it locked, since that may have been
//! renamed into place before; and a process whose new directory another one locked first takes another name.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, flock, mkdirat, openat, unlinkat};
use rustix::io::{Errno, Result};
use rustix::process::geteuid;

use crate::host::stat::Stat;

use super::remove;

/// How the names begin under which directories are written.
pub(crate) const PRIVATE: &str = ".layerstone-";

/// How many names are tried: each is taken by a process that writes to the same place, or by something else.
const NAMES: usize = 100;

const FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Makes and locks a private directory for a destination of this name, and gives it with its own name.
pub(super) fn make(parent: &OwnedFd, destination: &OsStr) -> Result<(OsString, OwnedFd)> {
    let hash = blake3::hash(destination.as_bytes()).to_hex();
    for number in 0..NAMES {
        let name = OsString::from(format!("{PRIVATE}{}-{number}", hash.get(..16).unwrap_or_default()));
        if let Some(made) = try_make(parent, &name)? {
            return Ok((name, made));
        }
        if remove_abandoned(parent, &name)
            && let Some(made) = try_make(parent, &name)?
        {
            return Ok((name, made));
        }
    }
    Err(Errno::EXIST)
}

/// Makes and locks a directory; `None` if another has the name.
fn try_make(parent: &OwnedFd, name: &OsStr) -> Result<Option<OwnedFd>> {
    match mkdirat(parent, name, Mode::RWXU) {
        Err(Errno::EXIST) => return Ok(None),
        other => other?,
    }
    let made = match openat(parent, name, FLAGS, Mode::empty()) {
        // Another locked it first, and has removed it.
        Err(Errno::NOENT) => return Ok(None),
        other => other?,
    };
    let is_own = match flock(&made, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => false,
        Ok(()) => leads_to(parent, name, &made),
        // On a file system without locks no process can lock it, so none removes it.
        Err(_) => true,
    };
    Ok(is_own.then_some(made))
}

/// Removes the directory of a process that was killed, and says whether the name is free then.
fn remove_abandoned(parent: &OwnedFd, name: &OsStr) -> bool {
    let Ok(found) = openat(parent, name, FLAGS, Mode::empty()) else { return false };
    let is_own = Stat::of(&found, b"").is_ok_and(|stat| stat.uid == geteuid().as_raw());
    is_own
        && flock(&found, FlockOperation::NonBlockingLockExclusive).is_ok()
        && leads_to(parent, name, &found)
        && remove::empty(found.as_fd(), |_| true).is_ok()
        && unlinkat(parent, name, AtFlags::REMOVEDIR).is_ok()
}

fn leads_to(parent: &OwnedFd, name: &OsStr, directory: &OwnedFd) -> bool {
    let identity = |stat: Stat| (stat.device, stat.inode);
    let named = Stat::of(parent, name.as_bytes()).map(identity);
    named.is_ok() && named == Stat::of(directory, b"").map(identity)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::path::Path;

    use super::*;

    fn make_in(folder: &Path, destination: &str) -> (String, OwnedFd) {
        let (name, made) = make(&File::open(folder).unwrap().into(), OsStr::new(destination)).unwrap();
        (name.into_string().unwrap(), made)
    }

    #[test]
    fn what_a_killed_checkout_left_goes_and_what_is_in_use_stays() {
        let scratch = tempfile::tempdir().unwrap();
        let (first, in_use) = make_in(scratch.path(), "copy");
        let (second, left) = make_in(scratch.path(), "copy");
        let (other, _) = make_in(scratch.path(), "other");
        assert!(first != second && first != other && second != other);
        for name in [&first, &second] {
            fs::create_dir_all(scratch.path().join(name).join("d/e")).unwrap();
        }
        drop(left);
        let (third, _held) = make_in(scratch.path(), "copy");
        assert_eq!(third, second, "it had no owner");
        assert_eq!(fs::read_dir(scratch.path().join(&third)).unwrap().count(), 0);
        assert_eq!(fs::read_dir(scratch.path().join(&first)).unwrap().count(), 1);
        drop(in_use);
    }

    #[test]
    fn what_has_the_name_and_is_no_directory_stays() {
        let scratch = tempfile::tempdir().unwrap();
        let (name, made) = make_in(scratch.path(), "copy");
        drop(made);
        fs::remove_dir(scratch.path().join(&name)).unwrap();
        std::os::unix::fs::symlink("/", scratch.path().join(&name)).unwrap();
        assert_ne!(make_in(scratch.path(), "copy").0, name);
        assert!(scratch.path().join(&name).is_symlink());
    }

    /// It was locked by its name before, and by its place now.
    #[test]
    fn a_checkout_that_was_put_in_place_is_not_what_the_name_led_to() {
        let scratch = tempfile::tempdir().unwrap();
        let parent: OwnedFd = File::open(scratch.path()).unwrap().into();
        let (name, made) = make_in(scratch.path(), "copy");
        fs::write(scratch.path().join(&name).join("file"), "x").unwrap();
        fs::rename(scratch.path().join(&name), scratch.path().join("copy")).unwrap();
        assert!(!leads_to(&parent, OsStr::new(&name), &made));
        drop(made);
        assert!(!remove_abandoned(&parent, OsStr::new(&name)));
        assert!(scratch.path().join("copy/file").exists());
    }
}
