//! What the store does in the background: it moves rows of the index to segments, seals packs that are full, merges
//! segments, and writes the catalog's dump (see `dump`).
//!
//! None of it changes what exists, so none is anybody's to wait for: commits only add rows. Each step holds a lease, so
//! that nobody takes its unfinished file for a stray, and ends in one transaction; a kill before it leaves everything as it
//! was. An error ends the step: it is tried again after the next publication, unless it is damage, which stays and shows to
//! whoever reads it.

use std::cell::Cell;
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::catalog::record::{OpenPackRecord, SegmentRecord};
use crate::catalog::table::{OpenPacks, RemovedPacks, Segments, Sequence};
use crate::catalog::{Catalog, ReadTables, ReadTx, WriteTx};
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::id::{PackId, SegmentId};
use crate::layout::segment_file;
use crate::pack::segment::{self, Segment};
use crate::sync::lock;
use crate::task::Task;

use super::gate::{Gate, OpenCatalog};
use super::index_cache::IndexCache;
use super::surroundings::Surroundings;
use super::{StoreOptions, dump, packs};

/// One part in this many of a segment must be of packs that are gone before it is written anew for that alone.
const UNNEEDED_PART: u64 = 4;

/// The background work of one open store; dropping it waits for what is under way.
#[derive(Debug)]
pub(crate) struct Upkeep {
    work: Arc<Work>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Work {
    disk: Arc<dyn Disk>,
    gate: Arc<Gate>,
    index: Arc<IndexCache>,
    options: StoreOptions,
    surroundings: Surroundings,
    /// Something is damaged: each further try would read it all again.
    is_stuck: AtomicBool,
    /// It was due, and is done when it is waited for.
    #[cfg(feature = "testing")]
    is_put_off: AtomicBool,
}

impl Upkeep {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        gate: Arc<Gate>,
        index: Arc<IndexCache>,
        options: StoreOptions,
        surroundings: Surroundings,
    ) -> Self {
        let work = Work {
            disk,
            gate,
            index,
            options,
            surroundings,
            is_stuck: AtomicBool::new(false),
            #[cfg(feature = "testing")]
            is_put_off: AtomicBool::new(false),
        };
        Self { work: Arc::new(work), thread: Mutex::default() }
    }

    /// Does what is due, unless something is under way already.
    pub(crate) fn begin(&self, catalog: &Catalog) {
        let mut thread = lock(&self.thread);
        if thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return;
        }
        if !catalog.read(|tx| self.work.is_due(tx)).unwrap_or(false) {
            return;
        }
        #[cfg(feature = "testing")]
        if self.work.options.upkeep_when_waited_for {
            self.work.is_put_off.store(true, Ordering::Relaxed);
            return;
        }
        let work = Arc::clone(&self.work);
        // A machine that has no thread left goes on without: there will be another publication.
        *thread = std::thread::Builder::new().name("layerstone upkeep".into()).spawn(move || work.run()).ok();
    }

    /// Moves a free pack's rows to a segment and seals it, whatever it holds.
    pub(crate) fn seal(&self, pack: PackId) -> Result<()> {
        let due = |tx: &WriteTx| {
            let record = tx.get::<OpenPacks>(&pack)?;
            Ok(record.filter(|record| record.owner.is_none()).map(|record| (pack, record)))
        };
        self.work.index_rows(due, |record| record.owner.is_none()).map(drop)
    }

    /// Forgets packs that are gone, as far as that is worth writing segments anew.
    pub(crate) fn clean_index(&self) -> Result<()> {
        self.work.clean_index()
    }

    /// Waits until nothing is under way.
    pub(crate) fn wait(&self) {
        #[cfg(feature = "testing")]
        if self.work.is_put_off.swap(false, Ordering::Relaxed) {
            self.work.run();
        }
        let thread = lock(&self.thread).take();
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

    /// The catalog; what is done in the background is of no task.
    fn catalog(&self) -> Result<Arc<OpenCatalog>> {
        self.gate.open(&Task::unobserved())
    }

    fn do_all(&self) -> Result<()> {
        // Damage of the index is no reason to let the dump grow old.
        let dumped = self.write_dump();
        while self.index_due_rows()? {}
        while self.merge_due_segments()? {}
        dumped
    }

    fn write_dump(&self) -> Result<()> {
        let catalog = self.catalog()?;
        if catalog.read(|tx| dump::is_due(&*self.disk, tx, self.surroundings.now()))? {
            dump::write(&*self.disk, &catalog, self.surroundings.now())
        } else {
            Ok(())
        }
    }

    fn is_due(&self, tx: &ReadTx) -> Result<bool> {
        let is_stuck = self.is_stuck.load(Ordering::Relaxed);
        Ok(!is_stuck
            && (self.pack_to_index(tx)?.is_some()
                || due_segments(tx)?.is_some()
                || dump::is_due(&*self.disk, tx, self.surroundings.now())?))
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
    fn index_due_rows(&self) -> Result<bool> {
        if self.catalog()?.read(|tx| self.pack_to_index(tx))?.is_none() {
            return Ok(false);
        }
        self.index_rows(|tx| self.pack_to_index(tx), |record| self.is_complete(record))
    }

    /// Moves the rows of the pack that is due to a segment, and seals it if it is complete; says whether there was one.
    fn index_rows(
        &self,
        due: impl Fn(&WriteTx) -> Result<Option<(PackId, OpenPackRecord)>>,
        is_complete: impl Fn(&OpenPackRecord) -> bool,
    ) -> Result<bool> {
        let catalog = self.catalog()?;
        let (told, turn) = (Cell::default(), self.gate.take_turn());
        let taken = catalog.write(|tx| {
            let Some((pack, record)) = due(tx)? else { return Ok(None) };
            Ok(Some((
                self.gate.new_lease(&turn, tx, &told)?,
                pack,
                record,
                packs::next_segment(tx)?,
                packs::frames(tx, pack)?,
            )))
        });
        drop((turn, catalog));
        let taken = taken.inspect_err(|_| self.gate.abandon(told.get()))?;
        let Some((lease, pack, before, segment, frames)) = taken else { return Ok(false) };
        let written = packs::write_segment(&*self.disk, segment, pack, &frames, before.committed_bytes);
        let catalog = self.catalog()?;
        // A pack that is sealed here is not added to meanwhile.
        let turn = self.gate.take_turn();
        let is_published = catalog.write(|tx| {
            packs::check_lease(tx, lease)?;
            packs::release(tx, lease)?;
            // Another process may have moved the same rows, or the pack's owner.
            let now = tx.get::<OpenPacks>(&pack)?;
            let now = now.filter(|now| now.indexed_bytes == before.indexed_bytes);
            let (Ok(indexed), Some(now)) = (&written, now) else { return Ok(false) };
            packs::publish_segment(tx, *indexed)?;
            if is_complete(&now) && now.committed_bytes == indexed.bytes {
                packs::seal(tx, pack, None)?;
            }
            Ok(true)
        });
        drop((turn, catalog));
        if is_published.is_err() {
            self.gate.abandon(lease);
        }
        // After a failed commit it may be that the catalog on the disk counts on the file. One that stays for nothing is a
        // stray, which recovery removes.
        if matches!(is_published, Ok(false)) || (frames.is_empty() && is_published.is_ok()) {
            let _ = self.disk.remove(&segment_file(segment));
        }
        written?;
        is_published
    }

    /// Merges segments of which there are too many of a size; says whether there were any.
    fn merge_due_segments(&self) -> Result<bool> {
        if self.catalog()?.read(due_segments)?.is_none() {
            return Ok(false);
        }
        self.merge_segments(due_segments)
    }

    /// Makes one segment of those that are due, without the rows of packs that are gone; says whether there were any.
    fn merge_segments(&self, due: impl Fn(&WriteTx) -> Result<Option<Vec<SegmentId>>>) -> Result<bool> {
        let catalog = self.catalog()?;
        let (told, turn) = (Cell::default(), self.gate.take_turn());
        let taken = catalog.write(|tx| {
            let Some(due) = due(tx)? else { return Ok(None) };
            let lease = self.gate.new_lease(&turn, tx, &told)?;
            Ok(Some((lease, packs::next_segment(tx)?, due, removed_packs(tx)?)))
        });
        drop((turn, catalog));
        let taken = taken.inspect_err(|_| self.gate.abandon(told.get()))?;
        let Some((lease, merged, due, gone)) = taken else { return Ok(false) };
        let open = |id: &SegmentId| Segment::open(&*self.disk, *id).map(Arc::new);
        let inputs = due.iter().map(open).collect::<Result<Vec<_>>>();
        let written = inputs
            .and_then(|inputs| segment::merge(&*self.disk, merged, &inputs, |pack| gone.contains(&pack)));
        let catalog = self.catalog()?;
        // Nobody is about to open the files that the rows name until now.
        let index = self.index.lock();
        let is_replaced = catalog.write(|tx| {
            packs::check_lease(tx, lease)?;
            packs::release(tx, lease)?;
            // Another process may have merged the same segments. And what was made while a pack went may name it, though
            // it is to be forgotten that the pack is gone once no segment does.
            let has_all = removed_packs(tx)? == gone
                && due
                    .iter()
                    .try_fold(true, |all, id| Ok::<_, Error>(all && tx.get::<Segments>(id)?.is_some()))?;
            let Some(objects) = written.as_ref().ok().filter(|_| has_all) else { return Ok(false) };
            due.iter().try_for_each(|id| tx.remove::<Segments>(id).map(drop))?;
            if *objects > 0 {
                let record = SegmentRecord { objects: *objects, domain: packs::SHARED_DOMAIN };
                tx.put::<Segments>(&merged, &record)?;
            }
            tx.next(Sequence::Index)?;
            Ok(true)
        });
        if is_replaced.is_err() {
            self.gate.abandon(lease);
        }
        // The same of both the old and the new.
        let is_there = matches!(is_replaced, Ok(true));
        if is_there {
            for id in &due {
                let _ = self.disk.remove(&segment_file(*id));
            }
        }
        if matches!(is_replaced, Ok(false)) || (is_there && matches!(written, Ok(0))) {
            drop(self.disk.remove(&segment_file(merged)));
        }
        drop(index);
        written?;
        is_replaced
    }

    /// Forgets packs that are gone: writes segments anew of which much is of such packs.
    fn clean_index(&self) -> Result<()> {
        loop {
            let (segments, gone) =
                self.catalog()?.read(|tx| Ok((tx.collect::<Segments>(&[])?, removed_packs(tx)?)))?;
            if gone.is_empty() {
                return Ok(());
            }
            let mut named = HashSet::new();
            let mut worst = None;
            for (id, _) in segments {
                // One that another process has merged since is looked at the next time.
                let Ok(segment) = Segment::open(&*self.disk, id) else { return Ok(()) };
                let (mut frames, mut unneeded) = (0_u64, 0_u64);
                for frame in segment.frames() {
                    frames += 1;
                    if gone.contains(&frame.pack) {
                        unneeded += 1;
                        named.insert(frame.pack);
                    }
                }
                if unneeded * UNNEEDED_PART > frames {
                    worst = Some(id);
                }
            }
            let Some(worst) = worst else {
                let forgotten: Vec<_> = gone.into_iter().filter(|pack| !named.contains(pack)).collect();
                if forgotten.is_empty() {
                    return Ok(());
                }
                // Segments that came since were made without them.
                return self.catalog()?.write(|tx| {
                    forgotten.iter().try_for_each(|pack| tx.remove::<RemovedPacks>(pack).map(drop))?;
                    tx.next(Sequence::Index).map(drop)
                });
            };
            if !self.merge_segments(|tx| Ok(tx.get::<Segments>(&worst)?.map(|_| vec![worst])))? {
                return Ok(());
            }
        }
    }
}

fn removed_packs(tx: &impl ReadTables) -> Result<HashSet<PackId>> {
    Ok(tx.collect::<RemovedPacks>(&[])?.into_iter().map(|(pack, ())| pack).collect())
}

fn due_segments(tx: &impl ReadTables) -> Result<Option<Vec<SegmentId>>> {
    let segments = tx.collect::<Segments>(&[])?;
    Ok(segment::due_for_merge(segments.into_iter().map(|(id, record)| (id, record.objects))))
}
