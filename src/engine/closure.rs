//! All that an image needs: the objects that its tree and its history lead to.
//!
//! Of the history the steps' records are needed, not the trees that were between: what only an earlier step had may go.

use std::collections::HashSet;

use crate::catalog::record::{ImageRecord, ImageVersion, NeededRecord};
use crate::error::Result;
use crate::id::ObjectId;
use crate::layer::LayerRecord;
use crate::object::ObjectSource;
use crate::pack::reader::ObjectReader;
use crate::tree::{Reference, Root};

/// What something is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Needs {
    pub(crate) root: ObjectId,
    pub(crate) layer: Option<ObjectId>,
}

impl Needs {
    /// A tree without a history.
    pub(crate) fn tree(root: ObjectId) -> Self {
        Self { root, layer: None }
    }
}

impl From<&ImageVersion> for Needs {
    fn from(equal: &ImageVersion) -> Self {
        Self { root: equal.root, layer: Some(equal.layer) }
    }
}

impl From<&ImageRecord> for Needs {
    fn from(image: &ImageRecord) -> Self {
        Self { root: image.root, layer: Some(image.layer) }
    }
}

impl From<&NeededRecord> for Needs {
    fn from(needed: &NeededRecord) -> Self {
        Self { root: needed.root, layer: Some(needed.layer) }
    }
}

/// Gives every object that is needed to `see`, which says whether what it leads to is to be seen too: if not, all of that
/// was seen before. An object comes before what it leads to.
pub(crate) fn walk(
    source: &impl ObjectSource,
    needs: Needs,
    mut see: impl FnMut(&ObjectId) -> Result<bool>,
) -> Result<()> {
    let mut layer = needs.layer;
    while let Some(id) = layer {
        layer = if see(&id)? { LayerRecord::read(source, id)?.previous } else { None };
    }
    if !see(&needs.root)? {
        return Ok(());
    }
    let mut pending = vec![Reference::Node(Root::open(source, needs.root)?)];
    while let Some(reference) = pending.pop() {
        for found in reference.references(source)? {
            let goes_on = see(&found.id())?;
            if goes_on && !matches!(found, Reference::Chunk(_)) {
                pending.push(found);
            }
        }
    }
    Ok(())
}

/// Whether all of it is there: of what no image has any more, part may have been collected.
pub(crate) fn is_whole(reader: &ObjectReader, needs: Needs) -> Result<bool> {
    let mut seen = HashSet::new();
    let mut is_whole = true;
    let walked = walk(reader, needs, |id| {
        is_whole &= reader.pack_of(id)?.is_some();
        Ok(is_whole && seen.insert(*id))
    });
    // It can't be read where it is not there.
    if is_whole { walked.map(|()| true) } else { Ok(false) }
}
