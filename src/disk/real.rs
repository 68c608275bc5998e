//! The real file system. Its errors name the file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, FileExt, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};

use crate::layout::LOCK_FILE;
use crate::path::escape_bytes;

use super::{Disk, DiskFile, LockAttempt, LockGuard, MappedBytes, OpenMode, map, retry_interrupted};

/// A store's directory on the host's file system.
#[derive(Debug)]
pub(crate) struct RealDisk {
    root: PathBuf,
}

impl RealDisk {
    /// The directory at `root`, which is there.
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The directory at `root`; where it is missing it is made, for its owner alone, and its name made durable. The directory
    /// that it lies in must be there.
    pub(crate) fn open_or_create(root: &Path) -> io::Result<Self> {
        if !root.is_dir() {
            fs::DirBuilder::new().mode(PRIVATE).create(root)?;
            // The umask may have taken from it what its owner needs.
            fs::set_permissions(root, fs::Permissions::from_mode(PRIVATE))?;
            let parent = root.parent().filter(|parent| !parent.as_os_str().is_empty());
            sync_folder(parent.unwrap_or(Path::new(".")))?;
        }
        Ok(Self::new(root))
    }

    /// Adds to an error which file it is about.
    fn at<T>(&self, name: &str, outcome: io::Result<T>) -> io::Result<T> {
        outcome.map_err(|error| FileError::wrap(&self.path(name), error))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

/// The permissions of a new store.
const PRIVATE: u32 = 0o700;

/// What the owner of a store needs of its files and folders.
const OWN_FILE: u32 = 0o600;
const OWN_FOLDER: u32 = 0o700;

/// Gives the owner of a new file what he needs of it, if the umask has taken that.
fn own(made: &File) -> io::Result<()> {
    let mode = made.metadata()?.permissions().mode();
    if mode & OWN_FILE == OWN_FILE {
        return Ok(());
    }
    made.set_permissions(fs::Permissions::from_mode((mode | OWN_FILE) & 0o7777))
}

/// The same for a folder, which can't be opened if its owner may not read it.
fn own_folder(path: &Path) -> io::Result<()> {
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & OWN_FOLDER == OWN_FOLDER {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode((mode | OWN_FOLDER) & 0o7777))
}

/// What the operating system says of a file.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", escape_bytes(path.as_os_str().as_bytes()))]
struct FileError {
    path: PathBuf,
    error: io::Error,
}

impl FileError {
    fn wrap(path: &Path, error: io::Error) -> io::Error {
        io::Error::new(error.kind(), Self { path: path.to_owned(), error })
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = File::open(path)?;
    retry_interrupted(|| folder.sync_all())
}

impl Disk for RealDisk {
    fn make_private(&self) -> io::Result<()> {
        match fs::set_permissions(&self.root, fs::Permissions::from_mode(PRIVATE)) {
            // It is another's, who decides.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            outcome => self.at("", outcome),
        }
    }

    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(mode != OpenMode::Read).create_new(mode == OpenMode::CreateNew);
        let path = self.path(name);
        let file = self.at(name, retry_interrupted(|| options.open(&path)))?;
        if mode == OpenMode::CreateNew {
            self.at(name, own(&file))?;
        }
        Ok(Arc::new(RealFile { file, path }))
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        self.at(name, self.path(name).try_exists())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.at(from, fs::rename(self.path(from), self.path(to)))
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        self.at(from, fs::hard_link(self.path(from), self.path(to)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            outcome => self.at(name, outcome),
        }
    }

    fn clear(&self, name: &str) -> io::Result<()> {
        let path = self.path(name);
        let is_folder = path.symlink_metadata().is_ok_and(|found| found.is_dir());
        if is_folder { self.at(name, fs::remove_dir(path)) } else { self.remove(name) }
    }

    fn create_dir(&self, name: &str) -> io::Result<()> {
        match fs::create_dir(self.path(name)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            outcome => self.at(name, outcome.and_then(|()| own_folder(&self.path(name)))),
        }
    }

    fn is_open_to_others(&self) -> io::Result<bool> {
        let metadata = self.at("", fs::metadata(&self.root))?;
        Ok(metadata.permissions().mode() & 0o077 != 0)
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let entries = self.at(folder, fs::read_dir(self.path(folder)))?;
        let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
        self.at(folder, entries.map(|entry| entry.map(name)).collect())
    }

    fn sync_dir(&self, folder: &str) -> io::Result<()> {
        self.at(folder, sync_folder(&self.path(folder)))
    }

    fn try_lock(&self) -> io::Result<LockAttempt> {
        self.at(LOCK_FILE, self.try_lock_file())
    }

    fn hold(&self, name: &str) -> io::Result<Box<dyn LockGuard>> {
        let file = self.at(name, open_or_create_file(&self.path(name)))?;
        // Only a process that looks whether it is held wants it alone, and for no longer than that.
        self.at(name, retry_interrupted(|| Ok(flock(&file, FlockOperation::LockShared)?)))?;
        Ok(Box::new(SharedLock { _file: file }))
    }

    fn is_held(&self, name: &str) -> io::Result<bool> {
        let file = match File::open(self.path(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            outcome => self.at(name, outcome)?,
        };
        match retry_interrupted(|| Ok(flock(&file, FlockOperation::NonBlockingLockExclusive)?)) {
            Ok(()) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
            Err(error) => self.at(name, Err(error)),
        }
    }
}

impl RealDisk {
    fn try_lock_file(&self) -> io::Result<LockAttempt> {
        let path = self.path(LOCK_FILE);
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let (mut file, is_writable) = match opened {
            // Whoever may only read the store can hold the lock; it just can't say who it is.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
                ) =>
            {
                (File::open(&path)?, false)
            }
            other => (other?, true),
        };
        if is_writable {
            own(&file)?;
        }
        match retry_interrupted(|| Ok(flock(&file, FlockOperation::NonBlockingLockExclusive)?)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let mut text = String::new();
                // The holder may be between taking the lock and writing its id: then nobody is named.
                let _ = file.read_to_string(&mut text);
                return Ok(LockAttempt::Busy(text.trim().parse().ok()));
            }
            Err(error) => return Err(error),
        }
        if file.metadata()?.nlink() == 0 {
            // It was removed with the store that it was of, between the two calls.
            return Ok(LockAttempt::Busy(None));
        }
        // Only for whoever waits to read: on a full disk the lock holds all the same.
        if is_writable && file.set_len(0).and_then(|()| file.rewind()).is_ok() {
            let _ = writeln!(file, "{}", std::process::id());
        }
        Ok(LockAttempt::Held(Box::new(FileLock { file })))
    }
}

fn open_or_create_file(path: &Path) -> io::Result<File> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
            own(&file).map(|()| file)
        }
        other => other,
    }
}

/// An advisory lock that others may have too; it ends when the file is closed.
#[derive(Debug)]
struct SharedLock {
    _file: File,
}

impl LockGuard for SharedLock {}

/// An advisory lock on the lock file, which holds the owner's process id as text.
#[derive(Debug)]
struct FileLock {
    file: File,
}

impl LockGuard for FileLock {}

impl Drop for FileLock {
    fn drop(&mut self) {
        // The next holder writes its own id; an error leaves an old one that only a message would show.
        let _ = self.file.set_len(0);
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

#[derive(Debug)]
struct RealFile {
    file: File,
    path: PathBuf,
}

impl RealFile {
    fn at<T>(&self, outcome: io::Result<T>) -> io::Result<T> {
        outcome.map_err(|error| FileError::wrap(&self.path, error))
    }
}

impl DiskFile for RealFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.at(self.file.read_exact_at(buf, offset))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.at(self.file.write_all_at(bytes, offset))
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let flags = rustix::fs::FallocateFlags::empty();
        self.at(retry_interrupted(|| Ok(rustix::fs::fallocate(&self.file, flags, 0, bytes)?)))
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.at(retry_interrupted(|| self.file.set_len(bytes)))
    }

    fn len(&self) -> io::Result<u64> {
        self.at(self.file.metadata().map(|metadata| metadata.len()))
    }

    fn sync(&self) -> io::Result<()> {
        self.at(retry_interrupted(|| self.file.sync_data()))
    }

    fn map(&self) -> io::Result<MappedBytes> {
        self.at(map::map(&self.file))
    }
}
