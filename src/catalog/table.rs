//! The catalog's tables: their names, keys and records.
//!
//! Keys are encoded so that byte order is the order wanted: numbers big-endian, text as it is and only in the
//! last place. What belongs to a project begins with the project's number.

use bincode::{Decode, Encode};

use crate::format::{DecodeError, Decoder};
use crate::id::{DirectoryId, ImageId, LeaseId, ObjectId, PackId, ProjectId, SegmentId};
use crate::name::{ProjectName, TagName, WorkspaceName};

use super::record::{
    CondemnedPackRecord, DirectoryRecord, DirectoryUse, FrameRecord, ImageRecord, LeaseRecord, LineageRecord,
    LowerRecord, NeededRecord, OpenPackRecord, ProjectRecord, SealedPackRecord, SegmentRecord, TagRecord,
    WorkspaceRecord,
};

/// A table of the catalog.
pub(crate) trait Table {
    const NAME: &'static str;
    type Key: KeyPart;
    type Value: Encode + Decode<()>;
}

/// A key, or the first part of one.
pub(crate) trait KeyPart: Sized {
    fn encode(&self, key: &mut Vec<u8>);
    fn decode(key: &mut Decoder<'_>) -> Result<Self, DecodeError>;
}

/// A key's bytes.
pub(crate) fn key_bytes(key: &impl KeyPart) -> Vec<u8> {
    let mut bytes = Vec::new();
    key.encode(&mut bytes);
    bytes
}

macro_rules! number_keys {
    ($($id:ident($number:ty)),*) => {$(
        impl KeyPart for $id {
            fn encode(&self, key: &mut Vec<u8>) {
                key.extend_from_slice(&self.get().to_be_bytes());
            }

            fn decode(key: &mut Decoder<'_>) -> Result<Self, DecodeError> {
                Ok(Self::new(<$number>::from_be_bytes(key.array()?)))
            }
        }
    )*};
}

number_keys!(ProjectId(u64), PackId(u32), SegmentId(u32), LeaseId(u64), DirectoryId(u64));

impl KeyPart for u64 {
    fn encode(&self, key: &mut Vec<u8>) {
        key.extend_from_slice(&self.to_be_bytes());
    }

    fn decode(key: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self::from_be_bytes(key.array()?))
    }
}

/// The one key of a table that has one row at most.
impl KeyPart for () {
    fn encode(&self, _: &mut Vec<u8>) {}

    fn decode(_: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(())
    }
}

impl KeyPart for DirectoryUse {
    fn encode(&self, key: &mut Vec<u8>) {
        match self {
            Self::Checkout => key.push(0),
            Self::Import(project) => {
                key.push(1);
                KeyPart::encode(project, key);
            }
        }
    }

    fn decode(key: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        match key.u8()? {
            0 => Ok(Self::Checkout),
            1 => <ProjectId as KeyPart>::decode(key).map(Self::Import),
            _ => Err(DecodeError::UnknownTag),
        }
    }
}

impl KeyPart for ImageId {
    fn encode(&self, key: &mut Vec<u8>) {
        key.extend_from_slice(self.as_uuid().as_bytes());
    }

    fn decode(key: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self::from_uuid(uuid::Uuid::from_bytes(key.array()?)))
    }
}

impl KeyPart for ObjectId {
    fn encode(&self, key: &mut Vec<u8>) {
        key.extend_from_slice(self.as_bytes());
    }

    fn decode(key: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        key.id()
    }
}

macro_rules! text_keys {
    ($($name:ident),*) => {$(
        impl KeyPart for $name {
            fn encode(&self, key: &mut Vec<u8>) {
                key.extend_from_slice(self.as_str().as_bytes());
            }

            fn decode(key: &mut Decoder<'_>) -> Result<Self, DecodeError> {
                let text = std::str::from_utf8(std::mem::take(&mut key.0)).map_err(|_| DecodeError::BadPath)?;
                text.parse().map_err(|_| DecodeError::BadPath)
            }
        }
    )*};
}

text_keys!(ProjectName, TagName, WorkspaceName, Sequence);

impl<A: KeyPart, B: KeyPart> KeyPart for (A, B) {
    fn encode(&self, key: &mut Vec<u8>) {
        self.0.encode(key);
        self.1.encode(key);
    }

    fn decode(key: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok((A::decode(key)?, B::decode(key)?))
    }
}

/// The numbers that the catalog hands out in order, and those that count changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sequence {
    Project,
    Pack,
    Segment,
    Lease,
    Directory,
    /// Of workspaces, and of the directories below them.
    Workspace,
    /// Goes up whenever the object index changes.
    Index,
    /// The time and counter of the newest image id.
    Image,
    /// How many times packs were condemned.
    Generation,
    /// Of what became needed while a collection was marking.
    Needed,
}

impl Sequence {
    const ALL: [Self; 10] = [
        Self::Project,
        Self::Pack,
        Self::Segment,
        Self::Lease,
        Self::Directory,
        Self::Workspace,
        Self::Index,
        Self::Image,
        Self::Generation,
        Self::Needed,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Project => "project",
            Self::Pack => "pack",
            Self::Segment => "segment",
            Self::Lease => "lease",
            Self::Directory => "directory",
            Self::Workspace => "workspace",
            Self::Index => "index",
            Self::Image => "image",
            Self::Generation => "generation",
            Self::Needed => "needed",
        }
    }
}

impl std::str::FromStr for Sequence {
    type Err = DecodeError;

    fn from_str(text: &str) -> Result<Self, DecodeError> {
        Self::ALL.into_iter().find(|sequence| sequence.as_str() == text).ok_or(DecodeError::UnknownTag)
    }
}

macro_rules! tables {
    ($($(#[$doc:meta])* $table:ident = $name:literal: $key:ty => $value:ty;)*) => {
        $(
            $(#[$doc])*
            pub(crate) struct $table;

            impl Table for $table {
                const NAME: &'static str = $name;
                type Key = $key;
                type Value = $value;
            }
        )*

        /// Every table's name.
        pub(crate) const TABLES: &[&str] = &[$($name),*];
    };
}

tables! {
    /// The last number handed out of each sequence.
    Sequences = "sequences": Sequence => u64;
    /// Projects by name; the public scope has no row.
    Projects = "projects": ProjectName => ProjectRecord;
    /// Images by scope and id: their owner's row, and in a project that tagged a public image, a copy of it.
    Images = "images": (ProjectId, ImageId) => ImageRecord;
    /// Imported images by scope and what they are made of: the same import again finds them here.
    Identities = "identities": (ProjectId, ObjectId) => ImageId;
    /// Tags by scope and name.
    Tags = "tags": (ProjectId, TagName) => TagRecord;
    /// The tags of each image, by the scope of the tag.
    ImageTags = "image_tags": ((ProjectId, ImageId), TagName) => ();
    /// What an image was made from, by the scope that made it: also of images that are gone.
    Lineage = "lineage": (ProjectId, ImageId) => LineageRecord;
    /// What was made from each image, by the scope that made it.
    Children = "children": ((ProjectId, ImageId), ImageId) => ();
    /// Packs that frames are added to: few, and looked through by every session.
    OpenPacks = "open_packs": PackId => OpenPackRecord;
    /// Packs that are complete.
    SealedPacks = "sealed_packs": PackId => SealedPackRecord;
    /// Packs that were complete and that nothing needs any more.
    CondemnedPacks = "condemned_packs": PackId => CondemnedPackRecord;
    /// Packs that are gone, as long as a segment may have rows of their objects.
    RemovedPacks = "removed_packs": PackId => ();
    /// The lease of the collection that is marking.
    Collections = "collections": () => LeaseId;
    /// What became needed since it began.
    Needed = "needed": u64 => NeededRecord;
    /// The newest frames of open packs, by pack and offset: their objects' index rows.
    Frames = "frames": (PackId, u64) => FrameRecord;
    /// Segments of the object index.
    Segments = "segments": SegmentId => SegmentRecord;
    /// What is under way, and whose it is.
    Leases = "leases": LeaseId => LeaseRecord;
    /// Directories of the host that the store wrote or read, and whose state it keeps.
    Directories = "directories": DirectoryId => DirectoryRecord;
    /// The same by device and inode, and by what they are to the store.
    DirectoryPlaces = "directory_places": ((u64, u64), DirectoryUse) => DirectoryId;
    /// What was learned of a directory since its state file was written: small segments, which a commit can publish without
    /// a sync of another file.
    DirectoryAppended = "directory_news": (DirectoryId, u64) => Vec<u8>;
    /// Writable copies of images.
    Workspaces = "workspaces": (ProjectId, WorkspaceName) => WorkspaceRecord;
    /// Directories that equal a root, for workspaces to lie over.
    Lowers = "lowers": ObjectId => LowerRecord;
}
