//! Extended attributes and their bytes.
//!
//! ```text
//! xattrs = (name-length name value-length value)*      ascending by name
//! ```
//! Lengths are varints. A set has one encoding; none of it is no bytes at all. What kernels allow is the limit:
//! see [`MAX_NAME_BYTES`], [`MAX_VALUE_BYTES`], [`MAX_ATTRIBUTES`]. Which attributes may be set on a host is
//! not decided here: all are kept, verbatim.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::content::{MAX_BLOB_BYTES, damaged, read_blob, write_blob};
use super::entry::Content;
use crate::error::Result;
use crate::format::{DecodeError, Decoder, Encoder};
use crate::object::{ObjectSink, ObjectSource};

/// Bytes of the longest name.
pub const MAX_NAME_BYTES: usize = 255;
/// Bytes of the longest value.
pub const MAX_VALUE_BYTES: usize = 64 << 10;
/// Attributes that an inode may have.
pub const MAX_ATTRIBUTES: usize = 4096;
/// Bytes of all names and values together.
pub const MAX_TOTAL_BYTES: usize = 16 << 20;

const _: () = assert!(MAX_TOTAL_BYTES as u64 + 8 * MAX_ATTRIBUTES as u64 <= MAX_BLOB_BYTES);

/// The attribute that gives a program some of root's powers.
pub(crate) const CAPABILITY: &[u8] = b"security.capability";

/// Returns whether an attribute is a second view of another: XFS shows root each ACL again under names of its own. Where both
/// were set, an ACL that was taken back would come back with its copy.
pub(crate) fn is_copy(name: &[u8]) -> bool {
    matches!(name, b"trusted.SGI_ACL_FILE" | b"trusted.SGI_ACL_DEFAULT")
}

/// Returns the value in which all that mean the same for an attribute are equal.
///
/// A capability of version 3 names the root user that it counts for. Where that is 0, the kernel takes it for one of version
/// 2, and gives that back; so it is one here too.
pub(crate) fn canonical<'v>(name: &[u8], value: &'v [u8]) -> Cow<'v, [u8]> {
    if name == CAPABILITY
        && let Some((body, [0, 0, 0, 0])) = value.split_last_chunk::<4>()
        && let [flags @ .., 3] = *body.first_chunk::<4>().unwrap_or(&[0; 4])
        && body.len() == CAPABILITY_BYTES
    {
        return [&flags[..], &[2], body.get(4..).unwrap_or_default()].concat().into();
    }
    value.into()
}

/// Bytes of a capability of version 2: version and flags, and two words each of two sets.
const CAPABILITY_BYTES: usize = 20;

/// Why an attribute cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum XattrError {
    /// A name that is empty, over [`MAX_NAME_BYTES`] or has a zero byte.
    #[error("has an attribute name that is empty, has a zero byte or is over {MAX_NAME_BYTES} bytes")]
    BadName,
    /// A value over [`MAX_VALUE_BYTES`].
    #[error("has an attribute value of more than {MAX_VALUE_BYTES} bytes")]
    LongValue,
    /// More than [`MAX_ATTRIBUTES`] or [`MAX_TOTAL_BYTES`].
    #[error("has more than {MAX_ATTRIBUTES} attributes or {MAX_TOTAL_BYTES} bytes of them")]
    TooMany,
}

/// The extended attributes of an inode: a bounded, ordered map from name to value.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Xattrs {
    values: BTreeMap<Box<[u8]>, Box<[u8]>>,
    bytes: usize,
}

impl Xattrs {
    /// No attributes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets an attribute; a value that it had is replaced.
    pub fn insert(&mut self, name: &[u8], value: &[u8]) -> Result<(), XattrError> {
        if !(1..=MAX_NAME_BYTES).contains(&name.len()) || name.contains(&0) {
            return Err(XattrError::BadName);
        }
        if value.len() > MAX_VALUE_BYTES {
            return Err(XattrError::LongValue);
        }
        let old = self.values.get(name).map(|old| name.len() + old.len());
        let bytes = self.bytes - old.unwrap_or(0) + name.len() + value.len();
        if bytes > MAX_TOTAL_BYTES || (old.is_none() && self.values.len() == MAX_ATTRIBUTES) {
            return Err(XattrError::TooMany);
        }
        self.bytes = bytes;
        self.values.insert(name.into(), value.into());
        Ok(())
    }

    /// Removes an attribute, if it is there.
    pub fn remove(&mut self, name: &[u8]) {
        if let Some(value) = self.values.remove(name) {
            self.bytes -= name.len() + value.len();
        }
    }

    /// The value of an attribute.
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.values.get(name).map(|value| &**value)
    }

    /// Names and values, ascending by name.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.values.iter().map(|(name, value)| (&**name, &**value))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The bytes of the set.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::default();
        for (name, value) in self.iter() {
            encoder.bytes(name).bytes(value);
        }
        encoder.0
    }

    /// The set that these bytes are.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut decoder = Decoder(bytes);
        let mut xattrs = Self::default();
        while !decoder.is_empty() {
            let (name, value) = (decoder.bytes()?, decoder.bytes()?);
            if xattrs.values.last_key_value().is_some_and(|(last, _)| **last >= *name) {
                return Err(DecodeError::Unordered);
            }
            xattrs.insert(name, value).map_err(|_| DecodeError::BadNumber)?;
        }
        Ok(xattrs)
    }

    /// Stores the set, for [`Inode::xattrs`](super::Inode::xattrs).
    pub fn write(&self, sink: &mut impl ObjectSink) -> Result<Content> {
        write_blob(sink, &self.encode())
    }

    /// Reads what [`write`](Self::write) stored.
    pub fn read(source: &impl ObjectSource, content: &Content) -> Result<Self> {
        let bytes = read_blob(source, content)?;
        Self::decode(&bytes)
            .map_err(|error| damaged(content, format!("as an attribute list {error}")).with_source(error))
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;
    use crate::object::memory::MemoryObjects;

    proptest! {
        #[test]
        fn a_set_comes_back_whatever_the_order(map in btree_map(vec(1..=255_u8, 1..20), vec(any::<u8>(), 0..200), 0..20)) {
            let (mut set, mut backwards) = (Xattrs::new(), Xattrs::new());
            for (name, value) in &map {
                set.insert(name, b"before").unwrap();
                set.insert(name, value).unwrap();
            }
            for (name, value) in map.iter().rev() {
                backwards.insert(name, value).unwrap();
            }
            prop_assert_eq!(&set, &backwards);
            let objects = MemoryObjects::default();
            let content = set.write(&mut &objects).unwrap();
            prop_assert_eq!(Xattrs::read(&&objects, &content).unwrap(), set);
            prop_assert_eq!(content.is_empty(), map.is_empty());
        }

        #[test]
        fn decoding_anything_never_panics(bytes in vec(0..40_u8, 0..60)) {
            if let Ok(set) = Xattrs::decode(&bytes) {
                prop_assert_eq!(set.encode(), bytes);
            }
        }
    }

    #[test]
    fn limits() {
        let mut set = Xattrs::new();
        assert_eq!(set.insert(b"", b""), Err(XattrError::BadName));
        assert_eq!(set.insert(b"a\0", b""), Err(XattrError::BadName));
        assert_eq!(set.insert(&[b'a'; 256], b""), Err(XattrError::BadName));
        assert_eq!(set.insert(b"a", &vec![0; MAX_VALUE_BYTES + 1]), Err(XattrError::LongValue));
        for number in 0..MAX_ATTRIBUTES {
            set.insert(number.to_string().as_bytes(), b"").unwrap();
        }
        assert_eq!(set.insert(b"a", b""), Err(XattrError::TooMany));
        set.insert(b"0", b"replaced").unwrap();
        let mut big = Xattrs::new();
        let largest = vec![0; MAX_VALUE_BYTES];
        let taken =
            (0..1000).take_while(|number| big.insert(number.to_string().as_bytes(), &largest).is_ok());
        assert_eq!(taken.count(), 255);
    }

    #[test]
    fn a_capability_for_root_has_one_form() {
        let version = |number: u8, root: &[u8]| {
            let mut value = vec![1, 0, 0, number];
            value.extend((0..16).chain(root.iter().copied()));
            value
        };
        let (second, third) = (version(2, &[]), version(3, &[0; 4]));
        assert_eq!(*canonical(CAPABILITY, &third), second);
        for kept in [second, version(3, &[0, 0, 1, 0]), version(3, &[]), version(3, &[0; 5]), vec![], vec![3]]
        {
            assert_eq!(*canonical(CAPABILITY, &kept), kept);
        }
        assert_eq!(*canonical(b"user.capability", &third), third);
    }

    #[test]
    fn bytes_are_pinned() {
        let mut set = Xattrs::new();
        set.insert(b"user.b", b"2").unwrap();
        set.insert(b"user.a", b"").unwrap();
        assert_eq!(set.encode(), b"\x06user.a\0\x06user.b\x012");
    }
}
