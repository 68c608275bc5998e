//! The crate's one error type.
//!
//! A kind exists only where a caller would act differently; everything else is in the subject (what the
//! error is about, typed) and the message (what was expected and what to do).

use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use crate::id::{ImageId, ObjectId, PackId, SegmentId};
use crate::path::{TreePath, escape_bytes, visible};

pub use crate::format::DecodeError;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What class of failure an [`Error`] is: what the caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// What was named does not exist, or is not visible from this project. Check the name.
    NotFound,
    /// What was to be created exists. Use it, or choose another name.
    AlreadyExists,
    /// Another writer was first, or a rule of removal refuses. Look at the current state and decide again.
    Conflict,
    /// The request or the input is malformed. Change it.
    Invalid,
    /// It is being used. End the use, or force.
    InUse,
    /// A limit set by the operator was reached. Free space or raise the limit.
    QuotaExceeded,
    /// This version cannot do it. Use a newer one.
    Unsupported,
    /// Another process holds the store. Wait or end that process.
    Locked,
    /// An earlier sync failed, so writes are refused. Reopen the store.
    Poisoned,
    /// Stored bytes are not what was written. Restore or repair.
    Corrupt,
    /// The operation was cancelled.
    Cancelled,
    /// The time limit passed.
    TimedOut,
    /// The operating system refused; [`std::error::Error::source`] says how.
    Io,
}

impl ErrorKind {
    /// The kind's stable name, as it appears in JSON output.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::Conflict => "conflict",
            Self::Invalid => "invalid",
            Self::InUse => "in_use",
            Self::QuotaExceeded => "quota_exceeded",
            Self::Unsupported => "unsupported",
            Self::Locked => "locked",
            Self::Poisoned => "poisoned",
            Self::Corrupt => "corrupt",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
            Self::Io => "io",
        }
    }
}

/// What an [`Error`] is about.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Subject {
    /// The store in this directory.
    Store(PathBuf),
    /// A project, by name.
    Project(String),
    /// A tag, by name.
    Tag(String),
    /// A workspace, by name.
    Workspace(String),
    /// An image.
    Image(ImageId),
    /// A reference as the user wrote it.
    Reference(String),
    /// A path inside an image.
    Path(TreePath),
    /// A path of the host's file system.
    Host(PathBuf),
    /// An entry of an archive, by the name in its header (escaped).
    ArchiveEntry(String),
    /// An archive as a whole.
    Archive,
    /// A pack file.
    Pack(PackId),
    /// A segment of the object index.
    Segment(SegmentId),
    /// An object.
    Object(ObjectId),
    /// A record of the catalog, by its table.
    Record(&'static str),
    /// The catalog as a whole.
    Catalog,
    /// An argument or option, by name.
    Argument(&'static str),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(path) => write!(f, "store {}", escape_bytes(path.as_os_str().as_bytes())),
            Self::Project(name) => write!(f, "project '{}'", name.escape_debug()),
            Self::Tag(name) => write!(f, "tag '{}'", name.escape_debug()),
            Self::Workspace(name) => write!(f, "workspace '{}'", name.escape_debug()),
            Self::Image(id) => write!(f, "image {id}"),
            Self::Reference(text) => write!(f, "'{}'", text.escape_debug()),
            Self::Path(path) => write!(f, "{path}"),
            Self::Host(path) => f.write_str(&escape_bytes(path.as_os_str().as_bytes())),
            Self::ArchiveEntry(name) => write!(f, "archive entry '{name}'"),
            Self::Archive => f.write_str("archive"),
            Self::Pack(id) => write!(f, "pack {id}"),
            Self::Segment(id) => write!(f, "index segment {id}"),
            Self::Object(id) => write!(f, "object {id}"),
            Self::Record(table) => write!(f, "catalog record in '{table}'"),
            Self::Catalog => f.write_str("catalog"),
            Self::Argument(name) => f.write_str(name),
        }
    }
}

/// Which option of a call that failed would help. It shows itself in the words of this crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Remedy {
    /// Let the store be made: [`StoreOptions::create`](crate::StoreOptions::create).
    CreateStore,
    /// Make the project: [`Store::create_project`](crate::Store::create_project).
    CreateProject,
    /// Name the image that a directory is based on: [`CommitOptions::base`](crate::CommitOptions::base).
    NameBase,
    /// Leave the path out: [`ImportOptions::exclude`](crate::ImportOptions::exclude).
    Exclude,
    /// Leave the path out: not even root may read it, as on file systems of other users (FUSE, NFS) and in user namespaces.
    ExcludeAsRoot,
    /// Keep what can be read of such files: [`Changing::Keep`](crate::Changing::Keep).
    KeepChanging,
    /// Either of [`Exclude`](Self::Exclude) and [`KeepChanging`](Self::KeepChanging).
    ExcludeOrKeepChanging,
    /// Take a saved image for what it looks like:
    /// [`TarOptions::accept_saved_image`](crate::TarOptions::accept_saved_image).
    AcceptSavedImage,
    /// Name the kind of overlay whose marks were found.
    Marks {
        /// The kind that was found.
        found: FoundMarks,
        /// Whether they may also be named as the image's own: [`OverlayMarks::OnlyTrusted`](crate::OverlayMarks::OnlyTrusted),
        /// [`OverlayMarks::OnlyUser`](crate::OverlayMarks::OnlyUser).
        or_own: bool,
    },
    /// Name a kind of overlay whose marks this process sees, or be root.
    VisibleMarks,
    /// Raise a limit of an import, if its source is trusted.
    RaiseLimit {
        /// The field of [`ImportLimits`](crate::ImportLimits).
        name: &'static str,
    },
}

/// Marks of an overlay that were found where another kind was named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FoundMarks {
    /// [`OverlayMarks::Trusted`](crate::OverlayMarks::Trusted).
    Trusted,
    /// [`OverlayMarks::User`](crate::OverlayMarks::User).
    User,
    /// [`OverlayMarks::FuseOverlayfs`](crate::OverlayMarks::FuseOverlayfs).
    FuseOverlayfs,
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::CreateStore => "name another, or make one with `StoreOptions::create`",
            Self::CreateProject => "make it with `Store::create_project`",
            Self::NameBase => "name the image that it is based on with `CommitOptions::base`",
            Self::Exclude => {
                "leave it out with `ImportOptions::exclude`, or import as a user who may read it"
            }
            Self::ExcludeAsRoot => {
                "leave it out with `ImportOptions::exclude`: its file system (FUSE, NFS) or this user namespace lets not even root read it"
            }
            Self::KeepChanging => "keep what can be read of such files with `Changing::Keep`",
            Self::ExcludeOrKeepChanging => {
                "leave it out with `ImportOptions::exclude`, or keep what can be read of such files with `Changing::Keep`"
            }
            Self::AcceptSavedImage => "or take it as it is with `TarOptions::accept_saved_image`",
            Self::Marks { found, or_own } => {
                write!(f, "commit with `OverlayMarks::{found:?}`")?;
                if *or_own { ", or with `OnlyTrusted` or `OnlyUser` if it is the image's own" } else { "" }
            }
            Self::RaiseLimit { name } => {
                return write!(f, "raise `ImportLimits::{name}` if the source is trusted");
            }
            Self::VisibleMarks => {
                "commit as root, or with `OverlayMarks::User` or `OverlayMarks::FuseOverlayfs` if it is of such an overlay"
            }
        };
        f.write_str(text)
    }
}

type Source = dyn std::error::Error + Send + Sync + 'static;

/// Any failure of this crate: a [kind](ErrorKind), a [subject](Subject), a message and perhaps a source.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    subject: Subject,
    /// What the user calls the archive that the subject is, or is in.
    archive: Option<String>,
    message: String,
    remedy: Option<Remedy>,
    source: Option<Arc<Source>>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, subject: Subject, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            subject,
            archive: None,
            message: message.into(),
            remedy: None,
            source: None,
        }))
    }

    pub(crate) fn not_found(subject: Subject, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, subject, message)
    }

    pub(crate) fn conflict(subject: Subject, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, subject, message)
    }

    pub(crate) fn invalid(subject: Subject, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, subject, message)
    }

    pub(crate) fn corrupt(subject: Subject, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, subject, message)
    }

    pub(crate) fn unsupported(subject: Subject, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, subject, message)
    }

    /// An operating-system failure while doing `action` ("read", "create the directory") to `subject`.
    /// A stream of this crate says itself why it failed, and that it took too long of what was read from it.
    pub(crate) fn io(subject: Subject, action: &str, source: impl Into<std::io::Error>) -> Self {
        match source.into().downcast::<Self>() {
            Ok(Self(inner)) if inner.kind == ErrorKind::TimedOut => {
                Self(Box::new(Inner { subject, ..*inner }))
            }
            Ok(error) => error,
            Err(source) => {
                Self::new(ErrorKind::Io, subject, format!("could not {action}")).with_source(source)
            }
        }
    }

    /// A store in which damage was found, which was told.
    #[must_use]
    pub fn damaged(store: &std::path::Path) -> Self {
        let message = "damage was found; 'repair' keeps what is sound";
        Self::corrupt(Subject::Store(store.to_owned()), message)
    }

    /// A store that was repaired, but for what is lost, which was told.
    #[must_use]
    pub fn lost(store: &std::path::Path) -> Self {
        let message = "it was repaired and is sound now, but for what was lost";
        Self::corrupt(Subject::Store(store.to_owned()), message)
    }

    /// A wrong use of a command or an option, named by `argument`.
    #[must_use]
    pub fn usage(argument: &'static str, message: impl Into<String>) -> Self {
        Self::invalid(Subject::Argument(argument), message)
    }

    /// What `argument` asks for can't be done here.
    #[must_use]
    pub fn unavailable(argument: &'static str, message: impl Into<String>) -> Self {
        Self::unsupported(Subject::Argument(argument), message)
    }

    /// An operating-system failure at a path of the host, while doing `action` ("open it"):
    /// [`NotFound`](ErrorKind::NotFound) where the path does not exist.
    #[must_use]
    pub fn host(path: &std::path::Path, action: &str, source: std::io::Error) -> Self {
        let is_missing = source.kind() == std::io::ErrorKind::NotFound;
        let mut error = Self::io(Subject::Host(path.to_owned()), action, source);
        if is_missing {
            error.0.kind = ErrorKind::NotFound;
        }
        error
    }

    /// The error behind a failed read of one of this crate's streams.
    #[must_use]
    pub fn from_stream(error: std::io::Error) -> Self {
        Self::io(Subject::Argument("stream"), "read it", error)
    }

    /// Names the archive that a failure is about, or whose entry or path it is about: `name` is what its user calls it.
    pub(crate) fn in_archive(mut self, name: &str) -> Self {
        let subject = &self.0.subject;
        if matches!(subject, Subject::Archive | Subject::ArchiveEntry(_) | Subject::Path(_))
            && !name.is_empty()
        {
            self.0.archive = Some(name.to_owned());
        }
        self
    }

    pub(crate) fn with_source(mut self, source: impl Into<Box<Source>>) -> Self {
        self.0.source = Some(Arc::from(source.into()));
        self
    }

    /// The same error, which also says what to change about the call.
    pub(crate) fn with_remedy(mut self, remedy: Remedy) -> Self {
        self.0.remedy = Some(remedy);
        self
    }

    /// What class of failure this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What the failure is about.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.0.subject
    }

    /// What was expected, and what to do, unless that is the [remedy](Self::remedy).
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Which option of the call would help, if one does: for programs that have other words for it than this crate.
    #[must_use]
    pub fn remedy(&self) -> Option<Remedy> {
        self.0.remedy
    }

    /// Returns what the error shows, without its remedy.
    #[must_use]
    pub fn fault(&self) -> impl fmt::Display {
        Fault(self)
    }

    /// Whether what was named does not exist or is not visible.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.kind() == ErrorKind::NotFound
    }

    /// Whether another writer was first or a removal rule refused.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.kind() == ErrorKind::Conflict
    }

    /// Whether there was no room for what was to be written: on the disk, or within a quota of the file system.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self.io_kind(), Some(StorageFull | QuotaExceeded))
    }

    /// Whether the operating system refused because of who asked.
    pub(crate) fn is_permission_denied(&self) -> bool {
        self.io_kind() == Some(std::io::ErrorKind::PermissionDenied)
    }

    /// What the operating system said.
    fn io_kind(&self) -> Option<std::io::ErrorKind> {
        let causes = std::iter::successors(std::error::Error::source(self), |cause| cause.source());
        causes.filter_map(|cause| cause.downcast_ref::<std::io::Error>()).map(std::io::Error::kind).next()
    }

    /// Whether the operating system refused something at a path of the user's.
    pub(crate) fn is_of_host(&self) -> bool {
        self.kind() == ErrorKind::Io && matches!(self.subject(), Subject::Host(_))
    }

    /// Whether stored bytes are damaged.
    #[must_use]
    pub fn is_corrupt(&self) -> bool {
        self.kind() == ErrorKind::Corrupt
    }
}

struct Fault<'e>(&'e Error);

impl fmt::Display for Fault<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { subject, message, archive, .. } = &*self.0.0;
        match (archive, subject) {
            (None, _) => write!(f, "{subject}: {message}"),
            (Some(archive), Subject::Archive) => write!(f, "{}: {message}", visible(archive)),
            (Some(archive), _) => write!(f, "{}: {subject}: {message}", visible(archive)),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Fault(self).fmt(f)?;
        self.remedy().map_or(Ok(()), |remedy| write!(f, "; {remedy}"))
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("subject", &self.0.subject)
            .field("message", &self.0.message)
            .field("remedy", &self.0.remedy)
            .field("source", &self.0.source)
            .finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}
