//! How much an import may ask for before it is refused.

use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Remedy, Result, Subject};

/// What an import may ask for; passing one is [`QuotaExceeded`](crate::ErrorKind::QuotaExceeded) with the limit's name in
/// the message. The defaults let any sane root file system through.
///
/// Of a directory only `entries_max`, `logical_bytes_max` and `time_max` count, for what is found in it: its file system
/// has bounds for the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries, and paths of the file system that they make, implicit directories included.
    pub entries_max: u64,
    /// Bytes of all files together, holes included.
    pub logical_bytes_max: u64,
    /// Bytes of the uncompressed archive, whatever they are.
    pub stream_bytes_max: u64,
    /// Uncompressed bytes for each compressed one. Looked at once 64 MiB have come out. Gzip cannot pass 1,032.
    pub ratio_max: u64,
    /// Bytes of names, link targets and extended attributes of all entries together, and 96 more for each attribute: what
    /// must be held in memory until an archive was read to its end.
    pub metadata_bytes_max: u64,
    /// Bytes of one PAX header or GNU long name.
    pub header_bytes_max: u64,
    /// Headers that only prepare for an entry, in a row.
    pub pending_headers_max: u32,
    /// Data pieces of one sparse file.
    pub sparse_pieces_max: usize,
    /// Logarithm to base two of the bytes a zstd frame may make the decoder look back (10 to 31); memory that
    /// the decoder may take.
    pub zstd_window_log_max: u32,
    /// Extended attributes of one entry.
    pub xattrs_max: usize,
    /// Bytes of an extended attribute's name.
    pub xattr_name_bytes_max: usize,
    /// Bytes of an extended attribute's value.
    pub xattr_value_bytes_max: usize,
    /// How long it may take, none for as long as it takes; passing it is [`TimedOut`](crate::ErrorKind::TimedOut). It is
    /// looked at whenever something was read and before each file: a source that gives nothing at all is waited for.
    pub time_max: Option<Duration>,
}

/// What [`Limits::sparse_pieces_max`] is by default, and the most that a writer makes.
pub(super) const SPARSE_PIECES_MAX: usize = 10_000;
/// What [`Limits::header_bytes_max`] is by default, and the most that a writer makes.
pub(super) const HEADER_BYTES_MAX: u64 = 1 << 20;

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries_max: 1 << 22,
            logical_bytes_max: 1 << 40,
            stream_bytes_max: 1 << 40,
            ratio_max: 1_000,
            metadata_bytes_max: 128 << 20,
            header_bytes_max: HEADER_BYTES_MAX,
            pending_headers_max: 16,
            sparse_pieces_max: SPARSE_PIECES_MAX,
            zstd_window_log_max: 27,
            xattrs_max: 1_024,
            xattr_name_bytes_max: 255,
            xattr_value_bytes_max: 1 << 16,
            time_max: None,
        }
    }
}

/// When an import has taken as long as it may.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    /// None if it may take any time, as if its end could not be told.
    end: Option<Instant>,
    time_max: Duration,
}

impl Deadline {
    /// That of an import which begins now.
    pub(crate) fn of(limits: &Limits) -> Self {
        let time_max = limits.time_max.unwrap_or_default();
        Self { end: limits.time_max.and_then(|time| Instant::now().checked_add(time)), time_max }
    }

    /// Fails with *timed out* once it has passed.
    pub(crate) fn check(&self, subject: impl FnOnce() -> Subject) -> Result<()> {
        if self.end.is_none_or(|end| Instant::now() < end) {
            return Ok(());
        }
        let message = format!("takes longer than the limit of {} s", self.time_max.as_secs_f64());
        let remedy = Remedy::RaiseLimit { name: "time_max" };
        Err(Error::new(ErrorKind::TimedOut, subject(), message).with_remedy(remedy))
    }
}
