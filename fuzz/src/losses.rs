//! Any bytes as the file of what a repair has lost: losses, which have no other encoding, or an error.

use layerstone::testing::reencode_losses;

use super::dump::correct;

pub fn check(bytes: &[u8]) -> bool {
    super::check_corrected(bytes, correct, check_losses)
}

fn check_losses(bytes: &[u8]) -> bool {
    let Ok(again) = reencode_losses(bytes) else { return false };
    assert_eq!(again, bytes);
    true
}
