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
use bincode::{Decode, Encode};

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
