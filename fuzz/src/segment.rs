//! Any bytes as a segment of the object index. Of one that is as it was written, each row is found; in any other, a search
//! ends and finds nothing but what it was asked for.

use layerstone::id::ObjectId;
use layerstone::testing::{SEGMENT, SegmentRow, find_in_segment};

const HEAD_BYTES: usize = 128;
const BUCKET_BYTES: usize = 64;
const ROW_BYTES: usize = 48;
/// Where the segment's number and the counts of its rows and buckets are in the head.
const NUMBER_AT: usize = 8;
const ROWS_AT: usize = 16;
const BUCKETS_AT: usize = 24;
/// The hashes of the buckets and of the rows.
const BUCKETS_HASH_AT: usize = 32;
const ROWS_HASH_AT: usize = 64;
/// The check of all before it.
const CHECK_AT: usize = 120;

pub fn check(bytes: &[u8]) -> bool {
    super::check_corrected(bytes, correct, check_segment)
}

/// Makes the head say what a head of so many bytes can.
fn correct(bytes: &mut [u8]) {
    let Some((head, body)) = bytes.split_first_chunk_mut::<HEAD_BYTES>() else { return };
    let fits = |buckets: &usize| (body.len() - buckets * BUCKET_BYTES).is_multiple_of(ROW_BYTES);
    let possible: Vec<_> = (1..=body.len() / BUCKET_BYTES).filter(fits).collect();
    let Some(buckets) = possible.get(usize::from(head[BUCKETS_AT]) % possible.len().max(1)) else { return };
    let rows = (body.len() - buckets * BUCKET_BYTES) / ROW_BYTES;
    head[NUMBER_AT..][..4].copy_from_slice(&SEGMENT.to_le_bytes());
    head[ROWS_AT..][..8].copy_from_slice(&(rows as u64).to_le_bytes());
    head[BUCKETS_AT..][..8].copy_from_slice(&(*buckets as u64).to_le_bytes());
    let check = blake3::hash(&head[..CHECK_AT]);
    head[CHECK_AT..].copy_from_slice(&check.as_bytes()[..HEAD_BYTES - CHECK_AT]);
}

fn check_segment(bytes: &[u8]) -> bool {
    if find_in_segment(bytes, &ObjectId::from_bytes([0; 32])).is_err() {
        return false;
    }
    let (head, body) = bytes.split_at(HEAD_BYTES);
    let buckets = u64::from_le_bytes(head[BUCKETS_AT..][..8].try_into().expect("it was open"));
    let (buckets, rows) = body.split_at(usize::try_from(buckets).expect("it was open") * BUCKET_BYTES);
    let is_as_written = [(BUCKETS_HASH_AT, buckets), (ROWS_HASH_AT, rows)]
        .iter()
        .all(|(at, bytes)| head[*at..][..32] == *blake3::hash(bytes).as_bytes());
    let (rows, rest) = rows.as_chunks::<ROW_BYTES>();
    assert!(rest.is_empty(), "a segment is whole rows");
    for row in rows {
        let (id, place) = parse(row);
        let found = find_in_segment(bytes, &id).expect("it was open");
        let is_row_of_id = |found: &SegmentRow| rows.iter().any(|row| parse(row) == (id, *found));
        assert!(if is_as_written { found == Some(place) } else { found.as_ref().is_none_or(is_row_of_id) });
        let absent = ObjectId::from_bytes(id.as_bytes().map(|byte| byte.wrapping_add(1)));
        let is_there = rows.iter().any(|row| parse(row).0 == absent);
        assert!(is_there || find_in_segment(bytes, &absent).is_ok_and(|found| found.is_none()));
    }
    true
}

fn parse(row: &[u8; ROW_BYTES]) -> (ObjectId, SegmentRow) {
    let number = |from: usize, len: usize| {
        row[from..from + len].iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
    };
    let id = ObjectId::from_bytes(*row.first_chunk().expect("a row has 48 bytes"));
    let row = SegmentRow {
        pack: number(32, 4),
        offset: number(36, 6),
        frame_bytes: number(42, 4),
        slot: number(46, 2),
    };
    (id, row)
}
