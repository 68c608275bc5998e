//! A session: new objects on their way into packs.
//!
//! Any number of [`ObjectWriter`]s, one a thread, collect objects into frames of their own; compressing happens
//! in the writer, and only the append is serial. An object that the session's view of the index has, or that any
//! of its writers took already, is not written again; another session's unpublished objects are never counted on.
//! Nothing that is written here exists before the store publishes it: [`Session::finish`] syncs what was written and
//! says what to publish.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::disk::DiskFile;
use crate::error::{Error, Result, Subject};
use crate::id::{ObjectId, PackId};
use crate::object::{ObjectBytes, ObjectKind, ObjectSink, ObjectSource};

use super::Locator;
use super::frame::{FrameBuilder, SealedFrame};
use super::reader::{ObjectReader, PackReader};

/// What a frame holds.
#[derive(Clone, Copy)]
enum FrameClass {
    /// Nodes, lists and records.
    Structure,
    /// Small files.
    Files,
    /// Pieces of larger files.
    Pieces,
    /// Pieces of very large files.
    LargePieces,
}

impl FrameClass {
    const ALL: [Self; 4] = [Self::Structure, Self::Files, Self::Pieces, Self::LargePieces];

    /// Raw bytes at which a frame is closed. A cold path look-up decodes several nodes, and a cold read of a small file
    /// one frame; pieces are read in a row anyway, and those of the largest files by far the most often.
    fn target_bytes(self) -> usize {
        match self {
            Self::Structure => 32 << 10,
            Self::Files => 256 << 10,
            Self::Pieces => 2 << 20,
            Self::LargePieces => 4 << 20,
        }
    }
}

/// Files from this size are very large.
const LARGE_FILE_BYTES: u64 = 16 << 20;

const CLAIM_SHARDS: usize = 64;

/// A pack that a session may append to.
#[derive(Clone, Debug)]
pub(crate) struct OpenPack {
    pub(crate) id: PackId,
    pub(crate) file: Arc<dyn DiskFile>,
    /// Where the next frame goes: all before is committed or this session's own.
    pub(crate) end: u64,
    /// Objects that the pack's committed frames hold.
    pub(crate) objects: u64,
}

/// A frame that was appended but does not exist yet.
#[derive(Clone, Debug)]
pub(crate) struct WrittenFrame {
    pub(crate) offset: u64,
    pub(crate) frame_bytes: u32,
    pub(crate) objects: Vec<ObjectId>,
}

impl WrittenFrame {
    /// The index rows of the frame's objects.
    pub(crate) fn rows(&self, pack: PackId) -> impl Iterator<Item = (ObjectId, Locator)> {
        let (offset, frame_bytes) = (self.offset, self.frame_bytes);
        self.objects
            .iter()
            .zip(0_u16..)
            .map(move |(id, slot)| (*id, Locator { pack, offset, frame_bytes, slot }))
    }
}

/// A pack and the frames that this session added to it.
#[derive(Debug)]
pub(crate) struct WrittenPack {
    pub(crate) pack: OpenPack,
    pub(crate) frames: Vec<WrittenFrame>,
}

impl WrittenPack {
    fn new(pack: OpenPack) -> Self {
        Self { pack, frames: Vec::new() }
    }

    /// The pack as it was before this session.
    pub(crate) fn into_committed(self) -> OpenPack {
        let end = self.frames.first().map_or(self.pack.end, |frame| frame.offset);
        OpenPack { end, ..self.pack }
    }

    /// Objects in the pack, those of this session included.
    pub(crate) fn objects(&self) -> u64 {
        self.pack.objects + self.frames.iter().map(|frame| frame.objects.len() as u64).sum::<u64>()
    }
}

/// What a session needs of the store while it runs.
pub(crate) trait PackHost: Send + Sync {
    /// A pack to append to: its row is in the catalog, with this session's lease as its owner.
    fn open_pack(&self) -> Result<OpenPack>;
    /// Takes a pack that is full: synced, but not published.
    fn seal_pack(&self, pack: WrittenPack) -> Result<()>;
    /// A sync failed: nothing may be written any more.
    fn poison(&self);
}

/// How a session writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SessionOptions {
    /// The zstd level.
    pub(crate) level: i32,
    /// Bytes at which a pack is full.
    pub(crate) pack_bytes: u64,
    /// Breaks the write order on purpose, for a test that must notice: frames are written only after they were
    /// published.
    #[cfg(feature = "testing")]
    pub(crate) publish_first: bool,
}

/// Frames that were not written yet, because the write order is being broken on purpose.
#[cfg(feature = "testing")]
pub(crate) type HeldBack = Arc<Mutex<Vec<(Arc<dyn DiskFile>, u64, Vec<u8>)>>>;

/// New objects of one import or commit.
pub(crate) struct Session<H: PackHost> {
    host: H,
    /// What existed when the session began.
    existing: ObjectReader,
    claimed: Vec<Mutex<HashSet<ObjectId>>>,
    current: Mutex<Option<WrittenPack>>,
    options: SessionOptions,
    written_bytes: AtomicU64,
    new_raw_bytes: AtomicU64,
    #[cfg(feature = "testing")]
    held_back: HeldBack,
}

impl<H: PackHost> Session<H> {
    pub(crate) fn new(host: H, existing: ObjectReader, options: SessionOptions) -> Self {
        Self {
            host,
            existing,
            claimed: (0..CLAIM_SHARDS).map(|_| Mutex::default()).collect(),
            current: Mutex::new(None),
            options,
            written_bytes: AtomicU64::new(0),
            new_raw_bytes: AtomicU64::new(0),
            #[cfg(feature = "testing")]
            held_back: HeldBack::default(),
        }
    }

    /// A writer for one thread.
    pub(crate) fn writer(&self) -> Result<ObjectWriter<'_, H>> {
        let frames = FrameClass::ALL.map(|_| FrameBuilder::default());
        let compressor = zstd::bulk::Compressor::new(self.options.level)
            .map_err(|error| Error::io(Subject::Argument("level"), "set up compression", error))?;
        Ok(ObjectWriter { session: self, frames, compressor, places: None })
    }

    /// A writer whose objects can be [read back](ObjectWriter::read_back) before they are published: for a tree that is
    /// built and then edited.
    pub(crate) fn tree_writer(&self) -> Result<ObjectWriter<'_, H>> {
        Ok(ObjectWriter { places: Some(HashMap::new()), ..self.writer()? })
    }

    /// Whether this caller is the one to write the object.
    fn claim(&self, id: &ObjectId) -> Result<bool> {
        if self.existing.has(id)? {
            return Ok(false);
        }
        let shard = self.claimed.get(usize::from(id.as_bytes()[0]) % CLAIM_SHARDS);
        Ok(shard.is_some_and(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).insert(*id)))
    }

    /// Appends a frame, and gives the place of its first object.
    fn append(&self, mut frame: SealedFrame<'_>) -> Result<Locator> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let written = match &mut *current {
            Some(written) => written,
            none => none.insert(WrittenPack::new(self.host.open_pack()?)),
        };
        let (pack, offset) = (written.pack.id, written.pack.end);
        let bytes = frame.place(pack, offset)?;
        let io = |error| Error::io(Subject::Pack(pack), "append to it", error);
        self.write(&written.pack.file, offset, bytes).map_err(io)?;
        written.pack.end += bytes.len() as u64;
        self.written_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let frame_bytes = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let objects = frame.ids().collect();
        written.frames.push(WrittenFrame { offset, frame_bytes, objects });
        if written.pack.end >= self.options.pack_bytes
            && let Some(full) = current.take()
        {
            sync(&self.host, &full)?;
            self.host.seal_pack(full)?;
        }
        Ok(Locator { pack, offset, frame_bytes, slot: 0 })
    }

    #[cfg(not(feature = "testing"))]
    #[expect(clippy::unused_self, reason = "tests hold frames back here")]
    fn write(&self, file: &Arc<dyn DiskFile>, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
        file.write_at(bytes, offset)
    }

    #[cfg(feature = "testing")]
    fn write(&self, file: &Arc<dyn DiskFile>, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
        if self.options.publish_first {
            let mut held_back = self.held_back.lock().unwrap_or_else(PoisonError::into_inner);
            held_back.push((Arc::clone(file), offset, bytes.to_vec()));
            return Ok(());
        }
        file.write_at(bytes, offset)
    }

    /// The frames that are to be written after publication.
    #[cfg(feature = "testing")]
    pub(crate) fn held_back(&self) -> HeldBack {
        Arc::clone(&self.held_back)
    }

    /// Bytes appended to packs so far.
    pub(crate) fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Relaxed)
    }

    /// Raw bytes of the objects that were new.
    pub(crate) fn new_raw_bytes(&self) -> u64 {
        self.new_raw_bytes.load(Ordering::Relaxed)
    }

    /// Syncs the last pack and hands it over for publication; none if nothing was appended since the last seal.
    pub(crate) fn finish(self) -> Result<(H, Option<WrittenPack>)> {
        let (host, last) = self.dismantle();
        if let Some(written) = &last {
            sync(&host, written)?;
        }
        Ok((host, last))
    }

    /// Ends the session with nothing synced: what was appended is to be cut off again.
    pub(crate) fn dismantle(self) -> (H, Option<WrittenPack>) {
        (self.host, self.current.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

fn sync(host: &impl PackHost, written: &WrittenPack) -> Result<()> {
    written.pack.file.sync().map_err(|error| {
        host.poison();
        Error::io(Subject::Pack(written.pack.id), "sync it", error)
    })
}

/// One thread's way into a session. What it holds is written by [`flush`](Self::flush).
pub(crate) struct ObjectWriter<'s, H: PackHost> {
    session: &'s Session<H>,
    frames: [FrameBuilder; FrameClass::ALL.len()],
    compressor: zstd::bulk::Compressor<'static>,
    /// Where what was appended is, if it is to be read back.
    places: Option<HashMap<ObjectId, Locator>>,
}

impl<H: PackHost> ObjectWriter<'_, H> {
    /// Appends every frame that was begun.
    pub(crate) fn flush(&mut self) -> Result<()> {
        FrameClass::ALL.into_iter().try_for_each(|class| self.append(class))
    }

    fn append(&mut self, class: FrameClass) -> Result<()> {
        let frame = self.frames.get_mut(class as usize).filter(|frame| !frame.is_empty());
        let Some(frame) = frame else { return Ok(()) };
        let first = self.session.append(frame.seal(&mut self.compressor)?)?;
        if let Some(places) = &mut self.places {
            places.extend(frame.ids().zip(0..).map(|(id, slot)| (id, Locator { slot, ..first })));
        }
        frame.clear();
        Ok(())
    }

    /// Reads what this writer appended, and what existed when the session began.
    pub(crate) fn read_back(&mut self) -> ReadBack {
        let places = self.places.replace(HashMap::new()).unwrap_or_default();
        let existing = self.session.existing.clone();
        ReadBack { places, unpublished: existing.packs().unshared(), existing }
    }

    fn put_as(&mut self, class: FrameClass, kind: ObjectKind, bytes: &[u8]) -> Result<ObjectId> {
        let id = kind.id_of(bytes);
        if !self.session.claim(&id)? {
            return Ok(id);
        }
        self.session.new_raw_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let Some(frame) = self.frames.get_mut(class as usize) else { return Ok(id) };
        frame.push(id, kind, bytes)?;
        if frame.is_full(class.target_bytes()) {
            self.append(class)?;
        }
        Ok(id)
    }
}

/// Objects of a session that is not published yet.
pub(crate) struct ReadBack {
    places: HashMap<ObjectId, Locator>,
    unpublished: PackReader,
    existing: ObjectReader,
}

impl ObjectSource for ReadBack {
    fn get(&self, id: &ObjectId) -> Result<ObjectBytes> {
        match self.places.get(id) {
            Some(place) => self.unpublished.read(id, *place),
            None => self.existing.get(id),
        }
    }
}

impl<H: PackHost> ObjectSink for ObjectWriter<'_, H> {
    fn put(&mut self, kind: ObjectKind, bytes: &[u8]) -> Result<ObjectId> {
        let class = match kind {
            ObjectKind::Chunk => FrameClass::Files,
            ObjectKind::Node | ObjectKind::ChunkList | ObjectKind::Layer | ObjectKind::Image => {
                FrameClass::Structure
            }
        };
        self.put_as(class, kind, bytes)
    }

    fn put_piece(&mut self, bytes: &[u8], content_bytes: u64) -> Result<ObjectId> {
        let is_large = content_bytes >= LARGE_FILE_BYTES;
        let class = if is_large { FrameClass::LargePieces } else { FrameClass::Pieces };
        self.put_as(class, ObjectKind::Chunk, bytes)
    }
}
