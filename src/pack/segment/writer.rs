//! Writing a segment from rows in order, in constant memory.

use std::sync::Arc;

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{Error, Result, Subject};
use crate::format::Encoder;
use crate::id::{ObjectId, SegmentId};
use crate::layout::{SEGMENTS, segment_file};
use crate::pack::Locator;

use super::{
    BUCKET_BYTES, FIRST_ROW_BYTES, FramePlace, HEAD_BYTES, Head, ROWS_PER_BUCKET, RowPlace, bucket_of,
    encode_frame, encode_row, filter_bits,
};

/// Bytes that are collected for one write.
const WRITE_BYTES: usize = 256 << 10;

/// Writes a segment of `rows`, which it sorts, and makes it and its name durable.
pub(crate) fn write(disk: &dyn Disk, segment: SegmentId, mut rows: Vec<(ObjectId, Locator)>) -> Result<()> {
    rows.sort_unstable();
    rows.dedup_by_key(|(id, _)| *id);
    let mut frames: Vec<_> = rows.iter().map(|(_, place)| FramePlace::from(*place)).collect();
    frames.sort_unstable();
    frames.dedup();
    let count = rows.len() as u64;
    let rows = rows.iter().map(|(id, place)| {
        let number = frames.binary_search(&FramePlace::from(*place)).unwrap_or_else(|place| place);
        let frame = u32::try_from(number).map_err(|_| too_large(segment))?;
        Ok((*id, RowPlace { frame, slot: place.slot }))
    });
    write_sorted(disk, segment, frames.iter().copied(), count, rows).map(drop)
}

/// Writes a segment of these frames and of at most `rows_max` rows, whose ids ascend and are unique, makes it and its name
/// durable, and gives how many rows they were.
pub(crate) fn write_sorted(
    disk: &dyn Disk,
    segment: SegmentId,
    frames: impl Iterator<Item = FramePlace>,
    rows_max: u64,
    rows: impl Iterator<Item = Result<(ObjectId, RowPlace)>>,
) -> Result<u64> {
    let write = || {
        let mut writer = SegmentWriter::create(disk, segment, rows_max)?;
        for frame in frames {
            writer.push_frame(frame)?;
        }
        for row in rows {
            let (id, place) = row?;
            writer.push_row(&id, place)?;
        }
        writer.finish()
    };
    // On a full disk it would take the room that others could use.
    write().inspect_err(|_| drop(disk.remove(&temporary(segment))))
}

/// A segment that is being written, under another name.
struct SegmentWriter<'d> {
    disk: &'d dyn Disk,
    segment: SegmentId,
    file: Arc<dyn DiskFile>,
    /// How many buckets there are.
    buckets: u64,
    /// The bucket that rows go to now, and its number.
    bucket: [u8; BUCKET_BYTES],
    bucket_number: u64,
    frames: u32,
    rows: u64,
    written_buckets: Stream,
    /// The frames, and then the rows.
    written_rest: Stream,
}

/// A run of the file that is written from its first byte to its last.
struct Stream {
    encoded: Encoder,
    offset: u64,
    hasher: blake3::Hasher,
}

impl Stream {
    fn new(offset: u64) -> Self {
        Self { encoded: Encoder::default(), offset, hasher: blake3::Hasher::new() }
    }

    fn write_if(&mut self, is_due: bool, file: &dyn DiskFile) -> std::io::Result<()> {
        if is_due {
            self.hasher.update(&self.encoded.0);
            file.write_at(&self.encoded.0, self.offset)?;
            self.offset += self.encoded.0.len() as u64;
            self.encoded.0.clear();
        }
        Ok(())
    }

    fn write_if_full(&mut self, file: &dyn DiskFile) -> std::io::Result<()> {
        self.write_if(self.encoded.0.len() >= WRITE_BYTES, file)
    }

    fn finish(mut self, file: &dyn DiskFile) -> std::io::Result<[u8; 32]> {
        self.write_if(true, file)?;
        Ok(*self.hasher.finalize().as_bytes())
    }
}

impl<'d> SegmentWriter<'d> {
    /// Begins a segment of at most `rows_max` rows.
    fn create(disk: &'d dyn Disk, segment: SegmentId, rows_max: u64) -> Result<Self> {
        let temporary = temporary(segment);
        // A file of that name is what a killed process left: no catalog row names it yet.
        disk.remove(&temporary).map_err(|error| failed(segment, "remove an unfinished copy", error))?;
        let file = disk.open(&temporary, OpenMode::CreateNew);
        let file = file.map_err(|error| failed(segment, "create it", error))?;
        let buckets = rows_max.div_ceil(ROWS_PER_BUCKET).max(1);
        let rest_at = HEAD_BYTES as u64 + buckets * BUCKET_BYTES as u64;
        Ok(Self {
            disk,
            segment,
            file,
            buckets,
            bucket: [0; BUCKET_BYTES],
            bucket_number: 0,
            frames: 0,
            rows: 0,
            written_buckets: Stream::new(HEAD_BYTES as u64),
            written_rest: Stream::new(rest_at),
        })
    }

    /// Adds a frame, before any row.
    fn push_frame(&mut self, place: FramePlace) -> Result<()> {
        self.frames = self.frames.checked_add(1).ok_or_else(|| too_large(self.segment))?;
        encode_frame(&mut self.written_rest.encoded, place);
        self.written_rest.write_if_full(&*self.file).map_err(|error| failed(self.segment, "write it", error))
    }

    /// Adds a row; ids ascend and are unique.
    fn push_row(&mut self, id: &ObjectId, place: RowPlace) -> Result<()> {
        self.advance_to(bucket_of(id, self.buckets))?;
        let (_, filter) = self.bucket.split_at_mut(FIRST_ROW_BYTES);
        for (byte, bit) in filter_bits(id) {
            if let Some(byte) = filter.get_mut(byte) {
                *byte |= bit;
            }
        }
        encode_row(&mut self.written_rest.encoded, id, place);
        self.rows += 1;
        self.written_rest.write_if_full(&*self.file).map_err(|error| failed(self.segment, "write it", error))
    }

    /// Ends the buckets before this one.
    fn advance_to(&mut self, bucket: u64) -> Result<()> {
        while self.bucket_number < bucket {
            self.written_buckets.encoded.raw(&self.bucket);
            let written = self.written_buckets.write_if_full(&*self.file);
            written.map_err(|error| failed(self.segment, "write it", error))?;
            self.bucket_number += 1;
            self.bucket = [0; BUCKET_BYTES];
            let first_row = self.rows.to_le_bytes();
            self.bucket.iter_mut().zip(first_row).take(FIRST_ROW_BYTES).for_each(|(to, from)| *to = from);
        }
        Ok(())
    }

    /// Makes the segment durable under its own name, and gives the number of its rows.
    fn finish(mut self) -> Result<u64> {
        self.advance_to(self.buckets)?;
        let Self { disk, segment, file, buckets, frames, rows, written_buckets, written_rest, .. } = self;
        let io = |action| move |error| failed(segment, action, error);
        let buckets_hash = written_buckets.finish(&*file).map_err(io("write it"))?;
        let rest_hash = written_rest.finish(&*file).map_err(io("write it"))?;
        let head = Head { rows, buckets, frames, buckets_hash, rest_hash };
        file.write_at(&head.encode(segment), 0).map_err(io("write it"))?;
        file.sync().map_err(io("sync it"))?;
        disk.rename(&temporary(segment), &segment_file(segment)).map_err(io("rename it"))?;
        disk.sync_dir(SEGMENTS).map_err(io("sync its folder"))?;
        Ok(rows)
    }
}

fn temporary(segment: SegmentId) -> String {
    format!("{}.new", segment_file(segment))
}

fn failed(segment: SegmentId, action: &'static str, error: std::io::Error) -> Error {
    Error::io(Subject::Segment(segment), action, error)
}

pub(super) fn too_large(segment: SegmentId) -> Error {
    Error::invalid(Subject::Segment(segment), "cannot hold this many frames")
}
