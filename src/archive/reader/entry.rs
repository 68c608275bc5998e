//! From a header and what extended headers said before it to a member: every rule about one entry.

use super::super::header::{Header, Pieces};
use super::super::{Limits, Member, MemberKind, Refusal, acl, pax, sparse};
use crate::path::TreePath;
use crate::tree::entry::MAX_TARGET_BYTES;

/// What came before an entry's own header.
#[derive(Default)]
pub(super) struct Pending {
    /// Headers in a row that were no entry.
    pub(super) count: u32,
    /// Whether something waits for its entry.
    pub(super) open: bool,
    pub(super) long_name: Option<Vec<u8>>,
    pub(super) long_link: Option<Vec<u8>>,
    pub(super) records: pax::Records,
}

/// A member and how its body is stored.
pub(super) struct Resolved {
    pub(super) member: Member,
    pub(super) stored: Stored,
}

/// What follows an entry's header.
pub(super) enum Stored {
    /// Nothing.
    Nothing,
    /// So many bytes of no interest.
    Ignored(u64),
    /// The names in a directory that GNU tar dumped incrementally, in so many bytes.
    DumpList(u64),
    /// The file's bytes.
    Dense,
    /// An old GNU sparse file: more blocks of pieces if `more`, then `stored` bytes of data.
    OldSparse { pieces: Pieces, more: bool, stored: u64 },
    /// A PAX 0.x sparse file: `stored` bytes of data.
    Pieces { pieces: Pieces, stored: u64 },
    /// A PAX 1.0 sparse file: its map and its data, `stored` bytes together.
    MapInBody { stored: u64 },
}

impl Pending {
    /// The name that the entry with this header goes by.
    pub(super) fn take_name(&mut self, header: &Header) -> Vec<u8> {
        let records = &mut self.records;
        let pax = records.sparse.take_name().or_else(|| records.path.take());
        pax.or_else(|| self.long_name.take()).unwrap_or_else(|| header.name())
    }

    /// The member that `header` makes with all this before it, in an archive that had a PAX header or none.
    pub(super) fn resolve(
        self,
        name: &[u8],
        header: &Header,
        has_pax: bool,
        limits: &Limits,
    ) -> Result<Resolved, Refusal> {
        let mut records = self.records;
        let path = parse_path(name, "name")?;
        let link = records.link_path.take().or(self.long_link).unwrap_or_else(|| header.link_name());
        let size = records.size.map_or_else(|| header.size(), Ok)?;
        let flag = header.type_flag();
        let form = std::mem::take(&mut records.sparse).into_form()?;
        if form != sparse::Form::Dense && !matches!(flag, b'0' | 0 | b'7') {
            return Err(Refusal::invalid("has PAX sparse records but is no regular file"));
        }
        let (kind, stored) = match flag {
            b'0' | 0 | b'7' if name.ends_with(b"/") => {
                refuse_size(size, "named like a directory")?;
                (MemberKind::Directory, Stored::Nothing)
            }
            b'0' | 0 | b'7' => regular(form, size),
            b'S' => {
                let (real, pieces, more) = header.old_sparse()?;
                (MemberKind::File(real), Stored::OldSparse { pieces, more, stored: size })
            }
            b'5' => (MemberKind::Directory, Stored::Nothing),
            b'D' => (MemberKind::Directory, Stored::DumpList(size)),
            b'1' => {
                let kind = bodiless(flag, &link, header, &records)?;
                (kind, body_of_hard_link(records.size, size, has_pax)?)
            }
            _ => {
                let kind = bodiless(flag, &link, header, &records)?;
                refuse_size(size, "a symbolic link, device or fifo")?;
                (kind, Stored::Nothing)
            }
        };
        let mode = header.mode()?;
        let mtime = records.mtime.map_or_else(|| header.mtime(), Ok)?;
        let (uid, gid) = (records.uid, records.gid);
        let xattrs = records.into_xattrs(limits)?;
        let access = xattrs.iter().find(|(name, _)| name == acl::ACCESS);
        let member = Member {
            path,
            mode: access.map_or(mode, |(_, list)| acl::mode(mode, list)),
            uid: uid.map_or_else(|| header.uid(), Ok)?,
            gid: gid.map_or_else(|| header.gid(), Ok)?,
            mtime,
            xattrs,
            kind,
        };
        Ok(Resolved { member, stored })
    }
}

fn regular(form: sparse::Form, stored: u64) -> (MemberKind, Stored) {
    match form {
        sparse::Form::Dense => (MemberKind::File(stored), Stored::Dense),
        sparse::Form::InRecords { size, pieces } => {
            (MemberKind::File(size), Stored::Pieces { pieces, stored })
        }
        sparse::Form::InBody { size } => (MemberKind::File(size), Stored::MapInBody { stored }),
    }
}

fn bodiless(flag: u8, link: &[u8], header: &Header, records: &pax::Records) -> Result<MemberKind, Refusal> {
    let device = || {
        let (major, minor) = match (records.device_major, records.device_minor) {
            (Some(major), Some(minor)) => (major, minor),
            (major, minor) => {
                let (header_major, header_minor) = header.device()?;
                (major.unwrap_or(header_major), minor.unwrap_or(header_minor))
            }
        };
        Ok((major, minor))
    };
    Ok(match flag {
        b'1' => MemberKind::HardLink(parse_path(link, "link target")?),
        b'2' => MemberKind::Symlink(target(link)?),
        b'3' => device().map(|(major, minor)| MemberKind::CharDevice { major, minor })?,
        b'4' => device().map(|(major, minor)| MemberKind::BlockDevice { major, minor })?,
        b'6' => MemberKind::Fifo,
        b'M' => return Err(Refusal::unsupported(pax::LATER_VOLUME)),
        _ => {
            let flag = char::from(flag).escape_default();
            return Err(Refusal::unsupported(format!("has the type '{flag}', which has no meaning here")));
        }
    })
}

/// What follows a hard link. Old headers have the file's size and no body; GNU tar and bsdtar agree on a body where PAX
/// says its size, and disagree on one where PAX records came by that say none.
fn body_of_hard_link(pax_size: Option<u64>, size: u64, has_pax: bool) -> Result<Stored, Refusal> {
    match pax_size {
        Some(size) => Ok(Stored::Ignored(size)),
        None if has_pax => refuse_size(size, "a hard link among PAX headers").map(|()| Stored::Nothing),
        None => Ok(Stored::Nothing),
    }
}

fn parse_path(name: &[u8], what: &str) -> Result<TreePath, Refusal> {
    if name.is_empty() {
        return Err(Refusal::invalid(format!("has an empty {what}")));
    }
    TreePath::parse(name).map_err(|error| Refusal::invalid(format!("its {what} {}", error.fault())))
}

fn target(link: &[u8]) -> Result<Box<[u8]>, Refusal> {
    match link.len() {
        0 => Err(Refusal::invalid("is a symbolic link without a target")),
        len if len > MAX_TARGET_BYTES => {
            Err(Refusal::invalid(format!("its target has more than {MAX_TARGET_BYTES} bytes")))
        }
        _ => Ok(link.into()),
    }
}

fn refuse_size(size: u64, what: &str) -> Result<(), Refusal> {
    if size == 0 {
        return Ok(());
    }
    Err(Refusal::invalid(format!(
        "is {what} with a size of {size}: programs disagree on whether a body follows, so it must be 0"
    )))
}
