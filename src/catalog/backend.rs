//! redb's storage on the disk seam.
//!
//! redb marks its file as open before it is asked anything, and as closed at the end, after saving once more what every
//! one of our transactions saved: six syncs around the two of a transaction, and five for whoever only reads. So:
//!
//! - What redb does to the file before the first transaction that writes is put off, and then done in the order in which
//!   it was asked for ([`CatalogFile::begin_writing`]). A catalog that is only read is never written, and whoever may
//!   only read it can.
//! - What redb does when it closes is never done ([`CatalogFile::end`]): the file stays as after a kill behind the last
//!   commit. Opening such a file is cheap, because every commit saves the allocator's state.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use redb::StorageBackend;

use crate::disk::DiskFile;
use crate::sync::lock;

const PAGE_BYTES: u64 = 1 << 12;

/// The catalog's file as redb wants it; clones are the same file.
#[derive(Clone, Debug)]
pub(super) struct CatalogFile {
    file: Arc<dyn DiskFile>,
    stage: Arc<Mutex<Stage>>,
    failures: Arc<Failures>,
}

/// What becomes of what redb asks for.
#[derive(Debug)]
enum Stage {
    /// It is put off.
    Deferring(Deferred),
    /// It is done.
    Writing,
    /// It fails.
    Ended,
}

/// What has failed, after which redb does nothing more with the file.
#[derive(Debug, Default)]
struct Failures {
    call: AtomicBool,
    sync: AtomicBool,
}

impl Failures {
    fn of_call<T>(&self, outcome: io::Result<T>) -> io::Result<T> {
        outcome.inspect_err(|_| self.call.store(true, Ordering::SeqCst))
    }

    fn of_sync<T>(&self, outcome: io::Result<T>) -> io::Result<T> {
        outcome.inspect_err(|_| self.sync.store(true, Ordering::SeqCst))
    }
}

/// What was asked for and not done.
#[derive(Debug)]
struct Deferred {
    operations: Vec<Operation>,
    /// The length that redb sees.
    len: u64,
    /// From here on nothing of the file is seen: it was cut.
    seen_bytes: u64,
    /// The pages that were written, by number.
    pages: BTreeMap<u64, Vec<u8>>,
}

#[derive(Debug)]
enum Operation {
    Write(u64, Vec<u8>),
    SetLen(u64),
    Sync,
}

impl CatalogFile {
    pub(super) fn new(file: Arc<dyn DiskFile>) -> io::Result<Self> {
        let deferred = Deferred::new(&*file)?;
        let stage = Arc::new(Mutex::new(Stage::Deferring(deferred)));
        Ok(Self { file, stage, failures: Arc::default() })
    }

    /// The file itself, as it is on the disk.
    pub(super) fn file(&self) -> Arc<dyn DiskFile> {
        Arc::clone(&self.file)
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        lock(&self.stage)
    }

    /// Whether any call failed, after which redb does nothing more with the file: opened anew, it is as after a kill at that
    /// moment.
    pub(super) fn has_failed(&self) -> bool {
        self.failures.call.load(Ordering::SeqCst) || self.has_lost()
    }

    /// Whether a sync failed: then nothing is known of what was written before it, though it may read as if all were well.
    pub(super) fn has_lost(&self) -> bool {
        self.failures.sync.load(Ordering::SeqCst)
    }

    /// Does what was put off, and from now on everything at once. After an error the file is as after a crash in
    /// between, and must not be written any more.
    pub(super) fn begin_writing(&self) -> io::Result<()> {
        let mut stage = self.stage();
        let Stage::Deferring(deferred) = &*stage else { return Ok(()) };
        if deferred.changes_nothing(&*self.file)? {
            // The file that a kill left may hold a header that is not durable yet, which makes pages free that the
            // durable one needs. redb would have synced it; so it must be before those pages are written.
            self.failures.of_sync(self.file.sync())?;
        } else {
            for operation in &deferred.operations {
                match operation {
                    Operation::Write(offset, bytes) => {
                        self.failures.of_call(self.file.write_at(bytes, *offset))?;
                    }
                    Operation::SetLen(len) => self.failures.of_call(self.file.set_len(*len))?,
                    Operation::Sync => self.failures.of_sync(self.file.sync())?,
                }
            }
        }
        *stage = Stage::Writing;
        Ok(())
    }

    /// Does nothing from now on, for good: each call fails. No transaction may be under way.
    pub(super) fn end(&self) {
        *self.stage() = Stage::Ended;
    }
}

/// Each page that the bytes touch, with what they touch of it and of themselves.
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, Range<usize>, Range<usize>)> {
    let end = offset.saturating_add(len as u64);
    let local = |position: u64| usize::try_from(position).unwrap_or(usize::MAX);
    (offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES)).map(move |page| {
        let start = page * PAGE_BYTES;
        let touched = offset.max(start)..end.min(start + PAGE_BYTES);
        let of_page = local(touched.start - start)..local(touched.end - start);
        (page, of_page, local(touched.start - offset)..local(touched.end - offset))
    })
}

/// What is still seen of the file itself, and zeros.
fn read_seen(file: &dyn DiskFile, seen_bytes: u64, offset: u64, out: &mut [u8]) -> io::Result<()> {
    let seen = usize::try_from(seen_bytes.saturating_sub(offset)).unwrap_or(usize::MAX).min(out.len());
    let (seen, beyond) = out.split_at_mut(seen);
    beyond.fill(0);
    if seen.is_empty() { Ok(()) } else { file.read_at(seen, offset) }
}

impl Deferred {
    fn new(file: &dyn DiskFile) -> io::Result<Self> {
        let len = file.len()?;
        Ok(Self { operations: Vec::new(), len, seen_bytes: len, pages: BTreeMap::new() })
    }

    /// Whether all of it together leaves the file as it is: what was marked as open is marked as closed and as open.
    fn changes_nothing(&self, file: &dyn DiskFile) -> io::Result<bool> {
        if self.operations.iter().any(|operation| matches!(operation, Operation::SetLen(_))) {
            return Ok(false);
        }
        for (page, bytes) in &self.pages {
            let mut found = vec![0; bytes.len()];
            read_seen(file, self.seen_bytes, page * PAGE_BYTES, &mut found)?;
            if found != *bytes {
                return Ok(false);
            }
        }
        Ok(self.len == self.seen_bytes)
    }

    fn read(&self, file: &dyn DiskFile, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (page, of_page, of_out) in parts(offset, out.len()) {
            let out = out.get_mut(of_out).unwrap_or_default();
            match self.pages.get(&page) {
                Some(bytes) => out.copy_from_slice(bytes.get(of_page).unwrap_or_default()),
                None => read_seen(file, self.seen_bytes, page * PAGE_BYTES + of_page.start as u64, out)?,
            }
        }
        Ok(())
    }

    fn write(&mut self, file: &dyn DiskFile, offset: u64, bytes: &[u8]) -> io::Result<()> {
        for (page, of_page, of_bytes) in parts(offset, bytes.len()) {
            let whole = match self.pages.entry(page) {
                Entry::Occupied(written) => written.into_mut(),
                Entry::Vacant(unwritten) => {
                    let mut whole = vec![0; 1 << 12];
                    read_seen(file, self.seen_bytes, page * PAGE_BYTES, &mut whole)?;
                    unwritten.insert(whole)
                }
            };
            if let (Some(target), Some(bytes)) = (whole.get_mut(of_page), bytes.get(of_bytes)) {
                target.copy_from_slice(bytes);
            }
        }
        self.len = self.len.max(offset.saturating_add(bytes.len() as u64));
        self.operations.push(Operation::Write(offset, bytes.to_vec()));
        Ok(())
    }

    fn set_len(&mut self, len: u64) {
        self.seen_bytes = self.seen_bytes.min(len);
        self.pages.split_off(&len.div_ceil(PAGE_BYTES));
        if let Some(last) = self.pages.get_mut(&(len / PAGE_BYTES)) {
            let kept = usize::try_from(len % PAGE_BYTES).unwrap_or(0);
            last.get_mut(kept..).unwrap_or_default().fill(0);
        }
        self.len = len;
        self.operations.push(Operation::SetLen(len));
    }
}

fn ended<T>() -> io::Result<T> {
    Err(io::Error::other("the catalog is closed"))
}

impl StorageBackend for CatalogFile {
    fn len(&self) -> io::Result<u64> {
        match &*self.stage() {
            Stage::Deferring(deferred) => Ok(deferred.len),
            Stage::Writing => self.failures.of_call(self.file.len()),
            Stage::Ended => ended(),
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        match &*self.stage() {
            Stage::Deferring(deferred) => self.failures.of_call(deferred.read(&*self.file, offset, out)),
            Stage::Writing => self.failures.of_call(self.file.read_at(out, offset)),
            Stage::Ended => ended(),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        match &mut *self.stage() {
            Stage::Deferring(deferred) => {
                deferred.set_len(len);
                Ok(())
            }
            Stage::Writing => self.failures.of_call(self.file.set_len(len)),
            Stage::Ended => ended(),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        match &mut *self.stage() {
            Stage::Deferring(deferred) => {
                deferred.operations.push(Operation::Sync);
                Ok(())
            }
            Stage::Writing => self.failures.of_sync(self.file.sync()),
            Stage::Ended => ended(),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        match &mut *self.stage() {
            Stage::Deferring(deferred) => deferred.write(&*self.file, offset, data),
            Stage::Writing => self.failures.of_call(self.file.write_at(data, offset)),
            Stage::Ended => ended(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::disk::{Disk, MemoryDisk, OpenMode};

    const BYTES_MAX: u64 = 5 * PAGE_BYTES;

    #[derive(Clone, Debug)]
    enum Step {
        Write(u64, Vec<u8>),
        SetLen(u64),
        BeginWriting,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let write = (0..BYTES_MAX, 0..2 * PAGE_BYTES, any::<u8>())
            .prop_map(|(offset, len, byte)| Step::Write(offset, vec![byte; len as usize]));
        let step = prop_oneof![6 => write, 2 => (0..BYTES_MAX).prop_map(Step::SetLen), 1 => Just(Step::BeginWriting)];
        prop::collection::vec(step, 0..20)
    }

    fn whole(file: &impl StorageBackend) -> Vec<u8> {
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read(0, &mut bytes).unwrap();
        bytes
    }

    proptest! {
        /// What redb sees never depends on when the file is really written, and it is not written before.
        #[test]
        fn reads_what_was_written_whenever_it_reaches_the_file(before in 0..BYTES_MAX, steps in steps()) {
            let disk = MemoryDisk::default();
            let [real, model] = ["real", "model"].map(|name| disk.open(name, OpenMode::CreateNew).unwrap());
            for file in [&real, &model] {
                file.write_at(&vec![7; before as usize], 0).unwrap();
            }
            let catalog = CatalogFile::new(Arc::clone(&real)).unwrap();
            let mut is_deferred = true;
            for step in steps {
                match step {
                    Step::Write(offset, bytes) => {
                        catalog.write(offset, &bytes).unwrap();
                        model.write_at(&bytes, offset).unwrap();
                    }
                    Step::SetLen(len) => {
                        catalog.set_len(len).unwrap();
                        model.set_len(len).unwrap();
                    }
                    Step::BeginWriting => {
                        catalog.begin_writing().unwrap();
                        is_deferred = false;
                    }
                }
                let mut expected = vec![0; model.len().unwrap() as usize];
                model.read_at(&mut expected, 0).unwrap();
                prop_assert_eq!(&whole(&catalog), &expected);
                prop_assert!(catalog.read(expected.len() as u64, &mut [0]).is_err());
                if is_deferred {
                    let mut untouched = vec![0; before as usize];
                    prop_assert_eq!(real.len().unwrap(), before);
                    real.read_at(&mut untouched, 0).unwrap();
                    prop_assert!(untouched.iter().all(|byte| *byte == 7));
                }
            }
            catalog.begin_writing().unwrap();
            prop_assert_eq!(real.len().unwrap(), model.len().unwrap());
        }
    }
}
