//! What the store does in the background: it seals packs that are full, and merges segments of the index.
//!
//! Neither changes what exists, so neither is anybody's to wait for: commits only add rows. Each step holds a lease, so
//! that nobody takes its unfinished file for a stray, and ends in one transaction; a kill before it leaves everything as it
//! was. An error ends the step: it is tried again after the next publication, and what damage there is shows to whoever
//! reads it.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::catalog::record::{OpenPackRecord, SegmentRecord};
use crate::catalog::table::{OpenPacks, Segments, Sequence};
use crate::catalog::{Catalog, ReadTables};
use crate::disk::Disk;
use crate::error::Result;
use crate::id::{PackId, SegmentId};
use crate::pack::segment::{self, Segment};
use crate::pack::segment_file;

use super::gate::Gate;
use super::index::IndexCache;
use super::session::new_lease;
use super::{StoreOptions, packs};

/// The background work of one open store; dropping it waits for what is under way.
#[derive(Debug)]
pub(super) struct Upkeep {
    work: Arc<Work>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Work {
    disk: Arc<dyn Disk>,
    gate: Arc<Gate>,
    index: Arc<IndexCache>,
    options: StoreOptions,
}

impl Upkeep {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        gate: Arc<Gate>,
        index: Arc<IndexCache>,
        options: StoreOptions,
    ) -> Self {
        Self { work: Arc::new(Work { disk, gate, index, options }), thread: Mutex::default() }
    }

    /// Does what is due, unless something is under way already.
    pub(super) fn begin(&self, catalog: &Catalog) {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return;
        }
        if !catalog.read(|tx| self.work.is_due(tx)).unwrap_or(false) {
            return;
        }
        let work = Arc::clone(&self.work);
        // A machine that has no thread left goes on without: there will be another publication.
        *thread = std::thread::Builder::new().name("layerstone upkeep".into()).spawn(move || work.run()).ok();
    }

    /// Waits until nothing is under way.
    pub(super) fn wait(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let _ = thread.map(JoinHandle::join);
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        self.wait();
    }
}

impl Work {
    fn run(&self) {
        while matches!(self.seal_full_pack(), Ok(true)) {}
        while matches!(self.merge_segments(), Ok(true)) {}
    }

    fn is_due(&self, tx: &impl ReadTables) -> Result<bool> {
        Ok(self.full_pack(tx)?.is_some() || due_segments(tx)?.is_some())
    }

    fn full_pack(&self, tx: &impl ReadTables) -> Result<Option<(PackId, OpenPackRecord)>> {
        let open = tx.collect::<OpenPacks>(&[])?.into_iter();
        Ok(open
            .filter(|(_, record)| record.owner.is_none())
            .find(|(_, record)| packs::is_full(&self.options, record)))
    }

    /// Seals a full pack that nobody owns; says whether there was one.
    fn seal_full_pack(&self) -> Result<bool> {
        let taken = self.gate.open()?.write(|tx| {
            let Some((pack, record)) = self.full_pack(tx)? else { return Ok(None) };
            let lease = new_lease(tx)?;
            tx.put::<OpenPacks>(&pack, &OpenPackRecord { owner: Some(lease), ..record })?;
            Ok(Some((lease, pack, record, packs::next_segment(tx)?, packs::frames(tx, pack)?)))
        })?;
        let Some((lease, pack, record, segment, frames)) = taken else { return Ok(false) };
        let written = packs::write_segment(&*self.disk, segment, pack, &frames);
        self.gate.open()?.write(|tx| {
            packs::check_lease(tx, lease)?;
            if written.is_ok() {
                packs::seal(tx, pack, record.committed_bytes, segment, record.objects)?;
            }
            packs::release(tx, lease).map(drop)
        })?;
        written.map(|()| true)
    }

    /// Merges segments of which there are too many of a size; says whether there were any.
    fn merge_segments(&self) -> Result<bool> {
        let taken = self.gate.open()?.write(|tx| {
            let Some(due) = due_segments(tx)? else { return Ok(None) };
            Ok(Some((new_lease(tx)?, packs::next_segment(tx)?, due)))
        })?;
        let Some((lease, merged, due)) = taken else { return Ok(false) };
        let open = |id: &SegmentId| Segment::open(&*self.disk, *id).map(Arc::new);
        let inputs = due.iter().map(open).collect::<Result<Vec<_>>>();
        let written = inputs.and_then(|inputs| segment::merge(&*self.disk, merged, &inputs));
        let catalog = self.gate.open()?;
        // Nobody is about to open the files that the rows name until now.
        let index = self.index.lock();
        let is_replaced = catalog.write(|tx| {
            packs::check_lease(tx, lease)?;
            packs::release(tx, lease)?;
            // Another process may have merged the same segments.
            let has_all =
                due.iter().try_fold(true, |all, id| Ok(all && tx.get::<Segments>(id)?.is_some()))?;
            let Some(objects) = written.as_ref().ok().filter(|_| has_all) else { return Ok(false) };
            due.iter().try_for_each(|id| tx.remove::<Segments>(id).map(drop))?;
            let record = SegmentRecord { objects: *objects, domain: packs::SHARED_DOMAIN };
            tx.put::<Segments>(&merged, &record)?;
            tx.next(Sequence::Index)?;
            Ok(true)
        });
        // A file that stays is a stray, which recovery removes.
        match is_replaced {
            Ok(true) => due.iter().for_each(|id| drop(self.disk.remove(&segment_file(*id)))),
            _ => drop(self.disk.remove(&segment_file(merged))),
        }
        drop(index);
        written?;
        is_replaced
    }
}

fn due_segments(tx: &impl ReadTables) -> Result<Option<Vec<SegmentId>>> {
    let segments = tx.collect::<Segments>(&[])?;
    Ok(segment::due_for_merge(segments.into_iter().map(|(id, record)| (id, record.objects))))
}
