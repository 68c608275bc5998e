//! What a tree says about one path, and its bytes in a leaf.
//!
//! ```text
//! entry    = 0x00 path-key-bytes                                  hard link: the group's least path
//!          | kind flags mode uid gid seconds nanos [xattrs] [links] body
//! kind     = 1 directory | 2 file | 3 symlink | 4 char device | 5 block device | 6 fifo | 7 socket
//! flags    = bit 0: xattrs follow, bit 1: links follow; what follows is not empty
//! xattrs   = content            of the encoded attribute list (see `xattr`)
//! links    = content            of the encoded member list (see `links`)
//! body     = file: content | symlink: bytes target | device: major minor | otherwise nothing
//! content  = size (0 inline | 1 chunk | 2 list) (inline: `size` raw bytes | otherwise: id)
//! ```
//! Numbers are varints, seconds zigzag. Which form a content takes is decided by [`Content`]'s writer from
//! the bytes alone.

use crate::format::{DecodeError, Decoder, Encoder};
use crate::id::ObjectId;
use crate::path::TreePath;

/// Bytes a symlink's target may have.
pub const MAX_TARGET_BYTES: usize = 4095;

/// A moment, to the nanosecond, before or after 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    /// Whole seconds since 1970, rounded down.
    pub seconds: i64,
    /// Nanoseconds after that second, under 1,000,000,000.
    pub nanos: u32,
}

/// A run of bytes held by a tree: a file's, an attribute list's or a link group's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Content {
    /// Bytes in all, holes included.
    pub size: u64,
    /// Where they are.
    pub body: Body,
}

/// Where a [`Content`]'s bytes are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Body {
    /// Right here.
    Inline(Box<[u8]>),
    /// One chunk.
    Chunk(ObjectId),
    /// A chunk list.
    List(ObjectId),
}

impl Content {
    /// No bytes.
    #[must_use]
    pub fn empty() -> Self {
        Self { size: 0, body: Body::Inline(Box::default()) }
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.size == 0
    }

    fn encode(&self, encoder: &mut Encoder) {
        encoder.varint(self.size);
        match &self.body {
            Body::Inline(bytes) => encoder.u8(0).raw(bytes),
            Body::Chunk(id) => encoder.u8(1).id(id),
            Body::List(id) => encoder.u8(2).id(id),
        };
    }

    fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let size = decoder.varint()?;
        let body = match decoder.u8()? {
            0 => {
                let len = usize::try_from(size).map_err(|_| DecodeError::BadNumber)?;
                Body::Inline(decoder.raw(len)?.into())
            }
            1 => Body::Chunk(decoder.id()?),
            2 => Body::List(decoder.id()?),
            _ => return Err(DecodeError::UnknownTag),
        };
        Ok(Self { size, body })
    }
}

/// What an inode is, besides its attributes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum InodeKind {
    /// A directory; what it holds are the paths below it.
    Directory,
    /// A regular file.
    File(Content),
    /// A symbolic link to this target, verbatim.
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
    /// A socket.
    Socket,
}

/// One file-system object: attributes and kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Inode {
    /// Permission bits with setuid, setgid and sticky: at most `0o7777`.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// When the content last changed.
    pub mtime: Timestamp,
    /// Extended attributes, as [`xattr`](super::xattr) encodes them; empty for none.
    pub xattrs: Content,
    /// The other paths of this inode's hard link group, as [`links`](super::links) encodes them; empty where
    /// there are none. Only the group's least path holds the inode.
    pub links: Content,
    /// What it is.
    pub kind: InodeKind,
}

/// What a tree says about one path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Entry {
    /// The inode itself.
    Inode(Inode),
    /// A further name of the inode at this path, which is the least of its group.
    HardLink(TreePath),
}

const HARD_LINK: u8 = 0;
const HAS_XATTRS: u8 = 1;
const HAS_LINKS: u8 = 2;

impl Entry {
    /// The inode, if it is held here.
    #[must_use]
    pub fn as_inode(&self) -> Option<&Inode> {
        match self {
            Self::Inode(inode) => Some(inode),
            Self::HardLink(_) => None,
        }
    }

    /// Whether this is a directory.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        self.as_inode().is_some_and(|inode| inode.kind == InodeKind::Directory)
    }

    /// Bytes of file content that this entry adds to the tree: a file's size, nothing for all else.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        match self.as_inode().map(|inode| &inode.kind) {
            Some(InodeKind::File(content)) => content.size,
            _ => 0,
        }
    }

    pub(crate) fn encode(&self, encoder: &mut Encoder) {
        let inode = match self {
            Self::HardLink(first) => {
                encoder.u8(HARD_LINK).bytes(first.as_key());
                return;
            }
            Self::Inode(inode) => inode,
        };
        let kind = match inode.kind {
            InodeKind::Directory => 1,
            InodeKind::File(_) => 2,
            InodeKind::Symlink(_) => 3,
            InodeKind::CharDevice { .. } => 4,
            InodeKind::BlockDevice { .. } => 5,
            InodeKind::Fifo => 6,
            InodeKind::Socket => 7,
        };
        let mut flags = 0;
        if !inode.xattrs.is_empty() {
            flags |= HAS_XATTRS;
        }
        if !inode.links.is_empty() {
            flags |= HAS_LINKS;
        }
        encoder
            .u8(kind)
            .u8(flags)
            .varint(inode.mode.into())
            .varint(inode.uid.into())
            .varint(inode.gid.into());
        encoder.signed(inode.mtime.seconds).varint(inode.mtime.nanos.into());
        if !inode.xattrs.is_empty() {
            inode.xattrs.encode(encoder);
        }
        if !inode.links.is_empty() {
            inode.links.encode(encoder);
        }
        match &inode.kind {
            InodeKind::File(content) => content.encode(encoder),
            InodeKind::Symlink(target) => {
                encoder.bytes(target);
            }
            InodeKind::CharDevice { major, minor } | InodeKind::BlockDevice { major, minor } => {
                encoder.varint((*major).into()).varint((*minor).into());
            }
            InodeKind::Directory | InodeKind::Fifo | InodeKind::Socket => {}
        }
    }

    pub(crate) fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let kind = decoder.u8()?;
        if kind == HARD_LINK {
            let first = TreePath::from_key(decoder.bytes()?).map_err(|_| DecodeError::BadPath)?;
            return Ok(Self::HardLink(first));
        }
        let flags = decoder.u8()?;
        if flags & !(HAS_XATTRS | HAS_LINKS) != 0 {
            return Err(DecodeError::UnknownTag);
        }
        let mode = decoder.number()?;
        let (uid, gid) = (decoder.number()?, decoder.number()?);
        let mtime = Timestamp { seconds: decoder.signed()?, nanos: decoder.number()? };
        if mode > 0o7777 || mtime.nanos >= 1_000_000_000 {
            return Err(DecodeError::BadNumber);
        }
        let mut attached = |flag| {
            if flags & flag == 0 {
                return Ok(Content::empty());
            }
            // None of it is said by its flag, so that there is one way to say it.
            Content::decode(decoder).and_then(|content| {
                if content.is_empty() { Err(DecodeError::BadNumber) } else { Ok(content) }
            })
        };
        let xattrs = attached(HAS_XATTRS)?;
        let links = attached(HAS_LINKS)?;
        let kind = match kind {
            1 => InodeKind::Directory,
            2 => InodeKind::File(Content::decode(decoder)?),
            3 => InodeKind::Symlink(decoder.bytes()?.into()),
            4 => InodeKind::CharDevice { major: decoder.number()?, minor: decoder.number()? },
            5 => InodeKind::BlockDevice { major: decoder.number()?, minor: decoder.number()? },
            6 => InodeKind::Fifo,
            7 => InodeKind::Socket,
            _ => return Err(DecodeError::UnknownTag),
        };
        Ok(Self::Inode(Inode { mode, uid, gid, mtime, xattrs, links, kind }))
    }
}
