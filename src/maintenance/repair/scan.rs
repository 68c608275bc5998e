//! Reading all packs: what of them is sound.
//!
//! Each pack is read once, by its frames' own heads. A sound one stays as it is, and its objects go into the new index. Of one
//! in which anything is damaged, the sound objects that no sound pack has are copied to new packs once all are read, so that
//! it can be set aside whole.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::catalog::record::ImageRecord;
use crate::disk::Disk;
use crate::error::{Error, Result, Subject};
use crate::format::record;
use crate::id::{ImageId, ObjectId, PackId};
use crate::object::ObjectKind;
use crate::pack::frame::{self, FrameBuilder, FrameTable};
use crate::pack::reader::ObjectReader;
use crate::pack::session::WrittenFrame;
use crate::pack::walk::{PackPart, PackWalk};
use crate::store::StoreOptions;
use crate::sync::lock;
use crate::task::{Phase, Task};

use super::output::{Output, SoundPack};
use super::report::RepairReport;

/// What there is to read of a pack.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    pub(super) pack: PackId,
    /// Bytes that count; none for all there are.
    pub(super) bytes: Option<u64>,
    pub(super) domain: u32,
    /// Whether nothing in it was needed any more.
    pub(super) is_condemned: bool,
}

/// What all packs have.
#[derive(Default)]
pub(super) struct Scanned {
    /// Packs that stay as they are.
    pub(super) kept: BTreeMap<PackId, SoundPack>,
    /// Packs that are to be set aside.
    pub(super) damaged: Vec<Extent>,
    /// Records of images, also of those that were removed.
    pub(super) images: BTreeMap<ImageId, FoundRecord>,
}

/// An image's own record.
pub(super) struct FoundRecord {
    pub(super) image: ImageRecord,
    /// Whether it is only in packs of which nothing was needed any more: then the image was removed.
    pub(super) is_condemned: bool,
}

/// What the threads share.
struct Collector<'o, 'd> {
    packs: std::vec::IntoIter<Extent>,
    output: &'o mut Output<'d>,
    scanned: Scanned,
    report: RepairReport,
}

/// Reads packs, and puts what the sound ones have into the new index.
pub(super) fn scan(
    packs: Vec<Extent>,
    options: &StoreOptions,
    output: &mut Output<'_>,
    report: &mut RepairReport,
) -> Result<Scanned> {
    let (disk, task) = (output.disk, &options.task);
    let bytes: Option<u64> = packs.iter().map(|extent| extent.bytes).sum();
    let _stage = task.begin(Phase::CheckingPacks, bytes);
    let collector = Mutex::new(Collector {
        packs: packs.into_iter(),
        output,
        scanned: Scanned::default(),
        report: RepairReport::default(),
    });
    let lock = || lock(&collector);
    let stop = AtomicBool::new(false);
    crate::threads::run_all(options.threads, &stop, || {
        let mut reader = FrameReader::new()?;
        while !stop.load(Ordering::Relaxed) {
            let Some(extent) = lock().packs.next() else { break };
            let found = FoundPack::read(disk, extent, &mut reader, task)?;
            lock().take(extent, found)?;
        }
        Ok(())
    })?;
    let Collector { output, mut scanned, report: faults, .. } =
        collector.into_inner().unwrap_or_else(PoisonError::into_inner);
    output.finish()?;
    report.add_faults(faults);
    // Threads come to them in any order.
    scanned.damaged.sort_unstable_by_key(|extent| extent.pack);
    Ok(scanned)
}

impl Collector<'_, '_> {
    fn take(&mut self, extent: Extent, found: FoundPack) -> Result<()> {
        for image in found.images {
            let is_condemned = extent.is_condemned;
            let known = self.scanned.images.entry(image.id).or_insert(FoundRecord { image, is_condemned });
            known.is_condemned &= is_condemned;
        }
        if !found.faults.is_empty() {
            self.scanned.damaged.push(extent);
            return found.faults.into_iter().try_for_each(|fault| self.report.note(fault));
        }
        // In one without frames nothing was ever published: it is a stray.
        if !found.frames.is_empty() {
            let objects = found.frames.iter().map(|frame| frame.objects.len() as u64).sum();
            self.scanned.kept.insert(extent.pack, SoundPack { bytes: found.end, objects });
        }
        self.output.index(extent.pack, &found.frames)
    }
}

/// Copies the sound objects of damaged packs that `reader` does not find. What an object is its bytes decide, so a damaged one is
/// one that nothing refers to; only a damaged record of an image could be taken for another.
pub(super) fn copy_sound(damaged: &[Extent], reader: &ObjectReader, output: &mut Output<'_>) -> Result<()> {
    let mut frames = FrameReader::new()?;
    let _stage = reader.task().begin(Phase::Copying, None);
    for extent in damaged {
        let mut walk = match PackWalk::open(output.disk, extent.pack) {
            // That it is missing was said, and that it has fewer bytes.
            Err(error) if error.is_corrupt() => continue,
            other => other?,
        };
        let _ = extent.bytes.map(|bytes| walk.limit(bytes));
        while let Some(part) = walk.next_part()? {
            let PackPart::Frames(run) = part else { continue };
            reader.task().advance(run.bytes(), 0)?;
            let mut packed = std::mem::take(&mut frames.packed);
            for (offset, bytes) in run.read(&mut packed)? {
                let Ok((table, ids, is_sound)) = frames.unpack(run.pack, offset, bytes) else { continue };
                copy_frame(bytes, (&table, &frames.raw), ids, is_sound, reader, output)?;
            }
            frames.packed = packed;
        }
    }
    output.finish()
}

/// Copies a frame as it is, or where an object of it is damaged, the objects.
fn copy_frame(
    bytes: &[u8],
    (table, raw): (&FrameTable, &[u8]),
    ids: Vec<ObjectId>,
    is_sound: bool,
    reader: &ObjectReader,
    output: &mut Output<'_>,
) -> Result<()> {
    if is_sound {
        if ids.iter().all(|id| reader.find(id).is_some()) {
            return Ok(());
        }
        let mut moved = bytes.to_vec();
        return frame::again(&mut moved, ids).map_or(Ok(()), |frame| output.append_sealed(frame));
    }
    let mut builder = FrameBuilder::default();
    let objects = ids.into_iter().zip(table.objects(raw));
    let missing = objects.filter(|(id, (kind, _))| *kind != ObjectKind::Image && reader.find(id).is_none());
    for (id, (kind, bytes)) in missing {
        builder.push(id, kind, bytes)?;
    }
    output.append(&mut builder)
}

/// Unpacks frames in the same memory.
pub(super) struct FrameReader {
    decompressor: zstd::bulk::Decompressor<'static>,
    pub(super) packed: Vec<u8>,
    pub(super) raw: Vec<u8>,
}

impl FrameReader {
    fn new() -> Result<Self> {
        let decompressor = zstd::bulk::Decompressor::new()
            .map_err(|error| Error::io(Subject::Argument("frame"), "set up decompression", error))?;
        Ok(Self { decompressor, packed: Vec::new(), raw: Vec::new() })
    }

    /// A frame's objects by their ids, and whether they are those that were written.
    pub(super) fn unpack(
        &mut self,
        pack: PackId,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(FrameTable, Vec<ObjectId>, bool)> {
        let table = frame::decode(pack, offset, bytes, &mut self.decompressor, &mut self.raw)?;
        let ids: Vec<_> = table.objects(&self.raw).map(|(kind, bytes)| kind.id_of(bytes)).collect();
        let is_sound = table.is_of(&ids);
        Ok((table, ids, is_sound))
    }
}

/// What one reading of a pack gives.
struct FoundPack {
    frames: Vec<WrittenFrame>,
    images: Vec<ImageRecord>,
    /// Where the last frame ends.
    end: u64,
    /// What is damaged.
    faults: Vec<Error>,
}

impl FoundPack {
    fn read(disk: &dyn Disk, extent: Extent, reader: &mut FrameReader, task: &Task) -> Result<Self> {
        let pack = extent.pack;
        let mut found = Self { frames: Vec::new(), images: Vec::new(), end: 0, faults: Vec::new() };
        let mut walk = match PackWalk::open(disk, pack) {
            Ok(walk) => walk,
            Err(error) => return found.note(error).map(|()| found),
        };
        if let Some(bytes) = extent.bytes {
            walk.limit(bytes).or_else(|error| found.note(error))?;
        }
        walk.check_head(extent.domain).or_else(|error| found.note(error))?;
        while let Some(part) = walk.next_part()? {
            match part {
                PackPart::Damage(bytes) => {
                    let message =
                        format!("bytes {} to {} are no frame that can be read", bytes.start, bytes.end);
                    found.faults.push(Error::corrupt(Subject::Pack(pack), message));
                }
                PackPart::Frames(run) => {
                    task.advance(run.bytes(), 0)?;
                    let mut packed = std::mem::take(&mut reader.packed);
                    for (offset, bytes) in run.read(&mut packed)? {
                        found.add(pack, offset, bytes, reader).or_else(|error| found.note(error))?;
                        found.end = offset + bytes.len() as u64;
                    }
                    reader.packed = packed;
                }
            }
        }
        Ok(found)
    }

    /// Fails unless all of a frame is sound.
    fn add(&mut self, pack: PackId, offset: u64, bytes: &[u8], reader: &mut FrameReader) -> Result<()> {
        let (table, ids, is_sound) = reader.unpack(pack, offset, bytes)?;
        if !is_sound {
            let message = format!("an object in the frame at byte {offset} is not what was written");
            return Err(Error::corrupt(Subject::Pack(pack), message));
        }
        let images = table.objects(&reader.raw).filter(|(kind, _)| *kind == ObjectKind::Image);
        self.images.extend(images.filter_map(|(_, bytes)| record::decode_object(bytes).ok()));
        let frame_bytes = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.frames.push(WrittenFrame { offset, frame_bytes, objects: ids });
        Ok(())
    }

    fn note(&mut self, error: Error) -> Result<()> {
        if !error.is_corrupt() {
            return Err(error);
        }
        self.faults.push(error);
        Ok(())
    }
}
