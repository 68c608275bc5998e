//! Segments: immutable sorted pieces of the object index, mapped into memory.
//!
//! ```text
//! segment = head bucket* frame* row*
//! head   (128 bytes) = "LSSEGM" version(1) 0(1) segment(4) domain(4) rows(8) buckets(8)
//!                      buckets-hash(32) rest-hash(32) frames(4) 0(20) check(8)
//! bucket  (64 bytes) = first-row(5) filter(59)
//! frame   (14 bytes) = pack(4) offset(6) bytes(4)
//! row     (38 bytes) = id(32) frame(4) slot(2)
//! ```
//! Numbers are little-endian; rows ascend by id, one for each pack that has the object, and each names its frame by the
//! frame's number in the list, which is in no order. A bucket stands for an equal share of all ids, about
//! [`ROWS_PER_BUCKET`] rows: it says which is its first, and its filter (a Bloom filter, six bits an id) which ids it
//! certainly has not. So an id that a segment lacks costs one cache line, and one that it has a few more, however large
//! the segment is. Buckets ascend with their ids, so a segment is written from first to last, from rows in order, in
//! constant memory.
//!
//! The hashes are checked before a segment is merged and by a full verification, not at open: a damaged row gives a wrong
//! place, and what is read there is checked by itself.

mod merge;
mod writer;

use crate::disk::{Disk, MappedBytes, OpenMode};
use crate::error::{Error, Result, Subject};
use crate::format::{DecodeError, Decoder, Encoder};
use crate::id::{ObjectId, PackId, SegmentId};
use crate::layout::segment_file;

use super::Locator;

pub(crate) use merge::{due_for_merge, merge};
pub(crate) use writer::write;
#[cfg(feature = "testing")]
pub(crate) use writer::write_sorted;

const MAGIC: &[u8; 6] = b"LSSEGM";
const VERSION: u8 = 2;
const HEAD_BYTES: usize = 128;
const CHECK_BYTES: usize = 8;
const BUCKET_BYTES: usize = 64;
const FIRST_ROW_BYTES: usize = 5;
const FILTER_BITS: usize = 8 * (BUCKET_BYTES - FIRST_ROW_BYTES);
const FRAME_BYTES: usize = 14;
const ROW_BYTES: usize = 38;
/// What a bucket is to hold on average: with 64 bytes for each 40 rows, a row costs 39.6 bytes and its part of a frame, and
/// of the ids that are not there about one in a hundred gets past the filter.
const ROWS_PER_BUCKET: u64 = 40;

/// A segment, open for look-ups.
pub(crate) struct Segment {
    id: SegmentId,
    bytes: MappedBytes,
    head: Head,
}

/// What a segment's head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    rows: u64,
    buckets: u64,
    frames: u32,
    buckets_hash: [u8; 32],
    /// Of the frames and rows.
    rest_hash: [u8; 32],
}

/// Where a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FramePlace {
    pub(crate) pack: PackId,
    pub(crate) offset: u64,
    pub(crate) bytes: u32,
}

/// Where an object is: its place in one of the segment's frames, by the frame's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RowPlace {
    pub(crate) frame: u32,
    pub(crate) slot: u16,
}

impl From<Locator> for FramePlace {
    fn from(place: Locator) -> Self {
        Self { pack: place.pack, offset: place.offset, bytes: place.frame_bytes }
    }
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Segment").field("id", &self.id).field("rows", &self.head.rows).finish_non_exhaustive()
    }
}

/// Of `buckets`, the one that an id belongs to.
fn bucket_of(id: &ObjectId, buckets: u64) -> u64 {
    u64::try_from((u128::from(id.prefix()) * u128::from(buckets)) >> 64).unwrap_or(0)
}

/// The bits of a filter that an id sets: from other bytes than those that choose its bucket.
fn filter_bits(id: &ObjectId) -> impl Iterator<Item = (usize, u8)> {
    let (pairs, _) = id.as_bytes().as_chunks::<2>();
    pairs.iter().skip(4).take(6).map(|pair| {
        let bit = (usize::from(u16::from_le_bytes(*pair)) * FILTER_BITS) >> 16;
        (bit / 8, 1 << (bit % 8))
    })
}

impl Head {
    fn encode(&self, segment: SegmentId) -> [u8; HEAD_BYTES] {
        let mut fields = Encoder::default();
        fields.raw(MAGIC).u8(VERSION).u8(0).raw(&segment.get().to_le_bytes()).raw(&0_u32.to_le_bytes());
        fields.raw(&self.rows.to_le_bytes()).raw(&self.buckets.to_le_bytes());
        fields.raw(&self.buckets_hash).raw(&self.rest_hash).raw(&self.frames.to_le_bytes());
        let mut head = [0; HEAD_BYTES];
        let (body, check) = head.split_at_mut(HEAD_BYTES - CHECK_BYTES);
        body.iter_mut().zip(&fields.0).for_each(|(place, byte)| *place = *byte);
        check.copy_from_slice(blake3::hash(body).as_bytes().split_at(CHECK_BYTES).0);
        head
    }

    /// The head of the segment with these bytes, if it says what their number allows.
    fn decode(bytes: &[u8], segment: SegmentId) -> Result<Self, DecodeError> {
        let mut decoder = Decoder(bytes);
        let head = decoder.raw(HEAD_BYTES)?;
        let (body, check) = head.split_at_checked(HEAD_BYTES - CHECK_BYTES).ok_or(DecodeError::Truncated)?;
        if !blake3::hash(body).as_bytes().starts_with(check) {
            return Err(DecodeError::Checksum);
        }
        let mut fields = Decoder(body);
        if fields.raw(6)? != MAGIC || fields.u8()? != VERSION || fields.u8()? != 0 {
            return Err(DecodeError::UnknownTag);
        }
        if u32::from_le_bytes(fields.array()?) != segment.get() {
            return Err(DecodeError::UnknownTag);
        }
        fields.raw(4)?;
        let (rows, buckets) = (u64::from_le_bytes(fields.array()?), u64::from_le_bytes(fields.array()?));
        let (buckets_hash, rest_hash) = (fields.array()?, fields.array()?);
        let frames = u32::from_le_bytes(fields.array()?);
        let bytes = |count: u64, each: usize| count.checked_mul(each as u64);
        let parts = [bytes(rows, ROW_BYTES), bytes(buckets, BUCKET_BYTES), bytes(frames.into(), FRAME_BYTES)];
        let expected = parts.into_iter().try_fold(0_u64, |sum, part| sum.checked_add(part?));
        if buckets == 0 || expected != Some(decoder.0.len() as u64) {
            return Err(DecodeError::Truncated);
        }
        Ok(Self { rows, buckets, frames, buckets_hash, rest_hash })
    }
}

impl Segment {
    /// Opens a segment that the catalog names.
    pub(crate) fn open(disk: &dyn Disk, segment: SegmentId) -> Result<Self> {
        let map = || disk.open(&segment_file(segment), OpenMode::Read).and_then(|file| file.map());
        let bytes = map().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::corrupt(Subject::Segment(segment), "its file is missing"),
            _ => Error::io(Subject::Segment(segment), "map it", error),
        })?;
        let head = Head::decode(&bytes, segment)
            .map_err(|error| Error::corrupt(Subject::Segment(segment), format!("its head {error}")))?;
        Ok(Self { id: segment, bytes, head })
    }

    /// Its number.
    pub(crate) fn id(&self) -> SegmentId {
        self.id
    }

    /// How many objects it has.
    pub(crate) fn len(&self) -> u64 {
        self.head.rows
    }

    /// A row of the object, by its number, and where the object is, if this segment has one of a pack that is there.
    pub(crate) fn find(&self, id: &ObjectId, is_there: impl Fn(PackId) -> bool) -> Option<(u64, Locator)> {
        let bucket = bucket_of(id, self.head.buckets);
        let (mut low, filter) = self.bucket(bucket)?;
        if !filter_bits(id).all(|(byte, bit)| filter.get(byte).is_some_and(|found| found & bit != 0)) {
            return None;
        }
        let next = (bucket + 1 < self.head.buckets).then(|| self.bucket(bucket + 1)).flatten();
        let end = next.map_or(self.head.rows, |(first, _)| first);
        let mut high = end;
        while low < high {
            let middle = low + (high - low) / 2;
            if self.row(middle)?.id().ok()? < *id {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        for number in low..end {
            let mut row = self.row(number)?;
            if row.id().ok()? != *id {
                break;
            }
            let place = self.locate(decode_place(&mut row).ok()?)?;
            if is_there(place.pack) {
                return Some((number, place));
            }
        }
        None
    }

    /// The frame of a row, by the frame's number in [`Self::frames`].
    pub(crate) fn frame_of_row(&self, row: u64) -> Option<u32> {
        let mut row = self.row(row)?;
        row.id().ok()?;
        decode_place(&mut row).ok().map(|place| place.frame)
    }

    /// Every row, in order.
    pub(crate) fn rows(&self) -> impl Iterator<Item = Result<(ObjectId, Locator)>> {
        self.numbered_rows().map(|row| {
            let (id, place) = row?;
            let place = self.locate(place).ok_or_else(|| self.corrupt("a row is of no frame"))?;
            Ok((id, place))
        })
    }

    /// Every row, in order, with the number of its frame.
    fn numbered_rows(&self) -> impl Iterator<Item = Result<(ObjectId, RowPlace)>> {
        let (rows, _) = self.row_bytes().as_chunks::<ROW_BYTES>();
        rows.iter().map(|bytes| {
            let mut row = Decoder(bytes);
            let decoded = row.id().and_then(|id| decode_place(&mut row).map(|place| (id, place)));
            decoded.map_err(|error| self.corrupt(&format!("a row {error}")))
        })
    }

    /// Every frame that a row may be of, by its number.
    pub(crate) fn frames(&self) -> impl Iterator<Item = FramePlace> {
        let (frames, _) = self.frame_bytes().as_chunks::<FRAME_BYTES>();
        frames.iter().filter_map(|bytes| decode_frame(bytes).ok())
    }

    fn locate(&self, place: RowPlace) -> Option<Locator> {
        let start = usize::try_from(place.frame).ok()?.checked_mul(FRAME_BYTES)?;
        let bytes = self.frame_bytes().get(start..start.checked_add(FRAME_BYTES)?)?;
        let FramePlace { pack, offset, bytes: frame_bytes } = decode_frame(bytes).ok()?;
        Some(Locator { pack, offset, frame_bytes, slot: place.slot })
    }

    fn corrupt(&self, message: &str) -> Error {
        Error::corrupt(Subject::Segment(self.id), message)
    }

    /// Fails with *corrupt* unless it has rows for so many objects, of which some may have been there twice.
    pub(crate) fn check_len(&self, objects: u64) -> Result<()> {
        if self.len() > objects {
            return Err(self.corrupt("it has more rows than the catalog says"));
        }
        Ok(())
    }

    /// Fails with *corrupt* unless the rows and buckets are those that were written.
    pub(crate) fn check_body(&self) -> Result<()> {
        let hash = |bytes: &[u8]| *blake3::hash(bytes).as_bytes();
        if hash(self.bucket_bytes()) != self.head.buckets_hash
            || hash(self.rest_bytes()) != self.head.rest_hash
        {
            return Err(self.corrupt("its rows are not what was written"));
        }
        Ok(())
    }

    /// A bucket's first row and its filter.
    fn bucket(&self, bucket: u64) -> Option<(u64, &[u8])> {
        let start = HEAD_BYTES.checked_add(usize::try_from(bucket).ok()?.checked_mul(BUCKET_BYTES)?)?;
        let bytes = self.bytes.get(start..start.checked_add(BUCKET_BYTES)?)?;
        let (first_row, filter) = bytes.split_first_chunk::<FIRST_ROW_BYTES>()?;
        let mut number = [0; 8];
        number.first_chunk_mut::<FIRST_ROW_BYTES>()?.copy_from_slice(first_row);
        Some((u64::from_le_bytes(number), filter))
    }

    fn row(&self, row: u64) -> Option<Decoder<'_>> {
        let start = usize::try_from(row).ok()?.checked_mul(ROW_BYTES)?;
        self.row_bytes().get(start..start.checked_add(ROW_BYTES)?).map(Decoder)
    }

    /// Where the buckets end: the head was checked against the number of bytes.
    fn rest_at(&self) -> usize {
        HEAD_BYTES + usize::try_from(self.head.buckets).unwrap_or(usize::MAX).saturating_mul(BUCKET_BYTES)
    }

    fn bucket_bytes(&self) -> &[u8] {
        self.bytes.get(HEAD_BYTES..self.rest_at()).unwrap_or_default()
    }

    /// The frames and the rows.
    fn rest_bytes(&self) -> &[u8] {
        self.bytes.get(self.rest_at()..).unwrap_or_default()
    }

    fn split_rest(&self) -> (&[u8], &[u8]) {
        let frames = usize::try_from(self.head.frames).unwrap_or(usize::MAX).saturating_mul(FRAME_BYTES);
        self.rest_bytes().split_at_checked(frames).unwrap_or_default()
    }

    fn frame_bytes(&self) -> &[u8] {
        self.split_rest().0
    }

    fn row_bytes(&self) -> &[u8] {
        self.split_rest().1
    }
}

fn encode_frame(frames: &mut Encoder, place: FramePlace) {
    let [offset @ .., _, _] = place.offset.to_le_bytes();
    frames.raw(&place.pack.get().to_le_bytes()).raw(&offset).raw(&place.bytes.to_le_bytes());
}

fn decode_frame(bytes: &[u8]) -> Result<FramePlace, DecodeError> {
    let mut frame = Decoder(bytes);
    let pack = PackId::new(u32::from_le_bytes(frame.array()?));
    let mut offset = [0; 8];
    offset.iter_mut().zip(frame.array::<6>()?).for_each(|(place, byte)| *place = byte);
    let offset = u64::from_le_bytes(offset);
    Ok(FramePlace { pack, offset, bytes: u32::from_le_bytes(frame.array()?) })
}

fn encode_row(rows: &mut Encoder, id: &ObjectId, place: RowPlace) {
    rows.id(id).raw(&place.frame.to_le_bytes()).raw(&place.slot.to_le_bytes());
}

fn decode_place(row: &mut Decoder<'_>) -> Result<RowPlace, DecodeError> {
    Ok(RowPlace { frame: u32::from_le_bytes(row.array()?), slot: u16::from_le_bytes(row.array()?) })
}

#[cfg(test)]
mod tests;
