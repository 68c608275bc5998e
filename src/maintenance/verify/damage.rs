//! Which places of packs can't be read.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::error::{Error, Subject};
use crate::id::{ObjectId, PackId};
use crate::pack::Locator;

/// An object's pack, frame and slot.
pub(super) type ObjectPlace = (PackId, u64, u16);

/// Places of packs that can't be read: an object that the index finds there is lost.
#[derive(Debug, Default)]
pub(in crate::maintenance) struct Damage {
    /// Where bytes are damaged or missing, and where that ends.
    bytes: BTreeMap<(PackId, u64), u64>,
    /// Objects in sound frames that are not what was written.
    pub(super) objects: BTreeSet<ObjectPlace>,
}

impl Damage {
    pub(super) fn add(&mut self, pack: PackId, bytes: Range<u64>) {
        let end = self.bytes.entry((pack, bytes.start)).or_default();
        *end = (*end).max(bytes.end);
    }

    pub(super) fn extend(&mut self, other: Self) {
        for ((pack, start), end) in other.bytes {
            self.add(pack, start..end);
        }
        self.objects.extend(other.objects);
    }

    /// Why the object, which should be at this place, can't be read, if that is so.
    pub(super) fn of(&self, id: &ObjectId, place: Option<Locator>) -> Option<Error> {
        let lost = |message: String| Some(Error::corrupt(Subject::Object(*id), message));
        let Some(place) = place else { return lost("it is in no pack".into()) };
        let pack = place.pack;
        let end = place.offset + u64::from(place.frame_bytes);
        let before = self.bytes.range((pack, 0)..(pack, end)).next_back();
        if before.is_some_and(|(_, damaged_to)| *damaged_to > place.offset) {
            return lost(format!("its frame at byte {} of pack {pack} is damaged", place.offset));
        }
        if self.objects.contains(&(pack, place.offset, place.slot)) {
            return lost(format!("its bytes in pack {pack} are not what was written"));
        }
        None
    }
}
