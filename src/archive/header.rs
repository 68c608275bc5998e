//! One 512-byte header: its checksum, and its fields as checked values.
//!
//! The layout is the `tar` crate's; the numbers are read by [`number`](super::number), since that crate drops the
//! high bytes and the sign of base-256 fields.

use tar::{GnuExtSparseHeader, GnuSparseHeader};

use super::{BLOCK, Refusal, number};
use crate::tree::entry::Timestamp;

const CHECKSUM: std::ops::Range<usize> = 148..156;
const USTAR_MAGIC: &[u8; 6] = b"ustar\0";

pub(super) struct Header(tar::Header);

/// Whether the block says of itself that it is a header, as all but the oldest do.
pub(super) fn has_magic(block: &[u8; BLOCK]) -> bool {
    block.get(257..262) == Some(b"ustar")
}

impl Header {
    /// The header in this block, if its checksum is right.
    pub(super) fn parse(block: &[u8; BLOCK]) -> Result<Self, Refusal> {
        let mut header = tar::Header::new_old();
        header.as_mut_bytes().copy_from_slice(block);
        let expected = number::field(&header.as_old().cksum, "checksum")?;
        let bytes =
            || block.iter().enumerate().map(|(at, byte)| if CHECKSUM.contains(&at) { b' ' } else { *byte });
        let unsigned: i128 = bytes().map(i128::from).sum();
        // Old programs added signed characters.
        let signed: i128 = bytes().map(|byte| i128::from(byte.cast_signed())).sum();
        if expected != unsigned && expected != signed {
            return Err(Refusal::invalid(
                "its header's checksum is wrong: damaged, or no tar archive, or a body of another size before it",
            ));
        }
        // A ustar header is one whatever its version says, as GNU tar has it; the `tar` crate asks for "00".
        let magic = header.as_old().pad.first_chunk::<6>() == Some(USTAR_MAGIC);
        if magic && let Some(version) = header.as_mut_bytes().get_mut(263..265) {
            version.copy_from_slice(b"00");
        }
        Ok(Self(header))
    }

    pub(super) fn type_flag(&self) -> u8 {
        let [flag] = self.0.as_old().linkflag;
        flag
    }

    /// The name, a ustar prefix in front of it.
    pub(super) fn name(&self) -> Vec<u8> {
        self.0.path_bytes().into_owned()
    }

    /// The link target; empty if there is none.
    pub(super) fn link_name(&self) -> Vec<u8> {
        self.0.link_name_bytes().unwrap_or_default().into_owned()
    }

    /// Permission bits, `0o7777` at most: old programs put the file type above them.
    pub(super) fn mode(&self) -> Result<u16, Refusal> {
        let mode = number::field(&self.0.as_old().mode, "mode")?;
        u16::try_from(mode & 0o7777).map_err(|_| out_of_range("mode"))
    }

    pub(super) fn uid(&self) -> Result<u32, Refusal> {
        id(&self.0.as_old().uid, "uid")
    }

    pub(super) fn gid(&self) -> Result<u32, Refusal> {
        id(&self.0.as_old().gid, "gid")
    }

    /// Bytes of the body: no more than 2^63 - 1.
    pub(super) fn size(&self) -> Result<u64, Refusal> {
        size(&self.0.as_old().size, "size")
    }

    pub(super) fn mtime(&self) -> Result<Timestamp, Refusal> {
        let seconds = number::seconds(&self.0.as_old().mtime)?;
        let seconds = i64::try_from(seconds).map_err(|_| out_of_range("mtime"))?;
        Ok(Timestamp { seconds, nanos: 0 })
    }

    /// The device numbers.
    pub(super) fn device(&self) -> Result<(u32, u32), Refusal> {
        let (major, minor) = if let Some(ustar) = self.0.as_ustar() {
            (&ustar.dev_major, &ustar.dev_minor)
        } else if let Some(gnu) = self.0.as_gnu() {
            (&gnu.dev_major, &gnu.dev_minor)
        } else {
            return Err(Refusal::invalid("is a device in a header that has no device numbers"));
        };
        Ok((in_range(major, "device major")?, in_range(minor, "device minor")?))
    }

    /// What an old GNU sparse file's header says: its size, its first pieces, and whether more blocks of pieces
    /// follow.
    pub(super) fn old_sparse(&self) -> Result<(u64, Pieces, bool), Refusal> {
        let Some(gnu) = self.0.as_gnu() else {
            return Err(Refusal::invalid("is an old GNU sparse file, but its header is not in GNU form"));
        };
        let more = gnu.isextended != [0];
        Ok((size(&gnu.realsize, "real size")?, pieces(&gnu.sparse, more)?, more))
    }
}

/// Pieces of a sparse file as an archive gives them, offset and length in bytes, nothing about them checked.
pub(super) type Pieces = Vec<(u64, u64)>;

/// A block of further pieces of an old GNU sparse file, and whether another one follows.
pub(super) fn more_pieces(block: &[u8; BLOCK]) -> Result<(Pieces, bool), Refusal> {
    let mut parsed = GnuExtSparseHeader::new();
    parsed.as_mut_bytes().copy_from_slice(block);
    let more = parsed.isextended != [0];
    Ok((pieces(&parsed.sparse, more)?, more))
}

/// The pieces up to the first blank one. It ends the map, so none may be blank where `more` blocks follow:
/// programs disagree on what such blocks are.
fn pieces(fields: &[GnuSparseHeader], more: bool) -> Result<Pieces, Refusal> {
    let used = fields.iter().take_while(|piece| piece.numbytes.first() != Some(&0));
    let pieces: Pieces = used
        .map(|piece| Ok((size(&piece.offset, "sparse offset")?, size(&piece.numbytes, "sparse length")?)))
        .collect::<Result<_, Refusal>>()?;
    if more && pieces.len() < fields.len() {
        return Err(Refusal::invalid("is a sparse file whose map goes on after its end"));
    }
    Ok(pieces)
}

fn size(field: &[u8], what: &str) -> Result<u64, Refusal> {
    let size: i64 = in_range(field, what)?;
    u64::try_from(size).map_err(|_| out_of_range(what))
}

/// A user or a group.
fn id(field: &[u8], what: &str) -> Result<u32, Refusal> {
    let id = in_range(field, what)?;
    if id == number::NO_ID { Err(out_of_range(what)) } else { Ok(id) }
}

fn in_range<T: TryFrom<i128>>(field: &[u8], what: &str) -> Result<T, Refusal> {
    T::try_from(number::field(field, what)?).map_err(|_| out_of_range(what))
}

fn out_of_range(what: &str) -> Refusal {
    Refusal::invalid(format!("its {what} is out of range"))
}
