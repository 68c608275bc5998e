//! An object index of any size without the objects: for measuring look-ups in a store that would take days to fill.

use std::sync::Arc;

use crate::catalog::WriteTx;
use crate::catalog::record::{FrameRecord, OpenPackRecord, SealedPackRecord, SegmentRecord};
use crate::catalog::table::{Frames, OpenPacks, SealedPacks, Segments, Sequence, Sequences};
use crate::error::Result;
use crate::id::{ObjectId, PackId, SegmentId};
use crate::pack::index::ObjectIndex;
use crate::pack::segment::{self, FramePlace, RowPlace};

use crate::engine::packs;
use crate::store::Store;

/// Objects of a sealed pack: of 4 kB on average.
const OBJECTS_PER_PACK: u64 = 32 << 10;
/// Objects of a frame.
const OBJECTS_PER_FRAME: usize = 32;

/// What a store's index was filled with.
#[derive(Clone, Debug)]
pub struct SimulatedIndex {
    /// The objects of each segment, and those of the open pack last.
    parts: Vec<u64>,
}

/// A view of a store's index.
#[derive(Clone, Debug)]
pub struct IndexView(Arc<ObjectIndex>);

impl IndexView {
    /// Whether the object exists.
    #[must_use]
    pub fn has(&self, id: &ObjectId) -> bool {
        self.0.find(id, 0).is_some()
    }
}

impl SimulatedIndex {
    /// How many objects the index has.
    #[must_use]
    pub fn objects(&self) -> u64 {
        self.parts.iter().sum()
    }

    /// How many segments.
    #[must_use]
    pub fn segments(&self) -> usize {
        self.parts.len() - 1
    }

    /// An object that the index has: another for nearly every seed.
    #[must_use]
    pub fn present(&self, seed: u64) -> ObjectId {
        let mut number = mix(seed) % self.objects();
        for (part, objects) in self.parts.iter().enumerate() {
            if number < *objects {
                return id(part as u64, number, *objects);
            }
            number -= objects;
        }
        self.absent(seed)
    }

    /// An object that the index has not.
    #[must_use]
    pub fn absent(&self, seed: u64) -> ObjectId {
        id(u64::MAX, mix(seed) >> 24, 1 << 40)
    }
}

/// Spreads numbers over all numbers, each to another (the last steps of `SplitMix64`).
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The id of a part's object: ids ascend with the numbers, spread like hashes.
fn id(part: u64, number: u64, objects: u64) -> ObjectId {
    let gap = u64::MAX / objects.max(1);
    let seed = mix(mix(part).wrapping_add(number));
    let mut bytes = [0; 32];
    let words = [number * gap + seed % gap.max(1), mix(seed ^ 1), mix(seed ^ 2), mix(seed ^ 3)];
    for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
        place.copy_from_slice(&word.to_be_bytes());
    }
    ObjectId::from_bytes(bytes)
}

impl Store {
    /// The object index as it is now.
    pub fn index_view(&self) -> Result<IndexView> {
        let catalog = self.0.catalog()?;
        Ok(IndexView(self.0.index.view(&catalog)?.0))
    }

    /// Fills an empty store's index as if it had about so many objects: sealed packs, segments as merging leaves them, and
    /// an open pack that is nearly full. The objects themselves are nowhere.
    pub fn simulate_index(&self, objects: u64) -> Result<SimulatedIndex> {
        let per_segment = self.0.options.row_objects;
        let indexed = u32::try_from(objects / per_segment).unwrap_or(u32::MAX);
        let mut sizes = Vec::new();
        for number in 0..indexed {
            sizes.push((SegmentId::new(number), per_segment));
            while let Some(due) = segment::due_for_merge(sizes.iter().copied()) {
                let merged = sizes.iter().filter(|(id, _)| due.contains(id)).map(|(_, rows)| rows).sum();
                sizes.retain(|(id, _)| !due.contains(id));
                sizes.push((SegmentId::new(number), merged));
            }
        }
        let mut parts: Vec<_> = sizes.into_iter().map(|(_, rows)| rows).collect();
        for (number, rows) in (0_u32..).zip(&parts) {
            let frames = u32::try_from(rows.div_ceil(OBJECTS_PER_FRAME as u64)).unwrap_or(u32::MAX);
            let frame =
                |frame: u32| FramePlace { pack: PackId::new(1 + number), offset: frame.into(), bytes: 1000 };
            // Of the object that is next by its id, the frame is any.
            let frame_of = |object| u32::try_from(mix(object) % u64::from(frames.max(1))).unwrap_or_default();
            let place = |object| RowPlace { frame: frame_of(object), slot: 0 };
            let row = |object| Ok((id(number.into(), object, *rows), place(object)));
            let segment = SegmentId::new(1 + number);
            let frames = (0..frames).map(frame);
            segment::write_sorted(&*self.0.disk, segment, frames, *rows, (0..*rows).map(row))?;
        }
        let open = objects % per_segment;
        self.0.catalog()?.write(|tx| {
            for (number, rows) in (0_u32..).zip(&parts) {
                let record = SegmentRecord { objects: *rows, domain: packs::SHARED_DOMAIN };
                tx.put::<Segments>(&SegmentId::new(1 + number), &record)?;
            }
            let sealed = u32::try_from(objects / OBJECTS_PER_PACK).unwrap_or(u32::MAX);
            let domain = packs::SHARED_DOMAIN;
            let record =
                SealedPackRecord { bytes: 1 << 27, objects: OBJECTS_PER_PACK, domain, filled_by: None };
            (1..=sealed).try_for_each(|pack| tx.put::<SealedPacks>(&PackId::new(pack), &record))?;
            add_open_pack(tx, PackId::new(1 + sealed), parts.len() as u64, open)?;
            tx.put::<Sequences>(&Sequence::Pack, &(1 + u64::from(sealed)))?;
            tx.put::<Sequences>(&Sequence::Segment, &(1 + parts.len() as u64))?;
            tx.next(Sequence::Index)
        })?;
        parts.push(open);
        Ok(SimulatedIndex { parts })
    }
}

fn add_open_pack(tx: &mut WriteTx, pack: PackId, part: u64, objects: u64) -> Result<()> {
    let frame_bytes = 1000;
    for first in (0..objects).step_by(OBJECTS_PER_FRAME) {
        let numbers = first..objects.min(first + OBJECTS_PER_FRAME as u64);
        let record =
            FrameRecord { frame_bytes, objects: numbers.map(|number| id(part, number, objects)).collect() };
        tx.put::<Frames>(&(pack, 24 + first * u64::from(frame_bytes)), &record)?;
    }
    let committed_bytes = 24 + objects * u64::from(frame_bytes);
    let record = OpenPackRecord { committed_bytes, objects, ..packs::NEW_PACK };
    tx.put::<OpenPacks>(&pack, &record)
}
