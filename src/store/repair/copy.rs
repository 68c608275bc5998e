//! New packs for what is sound of damaged ones.

use crate::disk::Disk;
use crate::error::{Error, Result, Subject};
use crate::id::{ObjectId, PackId};
use crate::object::ObjectKind;
use crate::pack::frame::{self, FrameBuilder, FrameTable};
use crate::pack::session::{WrittenFrame, WrittenPack};
use crate::store::packs::{NEW_PACK, open_pack_file};

use super::scan::{Numbers, SoundPack};

/// How frames are compressed that are not copied as they are.
const LEVEL: i32 = 3;

/// Copies frames to one new pack after the other.
pub(super) struct PackCopy<'d> {
    disk: &'d dyn Disk,
    pack_bytes: u64,
    current: Option<WrittenPack>,
    compressor: zstd::bulk::Compressor<'static>,
}

impl<'d> PackCopy<'d> {
    /// Packs are full from so many bytes on.
    pub(super) fn new(disk: &'d dyn Disk, pack_bytes: u64) -> Result<Self> {
        let compressor = zstd::bulk::Compressor::new(LEVEL)
            .map_err(|error| Error::io(Subject::Argument("level"), "set up compression", error))?;
        Ok(Self { disk, pack_bytes, current: None, compressor })
    }

    /// Copies a frame as it is, or where an object of it is damaged, all objects: what they are by their bytes decides, so a
    /// damaged one is one that nothing refers to. Only a damaged record of an image could be taken for another.
    pub(super) fn add(
        &mut self,
        numbers: &mut Numbers,
        bytes: &[u8],
        (table, raw): (&FrameTable, &[u8]),
        ids: Vec<ObjectId>,
        is_sound: bool,
    ) -> Result<()> {
        if !is_sound {
            let mut builder = FrameBuilder::default();
            let objects = ids.into_iter().zip(table.objects(raw));
            for (id, (kind, bytes)) in objects.filter(|(_, (kind, _))| *kind != ObjectKind::Image) {
                builder.push(id, kind, bytes)?;
            }
            return if builder.is_empty() { Ok(()) } else { self.append(numbers, &mut builder) };
        }
        let current = self.current(numbers)?;
        let mut moved = bytes.to_vec();
        frame::again(&mut moved, ids).map_or(Ok(()), |frame| current.append(frame).map(drop))
    }

    /// Writes a frame of new objects, and clears it.
    pub(super) fn append(&mut self, numbers: &mut Numbers, frame: &mut FrameBuilder) -> Result<()> {
        self.current(numbers)?;
        if let Some(current) = &mut self.current {
            current.append(frame.seal(&mut self.compressor)?)?;
        }
        frame.clear();
        Ok(())
    }

    /// The pack that is written now.
    fn current(&mut self, numbers: &mut Numbers) -> Result<&mut WrittenPack> {
        Ok(match &mut self.current {
            Some(current) => current,
            none => none.insert(WrittenPack::new(open_pack_file(self.disk, numbers.next_pack(), &NEW_PACK)?)),
        })
    }

    pub(super) fn is_full(&self) -> bool {
        self.current.as_ref().is_some_and(|current| current.pack.end >= self.pack_bytes)
    }

    /// Makes the pack durable, and gives what is in it.
    pub(super) fn finish(&mut self) -> Result<Option<(PackId, SoundPack, Vec<WrittenFrame>)>> {
        let Some(mut written) = self.current.take() else { return Ok(None) };
        written.sync()?;
        let sound = SoundPack { bytes: written.pack.end, objects: written.new_objects() };
        Ok(Some((written.pack.id, sound, written.frames)))
    }
}
