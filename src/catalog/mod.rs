//! The catalog: the transactional key-value database that alone decides what exists.
//!
//! This module alone knows redb. Everything else sees typed tables, ordered by their encoded keys, through
//! closures: [`Catalog::read`] runs on one consistent snapshot, [`Catalog::write`] in one durable transaction
//! that is published whole or not at all. A closure may be run again, so it has no effect but through its
//! transaction. Every value carries a check over its table, key and bytes, because redb does not verify what it
//! reads.

mod backend;
mod contain;
pub(crate) mod record;
#[cfg(feature = "testing")]
mod rerun;
pub(crate) mod table;
mod transaction;

use std::io::ErrorKind::{NotFound, PermissionDenied, ReadOnlyFilesystem};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use redb::{Database, Durability, ReadableDatabase};

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{Error, ErrorKind, Result, Subject};
use crate::layout::{CATALOG_FILE, NEW_CATALOG_FILE};
use crate::sync::lock;

use backend::CatalogFile;
use contain::contain;
pub use contain::is_panic_contained;
pub(crate) use transaction::{Direction, ReadTables, ReadTx, WriteTx, decode_row};

/// redb's page cache. What a call touches is small; the operating system caches the rest.
const CACHE_BYTES: usize = 32 << 20;

/// Set once a sync failed: what is on the disk is unknown, so nothing more is written until the store is reopened.
#[derive(Clone, Debug, Default)]
pub(crate) struct Poison(Arc<AtomicBool>);

impl Poison {
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.0.load(Ordering::SeqCst) {
            let message = "an earlier write failed, so what is on the disk is unknown; reopen the store";
            return Err(Error::new(ErrorKind::Poisoned, Subject::Catalog, message));
        }
        Ok(())
    }
}

/// An open catalog. Whoever opens it holds the store's lock.
pub(crate) struct Catalog {
    /// None only while this is dropped.
    database: Option<Database>,
    file: CatalogFile,
    poison: Poison,
    /// Why it may only be read, if so.
    refusal: Option<Error>,
    /// Held by the one who writes the dump.
    dump_turn: Mutex<()>,
    #[cfg(feature = "testing")]
    reruns: rerun::Reruns,
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalog").field("poison", &self.poison).finish_non_exhaustive()
    }
}

impl Catalog {
    /// Opens the catalog of a store that was made. One that is missing was lost, and a new one would not know what
    /// the packs hold.
    pub(crate) fn open(disk: &dyn Disk, poison: Poison) -> Result<Self> {
        let io = |action| {
            move |error: std::io::Error| match error.kind() {
                NotFound => {
                    let message = format!("its file {CATALOG_FILE} is missing; repair the store");
                    Error::corrupt(Subject::Catalog, message)
                }
                _ => Error::io(Subject::Catalog, action, error),
            }
        };
        let (file, refusal) = match disk.open(CATALOG_FILE, OpenMode::Write) {
            Err(error) if matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem) => {
                let refusal = Error::io(Subject::Catalog, "open it for writing", error);
                (disk.open(CATALOG_FILE, OpenMode::Read), Some(refusal))
            }
            other => (other, None),
        };
        Self::over_existing(file.map_err(io("open it"))?, poison, refusal)
    }

    /// Opens the catalog to read what is there, after a sync failed.
    pub(crate) fn open_for_reading(disk: &dyn Disk, poison: Poison) -> Result<Self> {
        let file = disk.open(CATALOG_FILE, OpenMode::Read);
        let file = file.map_err(|error| Error::io(Subject::Catalog, "open it", error))?;
        let refusal = poison.check().err();
        Self::over_existing(file, poison, refusal)
    }

    fn over_existing(file: Arc<dyn DiskFile>, poison: Poison, refusal: Option<Error>) -> Result<Self> {
        let io = |action| move |error| Error::io(Subject::Catalog, action, error);
        if file.len().map_err(io("measure it"))? == 0 {
            // redb would take it for a new one.
            return Err(Error::corrupt(Subject::Catalog, "it is empty"));
        }
        Self::over(file, poison, refusal)
    }

    fn over(file: Arc<dyn DiskFile>, poison: Poison, refusal: Option<Error>) -> Result<Self> {
        let file =
            CatalogFile::new(file).map_err(|error| Error::io(Subject::Catalog, "measure it", error))?;
        let backend = file.clone();
        let database =
            contain(|| Self::builder().create_with_backend(backend).map_err(transaction::failure))?;
        Ok(Self {
            database: Some(database),
            file,
            poison,
            refusal,
            dump_turn: Mutex::default(),
            #[cfg(feature = "testing")]
            reruns: rerun::Reruns::default(),
        })
    }

    /// Makes the catalog of a new store, unless a creation that was killed got as far.
    pub(crate) fn create(disk: &dyn Disk) -> Result<()> {
        let look_for = |error| Error::io(Subject::Catalog, "look for it", error);
        if disk.exists(CATALOG_FILE).map_err(look_for)? {
            return Ok(());
        }
        Self::build(disk, |_| Ok(()))?;
        Self::publish_built(disk)
    }

    /// Makes a catalog with what `fill` puts into it, durable under another name: redb's own creation can't survive a power
    /// cut, so a catalog appears by a rename, complete.
    pub(crate) fn build(disk: &dyn Disk, fill: impl Fn(&mut WriteTx) -> Result<()>) -> Result<()> {
        let io = |action| move |error| Error::io(Subject::Catalog, action, error);
        disk.remove(NEW_CATALOG_FILE).map_err(io("remove an unfinished one"))?;
        let file = disk.open(NEW_CATALOG_FILE, OpenMode::CreateNew).map_err(io("create it"))?;
        let new = Self::over(Arc::clone(&file), Poison::default(), None)?;
        new.write(|tx| {
            tx.create_tables()?;
            tx.reserve_room()?;
            fill(tx)
        })?;
        drop(new);
        file.sync().map_err(io("sync it"))
    }

    /// Makes the catalog that was built the store's, in place of one that is there.
    pub(crate) fn publish_built(disk: &dyn Disk) -> Result<()> {
        let io = |action| move |error| Error::io(Subject::Catalog, action, error);
        disk.rename(NEW_CATALOG_FILE, CATALOG_FILE).map_err(io("rename it"))?;
        disk.sync_dir("").map_err(io("sync the store's directory"))
    }

    fn builder() -> redb::Builder {
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES);
        builder
    }

    fn database(&self) -> Result<&Database> {
        self.database.as_ref().ok_or_else(|| Error::invalid(Subject::Catalog, "is closed"))
    }

    /// The turn to write the dump, which one has at a time: only one process has the catalog open, but its threads share it.
    pub(crate) fn take_dump_turn(&self) -> MutexGuard<'_, ()> {
        lock(&self.dump_turn)
    }

    /// The same, or none if another thread has it.
    pub(crate) fn try_take_dump_turn(&self) -> Option<MutexGuard<'_, ()>> {
        match self.dump_turn.try_lock() {
            Ok(turn) => Some(turn),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Refuses to write from now on, with this error.
    pub(crate) fn refuse_writing(&mut self, why: Error) {
        self.refusal = Some(why);
    }

    /// Whether it may be written.
    pub(crate) fn is_writable(&self) -> bool {
        self.refusal.is_none()
    }

    /// Whether it must be opened anew before it is used again.
    pub(crate) fn must_reopen(&self) -> bool {
        self.file.has_failed() || (self.is_writable() && self.poison.check().is_err())
    }

    /// Fails where it is spent: what it says may be old.
    pub(crate) fn check_is_current(&self) -> Result<()> {
        if self.must_reopen() {
            let failed = std::io::Error::other("an earlier call failed");
            return Err(Error::io(Subject::Catalog, "read it", failed));
        }
        Ok(())
    }

    /// Fails where [`Catalog::write`] can't succeed at all.
    pub(crate) fn check_is_writable(&self) -> Result<()> {
        self.poison.check()?;
        self.refusal.clone().map_or(Ok(()), Err)
    }

    /// Fails with *corrupt* unless every page of the last commit is what was written: the rows' own checks find what a row
    /// should not say, and this finds a row that is not there. Nobody writes meanwhile, and nothing is written.
    pub(crate) fn check_pages(&self) -> Result<()> {
        contain(|| {
            let _nobody_writes = self.database()?.begin_write().map_err(transaction::failure)?;
            // What redb marks and repairs in its file stays in memory.
            let file = CatalogFile::new(self.file.file())
                .map_err(|error| Error::io(Subject::Catalog, "measure it", error))?;
            let backend = file.clone();
            let mut database = Self::builder().create_with_backend(backend).map_err(transaction::failure)?;
            let checked = database.check_integrity().map_err(transaction::failure);
            close(database, &file);
            if checked? { Ok(()) } else { Err(Error::corrupt(Subject::Catalog, "its pages are damaged")) }
        })
    }

    /// Runs `closure` on a snapshot.
    pub(crate) fn read<T>(&self, closure: impl Fn(&ReadTx) -> Result<T>) -> Result<T> {
        self.snapshot()?.read(closure)
    }

    /// Returns the state of now, for several closures to read.
    pub(crate) fn snapshot(&self) -> Result<Snapshot> {
        contain(|| {
            let tx = ReadTx(self.database()?.begin_read().map_err(transaction::failure)?);
            Ok(Snapshot {
                tx,
                #[cfg(feature = "testing")]
                runs_twice: self.reruns.is_due(),
            })
        })
    }

    /// Makes what it says durable: what a process wrote that was killed need not be. Fails where it may not be written.
    pub(crate) fn make_durable(&self) -> Result<()> {
        self.check_is_writable()?;
        self.noting_losses(|| self.begin_writing())
    }

    /// Runs `closure` in a transaction; if it returns `Ok`, its effect is durable when this returns. After a failed write
    /// (a full disk) the catalog is spent, and opened anew it is as after a kill; after a failed sync the store is poisoned.
    pub(crate) fn write<T>(&self, closure: impl Fn(&mut WriteTx) -> Result<T>) -> Result<T> {
        self.check_is_writable()?;
        self.noting_losses(|| {
            self.begin_writing()?;
            #[cfg(feature = "testing")]
            if self.reruns.is_due() {
                drop(self.try_begun(&closure));
            }
            self.write_begun(&closure)
        })
    }

    fn begin_writing(&self) -> Result<()> {
        self.file.begin_writing().map_err(|error| Error::io(Subject::Catalog, "open it for writing", error))
    }

    fn noting_losses<T>(&self, change: impl FnOnce() -> Result<T>) -> Result<T> {
        let changed = change();
        if self.file.has_lost() {
            self.poison.set();
        }
        changed
    }

    fn write_begun<T>(&self, closure: &impl Fn(&mut WriteTx) -> Result<T>) -> Result<T> {
        contain(|| {
            let mut transaction = self.database()?.begin_write().map_err(transaction::failure)?;
            // Two phases and the saved allocator state: reopening after a crash neither trusts an unsynced page nor
            // walks the whole database.
            transaction.set_quick_repair(true);
            transaction.set_durability(Durability::Immediate).map_err(transaction::failure)?;
            let mut tx = WriteTx::new(transaction);
            let value = closure(&mut tx)?;
            tx.commit()?;
            Ok(value)
        })
    }

    /// Runs `closure` in a transaction of which nothing remains, to see what it would do now.
    pub(crate) fn try_out<T>(&self, closure: impl Fn(&mut WriteTx) -> Result<T>) -> Result<T> {
        self.check_is_writable()?;
        self.noting_losses(|| {
            self.begin_writing()?;
            self.try_begun(&closure)
        })
    }

    fn try_begun<T>(&self, closure: &impl Fn(&mut WriteTx) -> Result<T>) -> Result<T> {
        contain(|| {
            let transaction = self.database()?.begin_write().map_err(transaction::failure)?;
            closure(&mut WriteTx::new(transaction))
        })
    }
}

/// One state of a catalog.
pub(crate) struct Snapshot {
    tx: ReadTx,
    #[cfg(feature = "testing")]
    runs_twice: bool,
}

impl Snapshot {
    /// Runs `closure` on it.
    pub(crate) fn read<T>(&self, closure: impl Fn(&ReadTx) -> Result<T>) -> Result<T> {
        #[cfg(feature = "testing")]
        if self.runs_twice {
            drop(contain(|| closure(&self.tx)));
        }
        contain(|| closure(&self.tx))
    }
}

impl Drop for Catalog {
    fn drop(&mut self) {
        if let Some(database) = self.database.take() {
            close(database, &self.file);
        }
    }
}

/// Closes what redb has open without the commit that it closes with, which would be written nowhere and takes longer than
/// most of what the catalog is opened for. After a call that failed redb makes none; the check of the pages makes that
/// call, first of all.
fn close(mut database: Database, file: &CatalogFile) {
    file.end();
    let _ = contain(|| {
        let _ = database.check_integrity();
        drop(database);
        Ok(())
    });
}

#[cfg(test)]
mod tests;
