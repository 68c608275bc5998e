//! Which image came from which.
//!
//! The rows outlive the images: whoever asks for the history of what is left learns of the steps between. They go with
//! their project.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use serde::Serialize;

use crate::catalog::record::{ImageRecord, LineageRecord};
use crate::catalog::table::{Children, Images, Lineage, key_bytes};
use crate::catalog::{Direction, ReadTables, ReadTx, WriteTx};
use crate::error::{Error, Result, Subject};
use crate::format::record::Added;
use crate::id::{ImageId, ProjectId};
use crate::layer::{LayerRecord, MAX_HISTORY};
use crate::name::ImageRef;
use crate::time::Moment;

use super::Image;
use super::image::ImageInfo;
use super::project::Project;
use crate::engine::image_id::latest_created;

/// An image's place among those that it came from, or that came from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ancestor {
    /// The image.
    #[serde(rename = "image")]
    pub id: ImageId,
    /// The image that it was made from.
    pub parent: Option<ImageId>,
    /// When it was made. Of one that is removed and that an older version made, the time in its id, which is later where the
    /// clock had gone back.
    pub created: Moment,
    /// Whether it is still there.
    pub is_there: bool,
}

/// An image in a [lineage](Project::lineage).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LineageNode {
    /// The image.
    #[serde(rename = "image")]
    pub id: ImageId,
    /// The image that it was made from, if that is in the lineage too.
    pub parent: Option<ImageId>,
    /// When it was made. Of one that is removed and that an older version made, the time in its id, which is later where the
    /// clock had gone back.
    pub created: Moment,
    /// What listings show of it; none of one that was removed, and of which something came that is there.
    pub info: Option<ImageInfo>,
    /// Bytes of file content in what it has and its parent has not.
    pub added_bytes: u64,
}

impl LineageNode {
    fn removed(id: ImageId, parent: Option<ImageId>, created: Moment) -> Self {
        Self { id, parent, created, info: None, added_bytes: 0 }
    }
}

impl Project {
    /// The image that this one was made from, whether or not both are still there.
    ///
    /// Errors: [`NotFound`](crate::ErrorKind::NotFound) for an image that the project never saw.
    pub fn parent(&self, id: ImageId) -> Result<Option<ImageId>> {
        self.store.read(|tx| {
            self.check(tx)?;
            self.known_parent(tx, id)
        })
    }

    /// The images that were made from this one and are there, oldest first.
    pub fn children(&self, id: ImageId) -> Result<Vec<ImageId>> {
        self.store.read(|tx| {
            self.check(tx)?;
            let mut children = BTreeSet::new();
            for scope in self.scopes() {
                for ((_, child), ()) in tx.collect::<Children>(&key_bytes(&(scope, id)))? {
                    if self.image_row(tx, child)?.is_some() {
                        children.insert(child);
                    }
                }
            }
            Ok(children.into_iter().collect())
        })
    }

    /// The images that this one came from, nearest first, also those that were removed since.
    ///
    /// Errors: [`NotFound`](crate::ErrorKind::NotFound) for an image that the project never saw.
    pub fn ancestors(&self, id: ImageId) -> Result<Vec<Ancestor>> {
        self.store.read(|tx| {
            self.check(tx)?;
            let mut ancestors = Vec::new();
            self.known_parent(tx, id)?;
            let mut next = self.lineage_row(tx, id)?;
            while let Some(row) = next {
                let id = row.parent;
                if ancestors.len() >= MAX_HISTORY {
                    return Err(too_many(id));
                }
                let record = self.image_row(tx, id)?;
                let created = record.as_ref().map_or_else(|| parent_created(&row), ImageRecord::created);
                next = self.lineage_row(tx, id)?;
                let parent = next.map(|row| row.parent);
                ancestors.push(Ancestor { id, parent, created, is_there: record.is_some() });
            }
            Ok(ancestors)
        })
    }

    /// The nearest image that both came from; one of the two, where the other came from it.
    pub fn common_ancestor(&self, one: ImageId, other: ImageId) -> Result<Option<ImageId>> {
        self.store.read(|tx| {
            self.check(tx)?;
            self.known_parent(tx, one)?;
            self.known_parent(tx, other)?;
            // Ids ascend with time: the newer of two can't be an ancestor of the older.
            let (mut one, mut other) = (one, other);
            for _ in 0..MAX_HISTORY {
                if one == other {
                    return Ok(Some(one));
                }
                let newer = one.max(other);
                let Some(parent) = self.parent_of(tx, newer)? else { return Ok(None) };
                (one, other) = (one.min(other), parent);
            }
            Err(too_many(one))
        })
    }

    /// The images that came from one, itself first, or all images that the project can see. Each comes after its parent,
    /// followed by all that came from it; of several children the oldest is first.
    pub fn lineage(&self, of: Option<&ImageRef>) -> Result<Vec<LineageNode>> {
        let catalog = self.store.catalog()?;
        let hold = self.store.hold(&catalog)?;
        let (mut nodes, layers) = catalog.read(|tx| {
            self.check(tx)?;
            let top = of.map(|reference| self.resolve_in(tx, reference)).transpose()?;
            let top = top.map(|(found, _)| found.id);
            let ids = match top {
                Some(top) => self.descendants(tx, top)?,
                None => self.visible(tx)?,
            };
            let (mut nodes, mut layers) = (BTreeMap::new(), BTreeMap::new());
            for id in ids {
                let mut node = LineageNode::removed(id, self.parent_of(tx, id)?, latest_created(id));
                if let Some(record) = self.image_row(tx, id)? {
                    node.created = record.created();
                    node.info = Some(self.info(tx, &record)?);
                    layers.insert(id, record.layer);
                }
                nodes.insert(id, node);
            }
            match top.and_then(|top| nodes.get_mut(&top)) {
                Some(top) => top.parent = None,
                None => self.add_removed(tx, &mut nodes)?,
            }
            self.date_removed(tx, &mut nodes)?;
            Ok((in_order(nodes, top), layers))
        })?;
        // Taken after the rows: a view of now has the objects of all of them.
        let reader = self.store.reader(&catalog, &hold)?;
        for node in &mut nodes {
            if let Some(layer) = layers.get(&node.id) {
                node.added_bytes = LayerRecord::read(&reader, *layer)?.changed_bytes;
            }
        }
        Ok(nodes)
    }

    /// All images that the project can see.
    fn visible(&self, tx: &ReadTx) -> Result<BTreeSet<ImageId>> {
        let mut visible = BTreeSet::new();
        for scope in self.scopes() {
            tx.scan::<Images>(&key_bytes(&scope), None, Direction::Ascending, |(_, id), _| {
                visible.insert(id);
                Ok(ControlFlow::Continue(()))
            })?;
        }
        Ok(visible)
    }

    /// An image and what came from it, as far as it is there or something that is there came from it.
    fn descendants(&self, tx: &ReadTx, top: ImageId) -> Result<BTreeSet<ImageId>> {
        let mut parents = BTreeMap::new();
        let mut pending = vec![top];
        while let Some(parent) = pending.pop() {
            for scope in self.scopes() {
                for ((_, child), ()) in tx.collect::<Children>(&key_bytes(&(scope, parent)))? {
                    if parents.insert(child, parent).is_none() {
                        pending.push(child);
                    }
                }
            }
        }
        let mut wanted = BTreeSet::from([top]);
        for (id, parent) in &parents {
            if self.image_row(tx, *id)?.is_some() {
                let mut next = Some((*id, *parent));
                while let Some((_, parent)) = next.filter(|(id, _)| wanted.insert(*id)) {
                    next = parents.get(&parent).map(|above| (parent, *above));
                }
            }
        }
        Ok(wanted)
    }

    /// Puts in the removed images that lie above others.
    fn add_removed(&self, tx: &ReadTx, nodes: &mut BTreeMap<ImageId, LineageNode>) -> Result<()> {
        let mut unknown: Vec<_> = nodes.values().filter_map(|node| node.parent).collect();
        while let Some(id) = unknown.pop() {
            if nodes.contains_key(&id) {
                continue;
            }
            let parent = self.parent_of(tx, id)?;
            unknown.extend(parent);
            nodes.insert(id, LineageNode::removed(id, parent, latest_created(id)));
        }
        Ok(())
    }

    /// Dates removed images as what was made from them says.
    fn date_removed(&self, tx: &ReadTx, nodes: &mut BTreeMap<ImageId, LineageNode>) -> Result<()> {
        let parents: BTreeSet<_> = nodes.values().filter_map(|node| Some((node.parent?, node.id))).collect();
        for (parent, child) in parents {
            let Some(node) = nodes.get_mut(&parent).filter(|node| node.info.is_none()) else { continue };
            if let Some(row) = self.lineage_row(tx, child)? {
                node.created = parent_created(&row);
            }
        }
        Ok(())
    }

    /// The parent of an image that this project has or had.
    fn known_parent(&self, tx: &impl ReadTables, id: ImageId) -> Result<Option<ImageId>> {
        let parent = self.parent_of(tx, id)?;
        if parent.is_none() && self.image_row(tx, id)?.is_none() {
            let message = format!("no such image in project '{}' or the public scope", self.name);
            return Err(Error::not_found(Subject::Image(id), message));
        }
        Ok(parent)
    }

    fn parent_of(&self, tx: &impl ReadTables, id: ImageId) -> Result<Option<ImageId>> {
        Ok(self.lineage_row(tx, id)?.map(|row| row.parent))
    }

    fn lineage_row(&self, tx: &impl ReadTables, id: ImageId) -> Result<Option<LineageRecord>> {
        for scope in self.scopes() {
            if let Some(row) = tx.get::<Lineage>(&(scope, id))? {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }
}

/// When the parent that a row names was made.
fn parent_created(row: &LineageRecord) -> Moment {
    row.parent_created_ms.0.map_or_else(|| latest_created(row.parent), Moment::from_unix_ms)
}

fn too_many(id: ImageId) -> Error {
    let message = format!("has more than {MAX_HISTORY} images after it");
    Error::corrupt(Subject::Image(id), message)
}

/// Each node after its parent, followed by all below it, oldest first; from `top` on, or from those without a parent.
fn in_order(mut nodes: BTreeMap<ImageId, LineageNode>, top: Option<ImageId>) -> Vec<LineageNode> {
    let mut children: BTreeMap<Option<ImageId>, Vec<ImageId>> = BTreeMap::new();
    for node in nodes.values() {
        children.entry(node.parent).or_default().push(node.id);
    }
    let mut ordered = Vec::new();
    let mut pending = top.map_or_else(|| children.remove(&None).unwrap_or_default(), |top| vec![top]);
    pending.reverse();
    while let Some(id) = pending.pop() {
        pending.extend(children.remove(&Some(id)).unwrap_or_default().into_iter().rev());
        ordered.extend(nodes.remove(&id));
    }
    ordered
}

/// Remembers what a new image was made from.
pub(super) fn remember_parent(tx: &mut WriteTx, scope: ProjectId, image: &ImageRecord) -> Result<()> {
    let Some(parent) = image.parent else { return Ok(()) };
    let scopes = [scope, ProjectId::PUBLIC];
    let parents = scopes.iter().map(|scope| tx.get::<Images>(&(*scope, parent)));
    let created_ms =
        parents.collect::<Result<Vec<_>>>()?.into_iter().flatten().next().map(|record| record.created_ms);
    tx.put::<Lineage>(&(scope, image.id), &LineageRecord { parent, parent_created_ms: Added(created_ms) })?;
    tx.put::<Children>(&((scope, parent), image.id), &())
}

/// Forgets all that a project remembers.
pub(super) fn forget_lineage(tx: &mut WriteTx, scope: ProjectId) -> Result<()> {
    for ((scope, image), LineageRecord { parent, .. }) in tx.collect::<Lineage>(&key_bytes(&scope))? {
        tx.remove::<Lineage>(&(scope, image))?;
        tx.remove::<Children>(&((scope, parent), image))?;
    }
    Ok(())
}

impl Image {
    /// The images that this one came from, nearest first: see [`Project::ancestors`].
    pub fn ancestors(&self) -> Result<Vec<Ancestor>> {
        self.project.ancestors(self.id())
    }

    /// The images that were made from this one: see [`Project::children`].
    pub fn children(&self) -> Result<Vec<ImageId>> {
        self.project.children(self.id())
    }
}
