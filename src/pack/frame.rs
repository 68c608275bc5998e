//! Frames: the unit of compression, reading and reclaiming.
//!
//! ```text
//! pack    = pack-head frame*
//! pack-head (24 bytes)  = "LSPACK" version(1) 0(1) pack(4) domain(4) check(8)
//! frame   = head table payload
//! head    (44 bytes)    = "LSFR" codec(1) 0(1) objects(2) raw-bytes(4) payload-bytes(4) table-bytes(4) contents(8) check(16)
//! table   = objects × (kind(1) length(varint))
//! payload = the objects' bytes one after the other, as they are (codec 0) or as one zstd frame (codec 1)
//! ```
//! Numbers are little-endian. A frame's check is BLAKE3 over pack, offset, head and table, so that a frame that
//! turns up in another place is found out. Ids are not stored: they are what hashing the objects gives, which whoever
//! reads one does anyway. `contents` is BLAKE3 over all of them: a pack that is read without any index tells damage from
//! objects, too.

use crate::error::{Error, Result, Subject};
use crate::format::{DecodeError, Decoder, Encoder};
use crate::id::{ObjectId, PackId};
use crate::object::ObjectKind;

/// Bytes at the start of a pack.
pub(crate) const PACK_HEAD_BYTES: usize = 24;
/// Bytes of a frame's head.
pub(crate) const FRAME_HEAD_BYTES: usize = 44;
/// No object is larger.
pub(crate) const MAX_OBJECT_BYTES: usize = 1 << 20;
/// No frame holds more raw bytes: bounds what a damaged head can make a reader allocate.
pub(crate) const MAX_FRAME_RAW_BYTES: usize = 8 << 20;

/// Twice a frame's raw bytes is more than any table adds: a damaged head or locator can't ask for gigabytes.
pub(crate) const MAX_FRAME_BYTES: usize = 2 * MAX_FRAME_RAW_BYTES;

/// No table is longer: a kind and a length for each object.
const MAX_TABLE_BYTES: usize = (1 + 5) * u16::MAX as usize;

const PACK_MAGIC: &[u8; 6] = b"LSPACK";
/// How a frame begins.
pub(crate) const FRAME_MAGIC: &[u8; 4] = b"LSFR";
const PACK_VERSION: u8 = 2;
const CHECK_BYTES: usize = 16;
const RAW: u8 = 0;
const ZSTD: u8 = 1;
/// What compression must save to be worth undoing it at every read: one part in this many.
const WORTHWHILE_PART: usize = 32;

/// The start of a pack's file.
pub(crate) fn pack_head(pack: PackId, domain: u32) -> [u8; PACK_HEAD_BYTES] {
    let mut head = [0; PACK_HEAD_BYTES];
    let (body, check) = head.split_at_mut(16);
    let mut fields = Encoder::default();
    fields.raw(PACK_MAGIC).u8(PACK_VERSION).u8(0);
    fields.raw(&pack.get().to_le_bytes()).raw(&domain.to_le_bytes());
    body.copy_from_slice(&fields.0);
    let hash = blake3::hash(body);
    check.copy_from_slice(hash.as_bytes().split_at(8).0);
    head
}

/// One object in a frame's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) kind: ObjectKind,
    pub(crate) bytes: u32,
}

/// Collects objects for one frame after the other, in the same memory.
#[derive(Default)]
pub(crate) struct FrameBuilder {
    raw: Vec<u8>,
    ids: Vec<ObjectId>,
    slots: Vec<Slot>,
    /// The frame's bytes once it is sealed, and what is left of a longer one behind them.
    encoded: Vec<u8>,
}

impl FrameBuilder {
    /// Adds an object of at most [`MAX_OBJECT_BYTES`].
    pub(crate) fn push(&mut self, id: ObjectId, kind: ObjectKind, bytes: &[u8]) -> Result<()> {
        let too_big = || Error::invalid(Subject::Object(id), "has more bytes than an object may have");
        let len = u32::try_from(bytes.len())
            .ok()
            .filter(|_| bytes.len() <= MAX_OBJECT_BYTES)
            .ok_or_else(too_big)?;
        self.raw.extend_from_slice(bytes);
        self.ids.push(id);
        self.slots.push(Slot { kind, bytes: len });
        Ok(())
    }

    /// Whether another object could be too much.
    pub(crate) fn is_full(&self, target_bytes: usize) -> bool {
        self.raw.len() >= target_bytes || self.slots.len() >= usize::from(u16::MAX)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The objects so far.
    pub(crate) fn ids(&self) -> &[ObjectId] {
        &self.ids
    }

    /// Compresses what was collected. It stays until it is [cleared](Self::clear).
    pub(crate) fn seal(
        &mut self,
        compressor: &mut zstd::bulk::Compressor<'_>,
    ) -> Result<SealedFrame<&mut [u8]>> {
        let raw_bytes = self.raw.len();
        let objects = self.ids.clone();
        let mut table = Encoder::default();
        for slot in &self.slots {
            table.u8(slot.kind as u8).varint(slot.bytes.into());
        }
        let start = FRAME_HEAD_BYTES + table.0.len();
        let room = start + zstd::zstd_safe::compress_bound(raw_bytes);
        if self.encoded.len() < room {
            self.encoded.resize(room, 0);
        }
        let io = |error| Error::io(Subject::Argument("level"), "compress", error);
        let payload = self.encoded.get_mut(start..).unwrap_or_default();
        let packed_bytes = compressor.compress_to_buffer(&self.raw, payload).map_err(io)?;
        let worthwhile = packed_bytes + raw_bytes / WORTHWHILE_PART < raw_bytes;
        let (codec, payload_bytes) = if worthwhile { (ZSTD, packed_bytes) } else { (RAW, raw_bytes) };
        if let (false, Some(payload)) = (worthwhile, payload.get_mut(..raw_bytes)) {
            payload.copy_from_slice(&self.raw);
        }
        if let Some(place) = self.encoded.get_mut(FRAME_HEAD_BYTES..start) {
            place.copy_from_slice(&table.0);
        }
        let encoded = self.encoded.get_mut(..start + payload_bytes).unwrap_or_default();
        Ok(SealedFrame { codec, raw_bytes, table_bytes: table.0.len(), objects, encoded })
    }

    /// Begins the next frame.
    pub(crate) fn clear(&mut self) {
        self.raw.clear();
        self.ids.clear();
        self.slots.clear();
    }
}

/// A frame that only lacks its place.
#[derive(Debug)]
pub(crate) struct SealedFrame<B> {
    codec: u8,
    raw_bytes: usize,
    table_bytes: usize,
    objects: Vec<ObjectId>,
    /// Room for the head, the table and the payload.
    encoded: B,
}

impl SealedFrame<&mut [u8]> {
    /// The frame apart from the builder's memory.
    pub(crate) fn into_owned(self) -> SealedFrame<Vec<u8>> {
        let Self { codec, raw_bytes, table_bytes, objects, encoded } = self;
        SealedFrame { codec, raw_bytes, table_bytes, objects, encoded: encoded.to_vec() }
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> SealedFrame<B> {
    /// Bytes that it takes in a pack.
    pub(crate) fn len(&self) -> usize {
        self.encoded.as_ref().len()
    }

    /// Its objects.
    pub(crate) fn objects(&self) -> &[ObjectId] {
        &self.objects
    }

    /// Its objects.
    pub(crate) fn into_objects(self) -> Vec<ObjectId> {
        self.objects
    }

    /// The frame's bytes for this place.
    pub(crate) fn place(&mut self, pack: PackId, offset: u64) -> Result<&[u8]> {
        let too_big = |_| Error::invalid(Subject::Pack(pack), "cannot hold a frame this large");
        let size = |len: usize| u32::try_from(len).map(u32::to_le_bytes).map_err(too_big);
        let objects = u16::try_from(self.objects.len()).map_err(too_big)?;
        let (head, rest) = self.encoded.as_mut().split_at_mut(FRAME_HEAD_BYTES);
        let (table, payload) = rest.split_at(self.table_bytes);
        let mut fields = Encoder(Vec::with_capacity(FRAME_HEAD_BYTES));
        fields.raw(FRAME_MAGIC).u8(self.codec).u8(0).raw(&objects.to_le_bytes());
        fields.raw(&size(self.raw_bytes)?).raw(&size(payload.len())?).raw(&size(table.len())?);
        fields.raw(&contents_check(&self.objects));
        let check = frame_check(pack, offset, &fields.0, table);
        head.copy_from_slice(&fields.raw(&check).0);
        Ok(self.encoded.as_ref())
    }
}

/// The frame with these bytes, of these objects, for another place. None if it is none; its payload is not looked at.
pub(crate) fn again(bytes: &mut [u8], objects: Vec<ObjectId>) -> Option<SealedFrame<&mut [u8]>> {
    let mut decoder = Decoder(bytes);
    decoder.raw(4).ok()?;
    let codec = decoder.u8().ok()?;
    decoder.raw(3).ok()?;
    let mut size = || decoder.array().map(|bytes| u32::from_le_bytes(bytes) as usize).ok();
    let (raw_bytes, _, table_bytes) = (size()?, size()?, size()?);
    Some(SealedFrame { codec, raw_bytes, table_bytes, objects, encoded: bytes })
}

/// What a frame's head says of the objects in it, in their order.
fn contents_check(ids: &[ObjectId]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    for id in ids {
        hasher.update(id.as_bytes());
    }
    let mut check = [0; 8];
    hasher.finalize_xof().fill(&mut check);
    check
}

fn frame_check(pack: PackId, offset: u64, head: &[u8], table: &[u8]) -> [u8; CHECK_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&pack.get().to_le_bytes()).update(&offset.to_le_bytes()).update(head).update(table);
    let mut check = [0; CHECK_BYTES];
    hasher.finalize_xof().fill(&mut check);
    check
}

/// What a frame says of the objects in it.
#[derive(Debug)]
pub(crate) struct FrameTable {
    pub(crate) slots: Vec<Slot>,
    contents: [u8; 8],
}

impl FrameTable {
    /// Whether objects with these ids, in this order, are those that were written.
    pub(crate) fn is_of(&self, ids: &[ObjectId]) -> bool {
        self.contents == contents_check(ids)
    }

    /// Each object's kind and bytes, out of those of the frame.
    pub(crate) fn objects<'r>(&self, mut raw: &'r [u8]) -> impl Iterator<Item = (ObjectKind, &'r [u8])> {
        self.slots.iter().map_while(move |slot| {
            let (object, rest) = raw.split_at_checked(slot.bytes as usize)?;
            raw = rest;
            Some((slot.kind, object))
        })
    }
}

/// Reads a whole frame as it was found at this place, its objects' bytes into `raw`, which had another frame's before.
pub(crate) fn decode(
    pack: PackId,
    offset: u64,
    bytes: &[u8],
    decompressor: &mut zstd::bulk::Decompressor<'_>,
    raw: &mut Vec<u8>,
) -> Result<FrameTable> {
    let corrupt =
        |what: &str| Error::corrupt(Subject::Pack(pack), format!("the frame at byte {offset} {what}"));
    parse(pack, offset, bytes)
        .map_err(|error| corrupt(&error.to_string()))
        .and_then(|head| head.unpack(decompressor, raw).map_err(corrupt))
}

/// How long a frame is, as its head says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameLengths {
    /// Of the whole frame.
    pub(crate) frame_bytes: u32,
    /// Of its head and table, over which the check goes.
    pub(crate) checked_bytes: usize,
}

impl FrameLengths {
    /// What this head says, unless it is none or its lengths are impossible; it is not checked yet.
    pub(crate) fn of(head: &[u8; FRAME_HEAD_BYTES]) -> Option<Self> {
        let mut decoder = Decoder(head);
        if decoder.raw(4) != Ok(FRAME_MAGIC) {
            return None;
        }
        decoder.raw(8).ok()?;
        let mut size = || decoder.array().map(u32::from_le_bytes).ok();
        let (payload_bytes, table_bytes) = (size()?, size()?);
        let checked_bytes = u32::try_from(FRAME_HEAD_BYTES).ok()?.checked_add(table_bytes)?;
        let frame_bytes = checked_bytes.checked_add(payload_bytes)?;
        let is_possible = frame_bytes as usize <= MAX_FRAME_BYTES && table_bytes as usize <= MAX_TABLE_BYTES;
        is_possible.then_some(Self { frame_bytes, checked_bytes: checked_bytes as usize })
    }
}

/// Whether these bytes are the head and the table of a frame that was written to this place.
pub(crate) fn is_frame_start(pack: PackId, offset: u64, checked: &[u8]) -> bool {
    let Some((head, table)) = checked.split_at_checked(FRAME_HEAD_BYTES) else { return false };
    let Some((fields, check)) = head.split_at_checked(FRAME_HEAD_BYTES - CHECK_BYTES) else { return false };
    frame_check(pack, offset, fields, table) == check
}

struct ParsedFrame<'a> {
    codec: u8,
    raw_bytes: usize,
    payload: &'a [u8],
    table: FrameTable,
}

fn parse(pack: PackId, offset: u64, bytes: &[u8]) -> Result<ParsedFrame<'_>, DecodeError> {
    let mut decoder = Decoder(bytes);
    let head = Decoder(bytes).raw(FRAME_HEAD_BYTES - CHECK_BYTES)?;
    let magic = decoder.raw(4)?;
    let (codec, _) = (decoder.u8()?, decoder.u8()?);
    let objects = u16::from_le_bytes(decoder.array()?);
    let mut size = || decoder.array().map(|bytes| u32::from_le_bytes(bytes) as usize);
    let (raw_bytes, payload_bytes, table_bytes) = (size()?, size()?, size()?);
    let contents = decoder.array()?;
    let check = decoder.array::<CHECK_BYTES>()?;
    if magic != FRAME_MAGIC {
        return Err(DecodeError::UnknownTag);
    }
    let table = decoder.raw(table_bytes)?;
    if frame_check(pack, offset, head, table) != check {
        return Err(DecodeError::Checksum);
    }
    let payload = decoder.raw(payload_bytes)?;
    decoder.finish()?;
    if raw_bytes > MAX_FRAME_RAW_BYTES {
        return Err(DecodeError::BadNumber);
    }
    let slots = decode_table(table, objects)?;
    let listed: u64 = slots.iter().map(|slot| u64::from(slot.bytes)).sum();
    if listed != raw_bytes as u64 {
        return Err(DecodeError::BadNumber);
    }
    Ok(ParsedFrame { codec, raw_bytes, payload, table: FrameTable { slots, contents } })
}

fn decode_table(table: &[u8], objects: u16) -> Result<Vec<Slot>, DecodeError> {
    let mut decoder = Decoder(table);
    let mut slots = Vec::with_capacity(objects.into());
    for _ in 0..objects {
        let kind = ObjectKind::from_u8(decoder.u8()?).ok_or(DecodeError::UnknownTag)?;
        slots.push(Slot { kind, bytes: decoder.number()? });
    }
    decoder.finish()?;
    Ok(slots)
}

impl ParsedFrame<'_> {
    fn unpack(
        self,
        decompressor: &mut zstd::bulk::Decompressor<'_>,
        raw: &mut Vec<u8>,
    ) -> Result<FrameTable, &'static str> {
        raw.clear();
        match self.codec {
            RAW => raw.extend_from_slice(self.payload),
            ZSTD => {
                raw.reserve_exact(self.raw_bytes);
                decompressor.decompress_to_buffer(self.payload, raw).map_err(|_| "does not decompress")?;
            }
            _ => return Err("has an unknown codec"),
        }
        if raw.len() == self.raw_bytes { Ok(self.table) } else { Err("does not have the length it says") }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The bytes of a frame of these chunks at the beginning of a pack, made in memory that had another frame before.
    fn frame_of(pack: PackId, objects: &[Vec<u8>]) -> Vec<u8> {
        let mut compressor = zstd::bulk::Compressor::new(3).unwrap();
        let mut builder = FrameBuilder::default();
        builder.push(ObjectKind::Node.id_of(&[7; 900]), ObjectKind::Node, &[7; 900]).unwrap();
        builder.seal(&mut compressor).unwrap();
        builder.clear();
        for bytes in objects {
            builder.push(ObjectKind::Chunk.id_of(bytes), ObjectKind::Chunk, bytes).unwrap();
        }
        builder.seal(&mut compressor).unwrap().place(pack, 24).unwrap().to_vec()
    }

    fn decode(pack: PackId, offset: u64, bytes: &[u8]) -> Result<(FrameTable, Vec<u8>)> {
        let mut raw = Vec::new();
        let table =
            super::decode(pack, offset, bytes, &mut zstd::bulk::Decompressor::new().unwrap(), &mut raw)?;
        Ok((table, raw))
    }

    proptest! {
        #[test]
        fn objects_come_back(objects in prop::collection::vec(prop::collection::vec(0_u8..4, 0..900), 0..20)) {
            let pack = PackId::new(7);
            let (table, raw) = decode(pack, 24, &frame_of(pack, &objects)).unwrap();
            let found: Vec<_> = table.objects(&raw).map(|(kind, bytes)| (kind, bytes.to_vec())).collect();
            let given: Vec<_> = objects.iter().map(|bytes| (ObjectKind::Chunk, bytes.clone())).collect();
            prop_assert_eq!(found, given);
            let mut ids: Vec<_> = objects.iter().map(|bytes| ObjectKind::Chunk.id_of(bytes)).collect();
            prop_assert!(table.is_of(&ids));
            ids.push(ObjectKind::Chunk.id_of(b"one more"));
            prop_assert!(!table.is_of(&ids));
        }

        #[test]
        fn damage_to_head_or_table_is_found(position in 0_usize..1000, bit in 0_u8..8) {
            let pack = PackId::new(7);
            let mut bytes = frame_of(pack, &[vec![1; 500], vec![2; 70]]);
            let table_bytes = (1 + 2) + (1 + 1);
            let covered = FRAME_HEAD_BYTES + table_bytes;
            bytes[position % covered] ^= 1 << bit;
            prop_assert!(decode(pack, 24, &bytes).unwrap_err().is_corrupt());
        }

        #[test]
        fn rubbish_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(decode(PackId::new(0), 0, &bytes).is_err());
        }
    }

    #[test]
    fn a_frame_in_another_place_is_found_out() {
        let bytes = frame_of(PackId::new(1), &[vec![1; 10]]);
        assert!(decode(PackId::new(1), 24, &bytes).is_ok());
        assert!(decode(PackId::new(2), 24, &bytes).unwrap_err().is_corrupt());
        assert!(decode(PackId::new(1), 25, &bytes).unwrap_err().is_corrupt());
    }

    #[test]
    fn golden_bytes() {
        let bytes = frame_of(PackId::new(1), &[b"layerstone".to_vec()]);
        let hex = crate::format::hex(&bytes);
        assert_eq!(
            hex,
            "4c534652000001000a0000000a00000002000000abcd15c6c847e8a6c8624ffa9680f501412661366ef31682\
             000a6c6179657273746f6e65"
        );
        assert_eq!(pack_head(PackId::new(1), 0)[..16], *b"LSPACK\x02\0\x01\0\0\0\0\0\0\0");
    }
}
