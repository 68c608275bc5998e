//! Calls that fail.

use std::io;

use rustix::io::Errno;

/// What a process asks of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskCall {
    /// To open a file.
    Open,
    /// To make one.
    Create,
    /// Whether a name is there.
    Exists,
    /// To rename a file.
    Rename,
    /// To give a file a further name.
    Link,
    /// To remove a name.
    Remove,
    /// To make a folder.
    CreateDir,
    /// To list one.
    List,
    /// To sync one.
    SyncDir,
    /// To take the lock.
    Lock,
    /// To read of a file.
    Read,
    /// To write to it.
    Write,
    /// To cut or extend it.
    SetLen,
    /// To measure it.
    Len,
    /// To sync it.
    Sync,
    /// To map it.
    Map,
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// `EIO`.
    Io,
    /// `ENOSPC`.
    NoSpace,
    /// `EDQUOT`.
    Quota,
    /// `EINTR`; a call that is made again at once succeeds.
    Interrupted,
    /// `EMFILE`.
    TooManyFiles,
    /// `EROFS`.
    ReadOnly,
    /// Part of the bytes are written, then there is no space.
    ShortWrite,
    /// Part of the bytes are read, then the file seems to end.
    ShortRead,
    /// `EOPNOTSUPP`: the file system has no hard links. None that comes and goes.
    NoLinks,
}

impl FaultKind {
    /// All that can happen to a store at any time.
    pub const ALL: [Self; 8] = [
        Self::Io,
        Self::NoSpace,
        Self::Quota,
        Self::Interrupted,
        Self::TooManyFiles,
        Self::ReadOnly,
        Self::ShortWrite,
        Self::ShortRead,
    ];

    /// Whether a call can fail so.
    #[must_use]
    pub fn concerns(self, call: DiskCall) -> bool {
        use DiskCall as C;
        match self {
            Self::Io | Self::Interrupted => true,
            Self::NoSpace | Self::Quota => {
                matches!(
                    call,
                    C::Create
                        | C::CreateDir
                        | C::Rename
                        | C::Link
                        | C::Write
                        | C::SetLen
                        | C::Sync
                        | C::SyncDir
                )
            }
            Self::TooManyFiles => {
                matches!(call, C::Open | C::Create | C::List | C::SyncDir | C::Lock | C::Map)
            }
            Self::ReadOnly => {
                matches!(
                    call,
                    C::Create
                        | C::CreateDir
                        | C::Rename
                        | C::Link
                        | C::Remove
                        | C::Write
                        | C::SetLen
                        | C::Sync
                )
            }
            Self::ShortWrite => call == C::Write,
            Self::ShortRead => call == C::Read,
            Self::NoLinks => call == C::Link,
        }
    }

    pub(super) fn error(self) -> io::Error {
        match self {
            Self::Io => Errno::IO.into(),
            Self::NoSpace | Self::ShortWrite => Errno::NOSPC.into(),
            Self::Quota => Errno::DQUOT.into(),
            Self::Interrupted => Errno::INTR.into(),
            Self::TooManyFiles => Errno::MFILE.into(),
            Self::ReadOnly => Errno::ROFS.into(),
            Self::ShortRead => io::ErrorKind::UnexpectedEof.into(),
            Self::NoLinks => Errno::OPNOTSUPP.into(),
        }
    }
}

/// A call that fails, by its number since the disk began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The number, from 0.
    pub call: usize,
    /// How it fails.
    pub kind: FaultKind,
    /// Whether all later calls that can fail so do.
    pub is_lasting: bool,
}

impl Fault {
    pub(super) fn hits(&self, number: usize, call: DiskCall) -> bool {
        let is_due = match number.checked_sub(self.call) {
            Some(0) => true,
            // A signal comes again, but not before the interrupted call was tried again.
            Some(since) if self.is_lasting && self.kind == FaultKind::Interrupted => since.is_multiple_of(2),
            Some(_) => self.is_lasting,
            None => false,
        };
        is_due && self.kind.concerns(call)
    }
}
