//! Write sessions: from the view that they deduplicate against to what they leave to be published.
//!
//! A session that stays small takes nothing: its frames are held in memory until they are published (see `publish`). One
//! that grows takes a lease and a pack of its own, in a transaction, before the first frame is written (the row before the
//! file); packs that are full meanwhile get a segment and are sealed. A kill leaves a dead lease, whose pack is cut back
//! (see `gate`).

use std::cell::Cell;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use crate::catalog::record::OpenPackRecord;
use crate::catalog::table::{OpenPacks, Sequence};
use crate::catalog::{ReadTables, ReadTx};
use crate::error::Result;
use crate::id::{LeaseId, PackId};
use crate::layout::pack_file;
use crate::pack::generation::GenerationGuard;
use crate::pack::reader::ObjectReader;
use crate::pack::session::{OpenPack, PackHost, Session, SessionOptions, Unpublished, WrittenPack};
use crate::sync::lock;

use super::closure::Needs;
use super::condemned::Reliance;
use super::packs::Indexed;
use super::{Engine, packs};

/// What a session's writers ask the store for.
pub(crate) struct SessionContext {
    pub(crate) store: Arc<Engine>,
    /// The lease, once the session needs one.
    pub(crate) lease: OnceLock<LeaseId>,
    /// The generation that the session began in.
    hold: Arc<GenerationGuard>,
    counted_on: RwLock<HashSet<PackId>>,
    bases: Mutex<Vec<Needs>>,
}

/// The session of one import or commit.
pub(crate) type WriteSession = Session<SessionContext>;

impl Engine {
    /// Begins a session, and gives the view of existing objects that it deduplicates against. What it is to be based on was
    /// found under `hold`, and stays.
    pub(crate) fn begin_session(
        self: &Arc<Self>,
        hold: &Arc<GenerationGuard>,
    ) -> Result<(WriteSession, ObjectReader)> {
        self.require_ballast()?;
        self.begin_session_to_free(hold)
    }

    /// The same for who makes room.
    pub(crate) fn begin_session_to_free(
        self: &Arc<Self>,
        hold: &Arc<GenerationGuard>,
    ) -> Result<(WriteSession, ObjectReader)> {
        let catalog = self.catalog()?;
        catalog.check_is_writable()?;
        let reader = self.reader(&catalog, hold)?;
        let host = SessionContext {
            store: Arc::clone(self),
            lease: OnceLock::new(),
            hold: Arc::clone(hold),
            counted_on: RwLock::default(),
            bases: Mutex::default(),
        };
        let options = SessionOptions {
            level: self.options.level,
            pack_bytes: self.options.pack_bytes,
            held_bytes: self.options.held_bytes,
        };
        Ok((Session::new(host, reader.clone(), options), reader))
    }

    /// Ends a session of which nothing is to remain.
    pub(crate) fn abandon(&self, session: WriteSession) {
        let (host, unpublished) = session.dismantle();
        let pack = match unpublished {
            Unpublished::Held(_) => None,
            Unpublished::Pack(pack) => pack,
        };
        self.release(&host, pack);
    }

    /// Cuts back what was written and releases the lease. An error here changes nothing that was promised: the lease counts
    /// as dead then, and whoever opens the catalog next does the same.
    pub(crate) fn release(&self, host: &SessionContext, written: Option<WrittenPack>) {
        let Some(lease) = host.lease.get() else { return };
        // After a failed sync it may be that the catalog on the disk counts on what was written.
        if self.poison.check().is_ok() && self.without_task().try_release(*lease, written).is_err() {
            self.gate.abandon(*lease);
        }
    }

    fn try_release(&self, lease: LeaseId, written: Option<WrittenPack>) -> Result<()> {
        let catalog = self.catalog()?;
        if let Some(written) = written {
            // After a failed commit the catalog says whether it counts on what was written, if it was opened anew.
            catalog.check_is_current()?;
            let is_own = |tx: &ReadTx| {
                let row = tx.get::<OpenPacks>(&written.pack.id)?;
                Ok(row.is_some_and(|row| row.owner == Some(lease) && row.committed_bytes <= written.begin()))
            };
            if catalog.read(is_own)? {
                written.cut_back();
            }
        }
        let released = catalog.write(|tx| packs::release(tx, lease))?;
        self.remove_packs(&released);
        Ok(())
    }

    /// Removes the files of packs that have no row any more. One that stays is a stray, which recovery removes.
    pub(crate) fn remove_packs(&self, packs: &[PackId]) {
        for pack in packs {
            let _ = self.disk.remove(&pack_file(*pack));
        }
    }
}

impl SessionContext {
    /// What the session makes takes over parts of this, without looking for each of them.
    pub(crate) fn build_on(&self, base: impl Into<Needs>) {
        lock(&self.bases).push(base.into());
    }

    /// What a publication must see to.
    pub(crate) fn reliance(&self) -> Reliance {
        Reliance {
            store: Arc::clone(&self.store),
            hold: Arc::clone(&self.hold),
            packs: self.counted_on.read().unwrap_or_else(PoisonError::into_inner).clone(),
            bases: lock(&self.bases).clone(),
        }
    }

    /// Writes a segment for what a pack has that is in none, what is not published included.
    pub(crate) fn index(&self, written: &WrittenPack) -> Result<Indexed> {
        let pack = written.pack.id;
        let (segment, mut frames) =
            self.store.catalog()?.write(|tx| Ok((packs::next_segment(tx)?, packs::frames(tx, pack)?)))?;
        frames.extend(written.frames.iter().cloned());
        let disk = &*self.store.disk;
        packs::write_segment(disk, segment, pack, &frames, written.pack.end)
    }
}

impl PackHost for SessionContext {
    fn open_pack(&self) -> Result<OpenPack> {
        let known = self.lease.get().copied();
        let options = &self.store.options;
        let catalog = self.store.catalog()?;
        let (told, turn) = (Cell::default(), self.store.gate.take_turn());
        let taken = catalog.write(|tx| {
            let lease = known.map_or_else(|| self.store.gate.new_lease(&turn, tx, &told), Ok)?;
            let (pack, record) = packs::free_pack(tx, options)?;
            let record = OpenPackRecord { owner: Some(lease), ..record };
            tx.advance(Sequence::Pack, pack.get().into())?;
            tx.put::<OpenPacks>(&pack, &record)?;
            Ok((lease, pack, record))
        });
        drop((turn, catalog));
        let (lease, pack, record) = taken.inspect_err(|_| self.store.gate.abandon(told.get()))?;
        // A session opens one pack after the other.
        self.lease.get_or_init(|| lease);
        packs::open_pack_file(&*self.store.disk, pack, &record)
    }

    fn seal_pack(&self, written: WrittenPack) -> Result<ObjectReader> {
        let indexed = self.index(&written)?;
        let catalog = self.store.catalog()?;
        catalog.write(|tx| {
            self.lease.get().map_or(Ok(()), |lease| packs::check_lease(tx, *lease))?;
            packs::publish_indexed(tx, &written, indexed)?;
            packs::seal(tx, written.pack.id, self.lease.get().copied())
        })?;
        let view = self.store.reader(&catalog, &self.hold);
        self.store.upkeep.begin(&catalog);
        view
    }

    fn count_on(&self, pack: PackId) {
        let is_known = self.counted_on.read().unwrap_or_else(PoisonError::into_inner).contains(&pack);
        if !is_known {
            self.counted_on.write().unwrap_or_else(PoisonError::into_inner).insert(pack);
        }
    }

    fn poison(&self) {
        self.store.poison.set();
    }
}
