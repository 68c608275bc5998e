//! Packs as the catalog knows them: who may append to which, and how a full one is sealed.

use std::ops::ControlFlow;

use crate::catalog::record::{FrameRecord, OpenPackRecord, SealedPackRecord, SegmentRecord};
use crate::catalog::table::{
    Frames, Leases, OpenPacks, RemovedPacks, SealedPacks, Segments, Sequence, key_bytes,
};
use crate::catalog::{Direction, ReadTables, WriteTx};
use crate::disk::{Disk, OpenMode};
use crate::error::{Error, Result, Subject};
use crate::id::{LeaseId, PackId, SegmentId};
use crate::layout::{PACKS, pack_file};
use crate::pack::frame::{PACK_HEAD_BYTES, pack_head};
use crate::pack::segment;
use crate::pack::session::{OpenPack, WrittenFrame, WrittenPack};

use super::StoreOptions;

/// The domain of packs whose objects all projects may share.
pub(crate) const SHARED_DOMAIN: u32 = 0;

/// A pack in which nothing was published.
pub(crate) const NEW_PACK: OpenPackRecord = OpenPackRecord {
    committed_bytes: 0,
    indexed_bytes: 0,
    objects: 0,
    indexed_objects: 0,
    owner: None,
    domain: SHARED_DOMAIN,
};

/// Rows of the index that are in a segment from now on: those of a pack's frames up to a place in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Indexed {
    pub(crate) pack: PackId,
    pub(crate) segment: SegmentId,
    pub(crate) bytes: u64,
    pub(crate) objects: u64,
}

/// An open pack that nobody owns and that has room, the fullest of them; or the number and row of a new one. It is the
/// caller's for as long as it has the [turn](super::gate::Turn).
pub(crate) fn free_pack(tx: &impl ReadTables, options: &StoreOptions) -> Result<(PackId, OpenPackRecord)> {
    let free = tx.collect::<OpenPacks>(&[])?.into_iter();
    let free =
        free.filter(|(_, record)| record.owner.is_none() && record.committed_bytes < options.pack_bytes);
    if let Some(free) = free.max_by_key(|(_, record)| record.committed_bytes) {
        return Ok(free);
    }
    let number = tx.last(Sequence::Pack)? + 1;
    let pack =
        u32::try_from(number).map_err(|_| Error::unsupported(Subject::Catalog, "has too many packs"))?;
    Ok((PackId::new(pack), NEW_PACK))
}

/// Those of the packs that are condemned or gone.
pub(crate) fn not_sealed_or_open(tx: &impl ReadTables, packs: Vec<PackId>) -> Result<Vec<PackId>> {
    let mut others = Vec::new();
    for pack in packs {
        if tx.get::<OpenPacks>(&pack)?.is_none() && tx.get::<SealedPacks>(&pack)?.is_none() {
            others.push(pack);
        }
    }
    Ok(others)
}

/// Opens the file of a pack that only the caller appends to; a new one is made, and its name is durable.
pub(crate) fn open_pack_file(disk: &dyn Disk, id: PackId, record: &OpenPackRecord) -> Result<OpenPack> {
    let io = |action| move |error| Error::io(Subject::Pack(id), action, error);
    let name = pack_file(id);
    let OpenPackRecord { committed_bytes, objects, domain, .. } = *record;
    if committed_bytes > 0 {
        let file = disk.open(&name, OpenMode::Write).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::corrupt(Subject::Pack(id), "its file is missing"),
            _ => io("open it")(error),
        })?;
        let found = file.len().map_err(io("measure it"))?;
        if found < committed_bytes {
            let message = format!("it has {found} of {committed_bytes} committed bytes");
            return Err(Error::corrupt(Subject::Pack(id), message));
        }
        if found > committed_bytes {
            // What a killed process appended and did not publish.
            file.set_len(committed_bytes).map_err(io("cut it to its committed length"))?;
        }
        return Ok(OpenPack { id, file, end: committed_bytes, objects });
    }
    // A file of that name is what a killed process left, whose transaction never came to be.
    disk.remove(&name).map_err(io("remove an unfinished one"))?;
    let file = disk.open(&name, OpenMode::CreateNew).map_err(io("create it"))?;
    file.write_at(&pack_head(id, domain), 0).map_err(io("write its head"))?;
    disk.sync_dir(PACKS).map_err(io("sync its folder"))?;
    Ok(OpenPack { id, file, end: PACK_HEAD_BYTES as u64, objects: 0 })
}

/// Publishes what was appended to a pack, and lets go of it.
pub(crate) fn publish_frames(tx: &mut WriteTx, written: &WrittenPack) -> Result<()> {
    let pack = written.pack.id;
    for frame in &written.frames {
        let record = FrameRecord { frame_bytes: frame.frame_bytes, objects: frame.objects.clone() };
        tx.put::<Frames>(&(pack, frame.offset), &record)?;
    }
    publish_length(tx, written)
}

/// Makes what was appended to a pack count, its frames being rows or in a segment.
fn publish_length(tx: &mut WriteTx, written: &WrittenPack) -> Result<()> {
    // Others may have moved rows to a segment meanwhile.
    let known = tx.get::<OpenPacks>(&written.pack.id)?.unwrap_or(NEW_PACK);
    if known.committed_bytes.max(PACK_HEAD_BYTES as u64) != written.begin() {
        let message = "was changed while it was added to; try again";
        return Err(Error::conflict(Subject::Pack(written.pack.id), message));
    }
    tx.advance(Sequence::Pack, written.pack.id.get().into())?;
    let (committed_bytes, objects) = (written.pack.end, written.objects());
    tx.put::<OpenPacks>(
        &written.pack.id,
        &OpenPackRecord { committed_bytes, objects, owner: None, ..known },
    )?;
    tx.next(Sequence::Index).map(drop)
}

/// Publishes what was appended to a pack, whose frames are all in a segment.
pub(crate) fn publish_indexed(tx: &mut WriteTx, written: &WrittenPack, indexed: Indexed) -> Result<()> {
    publish_length(tx, written)?;
    publish_segment(tx, indexed)
}

/// Makes the rows of a pack's frames give way to a segment.
pub(crate) fn publish_segment(tx: &mut WriteTx, indexed: Indexed) -> Result<()> {
    let Indexed { pack, segment, bytes, objects } = indexed;
    let known = tx.get::<OpenPacks>(&pack)?.unwrap_or(NEW_PACK);
    let rows = tx.collect::<Frames>(&key_bytes(&pack))?.into_iter();
    for (key, _) in rows.take_while(|((_, offset), _)| *offset < bytes) {
        tx.remove::<Frames>(&key)?;
    }
    // Others may have moved some of the rows to a segment of their own meanwhile.
    let is_all = bytes == known.committed_bytes;
    let indexed_objects = if is_all { known.objects } else { known.indexed_objects + objects };
    let record = OpenPackRecord { indexed_bytes: bytes, indexed_objects, ..known };
    tx.put::<OpenPacks>(&pack, &record)?;
    // A pack that is sealed early may have no rows left.
    if objects > 0 {
        tx.put::<Segments>(&segment, &SegmentRecord { objects, domain: known.domain })?;
    }
    tx.next(Sequence::Index).map(drop)
}

/// Makes an open pack that is complete a sealed one. It stays as long as the lease of what filled it is there, if that is
/// to be published yet.
pub(crate) fn seal(tx: &mut WriteTx, pack: PackId, filled_by: Option<LeaseId>) -> Result<()> {
    let Some(OpenPackRecord { committed_bytes: bytes, objects, domain, .. }) = tx.get::<OpenPacks>(&pack)?
    else {
        return Ok(());
    };
    tx.remove::<OpenPacks>(&pack)?;
    tx.put::<SealedPacks>(&pack, &SealedPackRecord { bytes, objects, domain, filled_by })?;
    tx.next(Sequence::Index).map(drop)
}

/// Forgets an open pack and all that is in it.
pub(crate) fn drop_open(tx: &mut WriteTx, pack: PackId) -> Result<()> {
    for frame in tx.collect::<Frames>(&key_bytes(&pack))? {
        tx.remove::<Frames>(&frame.0)?;
    }
    tx.remove::<OpenPacks>(&pack)?;
    // What went to segments is there still.
    tx.put::<RemovedPacks>(&pack, &())?;
    // By this other processes see that they may have files open that are gone.
    tx.next(Sequence::Generation)?;
    tx.next(Sequence::Index).map(drop)
}

/// The published frames of an open pack that are no part of a segment.
pub(crate) fn frames(tx: &impl ReadTables, pack: PackId) -> Result<Vec<WrittenFrame>> {
    frames_from(tx, pack, 0)
}

/// Those of them from a place in the pack.
pub(crate) fn frames_from(tx: &impl ReadTables, pack: PackId, start: u64) -> Result<Vec<WrittenFrame>> {
    let mut frames = Vec::new();
    let before = start.checked_sub(1).map(|before| (pack, before));
    tx.scan::<Frames>(&key_bytes(&pack), before.as_ref(), Direction::Ascending, |(_, offset), record| {
        frames.push(WrittenFrame { offset, frame_bytes: record.frame_bytes, objects: record.objects });
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(frames)
}

/// A number for a segment that is going to be written.
pub(crate) fn next_segment(tx: &mut WriteTx) -> Result<SegmentId> {
    let number = u32::try_from(tx.next(Sequence::Segment)?);
    let message = "has too many index segments";
    number.map(SegmentId::new).map_err(|_| Error::unsupported(Subject::Catalog, message))
}

/// Writes a segment of these frames of a pack, all durable; it takes their rows' place up to `bytes` of the pack.
pub(crate) fn write_segment(
    disk: &dyn Disk,
    segment: SegmentId,
    pack: PackId,
    frames: &[WrittenFrame],
    bytes: u64,
) -> Result<Indexed> {
    let objects = frames.iter().map(|frame| frame.objects.len() as u64).sum();
    segment::write(disk, segment, frames.iter().flat_map(|frame| frame.rows(pack)).collect())?;
    Ok(Indexed { pack, segment, bytes, objects })
}

/// Fails unless the lease is still there: its holder was taken for dead otherwise, and what it owned is another's.
pub(crate) fn check_lease(tx: &impl ReadTables, lease: LeaseId) -> Result<()> {
    if tx.get::<Leases>(&lease)?.is_some() {
        return Ok(());
    }
    Err(Error::conflict(Subject::Catalog, "this session's lease was taken back; try again"))
}

/// Lets go of everything a lease holds, and gives the packs that were never published: their rows are gone, and
/// their files may go once the transaction is durable.
pub(crate) fn release(tx: &mut WriteTx, lease: LeaseId) -> Result<Vec<PackId>> {
    let mut unused = Vec::new();
    for (pack, record) in tx.collect::<OpenPacks>(&[])? {
        if record.owner != Some(lease) {
            continue;
        }
        if record.committed_bytes == 0 {
            tx.remove::<OpenPacks>(&pack)?;
            unused.push(pack);
        } else {
            tx.put::<OpenPacks>(&pack, &OpenPackRecord { owner: None, ..record })?;
        }
    }
    tx.remove::<Leases>(&lease)?;
    Ok(unused)
}
