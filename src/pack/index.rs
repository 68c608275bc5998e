//! One view of the object index: what exists, taken at one moment.

use std::collections::HashMap;
use std::sync::Arc;

use crate::id::ObjectId;

use super::Locator;
use super::segment::Segment;

/// The objects that exist for one reader: those of open packs, from catalog rows, and those of segments.
#[derive(Debug, Default)]
pub(crate) struct ObjectIndex {
    open: HashMap<ObjectId, Locator>,
    segments: Vec<Arc<Segment>>,
}

impl ObjectIndex {
    pub(crate) fn new(open: HashMap<ObjectId, Locator>, segments: Vec<Arc<Segment>>) -> Self {
        Self { open, segments }
    }

    /// Where the object is, if it exists.
    pub(crate) fn find(&self, id: &ObjectId) -> Option<Locator> {
        self.open.get(id).copied().or_else(|| self.segments.iter().find_map(|segment| segment.find(id)))
    }
}
