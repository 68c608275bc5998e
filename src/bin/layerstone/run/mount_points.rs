//! What is mounted over an image's files while a command runs needs a file or a directory to be mounted on. What is missing
//! is made for that time and leaves no trace: not in the times of its directory either.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use layerstone::Error;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps, chmod, fstat, mkdirat, openat, readlinkat,
    statat, unlinkat, utimensat,
};
use rustix::io::{Errno, fcntl_dupfd_cloexec};

/// How many links are followed on the way to one mount point, as by the kernel.
const MOST_LINKS: usize = 40;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PointKind {
    Directory,
    File,
}

/// Mount points that were made in a root file system.
pub(super) struct MountPoints {
    root: Rc<OwnedFd>,
    path: PathBuf,
    /// In the order in which they were made, relative to the root.
    made: Vec<(PathBuf, PointKind)>,
}

impl MountPoints {
    pub(super) fn new(root: &Path) -> Result<Self, Error> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = openat(CWD, root, flags, Mode::empty());
        let opened = opened.map_err(|error| Error::host(root, "open it", error.into()))?;
        Ok(Self { root: Rc::new(opened), path: root.to_owned(), made: Vec::new() })
    }

    /// Where `path` leads, as a process with this root would find it: made there if it is missing. Links are followed, and
    /// none out of the root.
    pub(super) fn add(&mut self, path: &str, kind: PointKind) -> Result<PathBuf, Error> {
        let root = Rc::clone(&self.root);
        with_attributes_kept(&root, || self.try_add(Path::new(path), kind)).map_err(|error| {
            let place = self.path.join(path.trim_start_matches('/'));
            Error::host(&place, "make it a mount point", error.into())
        })
    }

    fn try_add(&mut self, path: &Path, kind: PointKind) -> rustix::io::Result<PathBuf> {
        let found = self.resolve(path)?;
        let mut made = PathBuf::new();
        let names: Vec<_> = found.iter().collect();
        for (index, name) in names.iter().enumerate() {
            let parent = self.open(&made)?;
            made.push(name);
            let kind = if index + 1 == names.len() { kind } else { PointKind::Directory };
            let is_made = with_attributes_kept(&parent, || {
                if !matches!(statat(&parent, *name, AtFlags::SYMLINK_NOFOLLOW), Err(Errno::NOENT)) {
                    return Ok(false);
                }
                match kind {
                    PointKind::Directory => mkdirat(&parent, *name, Mode::from_raw_mode(0o755))?,
                    PointKind::File => {
                        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                        drop(openat(&parent, *name, flags, Mode::from_raw_mode(0o644))?);
                    }
                }
                Ok(true)
            })?;
            if is_made {
                self.made.push((made.clone(), kind));
            }
        }
        Ok(Path::new("/").join(found))
    }

    /// The path without links, relative to the root; what is missing at its end is taken as it is written.
    fn resolve(&self, path: &Path) -> rustix::io::Result<PathBuf> {
        let mut found = PathBuf::new();
        let mut links = 0;
        let mut rest: Vec<OsString> = components(path).rev().collect();
        while let Some(name) = rest.pop() {
            if name == ".." {
                found.pop();
                continue;
            }
            let target = match self.open(&found) {
                Ok(parent) => with_mode(&parent, Mode::XUSR, || link_target(&parent, &name))?,
                Err(Errno::NOENT) => None,
                Err(error) => return Err(error),
            };
            let Some(target) = target else {
                found.push(name);
                continue;
            };
            links += 1;
            if links > MOST_LINKS {
                return Err(Errno::LOOP);
            }
            if target.is_absolute() {
                found = PathBuf::new();
            }
            rest.extend(components(&target).rev());
        }
        Ok(found)
    }

    /// Opens a directory by a path without links, of which the user may lack the right to enter each part.
    fn open(&self, relative: &Path) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut opened = fcntl_dupfd_cloexec(&*self.root, 0)?;
        for name in components(relative) {
            opened = with_mode(&opened, Mode::XUSR, || openat(&opened, &name, flags, Mode::empty()))?;
        }
        Ok(opened)
    }

    /// Removes what was made and is still empty.
    pub(super) fn remove(self) {
        let _ = with_attributes_kept(&self.root, || {
            for (path, kind) in self.made.iter().rev() {
                let parent = self.open(path.parent().unwrap_or(Path::new("")));
                let (Ok(parent), Some(name)) = (parent, path.file_name()) else { continue };
                // A directory that is not empty is the command's.
                let _ = with_attributes_kept(&parent, || remove_empty(&parent, name, *kind));
            }
            Ok(())
        });
    }
}

fn remove_empty(parent: &OwnedFd, name: &OsStr, kind: PointKind) -> rustix::io::Result<()> {
    if kind == PointKind::Directory {
        return unlinkat(parent, name, AtFlags::REMOVEDIR);
    }
    let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_size == 0 {
        unlinkat(parent, name, AtFlags::empty())?;
    }
    Ok(())
}

/// Does something in a directory for which an ordinary user needs these rights, which it lends him.
fn with_mode<T>(
    directory: &OwnedFd,
    needed: Mode,
    something: impl FnOnce() -> rustix::io::Result<T>,
) -> rustix::io::Result<T> {
    let mode = Mode::from_raw_mode(fstat(directory)?.st_mode);
    if mode.contains(needed) || rustix::process::geteuid().is_root() {
        return something();
    }
    let place = format!("/proc/self/fd/{}", directory.as_raw_fd());
    chmod(&place, mode | needed)?;
    let outcome = something();
    chmod(&place, mode)?;
    outcome
}

/// Runs what may change a directory, and gives it its mode and its times back.
fn with_attributes_kept<T>(
    directory: &OwnedFd,
    change: impl FnOnce() -> rustix::io::Result<T>,
) -> rustix::io::Result<T> {
    let stat = fstat(directory)?;
    let outcome = with_mode(directory, Mode::RWXU, change);
    let time =
        |seconds: i64, nanos: u64| Timespec { tv_sec: seconds, tv_nsec: i64::try_from(nanos).unwrap_or(0) };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    let after = fstat(directory)?;
    if (after.st_mtime, after.st_mtime_nsec) != (stat.st_mtime, stat.st_mtime_nsec) {
        utimensat(directory, "", &times, AtFlags::EMPTY_PATH)?;
    }
    outcome
}

/// Where a link leads; none for anything else, and for what is missing.
fn link_target(parent: &OwnedFd, name: &OsStr) -> rustix::io::Result<Option<PathBuf>> {
    match readlinkat(parent, name, Vec::new()) {
        Ok(target) => Ok(Some(PathBuf::from(OsString::from_vec(target.into_bytes())))),
        Err(Errno::INVAL | Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

fn components(path: &Path) -> impl DoubleEndedIterator<Item = OsString> {
    let parts = path.as_os_str().as_bytes().split(|byte| *byte == b'/');
    let parts: Vec<_> = parts.filter(|part| !matches!(*part, b"" | b".")).map(<[u8]>::to_vec).collect();
    parts.into_iter().map(OsString::from_vec)
}

/// Copies a file of the host to one that the sandbox can write to.
pub(super) fn copy(from: &Path, to: &Path, more: &str) -> io::Result<bool> {
    let mut text = match std::fs::read(from) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    if !more.is_empty() && text.last().is_some_and(|last| *last != b'\n') {
        text.push(b'\n');
    }
    text.extend_from_slice(more.as_bytes());
    File::create_new(to).and_then(|mut file| io::Write::write_all(&mut file, &text)).map(|()| true)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn mtime(path: &Path) -> std::time::SystemTime {
        fs::metadata(path).unwrap().modified().unwrap()
    }

    #[test]
    fn what_is_missing_is_made_and_goes_without_a_trace() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::create_dir_all(root.join("proc")).unwrap();
        symlink("../run/systemd/resolv.conf", root.join("etc/resolv.conf")).unwrap();
        let before = (mtime(root), mtime(&root.join("etc")));
        let mut points = MountPoints::new(root).unwrap();
        assert_eq!(points.add("/proc", PointKind::Directory).unwrap(), Path::new("/proc"));
        assert_eq!(points.add("/sys", PointKind::Directory).unwrap(), Path::new("/sys"));
        assert_eq!(points.add("/etc/hosts", PointKind::File).unwrap(), Path::new("/etc/hosts"));
        let resolver = points.add("/etc/resolv.conf", PointKind::File).unwrap();
        assert_eq!(resolver, Path::new("/run/systemd/resolv.conf"));
        for made in ["sys", "etc/hosts", "run/systemd/resolv.conf"] {
            assert!(root.join(made).exists(), "{made}");
        }
        points.remove();
        for made in ["sys", "etc/hosts", "run"] {
            assert!(!root.join(made).exists(), "{made}");
        }
        assert!(root.join("proc").exists());
        assert_eq!(before, (mtime(root), mtime(&root.join("etc"))));
    }

    #[test]
    fn what_was_put_there_meanwhile_stays() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let mut points = MountPoints::new(root).unwrap();
        points.add("/etc/hosts", PointKind::File).unwrap();
        points.add("/sys", PointKind::Directory).unwrap();
        fs::write(root.join("etc/hosts"), "mine").unwrap();
        fs::write(root.join("etc/other"), "").unwrap();
        points.remove();
        assert!(root.join("etc/hosts").exists() && root.join("etc/other").exists());
        assert!(!root.join("sys").exists());
    }

    #[test]
    fn no_link_leads_out_of_the_root() {
        let folder = tempfile::tempdir().unwrap();
        let (root, outside) = (folder.path().join("root"), folder.path().join("outside"));
        fs::create_dir(&root).unwrap();
        fs::create_dir(&outside).unwrap();
        symlink(&outside, root.join("etc")).unwrap();
        symlink("../../..", root.join("up")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let mut points = MountPoints::new(&root).unwrap();
        let found = points.add("/etc/hosts", PointKind::File).unwrap();
        assert_eq!(found, outside.join("hosts"));
        assert!(!outside.join("hosts").exists());
        assert!(root.join(outside.strip_prefix("/").unwrap()).join("hosts").exists());
        assert_eq!(points.add("/up/sys", PointKind::Directory).unwrap(), Path::new("/sys"));
        assert!(points.add("/loop/x", PointKind::File).is_err());
    }
}
