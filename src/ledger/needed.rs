//! What must stay: the images of all scopes and what workspaces were made from, and while a collection is marking, what
//! becomes one of these.

use std::ops::ControlFlow;

use crate::catalog::record::{ImageRecord, ImageVersion, NeededRecord};
use crate::catalog::table::{Collections, Images, Leases, Needed, Sequence, Workspaces};
use crate::catalog::{Direction, ReadTables, WriteTx};
use crate::error::Result;
use crate::format::record;
use crate::id::{ImageId, LeaseId, ObjectId, ProjectId};
use crate::object::ObjectKind;

/// Images that are looked at in one look into the catalog.
const PAGE: usize = 1000;

/// Tells a collection that is under way of an image whose row was made.
pub(crate) fn note_image(tx: &mut WriteTx, image: &ImageRecord) -> Result<()> {
    note(tx, &ImageVersion::from(image), record_of(image))
}

/// Tells a collection that is under way of what a workspace's row names.
pub(crate) fn note_workspace(tx: &mut WriteTx, equal: &ImageVersion) -> Result<()> {
    note(tx, equal, None)
}

fn note(tx: &mut WriteTx, equal: &ImageVersion, image: Option<ObjectId>) -> Result<()> {
    if running(tx)?.is_none() {
        return Ok(());
    }
    let number = tx.next(Sequence::Needed)?;
    tx.put::<Needed>(&number, &NeededRecord { root: equal.root, layer: equal.layer, image })
}

/// The lease of the collection that is under way.
pub(crate) fn running(tx: &impl ReadTables) -> Result<Option<LeaseId>> {
    match tx.get::<Collections>(&())? {
        Some(lease) => Ok(tx.get::<Leases>(&lease)?.map(|_| lease)),
        None => Ok(None),
    }
}

/// What became needed after the first `seen`.
pub(crate) fn needed_since(tx: &impl ReadTables, seen: u64) -> Result<Vec<(u64, NeededRecord)>> {
    let mut rows = Vec::new();
    tx.scan::<Needed>(&[], Some(&seen), Direction::Ascending, |number, record| {
        rows.push((number, record));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(rows)
}

/// Some images of all scopes, from the one after `after`.
pub(crate) fn images_after(
    tx: &impl ReadTables,
    after: Option<&(ProjectId, ImageId)>,
) -> Result<Vec<((ProjectId, ImageId), ImageRecord)>> {
    let mut page = Vec::new();
    tx.scan::<Images>(&[], after, Direction::Ascending, |key, record| {
        page.push((key, record));
        let is_full = page.len() >= PAGE;
        Ok(if is_full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    Ok(page)
}

/// What workspaces were made from, and were committed as last.
pub(crate) fn of_workspaces(tx: &impl ReadTables) -> Result<Vec<ImageVersion>> {
    let rows = tx.collect::<Workspaces>(&[])?.into_iter();
    Ok(rows.flat_map(|(_, workspace)| [workspace.base, workspace.last]).collect())
}

/// The object that is an image's own record.
pub(crate) fn record_of(image: &ImageRecord) -> Option<ObjectId> {
    record::encode_object(image).ok().map(|bytes| ObjectKind::Image.id_of(&bytes))
}
