//! A session: new objects on their way into packs.
//!
//! Any number of [`ObjectWriter`]s, one a thread, collect objects into frames of their own; compressing happens
//! in the writer, and only the append is serial. An object that the session's view of the index has, or that any
//! of its writers took already, is not written again; another session's unpublished objects are never counted on.
//!
//! The first frames are held in memory: a session that stays small needs no pack of its own, and is written and published
//! together with others. Once it is larger, it appends to a pack that is its alone. Either way nothing of it exists before
//! the store publishes it: [`Session::finish`] says what to publish.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard};

use crate::disk::DiskFile;
use crate::error::{Error, ErrorKind, Result, Subject};
use crate::id::{ObjectId, PackId};
use crate::object::{ObjectBytes, ObjectKind, ObjectSink, ObjectSource};
use crate::sync::lock;
use crate::task::Task;

use super::Locator;
use super::early::EarlySyncs;
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

    /// Where an object belongs of which nothing else is known.
    fn of(kind: ObjectKind) -> Self {
        match kind {
            ObjectKind::Chunk => Self::Files,
            ObjectKind::Node | ObjectKind::ChunkList | ObjectKind::Layer | ObjectKind::Image => {
                Self::Structure
            }
        }
    }

    /// Raw bytes at which a frame is closed. A cold path look-up decodes several nodes, and a cold read of a small file
    /// one frame; pieces are read in a row anyway, and those of the largest files by far the most often.
    fn target_bytes(self) -> usize {
        match self {
            Self::Structure => 32 << 10,
            Self::Files => 128 << 10,
            Self::Pieces => 3 << 20,
            Self::LargePieces => 4 << 20,
        }
    }
}

/// Files from this size are very large.
const LARGE_FILE_BYTES: u64 = 16 << 20;

/// Chunks that are this large are likelier a piece of a file than a small one.
const PIECE_BYTES: usize = 16 << 10;

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
    early_syncs: EarlySyncs,
}

impl WrittenPack {
    pub(crate) fn new(pack: OpenPack) -> Self {
        Self { early_syncs: EarlySyncs::new(pack.end), frames: Vec::new(), pack }
    }

    /// Appends a frame, and gives the place of its first object.
    pub(crate) fn append<B: AsRef<[u8]> + AsMut<[u8]>>(
        &mut self,
        mut frame: SealedFrame<B>,
    ) -> Result<Locator> {
        let (pack, offset) = (self.pack.id, self.pack.end);
        let bytes = frame.place(pack, offset)?;
        let written = self.pack.file.write_at(bytes, offset);
        written.map_err(|error| Error::io(Subject::Pack(pack), "append to it", error))?;
        let frame_bytes = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.pack.end += bytes.len() as u64;
        self.frames.push(WrittenFrame { offset, frame_bytes, objects: frame.into_objects() });
        Ok(Locator { pack, offset, frame_bytes, slot: 0 })
    }

    /// Begins to make what was appended durable, if it is much.
    fn sync_early(&mut self) -> Result<()> {
        let begun = self.early_syncs.grown(&self.pack.file, self.pack.end);
        begun.map_err(|error| self.sync_failed(error))
    }

    /// Makes what was appended durable.
    pub(crate) fn sync(&mut self) -> Result<()> {
        self.end_early_syncs()?;
        self.pack.file.sync().map_err(|error| self.sync_failed(error))
    }

    fn end_early_syncs(&mut self) -> Result<()> {
        self.early_syncs.end().map_err(|error| self.sync_failed(error))
    }

    fn sync_failed(&self, error: std::io::Error) -> Error {
        Error::io(Subject::Pack(self.pack.id), "sync it", error)
    }

    /// From where on in the pack is what was appended.
    pub(crate) fn begin(&self) -> u64 {
        self.frames.first().map_or(self.pack.end, |frame| frame.offset)
    }

    /// Cuts off what was appended. An error changes nothing that counts: whoever opens the pack next does the same.
    pub(crate) fn cut_back(self) {
        let _ = self.pack.file.set_len(self.begin());
    }

    /// Objects that this session added.
    pub(crate) fn new_objects(&self) -> u64 {
        self.frames.iter().map(|frame| frame.objects.len() as u64).sum()
    }

    /// Objects in the pack, those of this session included.
    pub(crate) fn objects(&self) -> u64 {
        self.pack.objects + self.new_objects()
    }
}

/// A frame that is held in memory.
pub(crate) type BufferedFrame = SealedFrame<Vec<u8>>;

/// What a session needs of the store while it runs.
pub(crate) trait PackHost: Send + Sync {
    /// A pack to append to: its row is in the catalog, with this session's lease as its owner.
    fn open_pack(&self) -> Result<OpenPack>;
    /// Takes a pack that is full: synced, but not published. Gives a view that has its objects.
    fn seal_pack(&self, pack: WrittenPack) -> Result<ObjectReader>;
    /// An object that exists already is in this pack: what the session makes may need it.
    fn count_on(&self, pack: PackId);
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
    /// Bytes of frames that are held in memory.
    pub(crate) held_bytes: usize,
}

/// Where a session's frames go.
#[derive(Default)]
struct Output {
    /// The first frames, until they are more than may be held.
    held: Vec<BufferedFrame>,
    held_bytes: usize,
    /// Whether frames are appended to packs from now on.
    is_written: bool,
    /// The pack that is appended to; none since the last one was sealed.
    pack: Option<WrittenPack>,
}

/// New objects of one import or commit.
pub(crate) struct Session<H: PackHost> {
    host: H,
    /// What existed when the session began, or when it sealed a pack last.
    existing: RwLock<ObjectReader>,
    /// What the session writes, but for what is in packs that it has sealed.
    claimed: Vec<Mutex<HashSet<ObjectId>>>,
    output: Mutex<Output>,
    /// Where the frames are that were held once, after they were written.
    once_held: OnceLock<HashMap<ObjectId, Locator>>,
    options: SessionOptions,
    written_bytes: AtomicU64,
    new_raw_bytes: AtomicU64,
    content: OnceLock<ContentLimit>,
}

/// How much file content may be new.
struct ContentLimit {
    bytes_max: u64,
    left: AtomicU64,
}

/// What a session leaves to be published.
pub(crate) enum Unpublished {
    /// Frames that are not written yet.
    Held(Vec<BufferedFrame>),
    /// The last pack, synced; none if nothing was appended since the last seal.
    Pack(Option<WrittenPack>),
}

impl<H: PackHost> Session<H> {
    pub(crate) fn new(host: H, existing: ObjectReader, options: SessionOptions) -> Self {
        Self {
            host,
            existing: RwLock::new(existing),
            claimed: (0..CLAIM_SHARDS).map(|_| Mutex::default()).collect(),
            output: Mutex::default(),
            once_held: OnceLock::new(),
            options,
            written_bytes: AtomicU64::new(0),
            new_raw_bytes: AtomicU64::new(0),
            content: OnceLock::new(),
        }
    }

    /// From now on no more than so much content may be new. What is known already costs nothing, so nothing is refused that
    /// has less; what has more is refused before it fills the disk.
    pub(crate) fn limit_content(&self, bytes: Option<u64>) {
        if let Some(bytes) = bytes {
            self.content.get_or_init(|| ContentLimit { bytes_max: bytes, left: AtomicU64::new(bytes) });
        }
    }

    fn take_content(&self, bytes: u64) -> Result<()> {
        let Some(ContentLimit { bytes_max, left }) = self.content.get() else { return Ok(()) };
        let taken = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes));
        taken.map(drop).map_err(|left| {
            let added = (bytes_max - left).saturating_add(bytes);
            let message = format!(
                "exceeded: the change adds at least {added} bytes of new content, and the limit is {bytes_max}; \
                 change less, or raise the limit"
            );
            Error::new(ErrorKind::QuotaExceeded, Subject::Argument("max_layer_bytes"), message)
        })
    }

    pub(crate) fn host(&self) -> &H {
        &self.host
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

    /// Takes a whole frame of another pack, whose objects exist already.
    pub(crate) fn copy(&self, frame: SealedFrame<&mut [u8]>) -> Result<()> {
        self.append(frame).map(drop)
    }

    /// Whether this caller is the one to write the object.
    fn claim(&self, id: &ObjectId) -> Result<bool> {
        if let Some(pack) = self.existing().pack_of(id)? {
            self.host.count_on(pack);
            return Ok(false);
        }
        Ok(self.claims(id).is_some_and(|mut claims| claims.insert(*id)))
    }

    /// The task that the session is part of.
    pub(crate) fn task(&self) -> Task {
        self.existing().task().clone()
    }

    fn existing(&self) -> RwLockReadGuard<'_, ObjectReader> {
        self.existing.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The claims that an object's is one of.
    fn claims(&self, id: &ObjectId) -> Option<MutexGuard<'_, HashSet<ObjectId>>> {
        let shard = self.claimed.get(usize::from(id.as_bytes()[0]) % CLAIM_SHARDS);
        shard.map(|shard| lock(shard))
    }

    /// How many objects the session has to remember.
    #[cfg(test)]
    pub(crate) fn claimed_objects(&self) -> usize {
        let count = |shard: &Mutex<HashSet<_>>| lock(shard).len();
        self.claimed.iter().map(count).sum()
    }

    fn output(&self) -> MutexGuard<'_, Output> {
        lock(&self.output)
    }

    /// Takes a frame, and gives the place of its first object if it was written.
    fn append(&self, frame: SealedFrame<&mut [u8]>) -> Result<Option<Locator>> {
        self.written_bytes.fetch_add(frame.len() as u64, Ordering::Relaxed);
        let mut output = self.output();
        let held_bytes = output.held_bytes + frame.len();
        if !output.is_written && held_bytes <= self.options.held_bytes {
            output.held_bytes = held_bytes;
            output.held.push(frame.into_owned());
            return Ok(None);
        }
        self.write_held(&mut output)?;
        let (place, full) = self.append_to_pack(&mut output.pack, frame)?;
        // While a full pack is synced and sealed, the other writers go on in the next.
        drop(output);
        full.map_or(Ok(()), |full| self.seal(full))?;
        Ok(Some(place))
    }

    /// Writes the frames that are held, and from now on all others.
    fn write_held(&self, output: &mut Output) -> Result<()> {
        if output.is_written {
            return Ok(());
        }
        output.is_written = true;
        let mut places = HashMap::new();
        for frame in std::mem::take(&mut output.held) {
            let objects = frame.objects().to_vec();
            let (first, full) = self.append_to_pack(&mut output.pack, frame)?;
            full.map_or(Ok(()), |full| self.seal(full))?;
            places.extend(objects.into_iter().zip(0..).map(|(id, slot)| (id, Locator { slot, ..first })));
        }
        self.once_held.get_or_init(|| places);
        Ok(())
    }

    /// Appends a frame to the session's pack, and gives its place, and the pack if it is full.
    fn append_to_pack<B: AsRef<[u8]> + AsMut<[u8]>>(
        &self,
        current: &mut Option<WrittenPack>,
        frame: SealedFrame<B>,
    ) -> Result<(Locator, Option<WrittenPack>)> {
        let written = match &mut *current {
            Some(written) => written,
            none => none.insert(WrittenPack::new(self.host.open_pack()?)),
        };
        let place = written.append(frame)?;
        written.sync_early().inspect_err(|_| self.host.poison())?;
        let is_full = written.pack.end >= self.options.pack_bytes;
        Ok((place, if is_full { current.take() } else { None }))
    }

    fn seal(&self, mut full: WrittenPack) -> Result<()> {
        full.sync().inspect_err(|_| self.host.poison())?;
        let objects: Vec<_> = full.frames.iter().flat_map(|frame| frame.objects.iter().copied()).collect();
        let view = self.host.seal_pack(full)?;
        *self.existing.write().unwrap_or_else(PoisonError::into_inner) = view;
        // They exist now, so nothing grows with what is written.
        for id in objects {
            self.claims(&id).map(|mut claims| claims.remove(&id));
        }
        Ok(())
    }

    /// Bytes of all frames so far.
    pub(crate) fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Relaxed)
    }

    /// Raw bytes of the objects that were new.
    pub(crate) fn new_raw_bytes(&self) -> u64 {
        self.new_raw_bytes.load(Ordering::Relaxed)
    }

    /// Ends the session: what it wrote is durable, and the rest is to be published.
    pub(crate) fn finish(self) -> Result<(H, Unpublished)> {
        let (host, mut unpublished) = self.into_parts();
        if let Unpublished::Pack(Some(written)) = &mut unpublished {
            written.sync().inspect_err(|_| host.poison())?;
        }
        Ok((host, unpublished))
    }

    /// Ends the session with nothing synced: what was appended is to be cut off again.
    pub(crate) fn dismantle(self) -> (H, Unpublished) {
        let (host, mut unpublished) = self.into_parts();
        if let Unpublished::Pack(Some(written)) = &mut unpublished
            && written.end_early_syncs().is_err()
        {
            host.poison();
        }
        (host, unpublished)
    }

    fn into_parts(self) -> (H, Unpublished) {
        let output = self.output.into_inner().unwrap_or_else(PoisonError::into_inner);
        let unpublished = match output {
            Output { is_written: true, pack, .. } => Unpublished::Pack(pack),
            Output { held, .. } => Unpublished::Held(held),
        };
        (self.host, unpublished)
    }
}

/// One thread's way into a session. What it holds is written by [`flush`](Self::flush).
pub(crate) struct ObjectWriter<'s, H: PackHost> {
    session: &'s Session<H>,
    frames: [FrameBuilder; FrameClass::ALL.len()],
    compressor: zstd::bulk::Compressor<'static>,
    /// Where what was appended is, if it is to be read back.
    places: Option<HashMap<ObjectId, Locator>>,
}

impl<'s, H: PackHost> ObjectWriter<'s, H> {
    /// Appends every frame that was begun.
    pub(crate) fn flush(&mut self) -> Result<()> {
        FrameClass::ALL.into_iter().try_for_each(|class| self.append(class))
    }

    fn append(&mut self, class: FrameClass) -> Result<()> {
        let frame = self.frames.get_mut(class as usize).filter(|frame| !frame.is_empty());
        let Some(frame) = frame else { return Ok(()) };
        let first = self.session.append(frame.seal(&mut self.compressor)?)?;
        if let (Some(places), Some(first)) = (&mut self.places, first) {
            places.extend(frame.ids().iter().zip(0..).map(|(id, slot)| (*id, Locator { slot, ..first })));
        }
        frame.clear();
        Ok(())
    }

    /// Reads what this writer appended, and what existed when the session began.
    pub(crate) fn read_back(&mut self) -> Result<ReadBack<'s>> {
        self.session.write_held(&mut self.session.output())?;
        let places = self.places.replace(HashMap::new()).unwrap_or_default();
        let existing = self.session.existing().clone();
        let once_held = self.session.once_held.get();
        Ok(ReadBack { places, once_held, unpublished: existing.packs().unshared(), existing })
    }

    fn put_as(&mut self, class: FrameClass, kind: ObjectKind, bytes: &[u8]) -> Result<ObjectId> {
        let id = kind.id_of(bytes);
        if !self.session.claim(&id)? {
            return Ok(id);
        }
        if kind == ObjectKind::Chunk {
            self.session.take_content(bytes.len() as u64)?;
        }
        self.session.new_raw_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.push(class, id, kind, bytes)?;
        Ok(id)
    }

    /// Writes an object that exists already once more.
    pub(crate) fn put_again(&mut self, id: ObjectId, kind: ObjectKind, bytes: &[u8]) -> Result<()> {
        let class = match FrameClass::of(kind) {
            FrameClass::Files if bytes.len() >= PIECE_BYTES => FrameClass::Pieces,
            class => class,
        };
        self.push(class, id, kind, bytes)
    }

    fn push(&mut self, class: FrameClass, id: ObjectId, kind: ObjectKind, bytes: &[u8]) -> Result<()> {
        let Some(frame) = self.frames.get_mut(class as usize) else { return Ok(()) };
        frame.push(id, kind, bytes)?;
        if frame.is_full(class.target_bytes()) { self.append(class) } else { Ok(()) }
    }
}

/// Objects of a session that is not published yet.
pub(crate) struct ReadBack<'s> {
    places: HashMap<ObjectId, Locator>,
    once_held: Option<&'s HashMap<ObjectId, Locator>>,
    unpublished: PackReader,
    existing: ObjectReader,
}

impl ObjectSource for ReadBack<'_> {
    fn get(&self, id: &ObjectId) -> Result<ObjectBytes> {
        match self.places.get(id).or_else(|| self.once_held?.get(id)) {
            Some(place) => self.unpublished.read(id, *place),
            None => self.existing.get(id),
        }
    }
}

impl<H: PackHost> ObjectSink for ObjectWriter<'_, H> {
    fn put(&mut self, kind: ObjectKind, bytes: &[u8]) -> Result<ObjectId> {
        self.put_as(FrameClass::of(kind), kind, bytes)
    }

    fn put_piece(&mut self, bytes: &[u8], content_bytes: u64) -> Result<ObjectId> {
        let is_large = content_bytes >= LARGE_FILE_BYTES;
        let class = if is_large { FrameClass::LargePieces } else { FrameClass::Pieces };
        self.put_as(class, ObjectKind::Chunk, bytes)
    }
}
