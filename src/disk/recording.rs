//! A disk that records, in order, what is done to another: for tests that count or order operations.

use std::io;
use std::sync::{Arc, Mutex};

use super::{Disk, DiskFile, LockAttempt, LockGuard, MappedBytes, OpenMode};
use crate::sync::lock;

/// One operation that changes files or makes changes durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskOperation {
    /// A file was made.
    Create {
        /// Its name.
        name: String,
    },
    /// Bytes were written.
    Write {
        /// The file.
        name: String,
        /// Where.
        offset: u64,
        /// How many.
        bytes: u64,
    },
    /// A file was cut or extended.
    SetLen {
        /// The file.
        name: String,
        /// Its new length.
        bytes: u64,
    },
    /// A file's bytes were made durable.
    Sync {
        /// The file.
        name: String,
    },
    /// A file got another name.
    Rename {
        /// The old name.
        from: String,
        /// The new name.
        to: String,
    },
    /// A file got a further name.
    Link {
        /// The name that it had.
        from: String,
        /// The further one.
        to: String,
    },
    /// A file was removed.
    Remove {
        /// Its name.
        name: String,
    },
    /// A folder's names were made durable.
    SyncDir {
        /// The folder.
        folder: String,
    },
}

/// Bytes that were read of a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DiskRead {
    /// The file.
    pub name: String,
    /// Where.
    pub offset: u64,
    /// How many.
    pub bytes: u64,
}

/// What was recorded so far; clones share it.
#[derive(Clone, Debug, Default)]
pub struct DiskLog {
    operations: Arc<Mutex<Vec<DiskOperation>>>,
    reads: Arc<Mutex<Vec<DiskRead>>>,
}

impl DiskLog {
    /// Takes the operations recorded since the last call.
    #[must_use]
    pub fn take(&self) -> Vec<DiskOperation> {
        std::mem::take(&mut *lock(&self.operations))
    }

    /// Takes the reads recorded since the last call.
    #[must_use]
    pub fn take_reads(&self) -> Vec<DiskRead> {
        std::mem::take(&mut *lock(&self.reads))
    }

    fn push(&self, operation: DiskOperation) {
        lock(&self.operations).push(operation);
    }
}

/// Passes everything on to another disk and records it once it succeeded.
#[derive(Debug)]
pub(crate) struct RecordingDisk {
    inner: Arc<dyn Disk>,
    log: DiskLog,
}

impl RecordingDisk {
    pub(crate) fn new(inner: Arc<dyn Disk>, log: DiskLog) -> Self {
        Self { inner, log }
    }
}

impl Disk for RecordingDisk {
    fn make_private(&self) -> io::Result<()> {
        self.inner.make_private()
    }

    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let inner = self.inner.open(name, mode)?;
        if mode == OpenMode::CreateNew {
            self.log.push(DiskOperation::Create { name: name.to_owned() });
        }
        Ok(Arc::new(RecordingFile { inner, name: name.to_owned(), log: self.log.clone() }))
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        self.inner.exists(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to)?;
        self.log.push(DiskOperation::Rename { from: from.to_owned(), to: to.to_owned() });
        Ok(())
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.link(from, to)?;
        self.log.push(DiskOperation::Link { from: from.to_owned(), to: to.to_owned() });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)?;
        self.log.push(DiskOperation::Remove { name: name.to_owned() });
        Ok(())
    }

    fn is_open_to_others(&self) -> io::Result<bool> {
        self.inner.is_open_to_others()
    }

    fn clear(&self, name: &str) -> io::Result<()> {
        self.inner.clear(name)
    }

    fn create_dir(&self, name: &str) -> io::Result<()> {
        self.inner.create_dir(name)
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        self.inner.list(folder)
    }

    fn sync_dir(&self, folder: &str) -> io::Result<()> {
        self.inner.sync_dir(folder)?;
        self.log.push(DiskOperation::SyncDir { folder: folder.to_owned() });
        Ok(())
    }

    fn try_lock(&self) -> io::Result<LockAttempt> {
        self.inner.try_lock()
    }

    fn hold(&self, name: &str) -> io::Result<Box<dyn LockGuard>> {
        self.inner.hold(name)
    }

    fn is_held(&self, name: &str) -> io::Result<bool> {
        self.inner.is_held(name)
    }
}

#[derive(Debug)]
struct RecordingFile {
    inner: Arc<dyn DiskFile>,
    name: String,
    log: DiskLog,
}

impl DiskFile for RecordingFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.inner.read_at(buf, offset)?;
        let read = DiskRead { name: self.name.clone(), offset, bytes: buf.len() as u64 };
        lock(&self.log.reads).push(read);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.inner.write_at(bytes, offset)?;
        self.log.push(DiskOperation::Write { name: self.name.clone(), offset, bytes: bytes.len() as u64 });
        Ok(())
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.inner.allocate(bytes)?;
        self.log.push(DiskOperation::SetLen { name: self.name.clone(), bytes });
        Ok(())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.inner.set_len(bytes)?;
        self.log.push(DiskOperation::SetLen { name: self.name.clone(), bytes });
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn sync(&self) -> io::Result<()> {
        self.inner.sync()?;
        self.log.push(DiskOperation::Sync { name: self.name.clone() });
        Ok(())
    }

    fn map(&self) -> io::Result<MappedBytes> {
        self.inner.map()
    }
}
