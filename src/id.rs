//! One type per identifier, so that none can stand where another is meant.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use uuid::Uuid;

use crate::error::{Error, Result, Subject};
use crate::path::shortened;

/// The name of an object: the BLAKE3 hash of its raw bytes, whatever form they are stored in.
///
/// A chunk's id is the plain BLAKE3 of the chunk, so `b3sum` gives the same; the other kinds are hashed under
/// a key of their own (see [`ObjectKind`](crate::object::ObjectKind)), so that file content can never pass for
/// a tree node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId([u8; Self::LEN]);

impl ObjectId {
    /// Bytes of an id.
    pub const LEN: usize = 32;

    /// The id with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The id's bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// The first eight bytes as a big-endian number: uniformly distributed, ordered like the id.
    pub(crate) fn prefix(&self) -> u64 {
        self.0.first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
    }
}

impl FromStr for ObjectId {
    type Err = Error;

    /// Reads what it displays as: 64 hexadecimal digits.
    fn from_str(text: &str) -> Result<Self> {
        let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let byte = |pair: &[u8]| match pair {
            [high, low] => Some(digit(high)? << 4 | digit(low)?),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(byte).collect();
        let bytes = bytes.and_then(|bytes| <[u8; Self::LEN]>::try_from(bytes).ok());
        let refused =
            || Error::invalid(Subject::Reference(shortened(text)), "is no object id: 64 hexadecimal digits");
        bytes.map(Self).ok_or_else(refused)
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for ObjectId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The name of an image: a time-ordered UUID (version 7). It grants nothing by itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ImageId(Uuid);

impl ImageId {
    /// The id with this UUID.
    #[must_use]
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// The UUID.
    #[must_use]
    pub const fn as_uuid(&self) -> Uuid {
        self.0
    }
}

impl FromStr for ImageId {
    type Err = Error;

    /// Reads a UUID.
    fn from_str(text: &str) -> Result<Self> {
        let refused = |_| Error::invalid(Subject::Reference(shortened(text)), "is no UUID");
        Uuid::try_parse(text).map(Self).map_err(refused)
    }
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Debug for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Returns a UUID that is random but for its time, which is 1970: the clock is not asked, which may be set to an earlier moment.
pub(crate) fn random_uuid() -> Uuid {
    #[expect(clippy::disallowed_methods, reason = "it is drawn here alone")]
    Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, 0, 0))
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        pub struct $name($inner);

        impl $name {
            pub(crate) const fn new(number: $inner) -> Self {
                Self(number)
            }

            /// The number.
            #[must_use]
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number_id!(
    /// A project's number in its store; 0 is the public scope.
    ProjectId(u64)
);
number_id!(
    /// A pack's number in its store; its file is `packs/<number, ten digits>.pack`.
    PackId(u32)
);
number_id!(
    /// A segment's number in its store; its file is `segments/<number, ten digits>.segment`.
    SegmentId(u32)
);
number_id!(
    /// A lease's number in its store.
    LeaseId(u64)
);
number_id!(
    /// A checkout's number in its store.
    DirectoryId(u64)
);
number_id!(
    /// The number of a workspace, or of a directory that workspaces share, in its store; its files are in
    /// `workspaces/<number, ten digits>`.
    WorkspaceId(u64)
);

impl ProjectId {
    /// The public scope.
    pub const PUBLIC: Self = Self(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_parse_as_they_are_displayed_and_errors_show_what_is_none() {
        let object = ObjectId::from_bytes(*blake3::hash(b"x").as_bytes());
        assert_eq!(object.to_string().parse::<ObjectId>().unwrap(), object);
        let image = ImageId::from_uuid(Uuid::from_u128(7));
        assert_eq!(image.to_string().parse::<ImageId>().unwrap(), image);
        for text in ["", "0", "xyz", &"0".repeat(63), &"0".repeat(66)] {
            let shown = text.parse::<ObjectId>().unwrap_err().to_string();
            assert!(shown.starts_with(&format!("'{text}': is no object id")), "{shown}");
        }
        assert_eq!("7\n".parse::<ImageId>().unwrap_err().to_string(), "'7\\n': is no UUID");
    }
}
