//! Write sessions: from the view that they deduplicate against to what they leave to be published.
//!
//! A session that stays small takes nothing: its frames are held in memory until they are published (see `publish`). One
//! that grows takes a lease and a pack of its own, in a transaction, before the first frame is written (the row before the
//! file); packs that are full meanwhile get a segment and are sealed. A kill leaves a dead lease, whose pack is cut back
//! (see `gate`).

use std::sync::{Arc, OnceLock};

use crate::catalog::WriteTx;
use crate::catalog::record::{LeaseRecord, OpenPackRecord};
use crate::catalog::table::{Leases, OpenPacks, Sequence};
use crate::error::Result;
use crate::id::LeaseId;
use crate::pack::pack_file;
use crate::pack::reader::ObjectReader;
use crate::pack::session::{OpenPack, PackHost, Session, SessionOptions, Unpublished, WrittenPack};
use crate::time::Moment;

use super::packs::Indexed;
use super::{Inner, holder, packs};

/// What a session's writers ask the store for.
pub(crate) struct Host {
    pub(super) store: Arc<Inner>,
    /// The lease, once the session needs one.
    pub(super) lease: OnceLock<LeaseId>,
}

/// The session of one import or commit.
pub(crate) type WriteSession = Session<Host>;

impl Inner {
    /// Begins a session, and gives the view of existing objects that it deduplicates against.
    pub(super) fn begin_session(self: &Arc<Self>) -> Result<(WriteSession, ObjectReader)> {
        let catalog = self.catalog()?;
        catalog.check_is_writable()?;
        let reader = self.reader(&catalog)?;
        let host = Host { store: Arc::clone(self), lease: OnceLock::new() };
        let options = SessionOptions {
            level: self.options.level,
            pack_bytes: self.options.pack_bytes,
            held_bytes: self.options.held_bytes,
        };
        Ok((Session::new(host, reader.clone(), options), reader))
    }

    /// Ends a session of which nothing is to remain.
    pub(super) fn abandon(&self, session: WriteSession) {
        let (host, unpublished) = session.dismantle();
        let pack = match unpublished {
            Unpublished::Held(_) => None,
            Unpublished::Pack(pack) => pack,
        };
        self.let_go(&host, pack);
    }

    /// Cuts back what was written and releases the lease. An error here changes nothing that was promised: the
    /// next process to open the store finds the lease dead and does the same.
    pub(super) fn let_go(&self, host: &Host, written: Option<WrittenPack>) {
        // After a failed commit it may be that the catalog on the disk counts on what was written.
        if self.poison.check().is_err() {
            return;
        }
        if let Some(written) = written {
            written.cut_back();
        }
        if let Some(lease) = host.lease.get() {
            let released = self.catalog().and_then(|catalog| catalog.write(|tx| packs::release(tx, *lease)));
            self.remove_packs(&released.unwrap_or_default());
        }
    }

    /// Removes the files of packs that have no row any more. One that stays is a stray, which recovery removes.
    pub(super) fn remove_packs(&self, packs: &[crate::id::PackId]) {
        for pack in packs {
            let _ = self.disk.remove(&pack_file(*pack));
        }
    }
}

/// A lease of this process.
pub(super) fn new_lease(tx: &mut WriteTx) -> Result<LeaseId> {
    let lease = LeaseId::new(tx.next(Sequence::Lease)?);
    let record = LeaseRecord { holder: holder::this_process(), since_ms: Moment::now().unix_ms() };
    tx.put::<Leases>(&lease, &record)?;
    Ok(lease)
}

impl Host {
    /// Writes a segment for what a pack has that is in none, what is not published included.
    pub(super) fn index(&self, written: &WrittenPack) -> Result<Indexed> {
        let pack = written.pack.id;
        let (segment, mut frames) =
            self.store.catalog()?.write(|tx| Ok((packs::next_segment(tx)?, packs::frames(tx, pack)?)))?;
        frames.extend(written.frames.iter().cloned());
        let disk = &*self.store.disk;
        packs::write_segment(disk, segment, pack, &frames, written.pack.end)
            .inspect_err(|_| self.store.poison.set())
    }
}

impl PackHost for Host {
    fn open_pack(&self) -> Result<OpenPack> {
        let known = self.lease.get().copied();
        let options = &self.store.options;
        let (lease, pack, record) = self.store.catalog()?.write(|tx| {
            let lease = known.map_or_else(|| new_lease(tx), Ok)?;
            let (pack, record) = packs::free_pack(tx, options)?;
            let record = OpenPackRecord { owner: Some(lease), ..record };
            tx.put::<OpenPacks>(&pack, &record)?;
            Ok((lease, pack, record))
        })?;
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
            packs::seal(tx, written.pack.id)
        })?;
        let view = self.store.reader(&catalog);
        self.store.upkeep.begin(&catalog);
        view
    }

    fn poison(&self) {
        self.store.poison.set();
    }
}
