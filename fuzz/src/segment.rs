//! Any bytes as a segment of the object index. Of one that is as it was written, each row is found; in any other, a search
//! ends and finds nothing but what it was asked for.

use layerstone::id::ObjectId;
use layerstone::testing::{SEGMENT, SegmentRow, find_in_segment};

const HEAD_BYTES: usize = 128;
const BUCKET_BYTES: usize = 64;
const FRAME_BYTES: usize = 14;
const ROW_BYTES: usize = 38;
/// Where the segment's number and the counts of its rows, buckets and frames are in the head.
const NUMBER_AT: usize = 8;
const ROWS_AT: usize = 16;
const BUCKETS_AT: usize = 24;
const FRAMES_AT: usize = 96;
/// The hashes of the buckets, and of the frames and rows.
const BUCKETS_HASH_AT: usize = 32;
const REST_HASH_AT: usize = 64;
/// The check of all before it.
const CHECK_AT: usize = 120;

pub fn check(bytes: &[u8]) -> bool {
    super::check_corrected(bytes, correct, check_segment)
}

/// Makes the head say what a head of so many bytes can.
fn correct(bytes: &mut [u8]) {
    let Some((head, body)) = bytes.split_first_chunk_mut::<HEAD_BYTES>() else { return };
    let rows_of = |buckets: usize, frames: usize| {
        let rest = body.len().checked_sub(buckets * BUCKET_BYTES + frames * FRAME_BYTES)?;
        rest.is_multiple_of(ROW_BYTES).then_some((buckets, frames, rest / ROW_BYTES))
    };
    let buckets = 1..=body.len() / BUCKET_BYTES;
    // Numbers of frames leave the same part of a row again and again.
    let possible = buckets.flat_map(|buckets| (0..19).filter_map(move |frames| rows_of(buckets, frames)));
    let possible: Vec<_> = possible.collect();
    let chosen = possible.get(usize::from(head[BUCKETS_AT]) % possible.len().max(1));
    let Some((buckets, frames, rows)) = chosen else { return };
    head[NUMBER_AT..][..4].copy_from_slice(&SEGMENT.to_le_bytes());
    head[ROWS_AT..][..8].copy_from_slice(&(*rows as u64).to_le_bytes());
    head[BUCKETS_AT..][..8].copy_from_slice(&(*buckets as u64).to_le_bytes());
    head[FRAMES_AT..][..4].copy_from_slice(&u32::try_from(*frames).expect("few").to_le_bytes());
    let check = blake3::hash(&head[..CHECK_AT]);
    head[CHECK_AT..].copy_from_slice(&check.as_bytes()[..HEAD_BYTES - CHECK_AT]);
}

fn check_segment(bytes: &[u8]) -> bool {
    if find_in_segment(bytes, &ObjectId::from_bytes([0; 32])).is_err() {
        return false;
    }
    let (head, body) = bytes.split_at(HEAD_BYTES);
    let buckets = u64::from_le_bytes(head[BUCKETS_AT..][..8].try_into().expect("it was open"));
    let frames = u32::from_le_bytes(head[FRAMES_AT..][..4].try_into().expect("it was open"));
    let (buckets, rest) = body.split_at(usize::try_from(buckets).expect("it was open") * BUCKET_BYTES);
    let is_as_written = [(BUCKETS_HASH_AT, buckets), (REST_HASH_AT, rest)]
        .iter()
        .all(|(at, bytes)| head[*at..][..32] == *blake3::hash(bytes).as_bytes());
    let (frames, rows) = rest.split_at(usize::try_from(frames).expect("few") * FRAME_BYTES);
    let (frames, _) = frames.as_chunks::<FRAME_BYTES>();
    let (rows, rest) = rows.as_chunks::<ROW_BYTES>();
    assert!(rest.is_empty(), "a segment is whole rows");
    let parse = |row| parse(frames, row);
    for row in rows {
        let (id, place) = parse(row);
        let found = find_in_segment(bytes, &id).expect("it was open");
        let is_row_of_id = |found: &SegmentRow| rows.iter().any(|row| parse(row) == (id, Some(*found)));
        assert!(if is_as_written { found == place } else { found.as_ref().is_none_or(is_row_of_id) });
        let absent = ObjectId::from_bytes(id.as_bytes().map(|byte| byte.wrapping_add(1)));
        let is_there = rows.iter().any(|row| parse(row).0 == absent);
        assert!(is_there || find_in_segment(bytes, &absent).is_ok_and(|found| found.is_none()));
    }
    true
}

/// A row's id and place; no place if its frame is none of the segment's.
fn parse(frames: &[[u8; FRAME_BYTES]], row: &[u8; ROW_BYTES]) -> (ObjectId, Option<SegmentRow>) {
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    let id = ObjectId::from_bytes(*row.first_chunk().expect("a row begins with an id"));
    let frame = usize::try_from(number(&row[32..36])).ok().and_then(|frame| frames.get(frame));
    let place = frame.map(|frame| SegmentRow {
        pack: number(&frame[..4]),
        offset: number(&frame[4..10]),
        frame_bytes: number(&frame[10..]),
        slot: number(&row[36..]),
    });
    (id, place)
}
