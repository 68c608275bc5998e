//! Bytes: the store's format number and the codec that every hand-written format is made of.
//!
//! Integers are LEB128 varints in their shortest form, so that a value has exactly one encoding; what shapes
//! an object's id must be canonical. Reading is by checked slices: hostile bytes give [`DecodeError`], never a
//! panic, and a length is checked against what is there before anything is allocated for it.

pub(crate) mod record;

use crate::id::ObjectId;

/// The format this version writes and the only one it reads. A store says its own in the file `format`.
pub(crate) const FORMAT_VERSION: u32 = 5;

/// Why bytes are not what a format says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes end early.
    #[error("ends early")]
    Truncated,
    /// More bytes follow the value.
    #[error("has bytes after its end")]
    Trailing,
    /// A tag, flag or kind that this format does not have.
    #[error("has an unknown tag")]
    UnknownTag,
    /// A number out of its range or not in its shortest form.
    #[error("has a number out of range")]
    BadNumber,
    /// Keys that do not ascend, or another order that is not canonical.
    #[error("is out of order")]
    Unordered,
    /// A path that is not one.
    #[error("has a bad path")]
    BadPath,
    /// A check value that does not match.
    #[error("does not match its checksum")]
    Checksum,
}

/// Appends values to a byte vector.
#[derive(Default)]
pub(crate) struct Encoder(pub(crate) Vec<u8>);

impl Encoder {
    pub(crate) fn u8(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    pub(crate) fn varint(&mut self, mut value: u64) -> &mut Self {
        while value >= 0x80 {
            self.0.push(low_byte(value) | 0x80);
            value >>= 7;
        }
        self.u8(low_byte(value))
    }

    /// A signed number, zigzag-encoded.
    pub(crate) fn signed(&mut self, value: i64) -> &mut Self {
        self.varint((value << 1).cast_unsigned() ^ (value >> 63).cast_unsigned())
    }

    /// Bytes without their length.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Bytes behind their length.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.varint(bytes.len() as u64).raw(bytes)
    }

    pub(crate) fn id(&mut self, id: &ObjectId) -> &mut Self {
        self.raw(id.as_bytes())
    }
}

/// The lowest eight bits.
fn low_byte(value: u64) -> u8 {
    let [byte, ..] = value.to_le_bytes();
    byte
}

/// What comes before the BLAKE3 hash with which these bytes end, if it is the hash of that.
pub(crate) fn checked(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    let (body, check) = bytes.split_last_chunk::<32>().ok_or(DecodeError::Truncated)?;
    if blake3::hash(body).as_bytes() == check { Ok(body) } else { Err(DecodeError::Checksum) }
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Takes values from the front of a byte slice.
#[derive(Clone)]
pub(crate) struct Decoder<'a>(pub(crate) &'a [u8]);

impl<'a> Decoder<'a> {
    pub(crate) fn raw(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                return Err(DecodeError::BadNumber);
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                // A last group of zero means a shorter form exists.
                return if byte == 0 && shift > 0 { Err(DecodeError::BadNumber) } else { Ok(value) };
            }
        }
        Err(DecodeError::BadNumber)
    }

    /// A varint that must fit the smaller type.
    pub(crate) fn number<T: TryFrom<u64>>(&mut self) -> Result<T, DecodeError> {
        T::try_from(self.varint()?).map_err(|_| DecodeError::BadNumber)
    }

    pub(crate) fn signed(&mut self) -> Result<i64, DecodeError> {
        let value = self.varint()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.number::<usize>()?;
        self.raw(len)
    }

    pub(crate) fn id(&mut self) -> Result<ObjectId, DecodeError> {
        self.array().map(ObjectId::from_bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        if self.is_empty() { Ok(()) } else { Err(DecodeError::Trailing) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_come_back(value: u64, signed: i64) {
            let mut encoder = Encoder::default();
            encoder.varint(value).signed(signed);
            let mut decoder = Decoder(&encoder.0);
            prop_assert_eq!(decoder.varint(), Ok(value));
            prop_assert_eq!(decoder.signed(), Ok(signed));
            prop_assert_eq!(decoder.finish(), Ok(()));
        }

        #[test]
        fn a_number_has_one_encoding(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            let mut decoder = Decoder(&bytes);
            if let Ok(value) = decoder.varint() {
                let mut encoder = Encoder::default();
                encoder.varint(value);
                prop_assert_eq!(encoder.0.as_slice(), &bytes[..bytes.len() - decoder.0.len()]);
            }
        }
    }

    #[test]
    fn a_length_beyond_the_end_is_refused() {
        let mut encoder = Encoder::default();
        encoder.varint(u64::MAX).raw(b"short");
        assert_eq!(Decoder(&encoder.0).bytes(), Err(DecodeError::Truncated));
    }
}
