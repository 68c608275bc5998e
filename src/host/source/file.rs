//! Reading a regular file that others may be changing.

use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::error::{Error, Result, Subject};
use crate::host::stat::Stat;
use crate::host::{failed, file_time};

use super::lend::Lender;
use super::{corrected, flags, writers};

/// An open file of a source tree.
#[derive(Debug)]
pub(crate) struct SourceFile {
    pub(super) host_path: PathBuf,
    pub(super) file: OwnedFd,
    /// What the file was like when it was found: what is read must be of that moment.
    pub(super) stat: Stat,
    pub(super) lender: Option<Arc<Lender>>,
}

/// A run of a file's bytes.
#[derive(Clone, Copy)]
pub(crate) enum FilePiece<'b> {
    Data(&'b [u8]),
    Hole(u64),
}

/// The most bytes that are read of a file whose size is not what its file system says.
const MISSTATED_BYTES_MAX: u64 = 64 << 20;

impl SourceFile {
    /// What the file was like when it was found.
    pub(crate) fn stat(&self) -> &Stat {
        &self.stat
    }

    /// The names of the flags that it has, that no image keeps and that its metadata does not say.
    pub(crate) fn unkept_flags(&self) -> impl Iterator<Item = &'static str> {
        flags::unkept(&self.file)
    }

    /// Returns whether somebody may write to it without a trace: see [`writers`].
    pub(crate) fn may_have_writer(&self) -> bool {
        writers::may_be_dirty(self.stat.size, self.stat.ctime, file_time())
            && writers::may_have_writer(self.file.as_fd())
    }

    pub(crate) fn into_stat(self) -> Stat {
        self.stat
    }

    /// Whether the file is what it was when it was found, as far as the file system tells.
    pub(crate) fn is_as_found(&self) -> Result<bool> {
        self.stat_now().map(|now| self.stat.is_unchanged(&now))
    }

    /// The same file as if it had been found only now.
    pub(crate) fn found_now(self) -> Result<Self> {
        Ok(Self { stat: self.stat_now()?, ..self })
    }

    fn stat_now(&self) -> Result<Stat> {
        let stat = Stat::of(&self.file, b"");
        let stat = stat.map_err(|error| failed(self.host_path.clone(), "read its metadata", error))?;
        Ok(corrected(self.lender.as_ref(), stat))
    }

    /// The content in one read, if it has exactly the bytes that it was found with.
    pub(crate) fn read_whole<'b>(&self, buf: &'b mut [u8]) -> Result<Option<&'b [u8]>> {
        // One byte more than there should be tells that there is more.
        let size = usize::try_from(self.stat.size).unwrap_or(usize::MAX);
        let Some(room) = size.checked_add(1).and_then(|want| buf.get_mut(..want)) else { return Ok(None) };
        let mut filled = 0;
        // An empty file is read, too: some file systems say that of files with content.
        loop {
            match self.read_at(room.get_mut(filled..).unwrap_or_default(), filled as u64)? {
                0 => break,
                read => filled += read,
            }
            if filled >= size {
                break;
            }
        }
        Ok(buf.get(..size).filter(|_| filled == size))
    }

    /// Hands the whole content to `take`, in order: what the file system knows to be holes without reading them.
    /// `buf` is the size of a read. Gives whether all of it was there.
    pub(crate) fn read(
        &self,
        buf: &mut [u8],
        mut take: impl FnMut(FilePiece<'_>) -> Result<()>,
    ) -> Result<bool> {
        let size = self.stat.size;
        let mut position = 0;
        while position < size {
            let data_end = if self.stat.is_sparse() {
                let data = self.seek(SeekFrom::Data(position))?;
                if data > position {
                    take(FilePiece::Hole(data - position))?;
                    position = data;
                    continue;
                }
                self.seek(SeekFrom::Hole(position))?
            } else {
                size
            };
            let read = self.read_data(buf, position..data_end, &mut take)?;
            position += read;
            if position < data_end {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Hands all that can be read to `take`, in order, whatever its size is said to be, as long as it is not far too much.
    pub(crate) fn read_to_end(
        &self,
        buf: &mut [u8],
        mut take: impl FnMut(FilePiece<'_>) -> Result<()>,
    ) -> Result<()> {
        if self.read_data(buf, 0..MISSTATED_BYTES_MAX, &mut take)? < MISSTATED_BYTES_MAX {
            return Ok(());
        }
        let message = format!(
            "has more than {MISSTATED_BYTES_MAX} bytes, and not the {} that its file system says; leave it out",
            self.stat.size
        );
        Err(Error::unsupported(Subject::Host(self.host_path.clone()), message))
    }

    /// Hands the bytes of a range that are there to `take`, and returns their number.
    fn read_data(
        &self,
        buf: &mut [u8],
        range: Range<u64>,
        take: &mut impl FnMut(FilePiece<'_>) -> Result<()>,
    ) -> Result<u64> {
        let mut position = range.start;
        while position < range.end {
            let want = usize::try_from(range.end - position).unwrap_or(usize::MAX).min(buf.len());
            let read = self.read_at(buf.get_mut(..want).unwrap_or_default(), position)?;
            if read == 0 {
                break;
            }
            take(FilePiece::Data(buf.get(..read).unwrap_or_default()))?;
            position += read as u64;
        }
        Ok(position - range.start)
    }

    fn read_at(&self, buf: &mut [u8], position: u64) -> Result<usize> {
        loop {
            match rustix::io::pread(&self.file, &mut *buf, position) {
                Err(Errno::INTR) => {}
                other => return other.map_err(|error| failed(self.host_path.clone(), "read it", error)),
            }
        }
    }

    /// The next data or hole from a position; the file's end where there is none.
    fn seek(&self, to: SeekFrom) -> Result<u64> {
        match rustix::fs::seek(self.file.as_fd(), to) {
            Ok(position) => Ok(position.min(self.stat.size)),
            Err(Errno::NXIO) => Ok(self.stat.size),
            Err(error) => Err(failed(self.host_path.clone(), "find its holes", error)),
        }
    }
}
