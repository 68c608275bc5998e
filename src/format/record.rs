//! Records: the catalog's values and the records that are objects, in bincode 2.
//!
//! ```text
//! record = check (8 bytes) version (1 byte) bincode
//! check  = first 8 bytes of BLAKE3(table ‖ 0x00 ‖ key length (8, little-endian) ‖ key ‖ version ‖ bincode)
//! ```
//! The check covers the table and the key, so a value that turns up under another key is found out, and it is
//! looked at before the codec sees a byte: most random changes of such an encoding decode to a wrong value.
//! This module alone knows bincode; golden tests pin its bytes so that a successor could take over.

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bincode::de::read::Reader as _;
use bincode::{BorrowDecode, Decode, Encode};

use super::DecodeError;
use crate::id::{DirectoryId, ImageId, LeaseId, ObjectId, ProjectId, WorkspaceId};

/// No record is larger: bounds what a hostile length can make the codec allocate.
pub(crate) const MAX_RECORD_BYTES: usize = 1 << 20;

const VERSION: u8 = 1;
const CHECK_BYTES: usize = 8;

fn config() -> Configuration<LittleEndian, Varint, Limit<MAX_RECORD_BYTES>> {
    bincode::config::standard().with_limit()
}

/// The bytes of a record as an object: no check of its own, since its id is one.
pub(crate) fn encode_object<T: Encode>(value: &T) -> Result<Vec<u8>, DecodeError> {
    bincode::encode_to_vec(value, config()).map_err(|_| DecodeError::BadNumber)
}

/// The record that an object's bytes hold.
pub(crate) fn decode_object<T: Decode<()>>(bytes: &[u8]) -> Result<T, DecodeError> {
    let (value, used) = bincode::decode_from_slice(bytes, config()).map_err(|_| DecodeError::BadNumber)?;
    if used == bytes.len() { Ok(value) } else { Err(DecodeError::Trailing) }
}

/// The bytes of a record under `key` of `table`.
pub(crate) fn encode<T: Encode>(table: &str, key: &[u8], value: &T) -> Result<Vec<u8>, DecodeError> {
    let body = encode_object(value)?;
    let mut bytes = check(table, key, &body).to_vec();
    bytes.push(VERSION);
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

/// The record that `bytes`, found under `key` of `table`, hold.
pub(crate) fn decode<T: Decode<()>>(table: &str, key: &[u8], bytes: &[u8]) -> Result<T, DecodeError> {
    let (found, rest) = bytes.split_first_chunk::<CHECK_BYTES>().ok_or(DecodeError::Truncated)?;
    let (version, body) = rest.split_first().ok_or(DecodeError::Truncated)?;
    if *version != VERSION {
        return Err(DecodeError::UnknownTag);
    }
    if check(table, key, body) != *found {
        return Err(DecodeError::Checksum);
    }
    decode_object(body)
}

fn check(table: &str, key: &[u8], body: &[u8]) -> [u8; CHECK_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(table.as_bytes()).update(&[0]);
    hasher.update(&(key.len() as u64).to_le_bytes()).update(key);
    hasher.update(&[VERSION]).update(body);
    let mut check = [0; CHECK_BYTES];
    hasher.finalize_xof().fill(&mut check);
    check
}

/// A last field of a record that records of before it was added end without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Added<T>(pub(crate) Option<T>);

impl<T: Encode> Encode for Added<T> {
    fn encode<E: bincode::enc::Encoder>(&self, encoder: &mut E) -> Result<(), bincode::error::EncodeError> {
        self.0.as_ref().map_or(Ok(()), |value| value.encode(encoder))
    }
}

impl<C, T: Decode<C>> Decode<C> for Added<T> {
    fn decode<D: bincode::de::Decoder<Context = C>>(
        decoder: &mut D,
    ) -> Result<Self, bincode::error::DecodeError> {
        let is_at_end = decoder.reader().peek_read(1).is_none();
        if is_at_end { Ok(Self(None)) } else { T::decode(decoder).map(|value| Self(Some(value))) }
    }
}

impl<'de, C, T: Decode<C>> BorrowDecode<'de, C> for Added<T> {
    fn borrow_decode<D: bincode::de::BorrowDecoder<'de, Context = C>>(
        decoder: &mut D,
    ) -> Result<Self, bincode::error::DecodeError> {
        Self::decode(decoder)
    }
}

macro_rules! encode_as {
    ($($id:ty: $inner:ty, $get:expr, $make:expr;)*) => {$(
        impl Encode for $id {
            fn encode<E: bincode::enc::Encoder>(&self, encoder: &mut E) -> Result<(), bincode::error::EncodeError> {
                let get: fn(&$id) -> $inner = $get;
                get(self).encode(encoder)
            }
        }

        impl<C> Decode<C> for $id {
            fn decode<D: bincode::de::Decoder<Context = C>>(
                decoder: &mut D,
            ) -> Result<Self, bincode::error::DecodeError> {
                let make: fn($inner) -> $id = $make;
                <$inner>::decode(decoder).map(make)
            }
        }

        bincode::impl_borrow_decode!($id);
    )*};
}

encode_as! {
    ObjectId: [u8; 32], |id| *id.as_bytes(), ObjectId::from_bytes;
    ImageId: [u8; 16], |id| *id.as_uuid().as_bytes(), |bytes| ImageId::from_uuid(uuid::Uuid::from_bytes(bytes));
    ProjectId: u64, |id| id.get(), ProjectId::new;
    LeaseId: u64, |id| id.get(), LeaseId::new;
    WorkspaceId: u64, |id| id.get(), WorkspaceId::new;
    DirectoryId: u64, |id| id.get(), DirectoryId::new;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Encode, Decode)]
    struct Before(u64, String);
    #[derive(Debug, PartialEq, Encode, Decode)]
    struct Now(u64, String, Added<(u64, u64)>);

    #[test]
    fn a_record_of_before_a_field_was_added_is_read() {
        let before = encode("table", b"key", &Before(300, "text".to_owned())).unwrap();
        let now: Now = decode("table", b"key", &before).unwrap();
        assert_eq!(now, Now(300, "text".to_owned(), Added(None)));
        assert_eq!(encode("table", b"key", &now).unwrap(), before, "it has one encoding");
        let now = Now(300, "text".to_owned(), Added(Some((1, 2))));
        let bytes = encode("table", b"key", &now).unwrap();
        assert_eq!(decode::<Now>("table", b"key", &bytes).unwrap(), now);
        assert_eq!(decode::<Before>("table", b"key", &bytes), Err(DecodeError::Trailing));
        for cut in [&bytes[9..bytes.len() - 1], &bytes[9..12]] {
            assert!(decode_object::<Now>(cut).is_err());
        }
    }
}
