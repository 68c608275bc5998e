//! Directories that workspaces lie over: each equals an image's root, by itself or over another, and any number of workspaces
//! share it.
//!
//! One is made by a checkout, or is what a workspace wrote that was committed and ended: the next workspace on that image
//! then costs nothing. They are only a cache, and not durable: after a boot they count for nothing and are made again.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};

use crate::catalog::record::{Equal, LowerRecord, LowerState, WorkspaceForm};
use crate::catalog::table::{Lowers, Sequence, Workspaces};
use crate::catalog::{ReadTables, WriteTx};
use crate::error::Result;
use crate::host::checkout::{Checkout, Item, WriteOptions, Written};
use crate::id::{ObjectId, WorkspaceId};
use crate::pack::reader::ObjectReader;
use crate::path::TreePath;
use crate::store::checkout::item;
use crate::store::{Inner, holder};
use crate::time::Moment;
use crate::tree::{self, InodeKind, Root};

use super::folder::Folder;

/// How many directories lie over each other at most: each costs every look-up in a mount.
const DEEPEST: u32 = 16;
/// How many are kept that nothing lies over.
const KEPT_IDLE: usize = 4;

/// Of an image's extended attributes those that would not show in a mount, but act on it.
const OVERLAY_XATTRS: &[u8] = b"trusted.overlay.";

/// What can lie below a workspace on a root.
pub(super) enum Lower {
    /// These, uppermost first.
    Ready(Vec<WorkspaceId>),
    /// Nothing: the root can't be a lower directory.
    Impossible,
    /// It has to be made.
    Absent,
}

impl Inner {
    /// What can lie below a workspace on a root, made if there is none; none if it can't be made.
    pub(super) fn lower(&self, folder: &Folder, root: ObjectId) -> Result<Option<Vec<WorkspaceId>>> {
        match self.known_lower(folder, root)? {
            Lower::Ready(found) => return Ok(Some(found)),
            Lower::Impossible => return Ok(None),
            Lower::Absent => {}
        }
        let _lock = folder.lock()?;
        // Another may have made it meanwhile.
        match self.known_lower(folder, root)? {
            Lower::Ready(found) => Ok(Some(found)),
            Lower::Impossible => Ok(None),
            Lower::Absent => self.make_lower(folder, root),
        }
    }

    /// What lies there for a root now.
    pub(super) fn known_lower(&self, folder: &Folder, root: ObjectId) -> Result<Lower> {
        let boot = holder::boot();
        let found = self.read(|tx| {
            let mut found = Vec::new();
            let mut next = Some(root);
            while let Some(root) = next {
                let Some(record) = tx.get::<Lowers>(&root)?.filter(|record| record.boot == boot) else {
                    return Ok(Lower::Absent);
                };
                match record.state {
                    LowerState::Unfinished => return Ok(Lower::Absent),
                    LowerState::Impossible => return Ok(Lower::Impossible),
                    LowerState::Ready => found.push(record.id),
                }
                next = record.below;
            }
            Ok(Lower::Ready(found))
        })?;
        match found {
            Lower::Ready(found) if !found.iter().all(|id| folder.files(*id).is_dir()) => Ok(Lower::Absent),
            found => Ok(found),
        }
    }

    /// Checks a root out for workspaces to lie over. Whoever calls this holds the folder's lock.
    fn make_lower(&self, folder: &Folder, root: ObjectId) -> Result<Option<Vec<WorkspaceId>>> {
        let catalog = self.catalog()?;
        let (record, old) = catalog.write(|tx| {
            let id = WorkspaceId::new(tx.next(Sequence::Workspace)?);
            let old = tx.get::<Lowers>(&root)?;
            let record = LowerRecord::new(id, None, 1, LowerState::Unfinished);
            tx.put::<Lowers>(&root, &record)?;
            Ok((record, old))
        })?;
        let reader = self.reader(&catalog)?;
        drop(catalog);
        let made = Folder::make_directory(&folder.directory(record.id)).and_then(|()| {
            let checkout = Checkout::begin(&folder.files(record.id))?;
            let is_faithful = self.write_faithfully(&checkout, &reader, root)?;
            checkout.publish(false).map(|()| is_faithful)
        });
        let state = match made {
            Ok(true) => LowerState::Ready,
            Ok(false) => LowerState::Impossible,
            Err(error) => {
                let _ = self.catalog().and_then(|catalog| catalog.write(|tx| tx.remove::<Lowers>(&root)));
                let _ = folder.remove(record.id);
                return Err(error);
            }
        };
        let id = record.id;
        self.catalog()?.write(|tx| tx.put::<Lowers>(&root, &LowerRecord { state, ..record }))?;
        if let Some(old) = old {
            folder.remove(old.id)?;
        }
        if state == LowerState::Impossible {
            folder.remove(id)?;
            return Ok(None);
        }
        Ok(Some(vec![id]))
    }

    /// Writes a tree; false if what is there then would not show the tree as a lower directory.
    fn write_faithfully(&self, checkout: &Checkout, reader: &ObjectReader, root: ObjectId) -> Result<bool> {
        let acts = Cell::new(false);
        let items = tree::iter(reader, &Root::open(reader, root)?)?.map(|entry| {
            let (path, item) = item(reader, entry?)?;
            acts.set(acts.get() || acts_on_overlay(&item));
            Ok((path, item))
        });
        let written = self.write_all(checkout, reader, items)?;
        Ok(!acts.get() && is_complete(&written))
    }

    /// Writes a directory that is as the root directory of a tree, but empty.
    pub(super) fn write_root_directory(
        &self,
        checkout: &Checkout,
        reader: &ObjectReader,
        root: ObjectId,
    ) -> Result<()> {
        let entries = tree::iter(reader, &Root::open(reader, root)?)?;
        let items = entries.take(1).map(|entry| item(reader, entry?));
        self.write_all(checkout, reader, items).map(drop)
    }

    /// Writes with everything that can be set.
    fn write_all(
        &self,
        checkout: &Checkout,
        reader: &ObjectReader,
        items: impl Iterator<Item = Result<(TreePath, Item)>>,
    ) -> Result<Written> {
        let options =
            WriteOptions { devices: true, all_xattrs: true, threads: self.options.threads, cache: None };
        checkout.write(items, reader, options)
    }

    /// Removes the directories that were least recently used of those that nothing lies over.
    pub(super) fn evict_lowers(&self, folder: &Folder) -> Result<()> {
        if self.read(idle_lowers)?.is_empty() {
            return Ok(());
        }
        let evicted = self.catalog()?.write(|tx| {
            let idle = idle_lowers(tx)?;
            idle.iter().try_for_each(|(root, _)| tx.remove::<Lowers>(root).map(drop))?;
            Ok(idle)
        })?;
        evicted.iter().try_for_each(|(_, id)| folder.remove(*id))
    }
}

impl LowerRecord {
    fn new(id: WorkspaceId, below: Option<ObjectId>, depth: u32, state: LowerState) -> Self {
        Self { id, below, depth, state, boot: holder::boot(), used_ms: Moment::now().unix_ms() }
    }

    /// What a workspace over these becomes for the image that it is committed as; none if too many would lie over each
    /// other.
    pub(super) fn of_workspace(id: WorkspaceId, base: &Equal, lower: &[WorkspaceId]) -> Option<Self> {
        let depth = u32::try_from(lower.len()).ok()?.checked_add(1).filter(|depth| *depth <= DEEPEST)?;
        Some(Self::new(id, Some(base.root), depth, LowerState::Ready))
    }
}

/// Says that a root's directory is in use now.
pub(super) fn touch_lower(tx: &mut WriteTx, root: ObjectId) -> Result<()> {
    let Some(record) = tx.get::<Lowers>(&root)? else { return Ok(()) };
    tx.put::<Lowers>(&root, &LowerRecord { used_ms: Moment::now().unix_ms(), ..record })
}

/// Roots whose directories are more than are kept of those that nothing lies over, least recently used first.
fn idle_lowers(tx: &impl ReadTables) -> Result<Vec<(ObjectId, WorkspaceId)>> {
    let lowers: HashMap<_, _> = tx.collect::<Lowers>(&[])?.into_iter().collect();
    let workspaces = tx.collect::<Workspaces>(&[])?;
    let over = workspaces.iter().filter(|(_, workspace)| workspace.form != WorkspaceForm::Checkout);
    let used: HashSet<_> = over
        .map(|(_, workspace)| workspace.base.root)
        .chain(lowers.values().filter_map(|record| record.below))
        .collect();
    let mut idle: Vec<_> = lowers.iter().filter(|(root, _)| !used.contains(root)).collect();
    idle.sort_unstable_by_key(|(_, record)| record.used_ms);
    idle.truncate(idle.len().saturating_sub(KEPT_IDLE));
    Ok(idle.into_iter().map(|(root, record)| (*root, record.id)).collect())
}

/// Whether the kernel would take this, in a lower directory, for something else than what it is.
fn acts_on_overlay(item: &Item) -> bool {
    let Item::Inode(inode, xattrs) = item else { return false };
    inode.kind == InodeKind::CharDevice { major: 0, minor: 0 }
        || xattrs.iter().any(|(name, _)| name.starts_with(OVERLAY_XATTRS))
}

fn is_complete(written: &Written) -> bool {
    [written.owners_unset, written.modes_unset, written.xattrs_unset, written.omitted] == [0; 4]
}
