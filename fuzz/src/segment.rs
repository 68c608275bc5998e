//! Any bytes as a segment of the object index. Where its rows ascend, each is found; where they don't, a search ends and
//! finds nothing but what it was asked for.

use layerstone::id::ObjectId;
use layerstone::testing::{SEGMENT, SegmentRow, find_in_segment};

const HEAD_BYTES: usize = 64;
const ROW_BYTES: usize = 48;
/// Where the segment's number and the count of its rows are in the head.
const NUMBER_AT: usize = 8;
const ROWS_AT: usize = 16;
/// The check of all before it.
const CHECK_AT: usize = 56;

pub fn check(bytes: &[u8]) -> bool {
    super::check_corrected(bytes, correct, check_segment)
}

/// Makes the head say what a head of these rows should.
fn correct(bytes: &mut [u8]) {
    let Some((head, rows)) = bytes.split_first_chunk_mut::<HEAD_BYTES>() else { return };
    head[NUMBER_AT..][..4].copy_from_slice(&SEGMENT.to_le_bytes());
    head[ROWS_AT..][..8].copy_from_slice(&((rows.len() / ROW_BYTES) as u64).to_le_bytes());
    let check = blake3::hash(&head[..CHECK_AT]);
    head[CHECK_AT..].copy_from_slice(&check.as_bytes()[..HEAD_BYTES - CHECK_AT]);
}

fn check_segment(bytes: &[u8]) -> bool {
    if find_in_segment(bytes, &ObjectId::from_bytes([0; 32])).is_err() {
        return false;
    }
    let (rows, rest) = bytes[HEAD_BYTES..].as_chunks::<ROW_BYTES>();
    assert!(rest.is_empty(), "a segment is whole rows");
    let is_sorted = rows.is_sorted_by(|one, other| one[..32] < other[..32]);
    for row in rows {
        let (id, place) = parse(row);
        let found = find_in_segment(bytes, &id).expect("it was open");
        let is_row_of_id = |found: &SegmentRow| rows.iter().any(|row| parse(row) == (id, *found));
        assert!(if is_sorted { found == Some(place) } else { found.as_ref().is_none_or(is_row_of_id) });
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
