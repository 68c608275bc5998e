//! One view of the object index: what exists, taken at one moment.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::error::Result;
use crate::id::{ObjectId, PackId};

use super::Locator;
use super::segment::Segment;
use super::session::WrittenFrame;

/// The objects of one open pack that are in no segment, shared by all views of it: it only grows, and each view sees what
/// was committed when it was taken.
#[derive(Debug)]
pub(crate) struct OpenPackObjects {
    pack: PackId,
    /// From where in the pack they are.
    start: u64,
    known: RwLock<Known>,
}

#[derive(Debug)]
struct Known {
    /// Up to where the pack's frames are in the map.
    end: u64,
    objects: HashMap<ObjectId, Locator>,
}

impl OpenPackObjects {
    pub(crate) fn new(pack: PackId, start: u64) -> Self {
        Self { pack, start, known: RwLock::new(Known { end: start, objects: HashMap::new() }) }
    }

    /// From where in the pack the frames are known.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// Up to where the pack's frames are known.
    pub(crate) fn end(&self) -> u64 {
        self.known.read().unwrap_or_else(PoisonError::into_inner).end
    }

    /// Adds the frames from the known end up to `end`.
    pub(crate) fn extend(&self, frames: impl IntoIterator<Item = WrittenFrame>, end: u64) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        for frame in frames {
            for (id, place) in frame.rows(self.pack) {
                // Where two sessions wrote the same object, a view that is older than the second must find the first.
                known.objects.entry(id).or_insert(place);
            }
        }
        known.end = known.end.max(end);
    }

    fn find(&self, id: &ObjectId) -> Option<Locator> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).objects.get(id).copied()
    }
}

/// The objects that exist for one reader: those of open packs, up to what was committed of each, and those of segments.
///
/// Several packs may have an object. Segments keep all of its rows, and which of them is found may differ from one view to
/// the next; but every view finds one as long as any of these packs is there.
#[derive(Debug, Default)]
pub(crate) struct ObjectIndex {
    open: Vec<(Arc<OpenPackObjects>, u64)>,
    segments: Vec<Arc<Segment>>,
    /// Packs that were condemned, and the generation that began with it: whoever holds that one or a later one finds
    /// nothing in them. Removed ones are of generation 0.
    withdrawn: HashMap<PackId, u64>,
}

/// A row of the index.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IndexRow {
    pub(crate) place: Locator,
    /// The segment, by its place among those of the view, and the row in it; none for an object of an open pack.
    pub(crate) in_segment: Option<(usize, u64)>,
}

impl ObjectIndex {
    pub(crate) fn new(
        open: Vec<(Arc<OpenPackObjects>, u64)>,
        segments: Vec<Arc<Segment>>,
        withdrawn: HashMap<PackId, u64>,
    ) -> Self {
        Self { open, segments, withdrawn }
    }

    /// Packs that nobody finds anything in who begins now.
    pub(crate) fn withdrawn(&self) -> impl Iterator<Item = PackId> {
        self.withdrawn.keys().copied()
    }

    /// The segments.
    pub(crate) fn segments(&self) -> &[Arc<Segment>] {
        &self.segments
    }

    /// Gives every row to `each`. Fails with *corrupt* at a row that is none.
    pub(crate) fn for_each_row(&self, mut each: impl FnMut(ObjectId, Locator)) -> Result<()> {
        for (objects, committed_bytes) in &self.open {
            let known = objects.known.read().unwrap_or_else(PoisonError::into_inner);
            let rows = known.objects.iter().filter(|(_, place)| place.offset < *committed_bytes);
            rows.for_each(|(id, place)| each(*id, *place));
        }
        for row in self.segments.iter().flat_map(|segment| segment.rows()) {
            let (id, place) = row?;
            each(id, place);
        }
        Ok(())
    }

    /// Where the object is, if it exists for whoever holds this generation.
    pub(crate) fn find(&self, id: &ObjectId, generation: u64) -> Option<Locator> {
        self.find_row(id, |pack| self.has_pack(pack, generation)).map(|row| row.place)
    }

    /// Whether a pack is there for whoever holds this generation.
    pub(crate) fn has_pack(&self, pack: PackId, generation: u64) -> bool {
        self.withdrawn.get(&pack).is_none_or(|since| *since > generation)
    }

    /// A row of the object, of a pack that is there.
    pub(crate) fn find_row(&self, id: &ObjectId, is_there: impl Fn(PackId) -> bool) -> Option<IndexRow> {
        let open = self.open.iter().find_map(|(objects, committed_bytes)| {
            objects.find(id).filter(|place| place.offset < *committed_bytes && is_there(place.pack))
        });
        if let Some(place) = open {
            return Some(IndexRow { place, in_segment: None });
        }
        self.segments.iter().enumerate().find_map(|(number, segment)| {
            let (row, place) = segment.find(id, &is_there)?;
            Some(IndexRow { place, in_segment: Some((number, row)) })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_found_in_a_pack_that_is_there_whether_another_is_open_or_not() {
        let id = ObjectId::from_bytes([7; 32]);
        let open = |pack| {
            let objects = OpenPackObjects::new(PackId::new(pack), 0);
            objects.extend([WrittenFrame { offset: 24, frame_bytes: 100, objects: vec![id] }], 124);
            (Arc::new(objects), 124)
        };
        let index = ObjectIndex::new(vec![open(1), open(2)], Vec::new(), HashMap::new());
        let found =
            |gone: u32| index.find_row(&id, |pack| pack != PackId::new(gone)).map(|row| row.place.pack);
        assert_eq!((found(1), found(2)), (Some(PackId::new(2)), Some(PackId::new(1))));
        let index = ObjectIndex::new(vec![open(1)], Vec::new(), HashMap::from([(PackId::new(1), 5)]));
        assert!(index.find(&id, 4).is_some(), "whoever began before still finds it");
        assert!(index.find(&id, 5).is_none());
    }
}
