//! The members of a hard link group and their bytes.
//!
//! ```text
//! links = path*      ascending, each written against the one before as `prefix` does
//! ```
//! A set has one encoding; no members is no bytes at all.

use std::collections::BTreeSet;

use super::content::{MAX_BLOB_BYTES, damaged, read_blob, write_blob};
use super::entry::Content;
use super::prefix;
use crate::error::{Error, Result, Subject};
use crate::format::{DecodeError, Decoder, Encoder};
use crate::object::{ObjectSink, ObjectSource};
use crate::path::TreePath;

/// The bytes of a set of paths.
#[must_use]
pub fn encode(paths: &BTreeSet<TreePath>) -> Vec<u8> {
    let mut encoder = Encoder::default();
    let mut previous = None;
    for path in paths {
        prefix::encode(&mut encoder, previous, path);
        previous = Some(path);
    }
    encoder.0
}

/// The set of paths that these bytes are.
pub fn decode(bytes: &[u8]) -> Result<BTreeSet<TreePath>, DecodeError> {
    let mut decoder = Decoder(bytes);
    let mut paths: Vec<TreePath> = Vec::new();
    while !decoder.is_empty() {
        paths.push(prefix::decode(&mut decoder, paths.last())?);
    }
    Ok(paths.into_iter().collect())
}

/// Stores a set of paths, for [`Inode::links`](super::Inode::links). Fails with *invalid*, well beyond
/// what file systems allow, where the set is larger than can be read again.
pub fn write(sink: &mut impl ObjectSink, paths: &BTreeSet<TreePath>) -> Result<Content> {
    let bytes = encode(paths);
    if bytes.len() as u64 > MAX_BLOB_BYTES {
        let subject = paths.first().map_or(Subject::Argument("links"), |path| Subject::Path(path.clone()));
        return Err(Error::invalid(subject, format!("has hard links of more than {MAX_BLOB_BYTES} bytes")));
    }
    write_blob(sink, &bytes)
}

/// Reads what [`write()`] stored.
pub fn read(source: &impl ObjectSource, content: &Content) -> Result<BTreeSet<TreePath>> {
    let bytes = read_blob(source, content)?;
    decode(&bytes)
        .map_err(|error| damaged(content, format!("as a hard link list {error}")).with_source(error))
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    use super::*;
    use crate::object::memory::MemoryObjects;
    use crate::tree::tests::given::{any_path, path};

    proptest! {
        #[test]
        fn a_set_comes_back(paths in btree_set(any_path(), 0..60)) {
            let objects = MemoryObjects::default();
            let content = write(&mut &objects, &paths).unwrap();
            prop_assert_eq!(read(&&objects, &content).unwrap(), paths);
        }

        #[test]
        fn decoding_anything_never_panics(bytes in vec(prop_oneof![0..4_u8, any::<u8>()], 0..60)) {
            if let Ok(paths) = decode(&bytes) {
                prop_assert_eq!(encode(&paths), bytes);
            }
        }
    }

    #[test]
    fn bytes_are_pinned() {
        let paths = ["bin/sh", "bin/shells", "etc"].map(path).into();
        assert_eq!(encode(&paths), b"\0\x06bin\0sh\x06\x04ells\0\x03etc");
        assert_eq!(decode(b"\0\x01b\0\x01a"), Err(DecodeError::Unordered));
        assert_eq!(decode(b"\0\x01b\0\x02bc"), Err(DecodeError::Unordered));
        assert_eq!(decode(b"\0\x02a/"), Err(DecodeError::BadPath));
    }

    #[test]
    fn bytes_that_are_no_list_are_corrupt() {
        let objects = MemoryObjects::default();
        let content = crate::tree::content::write_blob(&mut &objects, &[0xff; 600]).unwrap();
        assert!(read(&&objects, &content).unwrap_err().is_corrupt());
    }
}
