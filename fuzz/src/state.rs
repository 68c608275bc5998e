//! Any bytes as a checkout's state: rows, or an error. A state written anew says the same, in the same bytes ever after.

use layerstone::testing::rewrite_state;

/// Before a segment's body: magic, version, the body's length, its check.
const LENGTH_AT: usize = 5;
const CHECK_AT: usize = 13;
const BODY_AT: usize = 29;

pub fn check(bytes: &[u8]) -> bool {
    super::check_corrected(bytes, correct, check_state)
}

/// Puts in each segment's length, if it is beyond the end, and the check that its body should have.
fn correct(mut bytes: &mut [u8]) {
    while let Some(after) = bytes.len().checked_sub(BODY_AT) {
        let (head, rest) = bytes.split_at_mut(BODY_AT);
        let said = head[LENGTH_AT..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let len = usize::try_from(said).unwrap_or(after).min(after);
        head[LENGTH_AT..CHECK_AT].copy_from_slice(&(len as u64).to_le_bytes());
        let (body, rest) = rest.split_at_mut(len);
        head[CHECK_AT..].copy_from_slice(&blake3::hash(body).as_bytes()[..BODY_AT - CHECK_AT]);
        bytes = rest;
    }
}

fn check_state(bytes: &[u8]) -> bool {
    let Ok((rows, written)) = rewrite_state(bytes) else { return false };
    assert!(rows.is_sorted_by(|(one, _), (other, _)| one < other), "paths ascend");
    let again = rewrite_state(&written).expect("what was written can be read");
    assert_eq!(again, (rows, written));
    true
}
