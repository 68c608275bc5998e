//! The uncompressed bytes of an archive: decompressed, counted against the limits and hashed as they pass.
//!
//! Whatever reads an archive reads it through [`Input`], so no byte escapes the digest or the budgets.

use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};
use std::ops::RangeInclusive;

use flate2::bufread::GzDecoder;
use sha2::{Digest, Sha256};
use zstd::stream::read::Decoder as ZstdDecoder;

use super::{Limits, Refusal};
use crate::error::{Error, Result, Subject};
use crate::task::Deadline;

/// Bytes enough to tell every compression.
const MAGIC_BYTES: usize = 10;
const BUFFER_BYTES: usize = 64 << 10;
/// Output below which the ratio is not looked at: small archives of constant bytes are harmless.
const RATIO_FREE_BYTES: u64 = 64 << 20;

/// A gzip member begins so.
const GZIP_MAGIC: [u8; 3] = [0x1f, 0x8b, 0x08];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// A zstd frame that carries no data starts with a byte of this range and these three.
const ZSTD_SKIPPABLE_FIRST: RangeInclusive<u8> = 0x50..=0x5f;
const ZSTD_SKIPPABLE: [u8; 3] = [0x2a, 0x4d, 0x18];
/// How other compressions begin.
const OTHERS: [(&[u8], &str); 5] = [
    (b"\xfd7zXZ\0", "xz"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\x02\x21\x4c\x18", "lz4"),
    (b"LZIP\x01", "lzip"),
    (b"\x89LZO\0\r\n\x1a\n", "lzop"),
];
/// Follow `BZh` and a digit: the first block's mark, or the last's.
const BZIP2_MARKS: [[u8; 6]; 2] = [*b"\x31\x41\x59\x26\x53\x59", *b"\x17\x72\x45\x38\x50\x90"];

pub(super) struct Input<R: Read> {
    decoder: Decoder<R>,
    hasher: Sha256,
    bytes: u64,
    stream_bytes_max: u64,
    ratio_max: u64,
    window_log_max: u32,
    deadline: Deadline,
}

/// What makes uncompressed bytes of the source's, up to the end of one gzip member or zstd frame.
enum Decoder<R: Read> {
    Plain(Source<R>),
    Gzip(Box<GzDecoder<Source<R>>>),
    Zstd(Box<ZstdDecoder<'static, Source<R>>>),
    /// After an error: it gives nothing more.
    Failed,
}

impl<R: Read> Input<R> {
    /// Starts to read `source`; its first bytes tell the compression.
    pub(super) fn new(mut source: R, limits: &Limits) -> Result<Self> {
        let mut magic = [0; MAGIC_BYTES];
        let len =
            fill(&mut source, &mut magic).map_err(|error| Error::io(Subject::Archive, "read", error))?;
        let magic = magic.get(..len).unwrap_or_default();
        let chained = Cursor::new(magic.to_vec()).chain(source);
        let source =
            Source { buffer: BufReader::with_capacity(BUFFER_BYTES, chained), consumed: 0, failed: false };
        let decoder = match Compression::of(magic) {
            Compression::Plain => Decoder::Plain(source),
            Compression::Gzip => Decoder::Gzip(Box::new(GzDecoder::new(source))),
            Compression::Zstd => Decoder::Zstd(Box::new(zstd_decoder(source, limits.zstd_window_log_max)?)),
            Compression::Other(name) => {
                let message = format!("is compressed by {name}; expected plain, gzip or zstd: recompress it");
                return Err(Error::unsupported(Subject::Archive, message));
            }
        };
        Ok(Self {
            decoder,
            hasher: Sha256::new(),
            bytes: 0,
            stream_bytes_max: limits.stream_bytes_max,
            ratio_max: limits.ratio_max,
            window_log_max: limits.zstd_window_log_max,
            deadline: Deadline::after(limits.time_max),
        })
    }

    /// Some bytes into the front of `buffer`, how many; 0 at the end or for an empty buffer.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let len = loop {
            match self.decoder.read(buffer) {
                Ok(0) if !buffer.is_empty() && self.next_member()? => {}
                Ok(len) => break len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failure(error)),
            }
        };
        self.hasher.update(buffer.get(..len).unwrap_or_default());
        self.bytes = self.bytes.saturating_add(u64::try_from(len).unwrap_or(u64::MAX));
        self.check_budgets()?;
        Ok(len)
    }

    /// Bytes into all of `buffer`, as far as there are any; how many.
    pub(super) fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.read(rest)? {
                0 => break,
                len => filled += len,
            }
        }
        Ok(filled)
    }

    /// Reads `len` bytes for the digest alone; how many of them are missing.
    pub(super) fn skip(&mut self, mut len: u64) -> Result<u64> {
        let mut scratch = vec![0; BUFFER_BYTES.min(usize::try_from(len).unwrap_or(BUFFER_BYTES))];
        while len > 0 {
            let want = scratch.len().min(usize::try_from(len).unwrap_or(usize::MAX));
            match self.read(scratch.get_mut(..want).unwrap_or_default())? {
                0 => break,
                read => len = len.saturating_sub(u64::try_from(read).unwrap_or(u64::MAX)),
            }
        }
        Ok(len)
    }

    /// Reads to the end: the SHA-256 of all uncompressed bytes, and how many there were.
    pub(super) fn finish(mut self) -> Result<([u8; 32], u64)> {
        self.skip(u64::MAX)?;
        Ok((self.hasher.finalize().into(), self.bytes))
    }

    /// Reads to the end; where the first byte is that is not zero, none if there is none.
    pub(super) fn first_nonzero(&mut self) -> Result<Option<u64>> {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let start = self.bytes;
            let len = self.read(&mut buffer)?;
            let found = buffer.iter().take(len).position(|byte| *byte != 0);
            if len == 0 || found.is_some() {
                return Ok(found.map(|at| start.saturating_add(u64::try_from(at).unwrap_or(u64::MAX))));
            }
        }
    }

    /// Uncompressed bytes read so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Goes on to the next gzip member or zstd frame, past zeros in front of it; false at the source's end.
    fn next_member(&mut self) -> Result<bool> {
        let Some((byte, offset)) = self.skip_padding()? else { return Ok(false) };
        let (next, name) = match std::mem::replace(&mut self.decoder, Decoder::Failed) {
            Decoder::Gzip(decoder) => {
                let source = (byte == GZIP_MAGIC[0]).then(|| decoder.into_inner());
                (source.map(|source| Decoder::Gzip(Box::new(GzDecoder::new(source)))), "gzip")
            }
            Decoder::Zstd(decoder) => {
                let is_frame = byte == ZSTD_MAGIC[0] || ZSTD_SKIPPABLE_FIRST.contains(&byte);
                let next =
                    is_frame.then(|| zstd_decoder(decoder.finish(), self.window_log_max)).transpose()?;
                (next.map(|decoder| Decoder::Zstd(Box::new(decoder))), "zstd")
            }
            other => (Some(other), "plain"),
        };
        self.decoder = next.ok_or_else(|| {
            let message = format!(
                "goes on behind the end of its {name} stream with other bytes than zeros, the first 0x{byte:02x} at byte \
                 {offset}; remove what does not belong to it"
            );
            Error::invalid(Subject::Archive, message)
        })?;
        Ok(true)
    }

    /// Passes the zeros that programs write behind a compressed stream to fill a block: the byte that follows and where it
    /// is, none at the source's end.
    fn skip_padding(&mut self) -> Result<Option<(u8, u64)>> {
        loop {
            self.deadline.check(|| Subject::Archive)?;
            let source = match &mut self.decoder {
                Decoder::Plain(_) | Decoder::Failed => return Ok(None),
                Decoder::Gzip(decoder) => decoder.get_mut(),
                Decoder::Zstd(decoder) => decoder.get_mut(),
            };
            if source.consumed > self.stream_bytes_max {
                let refusal = Refusal::limit("its size", "stream_bytes_max", self.stream_bytes_max);
                return Err(refusal.at_archive());
            }
            let buffer = match source.fill_buf() {
                Ok([]) => return Ok(None),
                Ok(buffer) => buffer,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::io(Subject::Archive, "read", error)),
            };
            let zeros = buffer.iter().take_while(|byte| **byte == 0).count();
            let next = buffer.get(zeros).copied();
            source.consume(zeros);
            if let Some(byte) = next {
                return Ok(Some((byte, source.consumed)));
            }
        }
    }

    fn check_budgets(&self) -> Result<()> {
        self.deadline.check(|| Subject::Archive)?;
        if self.bytes > self.stream_bytes_max {
            let refusal = Refusal::limit("its uncompressed size", "stream_bytes_max", self.stream_bytes_max);
            return Err(refusal.at_archive());
        }
        let compressed = match &self.decoder {
            Decoder::Plain(_) | Decoder::Failed => return Ok(()),
            Decoder::Gzip(decoder) => decoder.get_ref().consumed,
            Decoder::Zstd(decoder) => decoder.get_ref().consumed,
        };
        if self.bytes > RATIO_FREE_BYTES && self.bytes / self.ratio_max.max(1) > compressed {
            return Err(Refusal::limit("its compression ratio", "ratio_max", self.ratio_max).at_archive());
        }
        Ok(())
    }

    /// Tells a failure of the source from bytes that are not what they should be.
    fn failure(&self, error: io::Error) -> Error {
        let (source, message) = match &self.decoder {
            Decoder::Plain(_) | Decoder::Failed => return Error::io(Subject::Archive, "read", error),
            Decoder::Gzip(decoder) => {
                (decoder.get_ref(), "its gzip stream is damaged or cut short".to_owned())
            }
            Decoder::Zstd(decoder) => {
                let window = self.window_log_max;
                let message = format!(
                    "its zstd stream is damaged, cut short, or needs a window beyond the limit \
                     `zstd_window_log_max` of {window}"
                );
                (decoder.get_ref(), message)
            }
        };
        if source.failed {
            return Error::io(Subject::Archive, "read", error);
        }
        Error::invalid(Subject::Archive, message).with_source(error)
    }
}

fn zstd_decoder<R: Read>(source: Source<R>, window_log_max: u32) -> Result<ZstdDecoder<'static, Source<R>>> {
    let set_up = |error| Error::io(Subject::Archive, "set up the zstd decoder", error);
    let mut decoder = ZstdDecoder::with_buffer(source).map_err(set_up)?.single_frame();
    decoder.window_log_max(window_log_max).map_err(set_up)?;
    Ok(decoder)
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(source) => source.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
            Self::Failed => Ok(0),
        }
    }
}

enum Compression {
    Plain,
    Gzip,
    Zstd,
    Other(&'static str),
}

impl Compression {
    fn of(magic: &[u8]) -> Self {
        match magic {
            // The third byte is the method: a name in a plain archive is no gzip header.
            _ if magic.starts_with(&GZIP_MAGIC) => Self::Gzip,
            [first, rest @ ..]
                if ZSTD_SKIPPABLE_FIRST.contains(first) && rest.starts_with(&ZSTD_SKIPPABLE) =>
            {
                Self::Zstd
            }
            _ if magic.starts_with(&ZSTD_MAGIC) => Self::Zstd,
            _ => other_compression(magic).map_or(Self::Plain, Self::Other),
        }
    }
}

/// Returns the name of a compression that `tar` writes and that is not read here.
fn other_compression(magic: &[u8]) -> Option<&'static str> {
    let known = OTHERS.iter().find(|(start, _)| magic.starts_with(start)).map(|(_, name)| *name);
    known.or(match magic {
        [b'B', b'Z', b'h', b'1'..=b'9', mark @ ..] if BZIP2_MARKS.iter().any(|known| mark == known) => {
            Some("bzip2")
        }
        // The third byte has the bits of its codes, 9 to 16, and two bits that nobody sets.
        [0x1f, 0x9d, bits, ..] if bits & 0x60 == 0 && (9..=16).contains(&(bits & 0x1f)) => Some("compress"),
        // Its parameters, the size of its dictionary, and the size of what it holds. A tar of a file `]` has zeros there.
        [0x5d, dictionary @ ..] => {
            let size = u32::from_le_bytes(*dictionary.first_chunk()?);
            (size >= 4096 && (size.is_power_of_two() || (size / 3).is_power_of_two())).then_some("lzma")
        }
        _ => None,
    })
}

/// Files that are taken for tars, by how they begin.
const KINDS: [(&[u8], &str); 11] = [
    (b"PK\x03\x04", "a zip archive; unpack it, and import the directory"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it, and import the directory"),
    (b"070701", "a cpio archive; unpack it, and import the directory"),
    (b"070702", "a cpio archive; unpack it, and import the directory"),
    (b"070707", "a cpio archive; unpack it, and import the directory"),
    (
        b"!<arch>\n",
        "an ar archive, such as a Debian package; unpack it (dpkg-deb -x), and import the directory",
    ),
    (b"\xed\xab\xee\xdb", "an RPM package; unpack it (rpm2archive), and import that"),
    (b"hsqs", "a squashfs image; mount it, and import the directory"),
    (b"XFSB", "an image of an XFS; mount it, and import the directory"),
    (b"QFI\xfb", "a virtual machine's disk; mount it (qemu-nbd), and import the directory"),
    (b"\x7fELF", "a program"),
];

/// Returns what a file is that begins so and is no tar, with what to do about it.
pub(super) fn kind_of(bytes: &[u8]) -> Option<String> {
    let known = KINDS.iter().find(|(start, _)| bytes.starts_with(start)).map(|(_, kind)| (*kind).to_owned());
    let compression = match Compression::of(bytes.get(..MAGIC_BYTES).unwrap_or(bytes)) {
        Compression::Plain => return known,
        Compression::Gzip => "gzip",
        Compression::Zstd => "zstd",
        Compression::Other(name) => name,
    };
    Some(format!("compressed twice, within by {compression}; uncompress it once"))
}

/// The compressed bytes: counted as they are used up, its failures remembered.
struct Source<R> {
    buffer: BufReader<Chain<Cursor<Vec<u8>>, R>>,
    consumed: u64,
    failed: bool,
}

impl<R: Read> Source<R> {
    fn remember<T>(failed: &mut bool, result: io::Result<T>) -> io::Result<T> {
        *failed |= result.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::Interrupted);
        result
    }
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = Self::remember(&mut self.failed, self.buffer.read(buffer))?;
        self.consumed = self.consumed.saturating_add(u64::try_from(len).unwrap_or(u64::MAX));
        Ok(len)
    }
}

impl<R: Read> BufRead for Source<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        Self::remember(&mut self.failed, self.buffer.fill_buf())
    }

    fn consume(&mut self, len: usize) {
        self.consumed = self.consumed.saturating_add(u64::try_from(len).unwrap_or(u64::MAX));
        self.buffer.consume(len);
    }
}

/// Reads into all of `buffer`, as far as there are bytes; how many.
fn fill(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match source.read(rest) {
            Ok(0) => break,
            Ok(len) => filled += len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
