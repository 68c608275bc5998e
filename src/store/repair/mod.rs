//! Making a damaged store one that is sound, of all that is.
//!
//! Order of what reaches the disk, each step durable before the next; until 3 nothing of the store has changed, and nothing
//! is ever deleted:
//! 1. All packs are read. Of what is sound in them a new index is written, and what is sound in damaged ones is copied to new
//!    packs ([`scan`]).
//! 2. A new catalog is built under another name: of the rows of the old one, for those that are lost of its dump, and for
//!    images of the records in packs ([`rows`], [`images`]); what is sound of images that are lost in part becomes images of
//!    their own ([`salvage`]); the index and what follows from other rows is made anew
//!    ([`publish`]). A copy of the old one is kept where it is not whole.
//! 3. The new catalog is renamed into place.
//! 4. What it does not name any more is set aside in the folder `quarantine`, and a new dump is written.
//!
//! A kill before 3 leaves files that nothing names, whose numbers the next repair leaves out; one after it leaves damaged
//! files where they were, beside a store that does not need them.

mod copy;
mod images;
mod publish;
mod quarantine;
mod report;
mod rows;
mod salvage;
mod scan;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use crate::catalog::table::Sequence;
use crate::catalog::{CATALOG_FILE, Catalog, Poison};
use crate::disk::{Disk, OpenMode, RealDisk, UnsyncedDisk};
use crate::error::{Error, ErrorKind, Result, Subject};
use crate::format::FORMAT_VERSION;
use crate::id::PackId;
use crate::pack::frame::FrameBuilder;
use crate::pack::hold::Hold;
use crate::pack::index::ObjectIndex;
use crate::pack::reader::{ObjectReader, PackReader};
use crate::pack::segment::Segment;
use crate::pack::{PACKS, SEGMENTS};

use crate::time::Moment;

use super::gate::Gate;
use super::surroundings::Surroundings;
use super::verify::{Damage, ImageWalk};
use super::{
    DIRECTORIES, DUMP_FILE, Durability, FORMAT_FILE, GENERATIONS, Store, StoreOptions, dump, unusable,
};
use copy::PackCopy;
use quarantine::Quarantine;
pub use report::{CatalogState, FoundImage, RepairReport, SalvagedImage};
use rows::Rows;
use salvage::{NewObjects, salvage};
use scan::{Extent, Numbers, Scanned, scan};

/// What a repair brings back.
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct RepairOptions {
    /// Bring back images, too, that had been removed, as far as all their content is still in packs.
    pub include_removed: bool,
}

impl Store {
    /// Repairs the store in this directory, with the default [`StoreOptions`]: keeps every image that is sound, makes the
    /// index anew from the packs, and the catalog where rows of it are lost, and says what is lost. Nothing is deleted: what
    /// is damaged is set aside in the store's folder `quarantine`. It can be killed at any time and run again.
    ///
    /// It works where [`Store::open`] fails. No handle of an image or workspace may be in use. When it returns `Ok`, and nobody else
    /// has damaged the store meanwhile, [`Store::verify`] finds nothing.
    ///
    /// Errors: [`NotFound`](crate::ErrorKind::NotFound) and [`Invalid`](crate::ErrorKind::Invalid) where there is no store;
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for a store of another format;
    /// [`InUse`](crate::ErrorKind::InUse) where somebody reads or writes it; [`Locked`](crate::ErrorKind::Locked);
    /// [`Io`](crate::ErrorKind::Io) where a file can't be read or written, which may pass: nothing has changed then.
    pub fn repair(path: impl AsRef<Path>, options: RepairOptions) -> Result<RepairReport> {
        StoreOptions::default().repair(path, options)
    }
}

impl StoreOptions {
    /// Repairs the store in this directory: see [`Store::repair`].
    pub fn repair(self, path: impl AsRef<Path>, options: RepairOptions) -> Result<RepairReport> {
        let path = path.as_ref();
        if !path.is_dir() {
            return Err(Error::not_found(Subject::Store(path.to_owned()), "no such directory"));
        }
        let disk: Arc<dyn Disk> =
            Arc::new(RealDisk::open_or_create(path).map_err(|error| unusable(path, error))?);
        let disk: Arc<dyn Disk> = match self.durability {
            Durability::Synced => disk,
            Durability::Unsynced => Arc::new(UnsyncedDisk(disk)),
        };
        Repair { disk, location: path, options: self }.run(options)
    }
}

struct Repair<'p> {
    disk: Arc<dyn Disk>,
    location: &'p Path,
    options: StoreOptions,
}

impl Repair<'_> {
    fn run(&self, options: RepairOptions) -> Result<RepairReport> {
        self.check_is_store()?;
        let gate = Gate::new(
            Arc::clone(&self.disk),
            self.location.into(),
            Poison::default(),
            self.options.lock_timeout,
            Surroundings::default(),
        );
        let _lock = gate.lock()?;
        let mut report = RepairReport::default();
        let has_format = self.check_format(&mut report)?;
        for folder in [PACKS, SEGMENTS, DIRECTORIES, GENERATIONS] {
            self.disk.create_dir(folder).map_err(|error| unusable(self.location, error))?;
        }
        self.check_is_unused()?;
        let disk = &*self.disk;
        let mut rows = Rows::read(disk, &mut report)?;
        let numbers = self.numbers(&mut rows)?;
        let threads = (self.options.threads, self.options.pack_bytes);
        let (mut scanned, numbers) = scan(disk, self.extents(&rows)?, numbers, threads, &mut report)?;
        rows.add_found(std::mem::take(&mut scanned.images), options.include_removed, &mut report);
        let reader = self.reader(&scanned)?;
        let damage = Damage::default();
        let mut walk = ImageWalk::new(&reader, &damage);
        let damaged = rows.drop_damaged(&mut walk, &mut report)?;
        let objects = NewObjects {
            disk,
            reader: &reader,
            scanned: &mut scanned,
            numbers,
            copy: PackCopy::new(disk, self.options.pack_bytes)?,
            frame: FrameBuilder::default(),
            written: HashSet::new(),
        };
        let numbers = salvage(&mut rows, damaged, &mut walk, objects, &mut report)?;
        rows.raise(Sequence::Pack, numbers.last_pack.into());
        rows.raise(Sequence::Segment, numbers.last_segment.into());
        rows.add_projects();
        rows.drop_directories(disk, &mut report)?;

        let mut quarantine = Quarantine::open(disk, self.location)?;
        Catalog::build(disk, |tx| rows.fill(tx, &scanned))?;
        if !rows.is_whole || report.has_losses() {
            quarantine.keep_copy(CATALOG_FILE)?;
            quarantine.keep_copy(DUMP_FILE)?;
        }
        Catalog::publish_built(disk)?;
        if !has_format {
            publish::write_format(disk).map_err(|error| unusable(self.location, error))?;
        }
        quarantine.set_aside_unnamed(&rows, &scanned)?;
        dump::write(disk, &Catalog::open(disk, Poison::default())?, Moment::now())?;
        report.images = rows.images.len() as u64;
        report.packs = (scanned.kept.len() + scanned.copies.len()) as u64;
        report.objects = scanned.kept.values().chain(scanned.copies.values()).map(|pack| pack.objects).sum();
        report.quarantined = quarantine.finish();
        Ok(report)
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
        let io = |error| unusable(self.location, error);
        let mut text = Vec::new();
        match self.disk.open(FORMAT_FILE, OpenMode::Read) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(io(error)),
            Ok(file) => {
                text.resize(usize::try_from(file.len().map_err(io)?.min(100)).unwrap_or(100), 0);
                file.read_at(&mut text, 0).map_err(io)?;
            }
        }
        let subject = || Subject::Store(self.location.to_owned());
        match publish::parse_format(&text) {
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

    /// The packs that are read: those that the catalog names, or where it is not whole all there are.
    fn extents(&self, rows: &Rows) -> Result<Vec<Extent>> {
        let domain = super::packs::SHARED_DOMAIN;
        if !rows.is_whole {
            let packs =
                self.numbered(PACKS, ".pack")?.into_iter().filter_map(|number| number.try_into().ok());
            return Ok(packs.map(|pack| Extent { pack: PackId::new(pack), bytes: None, domain }).collect());
        }
        let open = rows.open_packs.iter().filter(|(_, record)| record.committed_bytes > 0);
        let open = open.map(|(pack, record)| (*pack, record.committed_bytes, record.domain));
        let sealed = rows.sealed_packs.iter().map(|(pack, record)| (*pack, record.bytes, record.domain));
        let extent = |(pack, bytes, domain)| Extent { pack, bytes: Some(bytes), domain };
        Ok(open.chain(sealed).map(extent).collect())
    }

    /// Sees to it that no number is given out again for which there is a file.
    fn numbers(&self, rows: &mut Rows) -> Result<Numbers> {
        let folders = [
            (PACKS, ".pack", Sequence::Pack),
            (SEGMENTS, ".segment", Sequence::Segment),
            (DIRECTORIES, ".state", Sequence::Directory),
            (quarantine::WORKSPACES, "", Sequence::Workspace),
        ];
        for (folder, ending, sequence) in folders {
            for number in self.numbered(folder, ending)? {
                rows.raise(sequence, number);
            }
        }
        let number = |sequence| u32::try_from(rows.last(sequence)).unwrap_or(u32::MAX);
        Ok(Numbers { last_pack: number(Sequence::Pack), last_segment: number(Sequence::Segment) })
    }

    /// The numbers of a folder's files.
    fn numbered(&self, folder: &str, ending: &str) -> Result<Vec<u64>> {
        let names = match self.disk.list(folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            other => other.map_err(|error| unusable(self.location, error))?,
        };
        let number = |name: &String| {
            let digits = name.strip_suffix(ending).filter(|digits| digits.len() == 10)?;
            digits.bytes().all(|digit| digit.is_ascii_digit()).then(|| digits.parse().ok())?
        };
        let mut numbers: Vec<_> = names.iter().filter_map(number).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Reads what the new index finds.
    fn reader(&self, scanned: &Scanned) -> Result<ObjectReader> {
        let open = |id| Segment::open(&*self.disk, id).map(Arc::new);
        let segments = scanned.segments.keys().map(|id| open(*id)).collect::<Result<_>>()?;
        let packs = Arc::new(PackReader::new(Arc::clone(&self.disk), self.options.cache_bytes));
        let index = ObjectIndex::new(Vec::new(), segments, HashMap::new());
        Ok(ObjectReader::new(Arc::new(index), packs, Arc::new(Hold::new(0, None))))
    }
}
