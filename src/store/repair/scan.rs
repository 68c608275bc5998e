//! Reading all packs: what of them is sound, and a new index of it.
//!
//! Each pack is read once, by its frames' own heads. One that is damaged before its last sound frame is read again, and what
//! is sound in it is copied to a new pack, so that it can be set aside whole. A new segment is begun whenever the rows are
//! many, so memory does not grow with the store.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::catalog::record::{ImageRecord, SegmentRecord};
use crate::disk::Disk;
use crate::error::{Error, Result, Subject};
use crate::format::record;
use crate::id::{ImageId, ObjectId, PackId, SegmentId};
use crate::object::ObjectKind;
use crate::pack::frame::{self, FrameTable};
use crate::pack::session::WrittenFrame;
use crate::pack::walk::{PackPart, PackWalk};
use crate::pack::{Locator, segment};
use crate::store::packs::SHARED_DOMAIN;

use super::copy::PackCopy;
use super::report::RepairReport;

/// Rows that are held before a segment is written: some 60 MB.
const SEGMENT_ROWS: usize = 1 << 20;

/// What there is to read of a pack.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    pub(super) pack: PackId,
    /// Bytes that count; none for all there are.
    pub(super) bytes: Option<u64>,
    pub(super) domain: u32,
}

/// What of a pack is sound.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SoundPack {
    /// Where its last sound frame ends.
    pub(super) bytes: u64,
    pub(super) objects: u64,
}

/// What all packs have.
#[derive(Default)]
pub(super) struct Scanned {
    /// Packs that stay as they are, but for what lies behind their last sound frame.
    pub(super) kept: BTreeMap<PackId, SoundPack>,
    /// New packs with what is sound of damaged ones.
    pub(super) copies: BTreeMap<PackId, SoundPack>,
    /// Packs that are to be set aside.
    pub(super) damaged: Vec<PackId>,
    pub(super) segments: BTreeMap<SegmentId, SegmentRecord>,
    /// Records of images, also of those that were removed.
    pub(super) images: BTreeMap<ImageId, ImageRecord>,
}

/// Numbers for new files, above all that were ever used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers {
    pub(super) last_pack: u32,
    pub(super) last_segment: u32,
}

impl Numbers {
    pub(super) fn next_pack(&mut self) -> PackId {
        self.last_pack += 1;
        PackId::new(self.last_pack)
    }

    pub(super) fn next_segment(&mut self) -> SegmentId {
        self.last_segment += 1;
        SegmentId::new(self.last_segment)
    }
}

/// What the threads share.
struct Collector<'d> {
    disk: &'d dyn Disk,
    packs: std::vec::IntoIter<Extent>,
    numbers: Numbers,
    copy: PackCopy<'d>,
    rows: Vec<(ObjectId, Locator)>,
    scanned: Scanned,
    report: RepairReport,
}

/// Reads packs, writes an index of what is sound in them, and gives that and the numbers that are used now.
pub(super) fn scan(
    disk: &dyn Disk,
    packs: Vec<Extent>,
    numbers: Numbers,
    (threads, pack_bytes): (usize, u64),
    report: &mut RepairReport,
) -> Result<(Scanned, Numbers)> {
    let collector = Mutex::new(Collector {
        disk,
        packs: packs.into_iter(),
        numbers,
        copy: PackCopy::new(disk, pack_bytes)?,
        rows: Vec::new(),
        scanned: Scanned::default(),
        report: RepairReport::default(),
    });
    let lock = || collector.lock().unwrap_or_else(PoisonError::into_inner);
    let stop = AtomicBool::new(false);
    crate::threads::run_all(threads, &stop, || {
        let mut reader = FrameReader::new()?;
        while !stop.load(Ordering::Relaxed) {
            let Some(extent) = lock().packs.next() else { break };
            let found = FoundPack::read(disk, extent, &mut reader)?;
            lock().take(extent, found, &mut reader)?;
        }
        Ok(())
    })?;
    let mut collector = collector.into_inner().unwrap_or_else(PoisonError::into_inner);
    collector.finish_copy()?;
    collector.write_segment()?;
    report.add_faults(collector.report);
    Ok((collector.scanned, collector.numbers))
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
    /// Where the last sound frame ends.
    end: u64,
    /// Whether something is damaged before that.
    is_damaged: bool,
    faults: Vec<Error>,
}

impl FoundPack {
    fn read(disk: &dyn Disk, extent: Extent, reader: &mut FrameReader) -> Result<Self> {
        let pack = extent.pack;
        let mut found =
            Self { frames: Vec::new(), images: Vec::new(), end: 0, is_damaged: false, faults: Vec::new() };
        let mut walk = match PackWalk::open(disk, pack) {
            Ok(walk) => walk,
            Err(error) => return found.note(error).map(|()| found),
        };
        if let Some(bytes) = extent.bytes {
            walk.limit(bytes).or_else(|error| found.note(error))?;
        }
        if let Err(error) = walk.check_head(extent.domain) {
            found.note(error)?;
            found.is_damaged = true;
        }
        let mut has_damage = false;
        while let Some(part) = walk.next_part()? {
            match part {
                PackPart::Damage(bytes) => {
                    let message =
                        format!("bytes {} to {} are no frame that can be read", bytes.start, bytes.end);
                    found.faults.push(Error::corrupt(Subject::Pack(pack), message));
                    has_damage = true;
                }
                PackPart::Frames(run) => {
                    let mut packed = std::mem::take(&mut reader.packed);
                    for (offset, bytes) in run.read(&mut packed)? {
                        if let Err(error) = found.add(pack, offset, bytes, reader) {
                            found.note(error)?;
                            has_damage = true;
                        } else {
                            found.is_damaged |= has_damage;
                            found.end = offset + bytes.len() as u64;
                        }
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
            // What is sound of it is copied.
            self.is_damaged = true;
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

impl Collector<'_> {
    fn take(&mut self, extent: Extent, found: FoundPack, reader: &mut FrameReader) -> Result<()> {
        let pack = extent.pack;
        found.faults.into_iter().try_for_each(|fault| self.report.note(fault))?;
        self.scanned.images.extend(found.images.into_iter().map(|image| (image.id, image)));
        if found.is_damaged {
            self.scanned.damaged.push(pack);
            return self.copy_sound(extent, reader);
        }
        if found.frames.is_empty() {
            self.scanned.damaged.push(pack);
            return Ok(());
        }
        let objects = found.frames.iter().map(|frame| frame.objects.len() as u64).sum();
        self.scanned.kept.insert(pack, SoundPack { bytes: found.end, objects });
        self.add_rows(found.frames.iter().flat_map(|frame| frame.rows(pack)))
    }

    /// Copies what is sound of a damaged pack.
    fn copy_sound(&mut self, extent: Extent, reader: &mut FrameReader) -> Result<()> {
        let mut walk = PackWalk::open(self.disk, extent.pack)?;
        // That there may be fewer bytes was said.
        let _ = extent.bytes.map(|bytes| walk.limit(bytes));
        while let Some(part) = walk.next_part()? {
            let PackPart::Frames(run) = part else { continue };
            let mut packed = std::mem::take(&mut reader.packed);
            for (offset, bytes) in run.read(&mut packed)? {
                let Ok((table, ids, is_sound)) = reader.unpack(run.pack, offset, bytes) else { continue };
                self.copy.add(&mut self.numbers, bytes, (&table, &reader.raw), ids, is_sound)?;
                if self.copy.is_full() {
                    self.finish_copy()?;
                }
            }
            reader.packed = packed;
        }
        Ok(())
    }

    fn finish_copy(&mut self) -> Result<()> {
        let Some((pack, sound, frames)) = self.copy.finish()? else { return Ok(()) };
        self.scanned.copies.insert(pack, sound);
        self.add_rows(frames.iter().flat_map(|frame| frame.rows(pack)))
    }

    fn add_rows(&mut self, rows: impl Iterator<Item = (ObjectId, Locator)>) -> Result<()> {
        self.rows.extend(rows);
        if self.rows.len() >= SEGMENT_ROWS { self.write_segment() } else { Ok(()) }
    }

    fn write_segment(&mut self) -> Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let number = self.numbers.next_segment();
        let rows = std::mem::take(&mut self.rows);
        let record = SegmentRecord { objects: rows.len() as u64, domain: SHARED_DOMAIN };
        segment::write(self.disk, number, rows)?;
        self.scanned.segments.insert(number, record);
        Ok(())
    }
}
