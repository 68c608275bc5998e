//! Reading packs back, on all cores: each frame is unpacked, each object hashed, and the index finds it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::engine::Engine;
use crate::error::{Error, Result, Subject};
use crate::id::{ObjectId, PackId};
use crate::object::ObjectSource;
use crate::pack::frame;
use crate::pack::reader::ObjectReader;
use crate::pack::walk::{FrameRun, PackPart, PackWalk};
use crate::sync::lock;
use crate::task::Phase;

use super::damage::Damage;
use super::report::VerifyReport;

/// Where a pack that is not there has damage: everywhere.
const ALL: std::ops::Range<u64> = 0..u64::MAX;

/// A pack, how many of its bytes count, and its domain.
pub(super) type Extent = (PackId, u64, u32);

/// The runs of frames of all packs, which threads take one after the other.
struct Runs<'s> {
    store: &'s Engine,
    packs: std::vec::IntoIter<Extent>,
    walk: Option<PackWalk>,
    damage: Damage,
    unindexed: Unindexed,
    report: VerifyReport,
}

/// By pack, how many of its objects the index has not got, and one of them.
type Unindexed = BTreeMap<PackId, (u64, ObjectId)>;

impl Runs<'_> {
    fn next(&mut self) -> Result<Option<FrameRun>> {
        loop {
            let Some(walk) = &mut self.walk else {
                let Some(pack) = self.packs.next() else { return Ok(None) };
                self.walk = self.store.begin_walk(pack, &mut self.damage, &mut self.report)?;
                continue;
            };
            match walk.next_part()? {
                None => self.walk = None,
                Some(PackPart::Frames(run)) => return Ok(Some(run)),
                Some(PackPart::Damage(bytes)) => {
                    let message =
                        format!("bytes {} to {} are no frame that can be read", bytes.start, bytes.end);
                    self.report.add_fault(Error::corrupt(Subject::Pack(walk.pack()), message));
                    self.damage.add(walk.pack(), bytes);
                }
            }
        }
    }
}

impl Engine {
    /// Begins to walk a pack: its file is there, as long as it must be, with the right head.
    fn begin_walk(
        &self,
        (pack, bytes, domain): Extent,
        damage: &mut Damage,
        report: &mut VerifyReport,
    ) -> Result<Option<PackWalk>> {
        report.packs += 1;
        let mut walk = match PackWalk::open(&*self.disk, pack) {
            Ok(walk) => walk,
            Err(error) => {
                damage.add(pack, ALL);
                return report.note(error).map(|()| None);
            }
        };
        walk.limit(bytes).or_else(|error| {
            damage.add(pack, walk.end()..ALL.end);
            report.note(error)
        })?;
        walk.check_head(domain).or_else(|error| report.note(error))?;
        Ok(Some(walk))
    }

    /// Looks at packs without reading them.
    pub(super) fn measure_packs(
        &self,
        packs: Vec<Extent>,
        damage: &mut Damage,
        report: &mut VerifyReport,
    ) -> Result<()> {
        packs.into_iter().try_for_each(|pack| self.begin_walk(pack, damage, report).map(drop))
    }

    pub(super) fn verify_packs(
        &self,
        reader: &ObjectReader,
        packs: Vec<Extent>,
    ) -> Result<(Damage, VerifyReport)> {
        let _stage =
            self.task.begin(Phase::CheckingPacks, packs.iter().map(|(_, bytes, _)| bytes).sum::<u64>());
        let runs = Runs {
            store: self,
            packs: packs.into_iter(),
            walk: None,
            damage: Damage::default(),
            unindexed: Unindexed::new(),
            report: VerifyReport::begin(true),
        };
        let runs = Mutex::new(runs);
        let stop = AtomicBool::new(false);
        let work = || -> Result<()> {
            let mut worker = Worker::new(reader)?;
            while !stop.load(Ordering::Relaxed) {
                let Some(run) = lock(&runs).next()? else { break };
                self.task.advance(run.bytes(), 0)?;
                worker.verify(&run)?;
            }
            worker.verify_elsewhere()?;
            let mut runs = lock(&runs);
            runs.report.add(worker.report);
            runs.damage.extend(worker.damage);
            for (pack, (count, one)) in worker.unindexed {
                runs.unindexed.entry(pack).or_insert((0, one)).0 += count;
            }
            Ok(())
        };
        crate::threads::run_all(self.options.threads, &stop, work)?;
        let runs = runs.into_inner().unwrap_or_else(PoisonError::into_inner);
        let Runs { damage, unindexed, mut report, .. } = runs;
        // A lost segment may have had millions.
        for (pack, (count, one)) in unindexed {
            let message = format!("the index has not got {count} of its objects, object {one} among them");
            report.add_fault(Error::corrupt(Subject::Pack(pack), message));
        }
        name_damaged(reader, &damage, &mut report)?;
        Ok((damage, report))
    }
}

/// One thread's memory, and what it found.
struct Worker<'r> {
    reader: &'r ObjectReader,
    decompressor: zstd::bulk::Decompressor<'static>,
    packed: Vec<u8>,
    raw: Vec<u8>,
    /// Objects that the index finds in another place, where another session wrote them too.
    elsewhere: BTreeSet<ObjectId>,
    damage: Damage,
    unindexed: Unindexed,
    report: VerifyReport,
}

fn add(total: &mut Option<u64>, more: usize) {
    *total = total.map(|total| total + more as u64);
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
            damage: Damage::default(),
            unindexed: Unindexed::new(),
            report: VerifyReport::begin(true),
        })
    }

    fn verify(&mut self, run: &FrameRun) -> Result<()> {
        let mut packed = std::mem::take(&mut self.packed);
        for (offset, bytes) in run.read(&mut packed)? {
            add(&mut self.report.stored_bytes, bytes.len());
            if let Err(error) = self.verify_frame(run.pack, offset, bytes) {
                self.damage.add(run.pack, offset..offset + bytes.len() as u64);
                self.report.note(error)?;
            }
        }
        self.packed = packed;
        Ok(())
    }

    /// Fails if nothing of a frame can be read.
    fn verify_frame(&mut self, pack: PackId, offset: u64, bytes: &[u8]) -> Result<()> {
        let table = frame::decode(pack, offset, bytes, &mut self.decompressor, &mut self.raw)?;
        let ids: Vec<_> = table.objects(&self.raw).map(|(kind, bytes)| kind.id_of(bytes)).collect();
        add(&mut self.report.objects, ids.len());
        add(&mut self.report.bytes, self.raw.len());
        let is_sound = table.is_of(&ids);
        let mut unknown = 0;
        for (id, slot) in ids.into_iter().zip(0..) {
            match self.reader.find(&id) {
                Some(place) if (place.pack, place.offset, place.slot) == (pack, offset, slot) => {}
                Some(_) => drop(self.elsewhere.insert(id)),
                None if is_sound => self.unindexed.entry(pack).or_insert((0, id)).0 += 1,
                None => {
                    unknown += 1;
                    self.damage.objects.insert((pack, offset, slot));
                }
            }
        }
        if !is_sound && unknown == 0 {
            let message = format!("the frame at byte {offset} has other objects than were written");
            self.report.add_fault(Error::corrupt(Subject::Pack(pack), message));
        }
        Ok(())
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
fn name_damaged(reader: &ObjectReader, damage: &Damage, report: &mut VerifyReport) -> Result<()> {
    let mut damaged = damage.objects.clone();
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
