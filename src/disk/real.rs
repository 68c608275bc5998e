//! The real file system.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};

use super::{
    Disk, DiskFile, LOCK_FILE, LockAttempt, LockGuard, MappedBytes, OpenMode, map, retry_interrupted,
};

/// A store's directory on the host's file system.
#[derive(Debug)]
pub(crate) struct RealDisk {
    root: PathBuf,
}

impl RealDisk {
    /// The directory at `root`; it is made if it is missing, and then its name is made durable too.
    pub(crate) fn open_or_create(root: &Path) -> io::Result<Self> {
        if !root.is_dir() {
            fs::create_dir_all(root)?;
            let parent = root.parent().filter(|parent| !parent.as_os_str().is_empty());
            sync_folder(parent.unwrap_or(Path::new(".")))?;
        }
        Ok(Self { root: root.to_owned() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = File::open(path)?;
    retry_interrupted(|| folder.sync_all())
}

impl Disk for RealDisk {
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(mode != OpenMode::Read).create_new(mode == OpenMode::CreateNew);
        Ok(Arc::new(RealFile(retry_interrupted(|| options.open(self.path(name)))?)))
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        self.path(name).try_exists()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        fs::hard_link(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn create_dir(&self, name: &str) -> io::Result<()> {
        match fs::create_dir(self.path(name)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        fs::read_dir(self.path(folder))?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    fn sync_dir(&self, folder: &str) -> io::Result<()> {
        sync_folder(&self.path(folder))
    }

    fn try_lock(&self) -> io::Result<LockAttempt> {
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
        // Only for whoever waits to read: on a full disk the lock holds all the same.
        if is_writable && file.set_len(0).and_then(|()| file.rewind()).is_ok() {
            let _ = writeln!(file, "{}", std::process::id());
        }
        Ok(LockAttempt::Held(Box::new(FileLock { file })))
    }

    fn hold(&self, name: &str) -> io::Result<Box<dyn LockGuard>> {
        let path = self.path(name);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                OpenOptions::new().read(true).append(true).create(true).open(&path)?
            }
            other => other?,
        };
        // Only whoever looks whether it is held wants it alone, and for no longer than that.
        retry_interrupted(|| Ok(flock(&file, FlockOperation::LockShared)?))?;
        Ok(Box::new(SharedLock { _file: file }))
    }

    fn is_held(&self, name: &str) -> io::Result<bool> {
        let file = match File::open(self.path(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other?,
        };
        match retry_interrupted(|| Ok(flock(&file, FlockOperation::NonBlockingLockExclusive)?)) {
            Ok(()) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
            Err(error) => Err(error),
        }
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
struct RealFile(File);

impl DiskFile for RealFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        retry_interrupted(|| {
            Ok(rustix::fs::fallocate(&self.0, rustix::fs::FallocateFlags::empty(), 0, bytes)?)
        })
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        retry_interrupted(|| self.0.set_len(bytes))
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn sync(&self) -> io::Result<()> {
        retry_interrupted(|| self.0.sync_data())
    }

    fn map(&self) -> io::Result<MappedBytes> {
        map::map(&self.0)
    }
}
