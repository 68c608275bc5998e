//! Which objects are needed: a bit for each row of the index.
//!
//! The rows are those of the index as it was when the collection began. What they do not have (objects of packs that were
//! open then, and of what was published since) is kept by frame and slot.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use crate::engine::closure::{self, Needs};
use crate::error::{Error, Result, Subject};
use crate::id::{ObjectId, PackId};
use crate::pack::Locator;
use crate::pack::index::ObjectIndex;
use crate::pack::reader::ObjectReader;

/// What was marked so far.
pub(super) struct Marks {
    index: Arc<ObjectIndex>,
    generation: u64,
    /// For each segment of the index a bit for each row.
    rows: Vec<Vec<u64>>,
    /// The slots of frames that are marked besides.
    slots: BTreeMap<(PackId, u64), MarkedSlots>,
    /// Packs that were condemned by this collection: nothing in them counts any more.
    condemned: HashSet<PackId>,
    /// Packs in which something was marked since this was emptied last.
    touched: HashSet<PackId>,
    /// Objects that are marked.
    objects: u64,
}

#[derive(Default)]
struct MarkedSlots {
    frame_bytes: u32,
    slots: BTreeSet<u16>,
}

/// What of a pack is needed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PackUse {
    /// Bytes of the frames that have something that is needed.
    pub(super) bytes: u64,
    /// Objects that are needed.
    pub(super) objects: u64,
}

impl Marks {
    pub(super) fn new(reader: &ObjectReader) -> Self {
        let index = Arc::clone(reader.index());
        let words = |rows: u64| usize::try_from(rows.div_ceil(64)).unwrap_or(usize::MAX);
        let rows = index.segments().iter().map(|segment| vec![0; words(segment.len())]).collect();
        Self {
            index,
            generation: reader.hold().generation(),
            rows,
            slots: BTreeMap::new(),
            condemned: HashSet::new(),
            touched: HashSet::new(),
            objects: 0,
        }
    }

    /// Objects that are marked.
    pub(super) fn objects(&self) -> u64 {
        self.objects
    }

    /// Marks all that is needed. What is marked already is not gone through again, so this ends in an error or with
    /// everything marked; after an error the marks are of no use.
    pub(super) fn mark_all(&mut self, reader: &ObjectReader, needs: Needs) -> Result<()> {
        closure::walk(reader, needs, |id| self.mark(reader, id))
    }

    /// Marks an object if it exists.
    pub(super) fn mark_if_there(&mut self, reader: &ObjectReader, id: &ObjectId) -> Result<()> {
        if reader.find(id).is_some() { self.mark(reader, id).map(drop) } else { Ok(()) }
    }

    /// Marks an object, and says whether it was not marked before.
    fn mark(&mut self, reader: &ObjectReader, id: &ObjectId) -> Result<bool> {
        let (is_new, pack) = match self.find(id) {
            Some((place, Some((segment, row)))) => {
                (self.mark_row(segment, row).unwrap_or_else(|| self.mark_slot(place)), place.pack)
            }
            Some((place, None)) => (self.mark_slot(place), place.pack),
            None => {
                let place = reader.find(id).ok_or_else(|| {
                    Error::corrupt(
                        Subject::Object(*id),
                        "it is needed but in no pack; nothing more is collected",
                    )
                })?;
                (self.mark_slot(place), place.pack)
            }
        };
        if is_new {
            self.objects += 1;
            self.touched.insert(pack);
        }
        Ok(is_new)
    }

    /// Whether the object that is stored in this place is needed there.
    pub(super) fn has(&self, id: &ObjectId, place: Locator) -> bool {
        let is_slot_marked = || {
            let frame = self.slots.get(&(place.pack, place.offset));
            frame.is_some_and(|frame| frame.slots.contains(&place.slot))
        };
        match self.find(id) {
            Some((found, Some((segment, row)))) if found == place => {
                self.has_row(segment, row) || is_slot_marked()
            }
            _ => is_slot_marked(),
        }
    }

    /// Where the index of the beginning has the object.
    fn find(&self, id: &ObjectId) -> Option<(Locator, Option<(usize, u64)>)> {
        let is_there = |pack| self.index.has_pack(pack, self.generation) && !self.condemned.contains(&pack);
        self.index.find_row(id, is_there).map(|row| (row.place, row.in_segment))
    }

    fn has_row(&self, segment: usize, row: u64) -> bool {
        let word = self.rows.get(segment).and_then(|rows| rows.get(usize::try_from(row / 64).ok()?));
        word.is_some_and(|word| word & (1 << (row % 64)) != 0)
    }

    /// None if the row has no bit, which can't be.
    fn mark_row(&mut self, segment: usize, row: u64) -> Option<bool> {
        let word = self.rows.get_mut(segment)?.get_mut(usize::try_from(row / 64).ok()?)?;
        let before = *word;
        *word |= 1 << (row % 64);
        Some(before != *word)
    }

    fn mark_slot(&mut self, place: Locator) -> bool {
        let frame = self.slots.entry((place.pack, place.offset)).or_default();
        frame.frame_bytes = place.frame_bytes;
        frame.slots.insert(place.slot)
    }

    /// From now on nothing in these packs counts.
    pub(super) fn withdraw(&mut self, packs: impl IntoIterator<Item = PackId>) {
        self.condemned.extend(packs);
    }

    /// Forgets in which packs something was marked.
    pub(super) fn forget_touched(&mut self) {
        self.touched.clear();
    }

    /// Whether something in the pack was marked since that was forgotten.
    pub(super) fn is_touched(&self, pack: PackId) -> bool {
        self.touched.contains(&pack)
    }

    /// What is needed of each pack that anything is needed of.
    pub(super) fn uses(&self) -> Result<HashMap<PackId, PackUse>> {
        let mut uses: HashMap<_, PackUse> = HashMap::new();
        self.for_each_frame(|pack, _, bytes, objects| {
            let found = uses.entry(pack).or_default();
            found.bytes += u64::from(bytes);
            found.objects += objects;
        })?;
        Ok(uses)
    }

    /// The frames of some packs that have something that is needed: their places and bytes, ascending.
    pub(super) fn frames(&self, wanted: &HashSet<PackId>) -> Result<BTreeMap<PackId, BTreeMap<u64, u32>>> {
        let mut frames: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        self.for_each_frame(|pack, offset, bytes, _| {
            if wanted.contains(&pack) {
                frames.entry(pack).or_default().insert(offset, bytes);
            }
        })?;
        Ok(frames)
    }

    /// Gives each frame that has something marked: pack, place, bytes, objects. One that has marks of both sorts comes once.
    fn for_each_frame(&self, mut each: impl FnMut(PackId, u64, u32, u64)) -> Result<()> {
        let mut both: HashSet<(PackId, u64)> = HashSet::new();
        for (segment, rows) in self.index.segments().iter().zip(&self.rows) {
            let mut counts = vec![0_u64; segment.frames().count()];
            for row in marked(rows) {
                let frame = segment.frame_of_row(row).and_then(|frame| usize::try_from(frame).ok());
                let count = frame.and_then(|frame| counts.get_mut(frame));
                *count.ok_or_else(|| damaged(segment.id()))? += 1;
            }
            for (frame, objects) in segment.frames().zip(counts).filter(|(_, objects)| *objects > 0) {
                let key = (frame.pack, frame.offset);
                let besides = self.slots.get(&key).map_or(0, |frame| frame.slots.len() as u64);
                if besides > 0 {
                    both.insert(key);
                }
                each(frame.pack, frame.offset, frame.bytes, objects + besides);
            }
        }
        for ((pack, offset), frame) in &self.slots {
            if !both.contains(&(*pack, *offset)) {
                each(*pack, *offset, frame.frame_bytes, frame.slots.len() as u64);
            }
        }
        Ok(())
    }
}

fn damaged(segment: crate::id::SegmentId) -> Error {
    Error::corrupt(Subject::Segment(segment), "a row is of no frame")
}

/// The numbers of the bits that are set.
fn marked(words: &[u64]) -> impl Iterator<Item = u64> {
    words.iter().zip(0_u64..).flat_map(|(word, number)| {
        let word = *word;
        (0..64).filter(move |bit| word & (1 << bit) != 0).map(move |bit| number * 64 + bit)
    })
}
