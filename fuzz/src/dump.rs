//! Any bytes as the catalog's dump: rows, or an error. No row has more bytes than the dump.

use layerstone::testing::decode_dump;

const CHECK_BYTES: usize = 32;

pub fn check(bytes: &[u8]) -> bool {
    super::check_corrected(bytes, correct, check_dump)
}

/// Puts in the check that the bytes before it should have.
pub(super) fn correct(bytes: &mut [u8]) {
    if let Some(body) = bytes.len().checked_sub(CHECK_BYTES) {
        let (body, check) = bytes.split_at_mut(body);
        check.copy_from_slice(blake3::hash(body).as_bytes());
    }
}

fn check_dump(bytes: &[u8]) -> bool {
    let Ok(rows) = decode_dump(bytes) else { return false };
    let said: usize = rows.iter().map(|(_, key, value)| 1 + key.len() + value.len()).sum();
    assert!(said + CHECK_BYTES <= bytes.len(), "every byte is of one row");
    true
}
