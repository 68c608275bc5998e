//! A file that appears under its name when it is complete, and until then leaves what was there before.
//!
//! It is written beside its place, readable by its owner alone, and renamed: whatever fails meanwhile, the old file is
//! still whole. A process that is killed leaves `.layerstone-*` beside the place, which the next that writes there removes:
//! its name is the place's own, and it is locked while it is written.

use std::fs::{self, File, Metadata, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use layerstone::{Error, ErrorKind, Result};
use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::{Failure, interrupt};

/// Links that are followed, as many as Linux follows itself.
const LINKS_MAX: usize = 40;
/// Names that are tried.
const NAMES: usize = 100;
const PAUSE: Duration = Duration::from_millis(10);
const PRIVATE: u32 = 0o600;
const PERMISSIONS: u32 = 0o777;

/// Has `write` fill the file at `path`. A regular file, or none yet, is replaced by the complete new one; what is no
/// regular file (a device, a pipe) is written to as it is.
pub(crate) fn write_file<T>(path: &Path, write: impl FnOnce(&File) -> Result<T>) -> Result<T, Failure> {
    let Some(place) = place(path) else {
        let file = open_as_it_is(path)?;
        return write(&file).map_err(|error| match error.kind() {
            ErrorKind::Cancelled => Failure::CutShort,
            _ => error.into(),
        });
    };
    let draft =
        Draft::beside(&place).map_err(|error| Error::host(path, "make a file in its directory", error))?;
    let written = write(&draft.file)?;
    draft.publish(&place).map_err(|error| Error::host(path, "put the new file in its place", error))?;
    Ok(written)
}

/// Has `write` fill a file at `path`, where nothing may be, not even a link, when it is complete.
pub(crate) fn write_new_file(path: &Path, write: impl FnOnce(&File) -> Result<()>) -> Result<()> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let place = folder.join(path.file_name().unwrap_or_default());
    let draft =
        Draft::new(&place, None).map_err(|error| Error::host(path, "make a file in its directory", error))?;
    write(&draft.file)?;
    draft.publish_new(&place).map_err(|error| Error::host(path, "put the new file in its place", error))
}

/// The directory in which [`write_file`] makes a file at `path`; none where it makes none.
pub(crate) fn written_folder(path: &Path) -> Option<PathBuf> {
    place(path)?.parent().map(Path::to_owned)
}

/// Opens what is no regular file. A signal ends the wait for a reader of a pipe.
fn open_as_it_is(path: &Path) -> Result<File> {
    loop {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
        match options.open(path) {
            Err(error) if error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) => {
                interrupt::task().check()?;
                std::thread::sleep(PAUSE);
            }
            opened => return opened.map_err(|error| Error::host(path, "open it for writing", error)),
        }
    }
}

/// Where the regular file that `path` means is or will be; links are followed, so that they stay. None for all that a
/// rename would not write to: what is no regular file, and a descriptor's file, which may have lost the name that
/// `/proc` shows.
fn place(path: &Path) -> Option<PathBuf> {
    if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        return None;
    }
    let mut place = path.to_owned();
    for _ in 0..LINKS_MAX {
        let name = place.file_name()?.to_owned();
        // `NAME/` and `NAME/.` ask for a directory.
        if !place.as_os_str().as_bytes().ends_with(name.as_bytes()) {
            return None;
        }
        let directory = place.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = fs::canonicalize(directory.unwrap_or(Path::new("."))).ok()?;
        if directory.starts_with("/proc") {
            return None;
        }
        let found = directory.join(name);
        match fs::read_link(&found) {
            Ok(target) => place = directory.join(target),
            Err(_) => return Some(found),
        }
    }
    None
}

/// A file that is being written; without [`publish`](Self::publish) it goes.
struct Draft {
    file: File,
    path: PathBuf,
    old: Option<Metadata>,
    /// The permissions it will have.
    mode: u32,
    is_published: bool,
}

impl Draft {
    fn beside(place: &Path) -> io::Result<Self> {
        Self::new(place, fs::metadata(place).ok())
    }

    fn new(place: &Path, old: Option<Metadata>) -> io::Result<Self> {
        // A new file is made as any other, to learn what umask and the directory's ACL leave of its mode.
        let mode = if old.is_some() { PRIVATE } else { 0o666 };
        let (path, file) = make(place, mode)?;
        let mut draft = Self { file, path, old, mode, is_published: false };
        draft.mode = mode_of(draft.old.as_ref().unwrap_or(&draft.file.metadata()?));
        // A file system without modes refuses, and has nothing to hide.
        let _ = set_mode(&draft.file, PRIVATE);
        Ok(draft)
    }

    fn publish(mut self, place: &Path) -> io::Result<()> {
        if let Some(old) = &self.old {
            // Only root can give a file away; others keep the group where they can.
            let _ = fchown(&self.file, None, Some(old.gid()));
            let _ = fchown(&self.file, Some(old.uid()), None);
        }
        set_mode(&self.file, self.mode)?;
        if self.old.is_some() {
            // A power cut after the rename would otherwise take the old bytes and the new.
            self.file.sync_all()?;
        }
        fs::rename(&self.path, place)?;
        self.is_published = true;
        Ok(())
    }
}

impl Draft {
    /// Gives the file its name, unless anything has it.
    fn publish_new(mut self, place: &Path) -> io::Result<()> {
        set_mode(&self.file, self.mode)?;
        match renameat_with(CWD, &self.path, CWD, place, RenameFlags::NOREPLACE) {
            // Not every file system can. The draft's own name goes with the draft.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => fs::hard_link(&self.path, place),
            renamed => {
                self.is_published = renamed.is_ok();
                Ok(renamed?)
            }
        }
    }
}

/// Makes and locks a file beside a place. Each name that is tried is another process's now, or somebody else's.
fn make(place: &Path, mode: u32) -> io::Result<(PathBuf, File)> {
    let hash = blake3::hash(place.file_name().unwrap_or_default().as_bytes()).to_hex();
    for number in 0..NAMES {
        let name = format!(".layerstone-{}-{number}", hash.get(..16).unwrap_or_default());
        let path = place.with_file_name(name);
        remove_abandoned(&path);
        match OpenOptions::new().write(true).create_new(true).mode(mode).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Ok(file) if is_own(&path, &file) => return Ok((path, file)),
            Ok(_) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Locks a new file; returns false if another process locked it first, to remove it. Without locks no process removes it.
fn is_own(path: &Path, file: &File) -> bool {
    match file.try_lock() {
        Ok(()) => leads_to(path, file),
        Err(TryLockError::WouldBlock) => false,
        Err(TryLockError::Error(_)) => true,
    }
}

/// Removes the file of a process that was killed.
fn remove_abandoned(path: &Path) {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let Ok(found) = OpenOptions::new().read(true).custom_flags(flags).open(path) else { return };
    let is_file = found
        .metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.uid() == rustix::process::geteuid().as_raw());
    if is_file && found.try_lock().is_ok() && leads_to(path, &found) {
        let _ = fs::remove_file(path);
    }
}

/// Returns whether a name still leads to a file: it may have been renamed since.
fn leads_to(path: &Path, file: &File) -> bool {
    let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
    let named = fs::symlink_metadata(path).map(identity);
    named.is_ok_and(|named| file.metadata().map(identity).is_ok_and(|found| found == named))
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.is_published {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn mode_of(metadata: &Metadata) -> u32 {
    metadata.mode() & PERMISSIONS
}

fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    if mode_of(&file.metadata()?) == mode {
        return Ok(());
    }
    file.set_permissions(Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::symlink;

    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn mode(path: &Path) -> u32 {
        mode_of(&fs::metadata(path).unwrap())
    }

    fn fill(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
        write_file(path, |mut file| {
            file.write_all(bytes).map_err(|error| Error::host(path, "write it", error))?;
            assert_eq!(mode_of(&file.metadata().unwrap()), PRIVATE, "nobody else reads an incomplete file");
            Ok(())
        })
    }

    #[test]
    fn a_new_file_has_the_mode_of_any_other_and_a_replaced_one_its_own() {
        let scratch = tempfile::tempdir().unwrap();
        let (ordinary, path) = (scratch.path().join("ordinary"), scratch.path().join("file"));
        File::create(&ordinary).unwrap();
        fill(&path, b"one").unwrap();
        assert_eq!(mode(&path), mode(&ordinary));
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        fill(&path, b"two").unwrap();
        assert_eq!((mode(&path), fs::read(&path).unwrap()), (0o640, b"two".to_vec()));
        assert_eq!(names(scratch.path()), ["file", "ordinary"]);
    }

    #[test]
    fn a_failure_leaves_what_was_there() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("file");
        let fail = |mut file: &File| -> Result<()> {
            file.write_all(b"half").unwrap();
            Err(Error::usage("test", "fails"))
        };
        write_file(&path, fail).unwrap_err();
        assert_eq!(names(scratch.path()), [""; 0]);
        fs::write(&path, "old").unwrap();
        write_file(&path, fail).unwrap_err();
        assert_eq!(
            (names(scratch.path()), fs::read(&path).unwrap()),
            (vec!["file".to_owned()], b"old".to_vec())
        );
    }

    #[test]
    fn what_a_killed_process_left_goes_and_what_is_in_use_stays() {
        let scratch = tempfile::tempdir().unwrap();
        let place = scratch.path().join("file");
        let (first, in_use) = make(&place, PRIVATE).unwrap();
        let (second, left) = make(&place, PRIVATE).unwrap();
        assert_ne!(first, second);
        fs::write(&second, "half").unwrap();
        drop(left);
        let (third, again) = make(&place, PRIVATE).unwrap();
        assert_eq!((&third, fs::read(&third).unwrap()), (&second, Vec::new()));
        drop((in_use, again));
        fill(&place, b"whole").unwrap();
        fill(&place, b"again").unwrap();
        fs::remove_file(third).unwrap();
        assert_eq!(names(scratch.path()), ["file"]);
    }

    #[test]
    fn links_stay_links() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        fs::create_dir(at("far")).unwrap();
        symlink("far/file", at("link")).unwrap();
        symlink("link", at("link-to-link")).unwrap();
        for bytes in [b"one", b"two"] {
            fill(&at("link-to-link"), bytes).unwrap();
            assert_eq!(fs::read(at("far/file")).unwrap(), bytes);
        }
        assert_eq!(names(scratch.path()), ["far", "link", "link-to-link"]);
        assert_eq!(names(&at("far")), ["file"]);
        symlink("round", at("round")).unwrap();
        fill(&at("round"), b"never").unwrap_err();
    }

    #[test]
    fn what_means_a_directory_is_no_file() {
        let scratch = tempfile::tempdir().unwrap();
        for name in ["", "new/", "new/.", "absent/new"] {
            fill(&scratch.path().join(name), b"never").unwrap_err();
        }
        assert_eq!(names(scratch.path()), [""; 0]);
    }
}
