//! Reading objects: locators to checked bytes, through a cache of decoded frames.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{Error, Result, Subject};
use crate::id::{ObjectId, PackId};
use crate::layout::pack_file;
use crate::object::{ObjectBytes, ObjectSource};
use crate::sync::lock;
use crate::task::Task;

use super::Locator;
use super::frame::{self, MAX_FRAME_BYTES, Slot};
use super::generation::GenerationGuard;
use super::index::ObjectIndex;

/// What a reader of a session's own frames keeps of them.
const UNSHARED_CACHE_BYTES: u64 = 1 << 20;

/// A decoded frame.
#[derive(Debug)]
struct CachedFrame {
    objects: Vec<CachedObject>,
    raw: Arc<Vec<u8>>,
}

#[derive(Debug)]
struct CachedObject {
    start: usize,
    slot: Slot,
    /// What its bytes are, hashed when it is first asked for.
    id: OnceLock<ObjectId>,
}

impl CachedFrame {
    fn object(&self, slot: usize, id: &ObjectId) -> Option<ObjectBytes> {
        let object = self.objects.get(slot)?;
        let end = object.start.checked_add(object.slot.bytes as usize)?;
        let bytes = ObjectBytes::new(Arc::clone(&self.raw), object.start..end)?;
        (object.id.get_or_init(|| object.slot.kind.id_of(&bytes)) == id).then_some(bytes)
    }
}

#[derive(Clone)]
struct RawBytes;

impl Weighter<(PackId, u64), Arc<CachedFrame>> for RawBytes {
    fn weight(&self, _: &(PackId, u64), frame: &Arc<CachedFrame>) -> u64 {
        (frame.raw.len() + frame.objects.len() * size_of::<CachedObject>() + 1) as u64
    }
}

/// Reads frames of one store's packs; shared by all its readers.
pub(crate) struct PackReader {
    disk: Arc<dyn Disk>,
    files: RwLock<HashMap<PackId, Arc<dyn DiskFile>>>,
    frames: Cache<(PackId, u64), Arc<CachedFrame>, RawBytes>,
    /// What threads unpack with, while none does.
    unpackers: Mutex<Vec<Unpacker>>,
}

/// Memory that unpacking a frame takes, besides the frame.
struct Unpacker {
    packed: Vec<u8>,
    decompressor: zstd::bulk::Decompressor<'static>,
}

impl Unpacker {
    fn new() -> Result<Self> {
        let decompressor = zstd::bulk::Decompressor::new()
            .map_err(|error| Error::io(Subject::Argument("frame"), "set up decompression", error))?;
        Ok(Self { packed: Vec::new(), decompressor })
    }
}

impl std::fmt::Debug for PackReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PackReader").field("disk", &self.disk).finish_non_exhaustive()
    }
}

impl PackReader {
    /// A reader whose cache holds at most `cache_bytes` of decoded frames.
    pub(crate) fn new(disk: Arc<dyn Disk>, cache_bytes: u64) -> Self {
        let frames = usize::try_from(cache_bytes / (64 << 10)).unwrap_or(usize::MAX).max(16);
        // Undivided: a part of it would hold only a few of the largest frames. And half of it is for frames that were
        // used once: readers go over frames in a row, and come back to one soon or not at all.
        let options = OptionsBuilder::new()
            .shards(1)
            .hot_allocation(0.5)
            .estimated_items_capacity(frames)
            .weight_capacity(cache_bytes)
            .build();
        let frames = match options {
            Ok(options) => Cache::with_options(
                options,
                RawBytes,
                DefaultHashBuilder::default(),
                DefaultLifecycle::default(),
            ),
            Err(_) => Cache::with_weighter(frames, cache_bytes, RawBytes),
        };
        Self { disk, files: RwLock::default(), frames, unpackers: Mutex::default() }
    }

    /// A reader of the same packs that shares no memory with this one: for frames that may be cut off again, whose places
    /// other frames then take.
    pub(super) fn unshared(&self) -> Self {
        Self::new(Arc::clone(&self.disk), UNSHARED_CACHE_BYTES)
    }

    fn file(&self, pack: PackId) -> Result<Arc<dyn DiskFile>> {
        if let Some(file) = self.files.read().unwrap_or_else(PoisonError::into_inner).get(&pack) {
            return Ok(Arc::clone(file));
        }
        let file = self.disk.open(&pack_file(pack), OpenMode::Read).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::corrupt(Subject::Pack(pack), "its file is missing"),
            _ => Error::io(Subject::Pack(pack), "open it", error),
        })?;
        self.files.write().unwrap_or_else(PoisonError::into_inner).insert(pack, Arc::clone(&file));
        Ok(file)
    }

    /// Packs whose files are open.
    pub(crate) fn open_packs(&self) -> Vec<PackId> {
        self.files.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// Closes the files of packs that may be gone: an open file keeps its bytes on the disk.
    pub(crate) fn close(&self, packs: impl IntoIterator<Item = PackId>) {
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        for pack in packs {
            files.remove(&pack);
        }
    }

    fn frame(&self, place: Locator) -> Result<Arc<CachedFrame>> {
        let key = (place.pack, place.offset);
        self.frames.get_or_insert_with(&key, || self.read_frame(place).map(Arc::new))
    }

    fn read_frame(&self, place: Locator) -> Result<CachedFrame> {
        let bytes = place.frame_bytes as usize;
        if bytes > MAX_FRAME_BYTES {
            return Err(Error::corrupt(
                Subject::Pack(place.pack),
                "the index gives a frame an impossible length",
            ));
        }
        let spare = lock(&self.unpackers).pop();
        let mut unpacker = spare.map_or_else(Unpacker::new, Ok)?;
        if unpacker.packed.len() < bytes {
            unpacker.packed.resize(bytes, 0);
        }
        let packed = unpacker.packed.get_mut(..bytes).unwrap_or_default();
        self.file(place.pack)?.read_at(packed, place.offset).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => Error::corrupt(
                Subject::Pack(place.pack),
                format!("it ends before the frame at byte {}", place.offset),
            ),
            _ => Error::io(Subject::Pack(place.pack), "read it", error),
        })?;
        let mut raw = Vec::new();
        let table = frame::decode(place.pack, place.offset, packed, &mut unpacker.decompressor, &mut raw)?;
        lock(&self.unpackers).push(unpacker);
        let objects = table
            .slots
            .into_iter()
            .scan(0, |next, slot| {
                let start = *next;
                *next += slot.bytes as usize;
                Some(CachedObject { start, slot, id: OnceLock::new() })
            })
            .collect();
        Ok(CachedFrame { objects, raw: Arc::new(raw) })
    }

    /// The object at this place, checked.
    pub(super) fn read(&self, id: &ObjectId, place: Locator) -> Result<ObjectBytes> {
        self.frame(place)?.object(place.slot.into(), id).ok_or_else(|| {
            let pack = place.pack;
            Error::corrupt(Subject::Object(*id), format!("its bytes in pack {pack} are not what was written"))
        })
    }
}

/// Reads objects as one view of the index has them. What it finds stays there as long as it does.
#[derive(Clone, Debug)]
pub(crate) struct ObjectReader {
    index: Arc<ObjectIndex>,
    packs: Arc<PackReader>,
    hold: Arc<GenerationGuard>,
    task: Task,
}

impl ObjectReader {
    pub(crate) fn new(index: Arc<ObjectIndex>, packs: Arc<PackReader>, hold: Arc<GenerationGuard>) -> Self {
        Self { index, packs, hold, task: Task::unobserved() }
    }

    /// The same reader for a task: once it is cancelled, no object is read.
    pub(crate) fn with_task(self, task: &Task) -> Self {
        Self { task: task.clone(), ..self }
    }

    pub(crate) fn task(&self) -> &Task {
        &self.task
    }

    pub(crate) fn index(&self) -> &Arc<ObjectIndex> {
        &self.index
    }

    pub(crate) fn hold(&self) -> &Arc<GenerationGuard> {
        &self.hold
    }

    pub(crate) fn packs(&self) -> &PackReader {
        &self.packs
    }

    /// Where the object is, if it exists.
    pub(crate) fn find(&self, id: &ObjectId) -> Option<Locator> {
        self.index.find(id, self.hold.generation())
    }

    /// The pack that has the object, if it exists. Fails with *corrupt* if it should and the pack is gone: nothing may be
    /// built upon it then.
    pub(crate) fn pack_of(&self, id: &ObjectId) -> Result<Option<PackId>> {
        self.find(id).map(|place| self.packs.file(place.pack).map(|_| place.pack)).transpose()
    }
}

impl ObjectSource for ObjectReader {
    fn get(&self, id: &ObjectId) -> Result<ObjectBytes> {
        self.task.check()?;
        let place = self.find(id).ok_or_else(|| {
            Error::corrupt(Subject::Object(*id), "it is needed, but the index has not got it")
        })?;
        self.packs.read(id, place)
    }
}
