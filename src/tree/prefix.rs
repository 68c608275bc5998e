//! Ascending paths, each written as what it shares with the one before and the bytes that follow.
//!
//! ```text
//! path = shared (varint) suffix-length (varint) suffix
//! ```
//! Sharing is always the longest possible, so a list of paths has one encoding.

use crate::format::{DecodeError, Decoder, Encoder};
use crate::path::TreePath;

/// Appends `path`; `previous` is the one before it in the same list.
pub(super) fn encode(encoder: &mut Encoder, previous: Option<&TreePath>, path: &TreePath) {
    let before = previous.map_or(&[][..], TreePath::as_key);
    let shared = before.iter().zip(path.as_key()).take_while(|(a, b)| a == b).count();
    encoder.varint(shared as u64).bytes(path.as_key().get(shared..).unwrap_or_default());
}

/// Takes the path that follows `previous`, which must be greater than it.
pub(super) fn decode(
    decoder: &mut Decoder<'_>,
    previous: Option<&TreePath>,
) -> Result<TreePath, DecodeError> {
    let before = previous.map_or(&[][..], TreePath::as_key);
    let shared = decoder.number()?;
    let tail = before.get(shared..).ok_or(DecodeError::BadNumber)?;
    let suffix = decoder.bytes()?;
    // Greater at the first byte not shared is both: ascending, and not one byte more to share.
    if previous.is_some() && suffix.first() <= tail.first() {
        return Err(DecodeError::Unordered);
    }
    let root = TreePath::root();
    previous.unwrap_or(&root).with_suffix(shared, suffix).map_err(|_| DecodeError::BadPath)
}
