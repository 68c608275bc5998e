//! Tar archives: reading any root file system tar safely, and writing one that GNU tar reads.
//!
//! [`Reader`] turns bytes into [`Member`]s in archive order, [`Assembly`] turns members into the file system
//! that they describe, [`Writer`] turns members into bytes. Only field layouts come from the `tar` crate; the
//! framing is ours, because an archive is hostile until it was read to its end. Nothing here touches the host's
//! file system.
//!
//! # What is read
//! Plain, gzip (any number of members) or zstd (any number of frames), known by their magic bytes. Zeros behind a member or
//! frame are padding, as bsdtar writes it to a pipe; other bytes there are an error. Headers in v7, ustar, GNU and PAX form, in
//! any mixture. Where programs or the standard leave a choice, this is ours:
//!
//! - **Names** are bytes. Leading `/`, `.` components and doubled `/` go; `..`, a NUL, an empty name and what is
//!   too long are errors. A PAX `path` wins over a GNU long name, which wins over the header's; of several
//!   records or long names for one entry the last wins.
//! - **Sizes**: the PAX `size` wins over the header's. A directory's is ignored and no body follows, as POSIX
//!   says and all programs do. A hard link's, as old programs write it, is ignored and no body follows; the PAX `size`
//!   of one says that a body follows, as POSIX has it, which is skipped: it is the file's. A header's size after PAX
//!   records is an error there, and so is any of a symbolic link, device or fifo: programs disagree on whether a body
//!   follows, which is how one hides entries from another. Bodies of GNU dump directories (`D`) are skipped.
//! - **Types**: `0`, NUL and `7` are files, or directories if the name ends in `/`; `1` to `6` as in POSIX; `S`
//!   old GNU sparse files; `D` directories; `x` and `X` extended headers; `g` global ones, from which `uid`, `gid`
//!   and `mtime` are taken and records that only make sense for one entry are errors; `L` and `K` long names; a
//!   volume label (`V`) is skipped. Every other type is an error.
//! - **Attributes**: mode masked to `0o7777`; uid and gid must fit 32 bits, device numbers too; mtime may be
//!   negative, also as Rust's `tar` crate writes it, and has nanoseconds, rounded down. A PAX time ends where its digits
//!   do, other PAX numbers may end in zero bytes, and a field with a sign is an error: as GNU tar and bsdtar agree.
//!   Access and change times, user and group names and comments are ignored; other PAX records, as of flags (`SCHILY.fflags`),
//!   are counted by their keys.
//! - **Extended attributes** are `SCHILY.xattr.NAME` records, the value being any bytes; in the name `%3D` stands
//!   for `=` and `%25` for `%`, as GNU tar writes them. `LIBARCHIVE.xattr.NAME` counts where the former is missing.
//!   ACLs in text form (`SCHILY.acl.access` and `.default`) become the attributes that they stand for, where these are not
//!   there too; one that then names somebody without a number is an error, since only the machine that made the archive
//!   knows the number.
//! - **Sparse files** in old GNU form and PAX 0.0, 0.1 and 1.0: pieces must ascend, not overlap, end within the
//!   file, add up to exactly the stored body, and be whole blocks except for the last (programs disagree on where
//!   data after a broken block is).
//! - **The end** is two zero blocks, or one or none if the input ends there, which [`TarSummary::has_end_mark`] says. One
//!   zero block before anything else is an error, and so is an input without an end mark and an entry, a torn block or body, and
//!   an extended header without its entry. Zeros behind two zero blocks are padding. Other data there, as of a second archive,
//!   is read for the digest alone, and [`TarSummary::other_data_at`] says where it begins; but what begins with two zero
//!   blocks and goes on so is no archive of nothing: a disk image, most likely.

pub use assemble::{Assembled, Assembly, GaveWay, Placed};
pub use limits::Limits;
pub use reader::{Piece, Reader, TarSummary, UnkeptRecord};
pub(crate) use route::{Found, is_link_to_directory, route};
pub use writer::Writer;

use std::borrow::Cow;

use crate::error::{Error, ErrorKind, Remedy, Result, Subject};
use crate::path::{TreePath, escape_bytes};
use crate::tree::entry::Timestamp;

mod acl;
mod assemble;
mod dump_list;
mod header;
mod input;
mod limits;
mod number;
mod pax;
mod reader;
mod route;
mod sparse;
#[cfg(test)]
mod testing;
mod writer;

/// Bytes of a tar block: headers are one, bodies are padded to a multiple.
const BLOCK: usize = 512;
/// [`BLOCK`] as what bodies are counted in.
const BLOCK_BYTES: u64 = BLOCK as u64;

/// One entry of an archive. `F` is what stands for a regular file's content: its size in bytes, holes included,
/// in what a [`Reader`] gives and a [`Writer`] takes; whatever its user keeps of it in an [`Assembly`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member<F = u64> {
    /// Where it is.
    pub path: TreePath,
    /// Permission bits with setuid, setgid and sticky: at most `0o7777`.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// When the content last changed.
    pub mtime: Timestamp,
    /// Extended attributes, names ascending and each only once.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// What it is.
    pub kind: MemberKind<F>,
}

/// What a [`Member`] is, besides its attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberKind<F = u64> {
    /// A directory.
    Directory,
    /// A regular file.
    File(F),
    /// A further name of the entry at this path; the member's own attributes mean nothing.
    HardLink(TreePath),
    /// A symbolic link to this target, verbatim: 1 to 4,095 bytes, none of them zero.
    Symlink(Box<[u8]>),
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

impl<F> Member<F> {
    /// The member with a file's content replaced by what `content` makes of it.
    pub fn try_map_file<G>(self, content: impl FnOnce(F) -> Result<G>) -> Result<Member<G>> {
        let kind = match self.kind {
            MemberKind::File(file) => MemberKind::File(content(file)?),
            MemberKind::Directory => MemberKind::Directory,
            MemberKind::HardLink(target) => MemberKind::HardLink(target),
            MemberKind::Symlink(target) => MemberKind::Symlink(target),
            MemberKind::CharDevice { major, minor } => MemberKind::CharDevice { major, minor },
            MemberKind::BlockDevice { major, minor } => MemberKind::BlockDevice { major, minor },
            MemberKind::Fifo => MemberKind::Fifo,
        };
        let Self { path, mode, uid, gid, mtime, xattrs, .. } = self;
        Ok(Member { path, mode, uid, gid, mtime, xattrs, kind })
    }
}

/// Why something in an archive is refused, said before it is known which entry it belongs to.
#[derive(Debug, PartialEq, Eq)]
struct Refusal {
    kind: ErrorKind,
    message: Cow<'static, str>,
    /// The limit that it passes.
    limit: Option<&'static str>,
}

/// Bytes of an entry's name that an error shows.
const SHOWN_NAME_BYTES: usize = 512;

impl Refusal {
    fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind: ErrorKind::Invalid, message: message.into(), limit: None }
    }

    fn unsupported(message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind: ErrorKind::Unsupported, message: message.into(), limit: None }
    }

    /// `what` would pass the limit `name`, which is `limit`.
    fn limit(what: &str, name: &'static str, limit: impl std::fmt::Display) -> Self {
        let message = format!("{what} passes the limit of {limit}").into();
        Self { kind: ErrorKind::QuotaExceeded, message, limit: Some(name) }
    }

    /// The error about the entry of this name.
    fn at(self, name: &[u8]) -> Error {
        let (shown, rest) = name.split_at_checked(SHOWN_NAME_BYTES).unwrap_or((name, &[]));
        let ellipsis = if rest.is_empty() { "" } else { "…" };
        self.about(Subject::ArchiveEntry(format!("{}{ellipsis}", escape_bytes(shown))))
    }

    /// The error about the archive as a whole.
    fn at_archive(self) -> Error {
        self.about(Subject::Archive)
    }

    fn about(self, subject: Subject) -> Error {
        let error = Error::new(self.kind, subject, self.message);
        match self.limit {
            Some(name) => error.with_remedy(Remedy::RaiseLimit { name }),
            None => error,
        }
    }
}
