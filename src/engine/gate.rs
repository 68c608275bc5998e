//! The way to the catalog: the store's lock, and recovery behind it.
//!
//! The lock covers one call: [`Gate::open`] takes it and opens the catalog, and when the last user of that open
//! catalog in this process is done, the catalog is closed and the lock let go. In exclusive mode the gate keeps
//! one use of its own. Whoever opens the catalog first looks for leases whose process has died and takes back
//! what they held: their packs are cut to the committed length and become free.

use std::cell::Cell;
use std::collections::HashSet;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use crate::catalog::record::{LeaseRecord, OpenPackRecord};
use crate::catalog::table::{
    CondemnedPacks, Directories, Leases, OpenPacks, SealedPacks, Segments, Sequence,
};
use crate::catalog::{Catalog, Poison, ReadTables, WriteTx};
use crate::disk::{Disk, LockAttempt, LockGuard, OpenMode};
use crate::error::{Error, ErrorKind, Result, Subject};
use crate::id::LeaseId;
use crate::layout::{
    DIRECTORIES, NEW_CATALOG_FILE, NEW_FORMAT_FILE, PACKS, SEGMENTS, pack_file, segment_file, state_file,
};
use crate::sync::lock;
use crate::task::Task;

use super::surroundings::Surroundings;
use super::{dump, folder_error};

/// An open catalog and the lock that it is open under; closed before the lock is let go.
#[derive(Debug)]
pub(crate) struct OpenCatalog {
    catalog: Catalog,
    _lock: OwnLock,
}

/// The store's lock, which this process has.
#[derive(Debug)]
struct OwnLock {
    guard: Option<Box<dyn LockGuard>>,
    /// One more until it was let go: for a moment another thread may have taken it already.
    count: Arc<AtomicUsize>,
}

impl Drop for OwnLock {
    fn drop(&mut self) {
        self.guard = None;
        self.count.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Deref for OpenCatalog {
    type Target = Catalog;

    fn deref(&self) -> &Catalog {
        &self.catalog
    }
}

/// The turn to write or remove files that a transaction names. See [`Gate::take_turn`].
#[derive(Debug)]
pub(crate) struct Turn<'g> {
    _guard: MutexGuard<'g, ()>,
}

#[derive(Debug)]
pub(crate) struct Gate {
    disk: Arc<dyn Disk>,
    location: PathBuf,
    poison: Poison,
    timeout: Duration,
    surroundings: Surroundings,
    turn: Mutex<()>,
    open: Mutex<Weak<OpenCatalog>>,
    /// Leases of this process that nobody uses any more and that could not be released.
    abandoned: Mutex<HashSet<LeaseId>>,
    /// Not zero while this process has the lock, which outlives the last use of the catalog by a moment.
    locks: Arc<AtomicUsize>,
    /// None unless the catalog is to stay open.
    held: Mutex<Option<Held>>,
}

/// What keeps the catalog open; nothing while it is opened anew.
type Held = Option<Arc<OpenCatalog>>;

impl Gate {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        location: PathBuf,
        poison: Poison,
        timeout: Duration,
        surroundings: Surroundings,
    ) -> Self {
        Self {
            disk,
            location,
            poison,
            timeout,
            surroundings,
            turn: Mutex::default(),
            open: Mutex::default(),
            abandoned: Mutex::default(),
            locks: Arc::default(),
            held: Mutex::default(),
        }
    }

    /// The open catalog, opened if no one in this process has it open. One that failed is opened anew as soon as nobody uses
    /// it any more; if it was a sync that failed, for reading only.
    pub(crate) fn open(&self, task: &Task) -> Result<Arc<OpenCatalog>> {
        let mut open = lock(&self.open);
        let mut held = lock(&self.held);
        if open.upgrade().is_some_and(|catalog| catalog.must_reopen()) {
            held.iter_mut().for_each(|held| *held = None);
        }
        if let Some(catalog) = open.upgrade() {
            return Ok(catalog);
        }
        let guard = Some(self.lock(task)?);
        self.locks.fetch_add(1, Ordering::SeqCst);
        let lock = OwnLock { guard, count: Arc::clone(&self.locks) };
        let catalog = self.open_recovered()?;
        let catalog = Arc::new(OpenCatalog { catalog, _lock: lock });
        *open = Arc::downgrade(&catalog);
        held.iter_mut().for_each(|held| *held = Some(Arc::clone(&catalog)));
        Ok(catalog)
    }

    fn open_recovered(&self) -> Result<Catalog> {
        let mut catalog = self.open_catalog()?;
        if !catalog.is_writable() {
            return Ok(catalog);
        }
        // What an older copy of the catalog does not know would be written over, or cut.
        let is_current = catalog.read(|tx| dump::check_is_not_newer_than(&*self.disk, tx));
        if let Err(older) = is_current {
            catalog.refuse_writing(older);
            return Ok(catalog);
        }
        let clear_up = || {
            // Strays are looked for without the turn: nobody else in this process has the catalog open yet.
            let has_ended = self.recover(&catalog)?;
            if has_ended { self.remove_strays(&catalog, None) } else { Ok(()) }
        };
        match clear_up() {
            Ok(()) => Ok(catalog),
            // On a full disk the dead keep what they have, and others can read, and make room.
            Err(error) if error.kind() == ErrorKind::Io => {
                drop(catalog);
                self.open_catalog()
            }
            Err(error) => Err(error),
        }
    }

    fn open_catalog(&self) -> Result<Catalog> {
        if self.poison.check().is_err() {
            Catalog::open_for_reading(&*self.disk, self.poison.clone())
        } else {
            Catalog::open(&*self.disk, self.poison.clone())
        }
    }

    /// Keeps the catalog open, and so the lock, until the gate is dropped.
    pub(crate) fn hold(&self, task: &Task) -> Result<()> {
        *lock(&self.held) = Some(None);
        let catalog = self.open(task)?;
        *lock(&self.held) = Some(Some(catalog));
        Ok(())
    }

    /// Takes the turn to make or remove files that a transaction names: which pack is appended to, which number a state file
    /// gets and what is a stray is decided before the transaction, by one thread at a time. The caller has the catalog open, so
    /// that the thread whose turn it is never waits for the lock.
    pub(crate) fn take_turn(&self) -> Turn<'_> {
        Turn { _guard: lock(&self.turn) }
    }

    /// Takes the lock, waiting up to the time limit or until the task is cancelled.
    pub(crate) fn lock(&self, task: &Task) -> Result<Box<dyn LockGuard>> {
        let deadline = Instant::now() + self.timeout;
        let mut waiting = task.wait();
        let subject = || Subject::Store(self.location.clone());
        loop {
            // Whoever used the catalog last in this process is closing it: that is waited for, whatever the limit.
            let is_own = self.locks.load(Ordering::SeqCst) > 0;
            let holder = match self.disk.try_lock().map_err(|error| Error::io(subject(), "lock it", error))? {
                LockAttempt::Held(guard) => return Ok(guard),
                LockAttempt::Busy(holder) => holder,
            };
            if Instant::now() >= deadline && !is_own {
                let who = holder.map_or("another process".to_owned(), |process| format!("process {process}"));
                let seconds = self.timeout.as_secs_f32();
                let message = format!("locked by {who}, which did not let go within {seconds} s");
                return Err(Error::new(ErrorKind::Locked, subject(), message));
            }
            waiting.pause(holder.filter(|_| !is_own))?;
        }
    }

    /// A lease of this process. It is told at once: a transaction that fails may have taken it all the same, and then it is
    /// to be [abandoned](Self::abandon).
    pub(crate) fn new_lease(
        &self,
        _turn: &Turn<'_>,
        tx: &mut WriteTx,
        told: &Cell<Option<LeaseId>>,
    ) -> Result<LeaseId> {
        let lease = LeaseId::new(tx.next(Sequence::Lease)?);
        // One of a transaction that failed had the same number if it never was.
        self.abandoned().remove(&lease);
        told.set(Some(lease));
        let holder = self.surroundings.this_process();
        let record = LeaseRecord { holder, since_ms: self.surroundings.now().unix_ms() };
        tx.put::<Leases>(&lease, &record)?;
        Ok(lease)
    }

    /// Takes a lease of this process for dead, since it could not be released: the disk is full, say.
    pub(crate) fn abandon(&self, lease: impl Into<Option<LeaseId>>) {
        self.abandoned().extend(lease.into());
    }

    fn abandoned(&self) -> MutexGuard<'_, HashSet<LeaseId>> {
        lock(&self.abandoned)
    }

    /// Takes back what processes that died held, and what this one could not let go; says whether there was any. Others in
    /// this process may use the catalog meanwhile.
    pub(crate) fn recover(&self, catalog: &Catalog) -> Result<bool> {
        let leases = catalog.read(|tx| tx.collect::<Leases>(&[]))?;
        // Looked at after the rows: a number that is drawn again is not abandoned any more when its row is seen.
        let abandoned = self.abandoned().clone();
        let is_dead = |(id, lease): &(LeaseId, LeaseRecord)| {
            abandoned.contains(id) || self.surroundings.is_dead(&lease.holder)
        };
        let dead: Vec<LeaseId> = leases.into_iter().filter(is_dead).map(|(id, _)| id).collect();
        if dead.is_empty() {
            return Ok(false);
        }
        self.take_back(catalog, &dead)?;
        tracing::info!(leases = dead.len(), "took back what dead processes held");
        self.abandoned().retain(|lease| !dead.contains(lease));
        Ok(true)
    }

    fn take_back(&self, catalog: &Catalog, dead: &[LeaseId]) -> Result<()> {
        let packs = catalog.read(|tx| tx.collect::<OpenPacks>(&[]))?;
        let orphans: Vec<_> = packs
            .into_iter()
            .filter(|(_, record)| record.owner.is_some_and(|owner| dead.contains(&owner)))
            .collect();
        let mut usable = Vec::new();
        for (pack, record) in orphans {
            // The row comes before the file, so the file may be missing; then nothing was ever committed in it.
            let exists = self.disk.exists(&pack_file(pack));
            let exists = exists.map_err(|error| Error::io(Subject::Pack(pack), "look for it", error))?;
            if exists {
                let cut = || {
                    let file = self.disk.open(&pack_file(pack), OpenMode::Write)?;
                    if file.len()? > record.committed_bytes {
                        file.set_len(record.committed_bytes)
                    } else {
                        Ok(())
                    }
                };
                cut().map_err(|error| {
                    Error::io(Subject::Pack(pack), "cut it to its committed length", error)
                })?;
            }
            usable.push((pack, record, exists && record.committed_bytes > 0));
        }
        catalog.write(|tx| {
            for (pack, record, is_kept) in &usable {
                if *is_kept {
                    tx.put::<OpenPacks>(pack, &OpenPackRecord { owner: None, ..*record })?;
                } else {
                    tx.remove::<OpenPacks>(pack)?;
                }
            }
            dead.iter().try_for_each(|lease| tx.remove::<Leases>(lease).map(drop))
        })
    }

    /// Removes files that no row names: after the rows, so that a kill in between only leaves files. A pack has its row
    /// before its file, or both are made in one turn, as a state file's are; a segment has it after, so segments are looked at
    /// only if nobody but the holder of `lease` can be writing one. So the caller has the turn, or nobody else in this process
    /// has the catalog open.
    pub(crate) fn remove_strays(&self, catalog: &Catalog, lease: Option<LeaseId>) -> Result<()> {
        let (packs, directories, segments) = catalog.read(|tx| {
            let open = tx.collect::<OpenPacks>(&[])?.into_iter().map(|(pack, _)| pack);
            let sealed = tx.collect::<SealedPacks>(&[])?.into_iter().map(|(pack, _)| pack);
            let condemned = tx.collect::<CondemnedPacks>(&[])?.into_iter().map(|(pack, _)| pack);
            let packs = open.chain(sealed).chain(condemned).map(pack_file).collect();
            let directories =
                tx.collect::<Directories>(&[])?.into_iter().map(|(id, _)| state_file(id)).collect();
            let is_writing = tx.collect::<Leases>(&[])?.into_iter().any(|(id, _)| Some(id) != lease);
            let segments = tx.collect::<Segments>(&[])?.into_iter().map(|(segment, _)| segment_file(segment));
            Ok((packs, directories, (!is_writing).then(|| segments.collect())))
        })?;
        self.keep_only(PACKS, &packs)?;
        self.keep_only(DIRECTORIES, &directories)?;
        // What a repair was writing that was killed.
        for name in [NEW_CATALOG_FILE, NEW_FORMAT_FILE] {
            self.disk.remove(name).map_err(|error| {
                Error::io(Subject::Store(self.location.clone()), "clean up after a killed process", error)
            })?;
        }
        dump::remove_unfinished(&*self.disk, catalog)?;
        segments.map_or(Ok(()), |segments| self.keep_only(SEGMENTS, &segments))
    }

    /// Cuts packs that nobody is adding to to what counts of them: behind it is what a process wrote that was killed. The
    /// caller has the turn, so that nobody begins to.
    pub(crate) fn cut_packs(&self, catalog: &Catalog) -> Result<()> {
        let (open, sealed) =
            catalog.read(|tx| Ok((tx.collect::<OpenPacks>(&[])?, tx.collect::<SealedPacks>(&[])?)))?;
        let open = open.into_iter().filter(|(_, record)| record.owner.is_none());
        let open = open.map(|(pack, record)| (pack, record.committed_bytes));
        for (pack, bytes) in open.chain(sealed.into_iter().map(|(pack, record)| (pack, record.bytes))) {
            let cut = || {
                let is_longer = self.disk.open(&pack_file(pack), OpenMode::Read)?.len()? > bytes;
                if is_longer {
                    self.disk.open(&pack_file(pack), OpenMode::Write)?.set_len(bytes)
                } else {
                    Ok(())
                }
            };
            match cut() {
                // That a pack is missing is for verification to say.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                other => other.map_err(|error| {
                    Error::io(Subject::Pack(pack), "cut it to its committed length", error)
                })?,
            }
        }
        Ok(())
    }

    fn keep_only(&self, folder: &str, known: &HashSet<String>) -> Result<()> {
        let io = |error| folder_error(&self.location, folder, "clean up after a killed process", error);
        for name in self.disk.list(folder).map_err(io)? {
            let name = format!("{folder}/{name}");
            if !known.contains(&name) {
                self.disk.remove(&name).map_err(io)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemoryDisk;
    use crate::engine::{Engine, StoreOptions};

    #[test]
    fn what_another_thread_is_writing_is_not_taken_for_what_the_dead_left() {
        let disk = Arc::new(MemoryDisk::default());
        let engine = Engine::open(disk, None, StoreOptions::default(), Surroundings::default()).unwrap();
        let gate = &engine.gate;
        let catalog = gate.open(&Task::unobserved()).unwrap();
        let dead = catalog.write(|tx| gate.new_lease(&gate.take_turn(), tx, &Cell::default())).unwrap();
        gate.abandon(dead);
        // Its row comes with the transaction that another thread is about to make.
        let pack = pack_file(crate::id::PackId::new(7));
        engine.disk.open(&pack, OpenMode::CreateNew).unwrap();
        assert!(gate.recover(&catalog).unwrap());
        assert!(!gate.recover(&catalog).unwrap(), "nobody is dead any more");
        assert!(engine.disk.exists(&pack).unwrap());
        gate.remove_strays(&catalog, None).unwrap();
        assert!(!engine.disk.exists(&pack).unwrap(), "nobody was writing it");
    }
}
