//! Every byte of the store's own files goes through here.
//!
//! A [`Disk`] is one store's directory: flat names such as `packs/0000000001.pack`, never a path of the host.
//! There is a real one, one in memory, and (for tests) one that records what is done to another, in order, and one that
//! fails and loses power.
//! `EINTR` is retried here and nowhere else. What a power cut leaves is defined by two verbs only: a file's
//! bytes are durable after [`DiskFile::sync`], its name after [`Disk::sync_dir`].

mod map;
mod memory;
mod real;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod recording;
#[cfg(feature = "testing")]
pub(crate) mod simulated;
mod unsynced;

use std::fmt::Debug;
use std::io;
use std::ops::Deref;
use std::sync::Arc;

pub(crate) use memory::MemoryDisk;
pub(crate) use real::RealDisk;
pub(crate) use unsynced::UnsyncedDisk;

/// How [`Disk::open`] opens a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OpenMode {
    /// It must exist; only read.
    Read,
    /// It must exist; read and written.
    Write,
    /// It must not exist; read and written.
    CreateNew,
}

/// The directory of one store.
pub(crate) trait Disk: Debug + Send + Sync {
    /// Keeps all but the owner out of the directory, where this process may.
    fn make_private(&self) -> io::Result<()> {
        Ok(())
    }
    /// Opens a file.
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    /// Whether a file or folder of this name exists.
    fn exists(&self, name: &str) -> io::Result<bool>;
    /// Gives a file another name, replacing a file that has it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Gives a file a further name, which must be free. Not every file system can: the error is then one for which
    /// [`cannot_link`] holds.
    fn link(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file; one that is not there is no error.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Removes a file or an empty folder in the store's directory, where they would be seen by others: a disk that nobody else
    /// looks at keeps them. One that is not there is no error.
    fn clear(&self, _name: &str) -> io::Result<()> {
        Ok(())
    }
    /// Makes a folder; one that is there is no error.
    fn create_dir(&self, name: &str) -> io::Result<()>;
    /// Whether others than its owner have any permission on the store's directory.
    fn is_open_to_others(&self) -> io::Result<bool> {
        Ok(false)
    }
    /// The names of the files in a folder, in no order.
    fn list(&self, folder: &str) -> io::Result<Vec<String>>;
    /// Makes the names in a folder durable; `""` is the store's own directory.
    fn sync_dir(&self, folder: &str) -> io::Result<()>;
    /// Takes the store's lock if nobody has it; the lock lasts as long as the guard.
    fn try_lock(&self) -> io::Result<LockAttempt>;
    /// Generations a file, which is made if it is missing, until the guard is dropped. Any number of holders may, in any process;
    /// what a process holds ends with it.
    fn hold(&self, name: &str) -> io::Result<Box<dyn LockGuard>>;
    /// Whether anybody holds a file.
    fn is_held(&self, name: &str) -> io::Result<bool>;
}

/// What [`Disk::try_lock`] came back with.
#[derive(Debug)]
pub(crate) enum LockAttempt {
    /// The lock is held until this is dropped.
    Held(Box<dyn LockGuard>),
    /// Another has it: the process with this id, where it is known.
    Busy(Option<u32>),
}

/// Generations the store's lock, or a file, until it is dropped.
pub(crate) trait LockGuard: Debug + Send + Sync {}

/// An open file of the store.
pub(crate) trait DiskFile: Debug + Send + Sync {
    /// Reads exactly `buf.len()` bytes at `offset`; a file that ends before is `UnexpectedEof`.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Extends the file and takes the room for it now.
    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }
    /// Cuts or extends (with zeros) the file.
    fn set_len(&self, bytes: u64) -> io::Result<()>;
    /// Bytes in the file.
    fn len(&self) -> io::Result<u64>;
    /// Makes the file's bytes and length durable. After a failure nothing is known of what was not synced
    /// before: it must not be tried again.
    fn sync(&self) -> io::Result<()>;
    /// The file's bytes as they are now. Only for files that are never written again.
    fn map(&self) -> io::Result<MappedBytes>;
}

/// A file's bytes, mapped or copied.
pub(crate) type MappedBytes = Arc<dyn Deref<Target = [u8]> + Send + Sync>;

/// Whether [`Disk::link`] failed because this file can't have a further name here, though it could be copied.
pub(crate) fn cannot_link(error: &io::Error) -> bool {
    use io::ErrorKind::{CrossesDevices, PermissionDenied, TooManyLinks, Unsupported};
    matches!(error.kind(), CrossesDevices | PermissionDenied | TooManyLinks | Unsupported)
}

/// Runs `operation` again for as long as a signal interrupts it.
fn retry_interrupted<T>(mut operation: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match operation() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests;
