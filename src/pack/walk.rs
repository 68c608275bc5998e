//! Going through all frames of a pack, from its first byte to its last, whatever of it is damaged.
//!
//! Frames are found by their heads alone, which are checked before they are believed. Behind damage the next one is searched
//! for: its check covers the pack and the place, so bytes that only look like a frame are not taken for one.

use std::ops::Range;
use std::sync::Arc;

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{Error, Result, Subject};
use crate::id::PackId;
use crate::layout::pack_file;

use super::frame::{FRAME_HEAD_BYTES, FRAME_MAGIC, FrameLengths, PACK_HEAD_BYTES, is_frame_start, pack_head};

/// Bytes of frames that are read at once, unless one frame has more.
const RUN_BYTES: u64 = 4 << 20;
/// Bytes that are searched at once for the next frame.
const SEARCH_BYTES: usize = 1 << 20;
/// Enough for most heads with their tables.
const START_BYTES: u64 = 1 << 10;

/// A piece of a pack.
pub(crate) enum PackPart {
    /// Frames whose heads are sound.
    Frames(FrameRun),
    /// Bytes where frames should be and none begins.
    Damage(Range<u64>),
}

/// Frames that lie one behind the other.
pub(crate) struct FrameRun {
    pub(crate) pack: PackId,
    pub(crate) file: Arc<dyn DiskFile>,
    /// Where the first begins.
    pub(crate) offset: u64,
    /// The bytes of each.
    pub(crate) frames: Vec<u32>,
}

impl FrameRun {
    /// Bytes of all of them.
    pub(crate) fn bytes(&self) -> u64 {
        self.frames.iter().copied().map(u64::from).sum()
    }

    /// Reads all of it, and gives each frame's place and bytes.
    pub(crate) fn read<'b>(
        &self,
        buffer: &'b mut Vec<u8>,
    ) -> Result<impl Iterator<Item = (u64, &'b [u8])> + use<'b, '_>> {
        let bytes = self.frames.iter().map(|bytes| *bytes as usize).sum();
        if buffer.len() < bytes {
            buffer.resize(bytes, 0);
        }
        let mut rest = buffer.get_mut(..bytes).unwrap_or_default();
        let read = self.file.read_at(rest, self.offset);
        read.map_err(|error| Error::io(Subject::Pack(self.pack), "read it", error))?;
        let mut next = self.offset;
        Ok(self.frames.iter().map_while(move |bytes| {
            let (frame, after) = std::mem::take(&mut rest).split_at_mut_checked(*bytes as usize)?;
            let offset = next;
            next += u64::from(*bytes);
            rest = after;
            Some((offset, &*frame))
        }))
    }
}

/// A pack's parts, one after the other.
pub(crate) struct PackWalk {
    pack: PackId,
    file: Arc<dyn DiskFile>,
    next: u64,
    end: u64,
}

impl PackWalk {
    /// Begins to walk a pack. Fails with *corrupt* if its file is missing.
    pub(crate) fn open(disk: &dyn Disk, pack: PackId) -> Result<Self> {
        let io = |action| move |error| Error::io(Subject::Pack(pack), action, error);
        let file = disk.open(&pack_file(pack), OpenMode::Read).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::corrupt(Subject::Pack(pack), "its file is missing"),
            _ => io("open it")(error),
        })?;
        let end = file.len().map_err(io("measure it"))?;
        Ok(Self { pack, file, next: PACK_HEAD_BYTES as u64, end })
    }

    /// The pack.
    pub(crate) fn pack(&self) -> PackId {
        self.pack
    }

    /// Where the pack ends for this walk.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Leaves out what lies behind the first `bytes`. Fails with *corrupt* if there are fewer, and goes over those.
    pub(crate) fn limit(&mut self, bytes: u64) -> Result<()> {
        let found = self.end;
        self.end = found.min(bytes);
        if found < bytes {
            let message = format!("it has {found} of {bytes} committed bytes");
            return Err(Error::corrupt(Subject::Pack(self.pack), message));
        }
        Ok(())
    }

    /// Fails with *corrupt* unless the file begins as this pack does.
    pub(crate) fn check_head(&self, domain: u32) -> Result<()> {
        let mut head = [0; PACK_HEAD_BYTES];
        if self.end >= PACK_HEAD_BYTES as u64 {
            self.read(&mut head, 0)?;
        }
        if head != pack_head(self.pack, domain) {
            return Err(Error::corrupt(Subject::Pack(self.pack), "its head is not what was written"));
        }
        Ok(())
    }

    /// The next part; none at the end.
    pub(crate) fn next_part(&mut self) -> Result<Option<PackPart>> {
        let first = self.next;
        let mut frames = Vec::new();
        while self.next - first < RUN_BYTES
            && let Some(bytes) = self.frame_at(self.next)?
        {
            frames.push(bytes);
            self.next += u64::from(bytes);
        }
        if !frames.is_empty() {
            let file = Arc::clone(&self.file);
            return Ok(Some(PackPart::Frames(FrameRun { pack: self.pack, file, offset: first, frames })));
        }
        if first >= self.end {
            return Ok(None);
        }
        self.next = self.find_frame(first + 1)?;
        Ok(Some(PackPart::Damage(first..self.next)))
    }

    /// Bytes of the frame that begins at a place, if one does and ends in the pack.
    fn frame_at(&self, offset: u64) -> Result<Option<u32>> {
        let left = self.end.saturating_sub(offset);
        let mut start = vec![0; usize::try_from(left.min(START_BYTES)).unwrap_or(0)];
        if start.len() < FRAME_HEAD_BYTES {
            return Ok(None);
        }
        self.read(&mut start, offset)?;
        let lengths = start.first_chunk().and_then(FrameLengths::of);
        let Some(FrameLengths { frame_bytes, checked_bytes }) =
            lengths.filter(|lengths| u64::from(lengths.frame_bytes) <= left)
        else {
            return Ok(None);
        };
        if checked_bytes > start.len() {
            start.resize(checked_bytes, 0);
            self.read(&mut start, offset)?;
        }
        start.truncate(checked_bytes);
        Ok(is_frame_start(self.pack, offset, &start).then_some(frame_bytes))
    }

    /// Where the next frame begins from a place on, or the end.
    fn find_frame(&self, mut from: u64) -> Result<u64> {
        let mut window = vec![0; SEARCH_BYTES];
        while let Some(left) = self.end.checked_sub(from).filter(|left| *left >= FRAME_HEAD_BYTES as u64) {
            let bytes = usize::try_from(left).unwrap_or(usize::MAX).min(SEARCH_BYTES);
            let window = window.get_mut(..bytes).unwrap_or_default();
            self.read(window, from)?;
            for (at, start) in (from..).zip(window.windows(FRAME_MAGIC.len())) {
                if start == FRAME_MAGIC && self.frame_at(at)?.is_some() {
                    return Ok(at);
                }
            }
            // A magic number may lie across the border.
            from += (bytes - (FRAME_MAGIC.len() - 1)) as u64;
        }
        Ok(self.end)
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let read = self.file.read_at(buffer, offset);
        read.map_err(|error| Error::io(Subject::Pack(self.pack), "read it", error))
    }
}
