//! Any bytes as a frame of a pack: objects, or an error. Objects can be put into a frame again.

use layerstone::testing::{FRAME_OFFSET, FRAME_PACK, decode_frame, encode_frame};

/// Bytes of a frame's head; the last 16 are its check, and the table's length is at 16.
const HEAD_BYTES: usize = 40;
const CHECK_BYTES: usize = 16;
const TABLE_BYTES_AT: usize = 16;
const RAW_BYTES_MAX: usize = 8 << 20;

pub fn check(bytes: &[u8]) -> bool {
    super::check_corrected(bytes, correct, check_frame)
}

/// Puts in the check that a frame's head and table should have, which no mutation finds.
fn correct(bytes: &mut [u8]) {
    let _ = try_correct(bytes);
}

fn try_correct(bytes: &mut [u8]) -> Option<()> {
    let table_bytes = bytes.get(TABLE_BYTES_AT..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))?;
    let table = bytes.get(HEAD_BYTES..)?.get(..table_bytes as usize)?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(&FRAME_PACK.to_le_bytes()).update(&FRAME_OFFSET.to_le_bytes());
    hasher.update(&bytes[..HEAD_BYTES - CHECK_BYTES]).update(table);
    let check = hasher.finalize();
    bytes[HEAD_BYTES - CHECK_BYTES..HEAD_BYTES].copy_from_slice(&check.as_bytes()[..CHECK_BYTES]);
    Some(())
}

fn check_frame(bytes: &[u8]) -> bool {
    let Ok(objects) = decode_frame(bytes) else { return false };
    assert!(objects.iter().map(|(_, _, bytes)| bytes.len()).sum::<usize>() <= RAW_BYTES_MAX);
    let again = encode_frame(&objects).expect("what was in a frame fits into one");
    assert!(decode_frame(&again).is_ok_and(|again| again == objects));
    true
}
