//! The catalog's records. Times are milliseconds since 1970.

use bincode::{Decode, Encode};

use crate::format::record::Added;
use crate::id::{ImageId, LeaseId, ObjectId, ProjectId, WorkspaceId};
use crate::time::Moment;

/// A project.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct ProjectRecord {
    pub(crate) id: ProjectId,
    pub(crate) created_ms: u64,
    /// Most bytes of file content in what a commit adds or modifies.
    pub(crate) max_layer_bytes: Option<u64>,
}

/// How an image came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum OriginRecord {
    /// From a directory of the host.
    Directory,
    /// From a tar whose uncompressed bytes have this SHA-256.
    Tar([u8; 32]),
    /// From a changed copy of another image.
    Commit,
}

/// An image. It is also kept as an object, so that it can be found again without a catalog.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct ImageRecord {
    pub(crate) id: ImageId,
    /// The scope that made it; another than the row's for a public image that a project adopted.
    pub(crate) owner: ProjectId,
    pub(crate) root: ObjectId,
    pub(crate) layer: ObjectId,
    pub(crate) parent: Option<ImageId>,
    pub(crate) created_ms: u64,
    pub(crate) origin: OriginRecord,
    pub(crate) entries: u64,
    /// Bytes of file content, each inode once.
    pub(crate) logical_bytes: u64,
    pub(crate) comment: String,
}

impl ImageRecord {
    /// When it was made, as the clock said then.
    pub(crate) fn created(&self) -> Moment {
        Moment::from_unix_ms(self.created_ms)
    }
}

/// What an image was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct LineageRecord {
    pub(crate) parent: ImageId,
    /// When that was made, as the clock said then: it may be gone.
    pub(crate) parent_created_ms: Added<u64>,
}

/// A tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct TagRecord {
    pub(crate) image: ImageId,
    pub(crate) set_ms: u64,
}

/// A pack that frames are added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct OpenPackRecord {
    /// Bytes that count; what the file has beyond them was never published.
    pub(crate) committed_bytes: u64,
    /// Bytes whose frames are in segments; the frames behind them are rows.
    pub(crate) indexed_bytes: u64,
    pub(crate) objects: u64,
    pub(crate) indexed_objects: u64,
    /// The lease that alone may append.
    pub(crate) owner: Option<LeaseId>,
    /// Which objects may be shared with which: 0 is shared by all.
    pub(crate) domain: u32,
}

/// A pack that is complete; its objects are in segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct SealedPackRecord {
    pub(crate) bytes: u64,
    pub(crate) objects: u64,
    pub(crate) domain: u32,
    /// The lease of what filled it and is to be published yet: as long as that one is there, nobody else needs its objects
    /// and it does.
    pub(crate) filled_by: Option<LeaseId>,
}

/// A pack that no image needs, and that goes when nobody reads it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct CondemnedPackRecord {
    pub(crate) pack: SealedPackRecord,
    /// The generation that began with it: who holds an older one may still count on its objects.
    pub(crate) generation: u64,
}

/// What became needed while a collection was marking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct NeededRecord {
    pub(crate) root: ObjectId,
    pub(crate) layer: ObjectId,
    /// The image's own record.
    pub(crate) image: Option<ObjectId>,
}

/// A published frame of an open pack.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct FrameRecord {
    pub(crate) frame_bytes: u32,
    pub(crate) objects: Vec<ObjectId>,
}

/// A segment of the object index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct SegmentRecord {
    pub(crate) objects: u64,
    pub(crate) domain: u32,
}

/// A lease: something under way in a process.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct LeaseRecord {
    pub(crate) holder: HolderRecord,
    pub(crate) since_ms: u64,
}

/// A process, told apart from any other that ever had its number.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct HolderRecord {
    /// The kernel's id of this boot.
    pub(crate) boot: String,
    pub(crate) process: u32,
    /// The inode of the process's pid namespace: numbers of another can't be looked up.
    pub(crate) namespace: u64,
    /// Clock ticks from boot to the process's start.
    pub(crate) started_ticks: u64,
}

/// What a directory of the host is to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub(crate) enum DirectoryUse {
    /// An image was checked out to it.
    Checkout,
    /// This project imported it.
    Import(ProjectId),
}

/// A directory of the host that equalled an image, and whose state is kept.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct DirectoryRecord {
    pub(crate) usage: DirectoryUse,
    pub(crate) project: ProjectId,
    /// What the directory was equal to when it was last looked at.
    pub(crate) base: ImageId,
    pub(crate) base_root: ObjectId,
    pub(crate) base_layer: ObjectId,
    /// The directory's absolute path when it was last seen; it may have been moved since.
    pub(crate) directory: Vec<u8>,
    pub(crate) device: u64,
    pub(crate) inode: u64,
    /// The directory's birth time, nanoseconds since 1970: a reused inode number is not taken for it.
    pub(crate) born_ns: u64,
    /// Bytes of the state file, and of what it unpacks to.
    pub(crate) state_bytes: u64,
    pub(crate) unpacked_state_bytes: u64,
    /// How many segments of the state are rows, and their bytes.
    pub(crate) appended: u64,
    pub(crate) appended_bytes: u64,
    /// When the directory was last there: made or committed.
    pub(crate) seen_ms: u64,
}

/// An image, and what it is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct ImageVersion {
    pub(crate) image: ImageId,
    pub(crate) root: ObjectId,
    pub(crate) layer: ObjectId,
}

impl From<&ImageRecord> for ImageVersion {
    fn from(image: &ImageRecord) -> Self {
        Self { image: image.id, root: image.root, layer: image.layer }
    }
}

/// A writable copy of an image.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct WorkspaceRecord {
    pub(crate) id: WorkspaceId,
    /// What it was made from: stays as long as the workspace does.
    pub(crate) base: ImageVersion,
    /// What it was committed as last.
    pub(crate) last: ImageVersion,
    pub(crate) form: WorkspaceForm,
    pub(crate) created_ms: u64,
    /// The process that makes it or that alone it is for: it ends with that one.
    pub(crate) holder: Option<HolderRecord>,
    /// The process that mounted it last: whoever can't see what that one sees can't tell whether it is used.
    pub(crate) mounted_by: Option<HolderRecord>,
    /// Where its files are, once they are made: another directory in their place is not the workspace.
    pub(crate) place: Added<PlaceRecord>,
}

/// A directory of the host and what is mounted of it. A device's number may be another after a boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct PlaceRecord {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    /// The device number of the overlay mount, of the boot in which it was mounted last. It is there, as 0 if need be, where
    /// something comes after it.
    pub(crate) mount: Added<u64>,
    /// The folder of workspaces that it was in.
    pub(crate) folder: Added<FolderRecord>,
}

/// A directory that a copy of the store has another of. An inode alone may be used again once the original is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct FolderRecord {
    pub(crate) inode: u64,
    /// When it was made; 0 where its file system does not know.
    pub(crate) born_ns: u64,
}

/// How a workspace shows its image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum WorkspaceForm {
    /// It is being made.
    Unfinished,
    /// An overlay mount: what was written lies over a directory that equals the base.
    Overlay,
    /// A checkout of its own.
    Checkout,
}

/// A directory that equals a root when it lies over another, or by itself. Nobody writes to it. It is not made durable: after
/// a boot it is made again.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct LowerRecord {
    pub(crate) id: WorkspaceId,
    /// The root that must lie below.
    pub(crate) below: Option<ObjectId>,
    pub(crate) state: LowerState,
    pub(crate) boot: String,
    pub(crate) used_ms: u64,
    /// Bytes that it takes on the disk.
    pub(crate) bytes: Added<u64>,
}

/// What can be done with a directory for workspaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum LowerState {
    /// It is being made.
    Unfinished,
    /// Workspaces can lie over it.
    Ready,
    /// The root has what no lower directory can have, or what this process can't set.
    Impossible,
}
