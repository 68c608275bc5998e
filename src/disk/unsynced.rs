//! A disk that makes nothing durable: for stores that a power cut may take.

use std::io;
use std::sync::Arc;

use super::{Disk, DiskFile, LockAttempt, LockGuard, MappedBytes, OpenMode};

/// Another disk without its syncs.
#[derive(Debug)]
pub(crate) struct UnsyncedDisk(pub(crate) Arc<dyn Disk>);

#[derive(Debug)]
struct UnsyncedFile(Arc<dyn DiskFile>);

impl Disk for UnsyncedDisk {
    fn make_private(&self) -> io::Result<()> {
        self.0.make_private()
    }

    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(UnsyncedFile(self.0.open(name, mode)?)))
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        self.0.exists(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.link(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }

    fn is_open_to_others(&self) -> io::Result<bool> {
        self.0.is_open_to_others()
    }

    fn clear(&self, name: &str) -> io::Result<()> {
        self.0.clear(name)
    }

    fn create_dir(&self, name: &str) -> io::Result<()> {
        self.0.create_dir(name)
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        self.0.list(folder)
    }

    fn sync_dir(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn try_lock(&self) -> io::Result<LockAttempt> {
        self.0.try_lock()
    }

    fn hold(&self, name: &str) -> io::Result<Box<dyn LockGuard>> {
        self.0.hold(name)
    }

    fn is_held(&self, name: &str) -> io::Result<bool> {
        self.0.is_held(name)
    }
}

impl DiskFile for UnsyncedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_at(buf, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(bytes, offset)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.0.allocate(bytes)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn map(&self) -> io::Result<MappedBytes> {
        self.0.map()
    }
}
