//! One collection, from the first mark to the last file.

use std::cell::Cell;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::catalog::record::{OpenPackRecord, SealedPackRecord};
use crate::catalog::table::{Collections, Leases, Needed, OpenPacks, Sequence, Sequences};
use crate::catalog::{ReadTables, WriteTx};
use crate::disk::LockGuard;
use crate::engine::closure::Needs;
use crate::engine::{Engine, dump, packs};
use crate::error::{Error, ErrorKind, Result, Subject};
use crate::id::{LeaseId, PackId};
use crate::layout::COLLECTING;
use crate::pack::reader::ObjectReader;
use crate::store::Store;
use crate::store::workspace::{Cleanable, Cleaned};
use crate::task::Phase;

use super::copy::copy_frames;
use super::marks::Marks;
use super::options::{GcOptions, GcReport};
use super::plan::{Packs, Plan, Threshold};
use crate::engine::condemned::{Removed, condemn};
use crate::ledger::needed::{images_after, needed_since, of_workspaces, record_of, running};
use crate::sync::lock;

/// While so few notes came since the last look, more are left to the transaction, in which others wait.
const FEW_NOTES: usize = 8;

impl Store {
    /// Frees what no image needs any more: what was removed, what commits replaced, what was never published. Others may use
    /// the store meanwhile, in this process and in others: nothing that they can find is taken from them, and they wait for
    /// no longer than one transaction, in other processes also while the catalog's dump is written.
    ///
    /// What someone began to read before (an [`Image`](crate::Image) handle, a checkout, a session) stays on the disk until
    /// they are done; the next collection removes it. Damage stays too, and so does what is needed of a damaged pack.
    ///
    /// ```
    /// # use layerstone::{GcOptions, Store};
    /// # fn main() -> layerstone::Result<()> {
    /// # let store = Store::in_memory()?;
    /// let report = store.collect_garbage(&GcOptions::default())?;
    /// println!("{} bytes freed", report.net_freed_bytes());
    /// # Ok(()) }
    /// ```
    ///
    /// Errors: [`InUse`](crate::ErrorKind::InUse) while another collection runs;
    /// [`Corrupt`](crate::ErrorKind::Corrupt) if something that an image needs or a row of the catalog is missing or damaged:
    /// then it can't be known what is needed, and nothing more is freed; [`Cancelled`](crate::ErrorKind::Cancelled), and then what it has
    /// freed stays freed.
    pub fn collect_garbage(&self, options: &GcOptions) -> Result<GcReport> {
        let _span = tracing::info_span!("collect", store = ?self.0.location).entered();
        let report = self.0.freeing(|| Collection::begin(&self.0, options)?.run());
        let report = report.map_err(|error| match error.kind() {
            ErrorKind::Cancelled => {
                let message = if options.dry_run {
                    "cancelled; nothing was changed"
                } else {
                    "the collection was cancelled; what it has freed stays freed"
                };
                Error::new(ErrorKind::Cancelled, Subject::Store(self.0.location.clone()), message)
            }
            _ => error,
        });
        if !options.dry_run {
            self.0.allocate_ballast();
        }
        report
    }
}

struct Collection<'c> {
    store: &'c Arc<Engine>,
    options: &'c GcOptions,
    /// None in a dry run.
    lease: Option<LeaseId>,
    /// Held until it ends, however it does.
    _turn: Option<Box<dyn LockGuard>>,
    report: GcReport,
}

/// What goes through the transactions that condemn.
struct Marked {
    marks: Marks,
    /// The last note that was marked.
    seen: u64,
}

impl Drop for Collection<'_> {
    fn drop(&mut self) {
        let Some(lease) = self.lease else { return };
        let released = self.store.without_task().catalog().and_then(|catalog| {
            catalog.write(|tx| {
                if tx.get::<Collections>(&())? == Some(lease) {
                    tx.remove::<Collections>(&())?;
                    clear_notes(tx)?;
                }
                tx.remove::<Leases>(&lease).map(drop)
            })
        });
        if released.is_err() {
            self.store.gate.abandon(lease);
        }
    }
}

/// Takes the turn to collect, which one has at a time in all processes.
fn take_turn(store: &Engine) -> Result<Box<dyn LockGuard>> {
    let subject = || Subject::Store(store.location.clone());
    let io = |action| move |error| store.hold_error(action, error);
    let _nobody_else = store.holds.lock();
    if store.disk.is_held(COLLECTING).map_err(io("look who collects"))? {
        let message = "a collection is under way already; wait for it";
        return Err(Error::new(ErrorKind::InUse, subject(), message));
    }
    store.disk.hold(COLLECTING).map_err(io("take the turn to collect"))
}

fn clear_notes(tx: &mut WriteTx) -> Result<()> {
    for (number, _) in needed_since(tx, 0)? {
        tx.remove::<Needed>(&number)?;
    }
    tx.remove::<Sequences>(&Sequence::Needed).map(drop)
}

impl<'c> Collection<'c> {
    fn begin(store: &'c Arc<Engine>, options: &'c GcOptions) -> Result<Self> {
        let mut report = GcReport { is_dry_run: options.dry_run, ..GcReport::default() };
        let lease = if options.dry_run {
            None
        } else {
            let catalog = store.catalog()?;
            let turn = take_turn(store)?;
            // A held store is not opened again once there is room.
            store.gate.recover(&catalog)?;
            // What a killed process was making a workspace of needs its image no more.
            let cleaned =
                store.workspace_folder().map(|folder| store.clean_workspaces(&folder)).transpose()?;
            add_cleaned(&mut report, cleaned.unwrap_or_default());
            let (told, appending) = (Cell::default(), store.gate.take_turn());
            let lease = catalog.write(|tx| {
                // One that ended without a word, and whose turn it no longer is.
                if let Some(ended) = running(tx)? {
                    packs::release(tx, ended)?;
                }
                let lease = store.gate.new_lease(&appending, tx, &told)?;
                clear_notes(tx)?;
                tx.put::<Collections>(&(), &lease)?;
                Ok(lease)
            });
            drop(appending);
            Some((lease.inspect_err(|_| store.gate.abandon(told.get()))?, turn))
        };
        let (lease, turn) = lease.unzip();
        collect_workspaces(store, options, &mut report)?;
        let mut begun = Self { store, options, lease, _turn: turn, report: GcReport::default() };
        if lease.is_some() {
            // What an earlier one condemned.
            add_removed(&mut report, store.remove_condemned()?);
        }
        begun.report = report;
        Ok(begun)
    }

    fn run(mut self) -> Result<GcReport> {
        let mut marked = self.mark()?;
        self.report.needed_objects = marked.marks.objects();
        let threshold = Threshold { is_full: self.options.full };
        let mut found = self.store.read(Packs::list)?;
        self.report.bytes_before += found.bytes;
        if self.lease.is_some() {
            // From here on it is known in which packs anything is needed by notes that come later.
            marked.marks.forget_touched();
            let uses = marked.marks.uses()?;
            let mut unsealed = Vec::new();
            for pack in found.to_seal(&uses, threshold) {
                match self.store.freeing(|| self.store.upkeep.seal(pack)) {
                    Err(error) if error.is_disk_full() => unsealed.push(pack),
                    other => other?,
                }
            }
            if !unsealed.is_empty() {
                let dropped = self.drop_open_packs(&mut marked, &found.unneeded_open(&uses))?;
                self.report.is_short_of_room = unsealed.iter().any(|pack| !dropped.contains(pack));
            }
            found = self.store.read(Packs::list)?;
        }
        let plan = found.plan(&marked.marks.uses()?, threshold, self.lease.is_none());
        self.report.unneeded_bytes = plan.unneeded_bytes;
        if self.lease.is_none() {
            return Ok(self.told(&plan));
        }
        let copied_bytes = plan.copied_bytes;
        let _stage = (copied_bytes > 0).then(|| self.store.task.begin(Phase::Copying, copied_bytes));
        if !plan.unneeded.is_empty() || !plan.to_copy.is_empty() {
            self.write_dump()?;
        }
        for (batch, is_copied) in std::iter::once((plan.unneeded, false))
            .chain(plan.to_copy.into_iter().map(|batch| (batch, true)))
            .filter(|(batch, _)| !batch.is_empty())
        {
            self.store.task.advance(0, 0)?;
            let begun = self.report.clone();
            match self.collect(marked, batch, is_copied) {
                Ok(after) => marked = after,
                // What was freed before stays freed; copies that are left are unneeded, and go with the next.
                Err(error) if is_copied && error.is_disk_full() => {
                    self.report = GcReport { is_short_of_room: true, ..begun };
                    break;
                }
                Err(error) => return Err(error),
            }
            add_removed(&mut self.report, self.store.remove_condemned()?);
        }
        // What is waiting now is told once.
        let removed = self.store.remove_condemned()?;
        add_removed(&mut self.report, removed);
        match self.store.upkeep.clean_index() {
            Err(error) if error.is_disk_full() => {}
            other => other?,
        }
        // Frames and segments that were written and never published, by whom nobody knows any more.
        let (store, lease) = (self.store, self.lease);
        let catalog = store.catalog()?;
        let _turn = store.gate.take_turn();
        store.gate.remove_strays(&catalog, lease)?;
        store.gate.cut_packs(&catalog)?;
        Ok(std::mem::take(&mut self.report))
    }

    /// Writes the catalog's dump. It comes after the marks: what it names is marked, or noted by whoever made it since. So
    /// no dump names an image whose content was collected, which a repair would take for lost.
    fn write_dump(&self) -> Result<()> {
        let catalog = self.store.catalog()?;
        match dump::write(&*self.store.disk, &catalog, self.store.surroundings.now()) {
            // To make room is worth more.
            Err(error) if error.is_disk_full() => Ok(()),
            other => other,
        }
    }

    /// The report of a dry run.
    fn told(mut self, plan: &Plan) -> GcReport {
        let all = plan.unneeded.iter().chain(plan.to_copy.iter().flatten());
        self.report.freed_packs = all.clone().count() as u64;
        self.report.freed_bytes = all.map(|(_, record)| record.bytes).sum();
        self.report.copied_bytes = plan.copied_bytes;
        std::mem::take(&mut self.report)
    }

    /// A view of now.
    fn reader(&self) -> Result<ObjectReader> {
        let catalog = self.store.catalog()?;
        let hold = self.store.hold(&catalog)?;
        self.store.reader(&catalog, &hold)
    }

    /// Marks all that is needed, but for what is noted at the end.
    fn mark(&mut self) -> Result<Marked> {
        let catalog = self.store.catalog()?;
        let hold = self.store.hold(&catalog)?;
        // Rows come before the view, which has the objects of all of them.
        let first = catalog.read(|tx| Ok((images_after(tx, None)?, of_workspaces(tx)?)));
        let (mut page, workspaces) = first?;
        let reader = self.store.reader(&catalog, &hold)?;
        drop(catalog);
        let stage = self.store.task.begin(Phase::CheckingIndex, None);
        // Of contents only the index says where they are: a damaged row would make what is needed look unneeded.
        reader.index().segments().iter().try_for_each(|segment| segment.check_body())?;
        drop(stage);
        let mut marked = Marked { marks: Marks::new(&reader), seen: 0 };
        workspaces.iter().try_for_each(|equal| marked.marks.mark_all(&reader, Needs::from(equal)))?;
        let mut reader = reader;
        let mut total = page.len() as u64;
        let _stage = self.store.task.begin(Phase::CheckingImages, total);
        while !page.is_empty() {
            for (_, image) in &page {
                self.store.task.advance(0, 0)?;
                marked.marks.mark_all(&reader, Needs::from(image))?;
                record_of(image).map_or(Ok(()), |record| marked.marks.mark_if_there(&reader, &record))?;
                self.report.images += 1;
                self.store.task.count(1, 0);
            }
            let last = page.last().map(|(key, _)| *key);
            let catalog = self.store.catalog()?;
            page = catalog.read(|tx| images_after(tx, last.as_ref()))?;
            reader = self.store.reader(&catalog, reader.hold())?;
            total += page.len() as u64;
            self.store.task.expect(total);
        }
        drop(reader);
        self.mark_notes(&mut marked)?;
        Ok(marked)
    }

    /// Marks what was noted meanwhile, until few are left.
    fn mark_notes(&self, marked: &mut Marked) -> Result<()> {
        loop {
            let notes = self.store.read(|tx| needed_since(tx, marked.seen))?;
            if !notes.is_empty() {
                marked.mark_notes(&self.reader()?, &notes)?;
            }
            if notes.len() <= FEW_NOTES {
                return Ok(());
            }
        }
    }

    /// Drops open packs of which nothing is needed, where there is no room for the segments with which they could be
    /// condemned: only while nobody else reads or writes, who might count on them. Gives those that are gone.
    fn drop_open_packs(
        &mut self,
        marked: &mut Marked,
        packs: &[(PackId, OpenPackRecord)],
    ) -> Result<Vec<PackId>> {
        if packs.is_empty() {
            return Ok(Vec::new());
        }
        self.mark_notes(marked)?;
        self.write_dump()?;
        let catalog = self.store.catalog()?;
        let _nobody_adds = self.store.gate.take_turn();
        let nobody_begins = self.store.holds.lock();
        if self.store.is_any_held()? {
            return Ok(Vec::new());
        }
        let seen = marked.seen;
        let dropped = catalog.write(|tx| {
            let lease = tx.collect::<Leases>(&[])?.into_iter().map(|(lease, _)| lease);
            let is_alone = lease.eq(self.lease) && needed_since(tx, seen)?.is_empty();
            let mut dropped = Vec::new();
            for (pack, record) in packs.iter().filter(|_| is_alone) {
                let is_as_it_was =
                    tx.get::<OpenPacks>(pack)?.is_some_and(|now| now.objects == record.objects);
                if is_as_it_was && !marked.marks.is_touched(*pack) {
                    packs::drop_open(tx, *pack)?;
                    dropped.push((*pack, record.committed_bytes));
                }
            }
            Ok(dropped)
        })?;
        drop(nobody_begins);
        drop(catalog);
        let ids: Vec<_> = dropped.iter().map(|(pack, _)| *pack).collect();
        marked.marks.withdraw(ids.iter().copied());
        self.store.remove_forgotten(&ids);
        self.report.freed_packs += dropped.len() as u64;
        self.report.freed_bytes += dropped.iter().map(|(_, bytes)| bytes).sum::<u64>();
        if !ids.is_empty() {
            // Before there may have been no room for it.
            self.write_dump()?;
        }
        Ok(ids)
    }

    /// Frees packs, after what is needed of them was copied.
    fn collect(
        &mut self,
        mut marked: Marked,
        packs: Vec<(PackId, SealedPackRecord)>,
        is_copied: bool,
    ) -> Result<Marked> {
        self.mark_notes(&mut marked)?;
        let catalog = self.store.catalog()?;
        let hold = self.store.hold(&catalog)?;
        let (session, _) = self.store.begin_session_to_free(&hold)?;
        drop(catalog);
        let mut ready = Vec::new();
        if is_copied {
            let wanted: HashSet<_> = packs.iter().map(|(pack, _)| *pack).collect();
            let frames = marked.marks.frames(&wanted)?;
            marked.marks.forget_touched();
            for (pack, record) in packs {
                let Some(frames) = frames.get(&pack) else { continue };
                match copy_frames(self.store, &marked.marks, &session, pack, frames, self.options.full) {
                    Ok(copied) => {
                        self.report.unneeded_bytes += copied.unneeded_bytes;
                        ready.push((pack, record));
                    }
                    // What is needed of it stays where it is.
                    Err(error) if error.is_corrupt() => self.report.damaged_packs += 1,
                    Err(error) => {
                        self.store.abandon(session);
                        return Err(error);
                    }
                }
            }
        } else {
            ready = packs;
        }
        self.report.copied_bytes += session.written_bytes();
        let (store, lease) = (self.store, self.lease);
        // Marks only grow, so it does no harm to make them in a transaction that comes to nothing.
        let marked = Mutex::new(marked);
        // Alone, since notes of the same transaction would be of objects that are not there yet.
        let condemned = self.store.publish_alone(session, |tx| {
            lease.map_or(Ok(()), |lease| packs::check_lease(tx, lease))?;
            let mut marked = lock(&marked);
            let notes = needed_since(tx, marked.seen)?;
            if !notes.is_empty() {
                let index = store.index.view_apart(&*store.catalog()?)?;
                let reader = ObjectReader::new(index, Arc::clone(&store.packs), Arc::clone(&hold));
                marked.mark_notes(&reader, &notes)?;
            }
            condemn(tx, ready.iter().copied().filter(|(pack, _)| !marked.marks.is_touched(*pack)))
        })?;
        let mut marked = marked.into_inner().unwrap_or_else(PoisonError::into_inner);
        marked.marks.withdraw(condemned.into_iter().map(|(pack, _)| pack));
        Ok(marked)
    }
}

impl Marked {
    fn mark_notes(
        &mut self,
        reader: &ObjectReader,
        notes: &[(u64, crate::catalog::record::NeededRecord)],
    ) -> Result<()> {
        for (number, needed) in notes {
            self.marks.mark_all(reader, Needs::from(needed))?;
            needed.image.map_or(Ok(()), |image| self.marks.mark_if_there(reader, &image))?;
            self.seen = *number;
        }
        Ok(())
    }
}

/// Frees what was prepared for workspaces and is not needed, or says how much that is.
fn collect_workspaces(store: &Engine, options: &GcOptions, report: &mut GcReport) -> Result<()> {
    let Some(folder) = &store.workspace_folder() else { return Ok(()) };
    let cleanable = options.dry_run.then(|| store.cleanable(folder)).transpose()?;
    let usage = store.collect_lowers(folder, options.caches, cleanable.as_ref())?;
    report.workspace_bytes_before += usage.bytes_before;
    report.freed_workspace_bytes += usage.freed_bytes;
    report.idle_workspace_bytes = usage.idle_bytes;
    let cleaned = match cleanable {
        Some(Cleanable { bytes, .. }) => Cleaned { freed_bytes: bytes, left_over: Vec::new() },
        // What could not be removed of what was collected.
        None => store.clean_workspaces(folder)?,
    };
    add_cleaned(report, cleaned);
    Ok(())
}

/// Counts what a clean-up freed among what was there, and names what it had to leave.
fn add_cleaned(report: &mut GcReport, cleaned: Cleaned) {
    report.workspace_bytes_before += cleaned.freed_bytes;
    report.freed_workspace_bytes += cleaned.freed_bytes;
    report.left_over = cleaned.left_over;
}

fn add_removed(report: &mut GcReport, removed: Removed) {
    report.freed_packs += removed.packs;
    report.freed_bytes += removed.bytes;
    report.waiting_packs = removed.waiting_packs;
    report.waiting_bytes = removed.waiting_bytes;
}
