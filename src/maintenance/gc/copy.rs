//! Copying what is needed out of packs that are mostly not.

use std::collections::BTreeMap;

use crate::disk::OpenMode;
use crate::engine::Engine;
use crate::engine::session::WriteSession;
use crate::error::{Error, Result, Subject};
use crate::id::PackId;
use crate::layout::pack_file;
use crate::pack::Locator;
use crate::pack::frame::{self, MAX_FRAME_BYTES};

use super::marks::Marks;

/// What was copied out of a pack.
#[derive(Default)]
pub(super) struct Copied {
    /// About how many bytes of the copies nothing needs.
    pub(super) unneeded_bytes: u64,
}

/// Copies frames of a pack into the session's. A frame is copied as it is; only with `apart`, and if
/// part of it is not needed, the rest is compressed anew. Every object is checked on the way: damage is not copied.
pub(super) fn copy_frames(
    store: &Engine,
    marks: &Marks,
    session: &WriteSession,
    pack: PackId,
    frames: &BTreeMap<u64, u32>,
    apart: bool,
) -> Result<Copied> {
    let io = |action| move |error| Error::io(Subject::Pack(pack), action, error);
    let corrupt = |offset, what| {
        Error::corrupt(
            Subject::Pack(pack),
            format!("the frame at byte {offset} {what}; it can't be collected"),
        )
    };
    let file = store.disk.open(&pack_file(pack), OpenMode::Read).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::corrupt(Subject::Pack(pack), "its file is missing"),
        _ => io("open it")(error),
    })?;
    let mut decompressor = zstd::bulk::Decompressor::new().map_err(io("set up decompression"))?;
    let mut writer = session.writer()?;
    let (mut packed, mut raw) = (Vec::new(), Vec::new());
    let mut copied = Copied::default();
    for (offset, frame_bytes) in frames {
        store.task.advance(u64::from(*frame_bytes), 0)?;
        let bytes = usize::try_from(*frame_bytes).unwrap_or(usize::MAX);
        if bytes > MAX_FRAME_BYTES {
            return Err(corrupt(*offset, "has an impossible length"));
        }
        packed.resize(bytes, 0);
        file.read_at(&mut packed, *offset).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => corrupt(*offset, "is cut short"),
            _ => io("read it")(error),
        })?;
        let table = frame::decode(pack, *offset, &packed, &mut decompressor, &mut raw)?;
        let objects: Vec<_> =
            table.objects(&raw).map(|(kind, bytes)| (kind.id_of(bytes), kind, bytes)).collect();
        let ids: Vec<_> = objects.iter().map(|(id, ..)| *id).collect();
        if !table.is_of(&ids) {
            return Err(corrupt(*offset, "has other objects than were written"));
        }
        let place = |slot| Locator { pack, offset: *offset, frame_bytes: *frame_bytes, slot };
        let needed: Vec<_> = ids.iter().zip(0..).map(|(id, slot)| marks.has(id, place(slot))).collect();
        if apart && needed.contains(&false) {
            for ((id, kind, bytes), _) in objects.iter().zip(&needed).filter(|(_, needed)| **needed) {
                writer.put_again(*id, *kind, bytes)?;
            }
        } else {
            let unneeded = objects.iter().zip(&needed).filter(|(_, needed)| !**needed);
            let raw_bytes: usize = unneeded.map(|((.., bytes), _)| bytes.len()).sum();
            copied.unneeded_bytes += u64::from(*frame_bytes) * raw_bytes as u64 / raw.len().max(1) as u64;
            let frame = frame::again(&mut packed, ids).ok_or_else(|| corrupt(*offset, "is none"))?;
            session.copy(frame)?;
        }
    }
    writer.flush()?;
    Ok(copied)
}
