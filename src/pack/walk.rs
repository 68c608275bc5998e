//! Going through all frames of a pack, from its first byte to its last.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{Error, Result, Subject};
use crate::id::PackId;

use super::frame::{FRAME_HEAD_BYTES, PACK_HEAD_BYTES, frame_bytes, pack_head};
use super::pack_file;

/// Bytes of frames that are read at once, unless one frame has more.
const RUN_BYTES: u64 = 4 << 20;

/// Frames that lie one behind the other.
pub(crate) struct FrameRun {
    pub(crate) pack: PackId,
    pub(crate) file: Arc<dyn DiskFile>,
    /// Where the first begins.
    pub(crate) offset: u64,
    /// The bytes of each.
    pub(crate) frames: Vec<u32>,
}

/// A pack's frames, found by their heads; behind damage, by what the index knows.
pub(crate) struct PackWalk {
    pack: PackId,
    file: Arc<dyn DiskFile>,
    next: u64,
    end: u64,
    /// Places and lengths of frames, once the heads can't be followed any more.
    known: Option<VecDeque<(u64, u32)>>,
}

impl PackWalk {
    /// Begins to walk the first `bytes` of a pack.
    pub(crate) fn open(disk: &dyn Disk, pack: PackId, bytes: u64, domain: u32) -> Result<Self> {
        let io = |action| move |error| Error::io(Subject::Pack(pack), action, error);
        let file = disk.open(&pack_file(pack), OpenMode::Read).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::corrupt(Subject::Pack(pack), "its file is missing"),
            _ => io("open it")(error),
        })?;
        let found = file.len().map_err(io("measure it"))?;
        if found < bytes {
            let message = format!("it has {found} of {bytes} committed bytes");
            return Err(Error::corrupt(Subject::Pack(pack), message));
        }
        let mut head = [0; PACK_HEAD_BYTES];
        file.read_at(&mut head, 0).map_err(io("read it"))?;
        if head != pack_head(pack, domain) {
            return Err(Error::corrupt(Subject::Pack(pack), "its head is not what was written"));
        }
        Ok(Self { pack, file, next: PACK_HEAD_BYTES as u64, end: bytes, known: None })
    }

    /// The pack.
    pub(crate) fn pack(&self) -> PackId {
        self.pack
    }

    /// Goes on with frames that the index knows, after a head that can't be followed.
    pub(crate) fn go_on_with(&mut self, frames: impl IntoIterator<Item = (u64, u32)>) {
        let next = self.next;
        self.known = Some(frames.into_iter().filter(|(offset, _)| *offset > next).collect());
    }

    /// The next frames; none at the end. Fails with *corrupt* at a head that is none.
    pub(crate) fn next_run(&mut self) -> Result<Option<FrameRun>> {
        let run = |offset, frames| FrameRun { pack: self.pack, file: Arc::clone(&self.file), offset, frames };
        if let Some(known) = &mut self.known {
            return Ok(known.pop_front().map(|(offset, bytes)| run(offset, vec![bytes])));
        }
        let first = self.next;
        let mut frames = Vec::new();
        while self.next < self.end && (self.next - first < RUN_BYTES) {
            match self.frame_at(self.next) {
                Ok(bytes) => {
                    frames.push(bytes);
                    self.next += u64::from(bytes);
                }
                // What comes before it is given first.
                Err(_) if !frames.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        Ok((!frames.is_empty()).then(|| run(first, frames)))
    }

    /// Bytes of the frame at a place.
    fn frame_at(&self, offset: u64) -> Result<u32> {
        let corrupt = || {
            Error::corrupt(
                Subject::Pack(self.pack),
                format!("no frame begins at byte {offset}, where one should"),
            )
        };
        let mut head = [0; FRAME_HEAD_BYTES];
        if self.end - offset < FRAME_HEAD_BYTES as u64 {
            return Err(corrupt());
        }
        let read = self.file.read_at(&mut head, offset);
        read.map_err(|error| Error::io(Subject::Pack(self.pack), "read it", error))?;
        frame_bytes(&head).filter(|bytes| u64::from(*bytes) <= self.end - offset).ok_or_else(corrupt)
    }
}
