//! What the store does in the background: it moves rows of the index to segments, seals packs that are full, and merges
//! segments.
//!
//! Neither changes what exists, so neither is anybody's to wait for: commits only add rows. Each step holds a lease, so
//! that nobody takes its unfinished file for a stray, and ends in one transaction; a kill before it leaves everything as it
//! was. An error ends the step: it is tried again after the next publication, unless it is damage, which stays and shows to
//! whoever reads it.

use std::sync::atomic::{AtomicBool, Ordering};
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
    /// Something is damaged: each further try would read it all again.
    is_stuck: AtomicBool,
}

impl Upkeep {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        gate: Arc<Gate>,
        index: Arc<IndexCache>,
        options: StoreOptions,
    ) -> Self {
        let work = Work { disk, gate, index, options, is_stuck: AtomicBool::new(false) };
        Self { work: Arc::new(work), thread: Mutex::default() }
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
        let done = self.do_all();
        let is_stuck = done.is_err_and(|error| error.is_corrupt());
        self.is_stuck.store(is_stuck, Ordering::Relaxed);
    }

    fn do_all(&self) -> Result<()> {
        while self.index_rows()? {}
        while self.merge_segments()? {}
        Ok(())
    }

    fn is_due(&self, tx: &impl ReadTables) -> Result<bool> {
        let is_stuck = self.is_stuck.load(Ordering::Relaxed);
        Ok(!is_stuck && (self.pack_to_index(tx)?.is_some() || due_segments(tx)?.is_some()))
    }

    /// A pack is full and free, so that nothing will be added to it.
    fn is_complete(&self, record: &OpenPackRecord) -> bool {
        record.owner.is_none() && record.committed_bytes >= self.options.pack_bytes
    }

    /// A pack that has many rows, or is complete.
    fn pack_to_index(&self, tx: &impl ReadTables) -> Result<Option<(PackId, OpenPackRecord)>> {
        let mut open = tx.collect::<OpenPacks>(&[])?.into_iter();
        Ok(open.find(|(_, record)| {
            record.objects.saturating_sub(record.indexed_objects) >= self.options.row_objects
                || self.is_complete(record)
        }))
    }

    /// Moves a pack's rows to a segment, and seals it if it is complete; says whether there was one.
    fn index_rows(&self) -> Result<bool> {
        let taken = self.gate.open()?.write(|tx| {
            let Some((pack, record)) = self.pack_to_index(tx)? else { return Ok(None) };
            Ok(Some((new_lease(tx)?, pack, record, packs::next_segment(tx)?, packs::frames(tx, pack)?)))
        })?;
        let Some((lease, pack, before, segment, frames)) = taken else { return Ok(false) };
        let written = packs::write_segment(&*self.disk, segment, pack, &frames, before.committed_bytes);
        let is_published = self.gate.open()?.write(|tx| {
            packs::check_lease(tx, lease)?;
            packs::release(tx, lease)?;
            // Another process may have moved the same rows, or the pack's owner.
            let now = tx.get::<OpenPacks>(&pack)?;
            let now = now.filter(|now| now.indexed_bytes == before.indexed_bytes);
            let (Ok(indexed), Some(now)) = (&written, now) else { return Ok(false) };
            packs::publish_segment(tx, *indexed)?;
            if self.is_complete(&now) && now.committed_bytes == indexed.bytes {
                packs::seal(tx, pack)?;
            }
            Ok(true)
        });
        if !matches!(is_published, Ok(true)) {
            // A file that stays is a stray, which recovery removes.
            let _ = self.disk.remove(&segment_file(segment));
        }
        written?;
        is_published
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
