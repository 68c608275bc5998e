//! What tests and fuzzing need beyond the public API: a record of what a store does to its own files, and the decoders of
//! its bytes.

use std::collections::BTreeMap;

use crate::catalog::record as catalog;
use crate::disk::{Disk as _, MemoryDisk, OpenMode};
use crate::error::{Error, Result, Subject};
use crate::format::{DecodeError, record};
use crate::host::state::State;
use crate::id::{ObjectId, PackId, SegmentId};
use crate::layout::segment_file;
use crate::object::ObjectKind;
use crate::pack::frame::{self, FrameBuilder};
use crate::pack::segment::{self, Segment};
use crate::path::TreePath;
use crate::tree::{self, Timestamp};

pub use crate::archive::{
    Assembled, Assembly, Limits, Member, MemberKind, Piece, Placed, Reader, TarSummary, UnkeptRecord, Writer,
};
pub use crate::disk::recording::{DiskLog, DiskOperation, DiskRead};
pub use crate::disk::simulated::{
    Chance, Choice, Damage, DiskCall, DiskImage, Fault, FaultKind, FileNumber, Kept, Media, Node, Omissions,
    Pick, SimulatedDisk, SimulatedOperation, Turn,
};
pub use crate::engine::SimulatedMachine;
pub use crate::store::Sabotage;
pub use crate::store::simulate::{IndexView, SimulatedIndex};

/// The pack that frames are [decoded](decode_frame) of.
pub const FRAME_PACK: u32 = 1;
/// Where in it they are: behind its head.
pub const FRAME_OFFSET: u64 = frame::PACK_HEAD_BYTES as u64;

/// An object in a frame: its id, kind and bytes.
pub type FrameObject = (ObjectId, ObjectKind, Vec<u8>);

/// The objects of the frame with these bytes, at [`FRAME_OFFSET`] of [`FRAME_PACK`].
pub fn decode_frame(bytes: &[u8]) -> Result<Vec<FrameObject>> {
    let mut decompressor = zstd::bulk::Decompressor::new().map_err(set_up)?;
    let pack = PackId::new(FRAME_PACK);
    let mut raw = Vec::new();
    let table = frame::decode(pack, FRAME_OFFSET, bytes, &mut decompressor, &mut raw)?;
    let objects = table.objects(&raw).map(|(kind, bytes)| (kind.id_of(bytes), kind, bytes.to_vec()));
    let objects: Vec<_> = objects.collect();
    let ids: Vec<_> = objects.iter().map(|(id, ..)| *id).collect();
    if table.is_of(&ids) {
        return Ok(objects);
    }
    Err(Error::corrupt(Subject::Pack(pack), "the frame's objects are not those that were written"))
}

fn set_up(error: std::io::Error) -> Error {
    Error::io(Subject::Pack(PackId::new(FRAME_PACK)), "set up compression", error)
}

/// A frame of these objects, to be decoded at the same place.
pub fn encode_frame(objects: &[FrameObject]) -> Result<Vec<u8>> {
    let mut builder = FrameBuilder::default();
    for (id, kind, bytes) in objects {
        builder.push(*id, *kind, bytes)?;
    }
    let mut compressor = zstd::bulk::Compressor::new(1).map_err(set_up)?;
    builder.seal(&mut compressor)?.place(PackId::new(FRAME_PACK), FRAME_OFFSET).map(<[u8]>::to_vec)
}

/// The number of the segment that [`find_in_segment`] looks into.
pub const SEGMENT: u32 = 1;

/// Where a segment says that an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentRow {
    /// The pack.
    pub pack: u64,
    /// Where the frame begins in it.
    pub offset: u64,
    /// Bytes of the whole frame.
    pub frame_bytes: u64,
    /// Which of the frame's objects.
    pub slot: u64,
}

/// What the segment with these bytes says of an object.
pub fn find_in_segment(bytes: &[u8], id: &ObjectId) -> Result<Option<SegmentRow>> {
    let (disk, segment) = (MemoryDisk::default(), SegmentId::new(SEGMENT));
    let file = disk.open(&segment_file(segment), OpenMode::CreateNew);
    file.and_then(|file| file.write_at(bytes, 0))
        .map_err(|error| Error::io(Subject::Segment(segment), "write it", error))?;
    let found = Segment::open(&disk, segment)?.find(id, |_| true);
    Ok(found.map(|(_, place)| SegmentRow {
        pack: place.pack.get().into(),
        offset: place.offset,
        frame_bytes: place.frame_bytes.into(),
        slot: place.slot.into(),
    }))
}

/// The rows of a checkout's state, each as text.
pub type StateRows = Vec<(TreePath, String)>;

/// The rows of the state with these bytes, and the state written anew.
pub fn rewrite_state(bytes: &[u8]) -> Result<(StateRows, Vec<u8>), DecodeError> {
    let state = State::load(bytes)?;
    let rows = state.iter().map(|(path, row)| (path.clone(), format!("{row:?}"))).collect();
    // Late enough that no row becomes less trusted by it.
    let observed = Timestamp { seconds: i64::MAX, nanos: 0 };
    Ok((rows, state.rewritten(observed, &BTreeMap::new(), &[])))
}

/// The state in a file of a store's `directories`.
pub fn unpack_state(file: &[u8]) -> std::io::Result<Vec<u8>> {
    zstd::stream::decode_all(file)
}

/// A row of the catalog's dump: its table, key and value.
pub type DumpRow = (&'static str, Vec<u8>, Vec<u8>);

/// The rows of the catalog's dump with these bytes.
pub fn decode_dump(bytes: &[u8]) -> Result<Vec<DumpRow>, DecodeError> {
    crate::engine::dump::decode(bytes)
}

/// The losses that a repair keeps with these bytes, encoded again.
pub fn reencode_losses(bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    crate::maintenance::losses::reencode(bytes)
}

/// The tree node with these bytes, encoded again.
pub fn reencode_node(bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    tree::reencode_node(bytes)
}

/// The chunk list with these bytes, encoded again.
pub fn reencode_chunk_list(bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    tree::reencode_list(bytes)
}

/// The catalog record with these bytes, encoded again; `kind` is its place in the catalog's list of them.
pub fn reencode_catalog_record(kind: u8, bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    fn again<T: bincode::Encode + bincode::Decode<()>>(bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
        record::encode_object(&record::decode_object::<T>(bytes)?)
    }
    match kind {
        0 => again::<catalog::ProjectRecord>(bytes),
        1 => again::<catalog::ImageRecord>(bytes),
        2 => again::<catalog::TagRecord>(bytes),
        3 => again::<catalog::OpenPackRecord>(bytes),
        4 => again::<catalog::FrameRecord>(bytes),
        5 => again::<catalog::SegmentRecord>(bytes),
        6 => again::<catalog::LeaseRecord>(bytes),
        7 => again::<catalog::DirectoryRecord>(bytes),
        8 => again::<catalog::SealedPackRecord>(bytes),
        9 => again::<catalog::LineageRecord>(bytes),
        10 => again::<catalog::WorkspaceRecord>(bytes),
        11 => again::<catalog::LowerRecord>(bytes),
        12 => again::<catalog::CondemnedPackRecord>(bytes),
        13 => again::<catalog::NeededRecord>(bytes),
        _ => Err(DecodeError::UnknownTag),
    }
}

/// The bytes of a segment of this number that has no rows.
pub fn empty_segment(number: u32) -> Result<Vec<u8>> {
    let (disk, segment) = (MemoryDisk::default(), SegmentId::new(number));
    segment::write(&disk, segment, Vec::new())?;
    let io = |error| Error::io(Subject::Segment(segment), "read it", error);
    let file = disk.open(&segment_file(segment), OpenMode::Read).map_err(io)?;
    let mut bytes = vec![0; usize::try_from(file.len().map_err(io)?).unwrap_or(0)];
    file.read_at(&mut bytes, 0).map_err(io)?;
    Ok(bytes)
}
