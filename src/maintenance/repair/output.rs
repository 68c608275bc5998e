//! What a repair writes beside the new catalog: packs and an index.
//!
//! A file of either kind is written under another name, synced, renamed, its folder synced: so one that has its name is
//! whole. Until the new catalog takes over nothing names it. A repair that was killed leaves unfinished files, which the next
//! one removes, and whole ones: where rows of the catalog are lost, they are sound packs like others, whose objects need no
//! further copy; where none is, packs without a row are strays, which go with the next collection: a repair deletes none.

use std::collections::BTreeMap;

use crate::catalog::record::SegmentRecord;
use crate::disk::{Disk, OpenMode};
use crate::engine::packs::SHARED_DOMAIN;
use crate::error::{Error, Result, Subject};
use crate::id::{ObjectId, PackId, SegmentId};
use crate::layout::{PACKS, UNFINISHED, pack_file};
use crate::pack::frame::{FrameBuilder, PACK_HEAD_BYTES, SealedFrame, pack_head};
use crate::pack::session::{OpenPack, WrittenFrame, WrittenPack};
use crate::pack::{Locator, segment};

/// How frames are compressed that are not copied as they are.
const LEVEL: i32 = 3;
/// Rows that are held before a segment is written: some 60 MB.
const SEGMENT_ROWS: usize = 1 << 20;

/// What of a pack is sound: all of it, but for what lies behind these bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SoundPack {
    /// Where its last frame ends.
    pub(super) bytes: u64,
    pub(super) objects: u64,
}

/// The last numbers that were ever used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers {
    pub(super) pack: u32,
    pub(super) segment: u32,
}

fn next(last: &mut u32, what: &str) -> Result<u32> {
    let too_many = || Error::unsupported(Subject::Catalog, format!("has too many {what}"));
    *last = last.checked_add(1).ok_or_else(too_many)?;
    Ok(*last)
}

/// New packs and segments.
pub(super) struct Output<'d> {
    pub(super) disk: &'d dyn Disk,
    pub(super) numbers: Numbers,
    pack_bytes: u64,
    pack: Option<WrittenPack>,
    rows: Vec<(ObjectId, Locator)>,
    compressor: zstd::bulk::Compressor<'static>,
    /// Those that are complete.
    pub(super) packs: BTreeMap<PackId, SoundPack>,
    pub(super) segments: BTreeMap<SegmentId, SegmentRecord>,
}

impl<'d> Output<'d> {
    /// Numbers go on behind `numbers`; packs are full from `pack_bytes` on.
    pub(super) fn new(disk: &'d dyn Disk, numbers: Numbers, pack_bytes: u64) -> Result<Self> {
        let compressor = zstd::bulk::Compressor::new(LEVEL)
            .map_err(|error| Error::io(Subject::Argument("level"), "set up compression", error))?;
        let (packs, segments) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { disk, numbers, pack_bytes, pack: None, rows: Vec::new(), compressor, packs, segments })
    }

    /// Appends a frame that is sealed.
    pub(super) fn append_sealed<B: AsRef<[u8]> + AsMut<[u8]>>(
        &mut self,
        frame: SealedFrame<B>,
    ) -> Result<()> {
        let pack = match &mut self.pack {
            Some(pack) => pack,
            none => none.insert(begin_pack(self.disk, &mut self.numbers)?),
        };
        pack.append(frame)?;
        if pack.pack.end >= self.pack_bytes { self.finish_pack() } else { Ok(()) }
    }

    /// Appends a frame of new objects, if it has any, and clears it.
    pub(super) fn append(&mut self, frame: &mut FrameBuilder) -> Result<()> {
        if frame.is_empty() {
            return Ok(());
        }
        let sealed = frame.seal(&mut self.compressor)?.into_owned();
        self.append_sealed(sealed)?;
        frame.clear();
        Ok(())
    }

    /// Puts the objects of a pack's frames into the index.
    pub(super) fn index(&mut self, pack: PackId, frames: &[WrittenFrame]) -> Result<()> {
        self.rows.extend(frames.iter().flat_map(|frame| frame.rows(pack)));
        if self.rows.len() >= SEGMENT_ROWS { self.finish_segment() } else { Ok(()) }
    }

    /// Makes all that was written durable.
    pub(super) fn finish(&mut self) -> Result<()> {
        self.finish_pack()?;
        self.finish_segment()
    }

    fn finish_pack(&mut self) -> Result<()> {
        let Some(mut written) = self.pack.take() else { return Ok(()) };
        written.sync()?;
        let id = written.pack.id;
        let io = |action| move |error| Error::io(Subject::Pack(id), action, error);
        self.disk.rename(&unfinished_pack(id), &pack_file(id)).map_err(io("rename it"))?;
        self.disk.sync_dir(PACKS).map_err(io("sync its folder"))?;
        self.packs.insert(id, SoundPack { bytes: written.pack.end, objects: written.new_objects() });
        self.index(id, &written.frames)
    }

    fn finish_segment(&mut self) -> Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let id = SegmentId::new(next(&mut self.numbers.segment, "index segments")?);
        let rows = std::mem::take(&mut self.rows);
        let record = SegmentRecord { objects: rows.len() as u64, domain: SHARED_DOMAIN };
        segment::write(self.disk, id, rows)?;
        self.segments.insert(id, record);
        Ok(())
    }
}

fn unfinished_pack(id: PackId) -> String {
    pack_file(id) + UNFINISHED
}

fn begin_pack(disk: &dyn Disk, numbers: &mut Numbers) -> Result<WrittenPack> {
    let id = PackId::new(next(&mut numbers.pack, "packs")?);
    let io = |action| move |error| Error::io(Subject::Pack(id), action, error);
    let file = disk.open(&unfinished_pack(id), OpenMode::CreateNew).map_err(io("create it"))?;
    file.write_at(&pack_head(id, SHARED_DOMAIN), 0).map_err(io("write its head"))?;
    Ok(WrittenPack::new(OpenPack { id, file, end: PACK_HEAD_BYTES as u64, objects: 0 }))
}
