//! A store's directory in memory: for `Store::in_memory` and for tests.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::{Disk, DiskFile, LockAttempt, LockGuard, MappedBytes, OpenMode};
use crate::sync::lock;

/// Files by name. Folders are only prefixes of names.
#[derive(Debug, Default)]
pub(crate) struct MemoryDisk {
    files: Mutex<BTreeMap<String, Arc<MemoryFile>>>,
    locked: Arc<AtomicBool>,
    held: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl MemoryDisk {
    fn files(&self) -> MutexGuard<'_, BTreeMap<String, Arc<MemoryFile>>> {
        lock(&self.files)
    }
}

impl Disk for MemoryDisk {
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut files = self.files();
        match (files.get(name), mode) {
            (Some(_), OpenMode::CreateNew) => Err(io::ErrorKind::AlreadyExists.into()),
            (Some(file), _) => Ok(Arc::clone(file) as _),
            (None, OpenMode::CreateNew) => {
                let file = Arc::<MemoryFile>::default();
                files.insert(name.to_owned(), Arc::clone(&file));
                Ok(file)
            }
            (None, _) => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        Ok(self.files().contains_key(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.files();
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.files();
        let file = files.get(from).map(Arc::clone).ok_or(io::ErrorKind::NotFound)?;
        if files.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files().remove(name);
        Ok(())
    }

    fn create_dir(&self, _name: &str) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let prefix = format!("{folder}/");
        Ok(self.files().keys().filter_map(|name| name.strip_prefix(&prefix)).map(str::to_owned).collect())
    }

    fn sync_dir(&self, _folder: &str) -> io::Result<()> {
        Ok(())
    }

    fn try_lock(&self) -> io::Result<LockAttempt> {
        if self.locked.swap(true, Ordering::Acquire) {
            return Ok(LockAttempt::Busy(Some(std::process::id())));
        }
        Ok(LockAttempt::Held(Box::new(MemoryLock(Arc::clone(&self.locked)))))
    }

    fn hold(&self, name: &str) -> io::Result<Box<dyn LockGuard>> {
        self.files().entry(name.to_owned()).or_default();
        let held = Arc::clone(&self.held);
        *lock(&held).entry(name.to_owned()).or_default() += 1;
        Ok(Box::new(MemoryHold { name: name.to_owned(), held }))
    }

    fn is_held(&self, name: &str) -> io::Result<bool> {
        let held = lock(&self.held);
        Ok(held.get(name).is_some_and(|holders| *holders > 0))
    }
}

#[derive(Debug)]
struct MemoryHold {
    name: String,
    held: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl LockGuard for MemoryHold {}

impl Drop for MemoryHold {
    fn drop(&mut self) {
        let mut held = lock(&self.held);
        if let Some(holders) = held.get_mut(&self.name) {
            *holders -= 1;
        }
    }
}

#[derive(Debug)]
struct MemoryLock(Arc<AtomicBool>);

impl LockGuard for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

#[derive(Debug, Default)]
struct MemoryFile(RwLock<Vec<u8>>);

/// Where `len` bytes at `offset` lie in memory.
fn span(offset: u64, len: usize) -> io::Result<std::ops::Range<usize>> {
    let start = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let end = start.checked_add(len).ok_or(io::ErrorKind::FileTooLarge)?;
    Ok(start..end)
}

impl DiskFile for MemoryFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let bytes = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let found = bytes.get(span(offset, buf.len())?).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(found);
        Ok(())
    }

    fn write_at(&self, new: &[u8], offset: u64) -> io::Result<()> {
        let mut bytes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let span = span(offset, new.len())?;
        if bytes.len() < span.end {
            bytes.resize(span.end, 0);
        }
        if let Some(target) = bytes.get_mut(span) {
            target.copy_from_slice(new);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = span(len, 0)?.start;
        self.0.write().unwrap_or_else(PoisonError::into_inner).resize(len, 0);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.read().unwrap_or_else(PoisonError::into_inner).len() as u64)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn map(&self) -> io::Result<MappedBytes> {
        Ok(Arc::new(self.0.read().unwrap_or_else(PoisonError::into_inner).clone()))
    }
}
