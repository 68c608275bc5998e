//! Segments: immutable sorted pieces of the object index, mapped into memory.
//!
//! ```text
//! segment = head row*
//! head (64 bytes) = "LSSEGM" version(1) 0(1) segment(4) domain(4) rows(8) body-hash(32) check(8)
//! row  (48 bytes) = id(32) pack(4) offset(6) frame-bytes(4) slot(2)
//! ```
//! Numbers are little-endian; rows ascend by id and ids are unique. Ids are uniformly distributed, so a look-up
//! guesses its place from the id's first bytes and touches two or three pages however large the segment is.
//! The body's hash is checked by a full verification, not at open: a damaged row gives a wrong place, and what is
//! read there is checked by itself.

use crate::disk::{Disk, MappedBytes, OpenMode};
use crate::error::{Error, Result, Subject};
use crate::format::{DecodeError, Decoder, Encoder};
use crate::id::{ObjectId, PackId, SegmentId};

use super::{Locator, SEGMENTS, segment_file};

const MAGIC: &[u8; 6] = b"LSSEGM";
const VERSION: u8 = 1;
const HEAD_BYTES: usize = 64;
const ROW_BYTES: usize = 48;

/// A segment, open for look-ups.
pub(crate) struct Segment {
    bytes: MappedBytes,
    rows: usize,
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Segment").field("rows", &self.rows).finish_non_exhaustive()
    }
}

/// Writes a segment of `rows`, which it sorts, and makes it and its name durable.
pub(crate) fn write(disk: &dyn Disk, segment: SegmentId, mut rows: Vec<(ObjectId, Locator)>) -> Result<()> {
    rows.sort_unstable();
    rows.dedup_by_key(|(id, _)| *id);
    let mut body = Encoder(Vec::with_capacity(rows.len() * ROW_BYTES));
    for (id, locator) in &rows {
        let [offset @ .., _, _] = locator.offset.to_le_bytes();
        body.id(id).raw(&locator.pack.get().to_le_bytes()).raw(&offset);
        body.raw(&locator.frame_bytes.to_le_bytes()).raw(&locator.slot.to_le_bytes());
    }
    let mut head = Encoder::default();
    head.raw(MAGIC).u8(VERSION).u8(0).raw(&segment.get().to_le_bytes()).raw(&0_u32.to_le_bytes());
    head.raw(&(rows.len() as u64).to_le_bytes()).raw(blake3::hash(&body.0).as_bytes());
    let check = blake3::hash(&head.0);
    head.raw(check.as_bytes().split_at(8).0);

    let name = segment_file(segment);
    let temporary = format!("{name}.new");
    let io = |action, error| Error::io(Subject::Segment(segment), action, error);
    // A file of that name is what a killed process left: no catalog row names it yet.
    disk.remove(&temporary).map_err(|error| io("remove an unfinished copy", error))?;
    let file = disk.open(&temporary, OpenMode::CreateNew).map_err(|error| io("create it", error))?;
    file.write_at(&head.0, 0).map_err(|error| io("write it", error))?;
    file.write_at(&body.0, HEAD_BYTES as u64).map_err(|error| io("write it", error))?;
    file.sync().map_err(|error| io("sync it", error))?;
    disk.rename(&temporary, &name).map_err(|error| io("rename it", error))?;
    disk.sync_dir(SEGMENTS).map_err(|error| io("sync its folder", error))
}

impl Segment {
    /// Opens a segment that the catalog names.
    pub(crate) fn open(disk: &dyn Disk, segment: SegmentId) -> Result<Self> {
        let map = || disk.open(&segment_file(segment), OpenMode::Read).and_then(|file| file.map());
        let bytes = map().map_err(|error| Error::io(Subject::Segment(segment), "map it", error))?;
        let rows = Self::check_head(&bytes, segment)
            .map_err(|error| Error::corrupt(Subject::Segment(segment), format!("its head {error}")))?;
        Ok(Self { bytes, rows })
    }

    fn check_head(bytes: &[u8], segment: SegmentId) -> Result<usize, DecodeError> {
        let mut decoder = Decoder(bytes);
        let head = decoder.raw(HEAD_BYTES)?;
        let (body, check) = head.split_at_checked(HEAD_BYTES - 8).ok_or(DecodeError::Truncated)?;
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
        let rows =
            usize::try_from(u64::from_le_bytes(fields.array()?)).map_err(|_| DecodeError::BadNumber)?;
        if rows.checked_mul(ROW_BYTES) != Some(decoder.0.len()) {
            return Err(DecodeError::Truncated);
        }
        Ok(rows)
    }

    fn row(&self, index: usize) -> Option<Decoder<'_>> {
        let start = HEAD_BYTES.checked_add(index.checked_mul(ROW_BYTES)?)?;
        self.bytes.get(start..start.checked_add(ROW_BYTES)?).map(Decoder)
    }

    fn id_at(&self, index: usize) -> Option<ObjectId> {
        self.row(index)?.id().ok()
    }

    fn locator_at(&self, index: usize) -> Option<Locator> {
        let mut row = self.row(index)?;
        row.id().ok()?;
        let pack = PackId::new(u32::from_le_bytes(row.array().ok()?));
        let mut offset = [0; 8];
        offset.first_chunk_mut::<6>()?.copy_from_slice(&row.array::<6>().ok()?);
        let offset = u64::from_le_bytes(offset);
        let frame_bytes = u32::from_le_bytes(row.array().ok()?);
        Some(Locator { pack, offset, frame_bytes, slot: u16::from_le_bytes(row.array().ok()?) })
    }

    /// Where the object is, if this segment has it.
    pub(crate) fn find(&self, id: &ObjectId) -> Option<Locator> {
        let (mut low, mut high) = (0, self.rows);
        // Between two known prefixes the id's place is guessed; every second step halves instead, so that a
        // segment with chosen ids costs no more than a binary search.
        let (mut low_prefix, mut high_prefix) = (0, u64::MAX);
        for step in 0_u32.. {
            if low >= high {
                break;
            }
            let middle = if step % 2 == 0 {
                let span = u128::from(high_prefix - low_prefix).max(1);
                let wanted = u128::from(id.prefix().clamp(low_prefix, high_prefix) - low_prefix);
                let guess = ((high - low) as u128 * wanted / span).min((high - low - 1) as u128);
                low + usize::try_from(guess).unwrap_or(0)
            } else {
                low + (high - low) / 2
            };
            let found = self.id_at(middle)?;
            match found.cmp(id) {
                std::cmp::Ordering::Equal => return self.locator_at(middle),
                std::cmp::Ordering::Less => (low, low_prefix) = (middle + 1, found.prefix().min(high_prefix)),
                std::cmp::Ordering::Greater => (high, high_prefix) = (middle, found.prefix().max(low_prefix)),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::disk::MemoryDisk;

    fn row(number: u64) -> (ObjectId, Locator) {
        let id = ObjectId::from_bytes(blake3::hash(&number.to_le_bytes()).into());
        let place = Locator {
            pack: PackId::new(u32::try_from(number).unwrap()),
            offset: (1 << 40) + number,
            frame_bytes: 9,
            slot: u16::try_from(number % 1000).unwrap(),
        };
        (id, place)
    }

    #[test]
    fn present_and_absent() {
        let disk = MemoryDisk::default();
        let segment = SegmentId::new(3);
        for count in [0, 1, 2, 1000] {
            write(&disk, segment, (0..count).map(row).collect()).unwrap();
            let open = Segment::open(&disk, segment).unwrap();
            for number in 0..count {
                let (id, locator) = row(number);
                assert_eq!(open.find(&id), Some(locator));
            }
            for number in count..count + 1000 {
                assert_eq!(open.find(&row(number).0), None);
            }
        }
    }

    #[test]
    fn a_damaged_or_short_head_is_corrupt() {
        let disk = MemoryDisk::default();
        let segment = SegmentId::new(3);
        write(&disk, segment, (0..10).map(row).collect()).unwrap();
        let file = disk.open(&segment_file(segment), OpenMode::Write).unwrap();
        file.write_at(&[9], 17).unwrap();
        assert!(Segment::open(&disk, segment).unwrap_err().is_corrupt());
        write(&disk, segment, (0..10).map(row).collect()).unwrap();
        disk.open(&segment_file(segment), OpenMode::Write).unwrap().set_len(400).unwrap();
        assert!(Segment::open(&disk, segment).unwrap_err().is_corrupt());
    }

    proptest! {
        #[test]
        fn chosen_ids_are_found_too(mut bytes in prop::collection::btree_set(0_u8..=255, 1..60), absent: [u8; 32]) {
            let disk = MemoryDisk::default();
            let id = |byte: u8| { let mut id = [255; 32]; id[31] = byte; ObjectId::from_bytes(id) };
            bytes.remove(&77);
            write(&disk, SegmentId::new(0), bytes.iter().map(|byte| (id(*byte), row(u64::from(*byte)).1)).collect()).unwrap();
            let open = Segment::open(&disk, SegmentId::new(0)).unwrap();
            for byte in &bytes {
                prop_assert_eq!(open.find(&id(*byte)), Some(row(u64::from(*byte)).1));
            }
            prop_assert_eq!(open.find(&id(77)), None);
            prop_assert_eq!(open.find(&ObjectId::from_bytes(absent)), None);
        }
    }
}
