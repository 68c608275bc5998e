//! Making a damaged store one that is sound, of all that is.
//!
//! Order of what reaches the disk, each step durable before the next:
//! 1. All packs are read ([`scan`]). Of what is sound in them a new index is written, and what is sound in damaged ones is
//!    copied to new packs ([`output`]).
//! 2. A new catalog is built under another name: of the rows of the old one, for those that are lost of its dump, and for
//!    images of the records in packs ([`rows`], [`images`]); what is sound of images that are lost in part becomes images of
//!    their own ([`salvage`]); the index and what follows from other rows is made anew ([`publish`]).
//! 3. What is damaged gets a further name in the folder `quarantine`, and so does the old catalog where it is not whole
//!    ([`quarantine`]). The directories of lost workspaces are moved there ([`workspaces`]). A damaged file `format` is made
//!    anew.
//! 4. What is lost is kept in a file until 6, so that a repair that is killed in 5 does not hide it ([`losses`]).
//! 5. The new catalog is renamed into place. What it does not name any more goes, and a new dump is written.
//! 6. The file of 4 goes.
//!
//! Until 5 the store is as it was, but for files that nothing names, and in the end for the directories of lost workspaces
//! and the file `format`: a crash leaves the damaged store, and a repair of that comes to the same result. From 5 on it is
//! the repaired one, with all that was damaged set aside.

mod files;
mod images;
pub(crate) mod losses;
mod output;
mod publish;
mod quarantine;
mod report;
mod rows;
mod salvage;
mod scan;
mod workspaces;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use crate::catalog::table::Sequence;
use crate::catalog::{Catalog, Poison};
use crate::disk::{Disk, UnsyncedDisk};
use crate::error::{Error, ErrorKind, Result, Subject};
use crate::format::FORMAT_VERSION;
use crate::layout::{
    CATALOG_FILE, DIRECTORIES, DUMP_FILE, FORMAT_FILE, GENERATIONS, PACKS, SEGMENTS, pack_file,
};
use crate::pack::generation::GenerationGuard;
use crate::pack::index::ObjectIndex;
use crate::pack::reader::{ObjectReader, PackReader};
use crate::pack::segment::Segment;
use crate::task::Phase;

use super::verify::{Damage, ImageWalk};
use crate::engine::format_file::{self, FormatFile};
use crate::engine::{Durability, StoreOptions};
use crate::engine::{Gate, Surroundings, dump, store_directory, unusable};
use crate::store::Store;
use files::Unnamed;
use losses::UnreportedLosses;
use output::{Numbers, Output};
use quarantine::Quarantine;
pub use report::{CatalogState, FoundImage, RepairReport, SalvagedImage};
use rows::Rows;
use salvage::{NewObjects, salvage};
use scan::{copy_sound, scan};

/// What a repair brings back.
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct RepairOptions {
    /// Bring back images, too, that had been removed, as far as all their content is still in packs.
    pub include_removed: bool,
}

impl Store {
    /// Repairs the store in this directory, with the default [`StoreOptions`]: keeps every image that is sound, makes the
    /// index anew from the packs, and the catalog where rows of it are lost, and says what is lost. Nothing is deleted but the
    /// old index: what is damaged is set aside in the store's folder `quarantine`. It can be killed at any time, or lose its
    /// power, and be run again: the store is the damaged one until it is the repaired one, with all of that set aside.
    ///
    /// It works where [`Store::open`] fails. No handle of an image or workspace may be in use. When it returns `Ok`, and nobody
    /// else has damaged the store meanwhile, [`Store::verify`] finds nothing, unless a fault of the report says that the
    /// catalog's dump could not be written: the store does that after a change.
    ///
    /// Errors: [`NotFound`](crate::ErrorKind::NotFound) and [`Invalid`](crate::ErrorKind::Invalid) where there is no store;
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for a store of another format;
    /// [`InUse`](crate::ErrorKind::InUse) where somebody reads or writes it; [`Locked`](crate::ErrorKind::Locked);
    /// [`Io`](crate::ErrorKind::Io) where a file can't be read or written, which may pass: then it can be run again.
    pub fn repair(path: impl AsRef<Path>, options: RepairOptions) -> Result<RepairReport> {
        StoreOptions::default().repair(path, options)
    }
}

impl StoreOptions {
    /// Repairs the store in this directory: see [`Store::repair`].
    pub fn repair(self, path: impl AsRef<Path>, options: RepairOptions) -> Result<RepairReport> {
        let path = path.as_ref();
        let disk: Arc<dyn Disk> = Arc::new(store_directory(path, false)?);
        let disk: Arc<dyn Disk> = match self.durability {
            Durability::Synced => disk,
            Durability::Unsynced => Arc::new(UnsyncedDisk(disk)),
        };
        Repair { disk, location: path, options: self, surroundings: Surroundings::default() }.run(options)
    }

    /// Repairs the store on a simulated disk and machine.
    #[cfg(feature = "testing")]
    pub fn repair_simulated(
        self,
        disk: &crate::disk::simulated::SimulatedDisk,
        machine: &Arc<crate::engine::SimulatedMachine>,
        options: RepairOptions,
    ) -> Result<RepairReport> {
        let surroundings = Surroundings { simulated: Some(Arc::clone(machine)) };
        let location = Path::new(":memory:");
        Repair { disk: Arc::new(disk.clone()), location, options: self, surroundings }.run(options)
    }
}

struct Repair<'p> {
    disk: Arc<dyn Disk>,
    location: &'p Path,
    options: StoreOptions,
    surroundings: Surroundings,
}

impl Repair<'_> {
    fn run(&self, options: RepairOptions) -> Result<RepairReport> {
        let _span = tracing::info_span!("repair", store = ?self.location).entered();
        self.check_is_store()?;
        let gate = Gate::new(
            Arc::clone(&self.disk),
            self.location.into(),
            Poison::default(),
            self.options.lock_timeout,
            self.surroundings.clone(),
        );
        let _lock = gate.lock(&self.options.task)?;
        let mut report = RepairReport::default();
        let disk = &*self.disk;
        let has_format = self.check_format(&mut report)?;
        for folder in [PACKS, SEGMENTS, DIRECTORIES, GENERATIONS] {
            disk.create_dir(folder).map_err(|error| unusable(self.location, error))?;
        }
        self.check_is_unused()?;
        let stage = self.options.task.begin(Phase::CheckingIndex, None);
        let mut rows = Rows::read(disk, &self.surroundings, &mut report)?;
        drop(stage);
        self.add_workspaces(&mut rows)?;
        self.remove_unfinished()?;
        let unreported = UnreportedLosses::read(disk, &mut report)?;
        let numbers = self.numbers(&mut rows)?;
        let built = self.build(&mut rows, numbers, options, &mut report);
        let unnamed = built
            .and_then(|unnamed| {
                self.set_aside(&rows, &unnamed, has_format, &mut report)?;
                unreported.add_to(&mut report, |image| rows.images.keys().any(|(_, there)| *there == image));
                losses::keep(disk, &report)?;
                Ok(unnamed)
            })
            // On a full disk it would take the room that others could use.
            .inspect_err(|_| self.remove_output(numbers))?;
        Catalog::publish_built(disk)?;
        for name in unnamed.kept.iter().chain(&unnamed.superseded) {
            // One that stays is a stray, which the next collection removes.
            let _ = disk.remove(name);
        }
        let catalog = Catalog::open(disk, Poison::default());
        let dumped = catalog.and_then(|catalog| dump::write(disk, &catalog, self.surroundings.now()));
        // The store is repaired, and what was lost must be told; the dump is written again after a change.
        dumped.unwrap_or_else(|error| report.add_fault(error));
        losses::forget(disk);
        Ok(report)
    }

    /// Builds the new catalog and what it names, and gives the files that it does not name.
    fn build(
        &self,
        rows: &mut Rows,
        numbers: Numbers,
        options: RepairOptions,
        report: &mut RepairReport,
    ) -> Result<Unnamed> {
        let disk = &*self.disk;
        let mut unnamed = self.old_segments(numbers, report)?;
        let mut output = Output::new(disk, numbers, self.options.pack_bytes)?;
        let mut scanned = scan(self.extents(rows)?, &self.options, &mut output, report)?;
        unnamed.kept.extend(scanned.damaged.iter().map(|extent| pack_file(extent.pack)));
        // Packs whose files are gone tell no more of their images than damaged ones.
        let lacks_packs = rows.had_packs && scanned.kept.is_empty();
        report.may_lack_images = !rows.is_whole && (lacks_packs || !scanned.damaged.is_empty());
        copy_sound(&scanned.damaged, &self.reader(&output)?, &mut output)?;
        rows.add_found(std::mem::take(&mut scanned.images), options.include_removed, report);
        let reader = self.reader(&output)?;
        let damage = Damage::default();
        let mut walk = ImageWalk::new(&reader, &damage);
        let damaged = rows.drop_damaged(&mut walk, report)?;
        let objects = NewObjects::new(&reader, &mut output);
        salvage(rows, damaged, &mut walk, objects, &self.surroundings, report)?;
        rows.raise(Sequence::Pack, output.numbers.pack.into());
        rows.raise(Sequence::Segment, output.numbers.segment.into());
        let now = self.surroundings.now();
        rows.add_projects(now);
        images::name_projects(rows, report);
        rows.add_parents();
        let dropped = rows.drop_directories(disk, report)?;
        unnamed.kept.extend(self.unnamed_states(rows, &dropped, report)?);
        Catalog::build(disk, |tx| rows.fill(tx, &scanned, &output, now))?;
        report.images = rows.images.len() as u64;
        report.packs = (scanned.kept.len() + output.packs.len()) as u64;
        report.objects = scanned.kept.values().chain(output.packs.values()).map(|pack| pack.objects).sum();
        Ok(unnamed)
    }

    /// Sets aside what is damaged, and the old catalog where something of it is lost; then the file `format` is made anew if
    /// it was damaged.
    fn set_aside(
        &self,
        rows: &Rows,
        unnamed: &Unnamed,
        has_format: bool,
        report: &mut RepairReport,
    ) -> Result<()> {
        let mut quarantine = Quarantine::new(&*self.disk, self.location);
        unnamed.kept.iter().try_for_each(|name| quarantine.keep(name))?;
        let has_losses = !rows.is_whole || report.has_losses();
        let damaged = [
            (CATALOG_FILE, has_losses),
            (DUMP_FILE, has_losses || rows.has_damaged_dump),
            (FORMAT_FILE, !has_format),
        ];
        let mut damaged = damaged.into_iter().filter(|(_, is_kept)| *is_kept);
        damaged.try_for_each(|(name, _)| quarantine.keep(name))?;
        quarantine.sync()?;
        // Last, since what can't be linked is moved.
        self.take_workspaces(rows, &mut quarantine, report)?;
        report.quarantined = quarantine.into_names();
        if has_format {
            return Ok(());
        }
        // Before the catalog takes over, so that nothing that can fail behind that leaves a store that can't be opened.
        format_file::write_durable(&*self.disk).map_err(|error| unusable(self.location, error))
    }

    /// A mistyped name is no store without anything in it.
    fn check_is_store(&self) -> Result<()> {
        for name in [FORMAT_FILE, CATALOG_FILE, DUMP_FILE, PACKS] {
            if self.disk.exists(name).map_err(|error| unusable(self.location, error))? {
                return Ok(());
            }
        }
        let message = "is no store: it has neither a catalog nor packs";
        Err(Error::invalid(Subject::Store(self.location.to_owned()), message))
    }

    /// Fails while anybody works with what they found in the store before: it may not be there any more.
    fn check_is_unused(&self) -> Result<()> {
        let io = |error| unusable(self.location, error);
        for name in self.disk.list(GENERATIONS).map_err(io)? {
            if self.disk.is_held(&format!("{GENERATIONS}/{name}")).map_err(io)? {
                let message = "is in use: end the programs that read or write it first";
                return Err(Error::new(ErrorKind::InUse, Subject::Store(self.location.to_owned()), message));
            }
        }
        Ok(())
    }

    /// Whether the store says its format. Another one is left alone.
    fn check_format(&self, report: &mut RepairReport) -> Result<bool> {
        let version = match FormatFile::read(&*self.disk) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            other => other.map_err(|error| unusable(self.location, error))?.version,
        };
        let subject = || Subject::Store(self.location.to_owned());
        match version {
            Some(FORMAT_VERSION) => Ok(true),
            Some(other) => {
                let message =
                    format!("it has format {other}, and this version of layerstone repairs {FORMAT_VERSION}");
                Err(Error::unsupported(subject(), message))
            }
            None => {
                report.add_fault(Error::corrupt(subject(), "its file 'format' is missing or damaged"));
                Ok(false)
            }
        }
    }

    /// Reads what the new index finds.
    fn reader(&self, output: &Output<'_>) -> Result<ObjectReader> {
        let open = |id| Segment::open(&*self.disk, id).map(Arc::new);
        let segments = output.segments.keys().map(|id| open(*id)).collect::<Result<_>>()?;
        let packs = Arc::new(PackReader::new(Arc::clone(&self.disk), self.options.cache_bytes));
        let index = ObjectIndex::new(Vec::new(), segments, HashMap::new());
        let reader = ObjectReader::new(Arc::new(index), packs, Arc::new(GenerationGuard::new(0, None)));
        Ok(reader.with_task(&self.options.task))
    }
}
