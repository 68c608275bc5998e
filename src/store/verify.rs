//! Reading everything back: that all that was written is what it was, and that all that is referred to is there.
//!
//! Three passes over one view. The index: each segment's rows are those that were written. The packs, on all cores: each
//! frame is unpacked, each object hashed, and the index finds it. The images, one after the other: each object that a tree
//! or a history leads to exists; what one image has in common with another is followed once.

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use crate::catalog::record::ImageRecord;
use crate::catalog::table::{Images, OpenPacks, SealedPacks};
use crate::catalog::{ReadTables, ReadTx};
use crate::error::{Error, Result, Subject};
use crate::id::{ImageId, ObjectId, PackId};
use crate::layer::LayerRecord;
use crate::object::ObjectSource;
use crate::pack::frame;
use crate::pack::reader::ObjectReader;
use crate::pack::walk::{FrameRun, PackWalk};
use crate::tree::{Reference, Root};

use super::{Inner, Store};

/// Faults that are told; the others are counted.
const FAULTS_TOLD: usize = 1000;

/// What [`Store::verify`] has read, and what is wrong.
#[derive(Clone, Debug, Default, Serialize)]
pub struct VerifyReport {
    /// Packs that were read.
    pub packs: u64,
    /// Objects that were checked against their ids.
    pub objects: u64,
    /// Bytes of packs that were read.
    pub stored_bytes: u64,
    /// Raw bytes of the objects.
    pub bytes: u64,
    /// Images whose objects were looked for, each in each project that has it.
    pub images: u64,
    /// Faults in all.
    pub fault_count: u64,
    /// The first faults, each naming what is damaged: at most 1,000.
    #[serde(serialize_with = "as_text")]
    pub faults: Vec<Error>,
}

fn as_text<S: serde::Serializer>(faults: &[Error], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(faults.iter().map(ToString::to_string))
}

impl VerifyReport {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.fault_count == 0
    }

    fn add_fault(&mut self, fault: Error) {
        self.fault_count += 1;
        if self.faults.len() < FAULTS_TOLD {
            self.faults.push(fault);
        }
    }

    /// Takes an error for a fault if it is one: what can't be read now may be sound.
    fn note(&mut self, error: Error) -> Result<()> {
        if error.is_corrupt() {
            self.add_fault(error);
            return Ok(());
        }
        Err(error)
    }

    fn add(&mut self, other: Self) {
        self.packs += other.packs;
        self.objects += other.objects;
        self.stored_bytes += other.stored_bytes;
        self.bytes += other.bytes;
        self.fault_count += other.fault_count - other.faults.len() as u64;
        other.faults.into_iter().for_each(|fault| self.add_fault(fault));
    }
}

impl Store {
    /// Reads every byte of the store's packs and index back and checks it, and that everything that an image of any
    /// project needs is there. Others may use the store meanwhile; what they publish after the call began is not looked at.
    ///
    /// Damage is in the report, not an error. Errors: [`Io`](crate::ErrorKind::Io) where something can't be read;
    /// [`Corrupt`](crate::ErrorKind::Corrupt) where the catalog itself is damaged, which tells what the rest should be.
    pub fn verify(&self) -> Result<VerifyReport> {
        let store = &self.0;
        let (reader, packs, images) = {
            let catalog = store.catalog()?;
            // The view is not older than the packs: it has all their objects.
            let hold = store.hold(&catalog)?;
            let packs = catalog.read(packs)?;
            let images = catalog.read(|tx| tx.collect::<Images>(&[]))?;
            (store.reader(&catalog, &hold)?, packs, images)
        };
        let mut report = VerifyReport::default();
        for segment in reader.index().segments() {
            segment.check_body().or_else(|error| report.note(error))?;
        }
        report.add(store.verify_packs(&reader, packs)?);
        let mut known = HashSet::new();
        for (_, image) in images {
            report.images += 1;
            verify_image(&reader, &image, &mut known, &mut report)?;
        }
        Ok(report)
    }
}

/// An object's pack, frame and slot.
type ObjectPlace = (PackId, u64, u16);

/// A pack, how many of its bytes count, and its domain.
type Extent = (PackId, u64, u32);

fn packs(tx: &ReadTx) -> Result<Vec<Extent>> {
    let open = tx.collect::<OpenPacks>(&[])?.into_iter();
    let open = open.filter(|(_, record)| record.committed_bytes > 0);
    let open = open.map(|(pack, record)| (pack, record.committed_bytes, record.domain));
    let sealed = tx.collect::<SealedPacks>(&[])?.into_iter();
    Ok(open.chain(sealed.map(|(pack, record)| (pack, record.bytes, record.domain))).collect())
}

/// The runs of frames of all packs, which threads take one after the other.
struct Runs<'s> {
    store: &'s Inner,
    reader: &'s ObjectReader,
    packs: std::vec::IntoIter<Extent>,
    walk: Option<PackWalk>,
    damaged: BTreeSet<ObjectPlace>,
    report: VerifyReport,
}

impl Runs<'_> {
    fn next(&mut self) -> Result<Option<FrameRun>> {
        loop {
            if let Some(walk) = &mut self.walk {
                match walk.next_run() {
                    Ok(Some(run)) => return Ok(Some(run)),
                    Ok(None) => self.walk = None,
                    Err(error) => {
                        self.report.note(error)?;
                        walk.go_on_with(self.reader.index().frames_of(walk.pack()));
                    }
                }
                continue;
            }
            let Some((pack, bytes, domain)) = self.packs.next() else { return Ok(None) };
            self.report.packs += 1;
            match PackWalk::open(&*self.store.disk, pack, bytes, domain) {
                Ok(walk) => self.walk = Some(walk),
                Err(error) => self.report.note(error)?,
            }
        }
    }
}

impl Inner {
    fn verify_packs(&self, reader: &ObjectReader, packs: Vec<Extent>) -> Result<VerifyReport> {
        let runs = Runs {
            store: self,
            reader,
            packs: packs.into_iter(),
            walk: None,
            damaged: BTreeSet::new(),
            report: VerifyReport::default(),
        };
        let runs = Mutex::new(runs);
        let stop = AtomicBool::new(false);
        let work = || -> Result<()> {
            let mut worker = Worker::new(reader)?;
            while !stop.load(Ordering::Relaxed) {
                let Some(run) = lock(&runs).next()? else { break };
                worker.verify(&run)?;
            }
            worker.verify_elsewhere()?;
            let mut runs = lock(&runs);
            runs.report.add(worker.report);
            runs.damaged.extend(worker.damaged);
            Ok(())
        };
        crate::threads::run_all(self.options.threads, &stop, work)?;
        let Runs { damaged, mut report, .. } = runs.into_inner().unwrap_or_else(PoisonError::into_inner);
        name_damaged(reader, damaged, &mut report)?;
        Ok(report)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One thread's memory, and what it found.
struct Worker<'r> {
    reader: &'r ObjectReader,
    decompressor: zstd::bulk::Decompressor<'static>,
    packed: Vec<u8>,
    raw: Vec<u8>,
    /// Objects that the index finds in another place, where another session wrote them too.
    elsewhere: BTreeSet<ObjectId>,
    /// Objects whose bytes are not what was written.
    damaged: BTreeSet<ObjectPlace>,
    report: VerifyReport,
}

impl<'r> Worker<'r> {
    fn new(reader: &'r ObjectReader) -> Result<Self> {
        let decompressor = zstd::bulk::Decompressor::new()
            .map_err(|error| Error::io(Subject::Argument("frame"), "set up decompression", error))?;
        Ok(Self {
            reader,
            decompressor,
            packed: Vec::new(),
            raw: Vec::new(),
            elsewhere: BTreeSet::new(),
            damaged: BTreeSet::new(),
            report: VerifyReport::default(),
        })
    }

    fn verify(&mut self, run: &FrameRun) -> Result<()> {
        let bytes = run.frames.iter().map(|bytes| *bytes as usize).sum();
        if self.packed.len() < bytes {
            self.packed.resize(bytes, 0);
        }
        let packed = self.packed.get_mut(..bytes).unwrap_or_default();
        run.file
            .read_at(packed, run.offset)
            .map_err(|error| Error::io(Subject::Pack(run.pack), "read it", error))?;
        self.report.stored_bytes += bytes as u64;
        let packed = std::mem::take(&mut self.packed);
        let mut rest = packed.as_slice();
        let mut offset = run.offset;
        for bytes in &run.frames {
            let Some((frame, after)) = rest.split_at_checked(*bytes as usize) else { break };
            self.verify_frame(run.pack, offset, frame).or_else(|error| self.report.note(error))?;
            rest = after;
            offset += u64::from(*bytes);
        }
        self.packed = packed;
        Ok(())
    }

    fn verify_frame(&mut self, pack: PackId, offset: u64, bytes: &[u8]) -> Result<()> {
        let table = frame::decode(pack, offset, bytes, &mut self.decompressor, &mut self.raw)?;
        let ids: Vec<_> = table.objects(&self.raw).map(|(kind, bytes)| kind.id_of(bytes)).collect();
        self.report.objects += ids.len() as u64;
        self.report.bytes += self.raw.len() as u64;
        let is_sound = table.is_of(&ids);
        let mut unknown = Vec::new();
        for (id, slot) in ids.into_iter().zip(0..) {
            match self.reader.find(&id) {
                Some(place) if (place.pack, place.offset, place.slot) == (pack, offset, slot) => {}
                Some(_) => drop(self.elsewhere.insert(id)),
                None if is_sound => {
                    let message = format!("it is in pack {pack}, but the index has not got it");
                    self.report.add_fault(Error::corrupt(Subject::Object(id), message));
                }
                None => unknown.push((pack, offset, slot)),
            }
        }
        if is_sound || !unknown.is_empty() {
            self.damaged.extend(unknown);
            return Ok(());
        }
        let message = format!("the frame at byte {offset} has other objects than were written");
        Err(Error::corrupt(Subject::Pack(pack), message))
    }

    /// Checks that the index leads to objects that were found in more places than one.
    fn verify_elsewhere(&mut self) -> Result<()> {
        for id in std::mem::take(&mut self.elsewhere) {
            if let Err(error) = self.reader.get(&id) {
                self.report.note(error)?;
            }
        }
        Ok(())
    }
}

/// Reports objects whose bytes are not what was written: only the index says what they were.
fn name_damaged(
    reader: &ObjectReader,
    mut damaged: BTreeSet<ObjectPlace>,
    report: &mut VerifyReport,
) -> Result<()> {
    if damaged.is_empty() {
        return Ok(());
    }
    let named = reader.index().for_each_row(|id, place| {
        if damaged.remove(&(place.pack, place.offset, place.slot)) {
            let message = format!("its bytes in pack {} are not what was written", place.pack);
            report.add_fault(Error::corrupt(Subject::Object(id), message));
        }
    });
    // A damaged segment is in the report already; what it would have named is told by its place.
    named.or_else(|error| if error.is_corrupt() { Ok(()) } else { Err(error) })?;
    for (pack, offset, slot) in damaged {
        let message = format!("object {slot} of the frame at byte {offset} is not what was written");
        report.add_fault(Error::corrupt(Subject::Pack(pack), message));
    }
    Ok(())
}

/// Looks for everything that an image needs, but for what is `known` to be there.
fn verify_image(
    reader: &ObjectReader,
    image: &ImageRecord,
    known: &mut HashSet<ObjectId>,
    report: &mut VerifyReport,
) -> Result<()> {
    let mut pending = Vec::new();
    let mut layer = Some(image.layer);
    while let Some(id) = layer.filter(|id| known.insert(*id)) {
        match LayerRecord::read(reader, id) {
            // What only an earlier step's tree had may be collected.
            Ok(record) => layer = record.previous,
            Err(error) => {
                report.note(needed_by(image.id, &error))?;
                layer = None;
            }
        }
    }
    if known.insert(image.root) {
        match Root::open(reader, image.root) {
            Ok(root) => pending.push(Reference::Node(root)),
            Err(error) => report.note(needed_by(image.id, &error))?,
        }
    }
    while let Some(reference) = pending.pop() {
        match reference.references(reader) {
            Ok(references) => {
                for reference in references {
                    if matches!(reference, Reference::Chunk(_)) {
                        if reader.find(&reference.id()).is_none() {
                            let missing = Error::corrupt(Subject::Object(reference.id()), "it is in no pack");
                            report.note(needed_by(image.id, &missing))?;
                        }
                    } else if known.insert(reference.id()) {
                        pending.push(reference);
                    }
                }
            }
            Err(error) => report.note(needed_by(image.id, &error))?,
        }
    }
    Ok(())
}

fn needed_by(image: ImageId, error: &Error) -> Error {
    Error::new(error.kind(), error.subject().clone(), format!("{}; image {image} needs it", error.message()))
}
