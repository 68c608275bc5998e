//! Directories that workspaces lie over: each equals an image's root, by itself or over another, and any number of workspaces
//! share it.
//!
//! One is what a workspace wrote that was committed and ended: the next workspace on that image then costs nothing. Where there
//! is none, it is made (see `fill`): over that of an image that this one came from it costs what differs, otherwise a
//! checkout. They are only a cache, and not durable: after a boot they count for nothing and are made again.

use std::collections::HashSet;

use crate::catalog::record::{ImageVersion, LowerRecord, LowerState};
use crate::catalog::table::{Lowers, Sequence};
use crate::catalog::{ReadTables, WriteTx};
use crate::engine::{Engine, process};
use crate::error::{Error, Result, Subject};
use crate::format::record::Added;
use crate::host::checkout::Checkout;
use crate::host::usage::allocated_bytes;
use crate::id::{ObjectId, WorkspaceId};
use crate::layer;
use crate::pack::reader::ObjectReader;
use crate::task::Phase;
use crate::time::Moment;

use super::fill;
use super::folder::Folder;

/// How many directories lie over each other at most: each costs every look-up in a mount.
const DEEPEST: usize = 16;
/// How many steps of an image's history are looked through for one whose directory is there.
const LOOKED_BACK: usize = 256;

/// Directories that lie over each other, uppermost first, and the roots that they show.
pub(super) type Stack = Vec<(ObjectId, WorkspaceId)>;

/// What can lie below a workspace on a root.
pub(super) enum Lower {
    Ready(Stack),
    /// Nothing: the root can't be a lower directory.
    Impossible,
    /// It has to be made.
    Absent,
}

impl Engine {
    /// What can lie below a workspace on an image, made if there is none; none if it can't be made.
    pub(super) fn lower(&self, folder: &Folder, image: &ImageVersion) -> Result<Option<Stack>> {
        match self.known_lower(folder, image.root)? {
            Lower::Ready(found) => return Ok(Some(found)),
            Lower::Impossible => return Ok(None),
            Lower::Absent => {}
        }
        let _lock = folder.lock_root(&image.root, &self.task)?;
        // Another may have made it meanwhile.
        match self.known_lower(folder, image.root)? {
            Lower::Ready(found) => Ok(Some(found)),
            Lower::Impossible => Ok(None),
            Lower::Absent => self.make_lower(folder, image),
        }
    }

    /// What lies there for a root now.
    pub(super) fn known_lower(&self, folder: &Folder, root: ObjectId) -> Result<Lower> {
        let boot = process::boot();
        let found = self.read(|tx| {
            let mut found = Stack::new();
            let mut next = Some(root);
            while let Some(root) = next {
                let Some(record) = tx.get::<Lowers>(&root)?.filter(|record| record.boot == boot) else {
                    return Ok(Lower::Absent);
                };
                match record.state {
                    LowerState::Unfinished => return Ok(Lower::Absent),
                    LowerState::Impossible => return Ok(Lower::Impossible),
                    LowerState::Ready => found.push((root, record.id)),
                }
                next = record.below;
            }
            Ok(Lower::Ready(found))
        })?;
        match found {
            Lower::Ready(found) if !found.iter().all(|(_, id)| folder.files(*id).is_dir()) => {
                Ok(Lower::Absent)
            }
            found => Ok(found),
        }
    }

    /// Makes a directory for workspaces on an image. Whoever calls this holds the root's lock.
    fn make_lower(&self, folder: &Folder, image: &ImageVersion) -> Result<Option<Stack>> {
        let root = image.root;
        let catalog = self.catalog()?;
        let reader = self.reader(&catalog, &self.hold(&catalog)?)?;
        drop(catalog);
        let below = self.nearest_lower(folder, &reader, image)?;
        let now = self.surroundings.now();
        let (record, old) = self.catalog()?.write(|tx| {
            let id = WorkspaceId::new(tx.next(Sequence::Workspace)?);
            let old = tx.get::<Lowers>(&root)?;
            // From here on it is not evicted; what was before is not there.
            let stays = |(root, id): (ObjectId, WorkspaceId)| {
                Ok::<_, Error>(tx.get::<Lowers>(&root)?.is_some_and(|record| record.id == id))
            };
            let stays = below.first().copied().map(stays).transpose()?.unwrap_or(false);
            let record = LowerRecord::over(id, if stays { &below } else { &[] }, LowerState::Unfinished, now);
            tx.put::<Lowers>(&root, &record)?;
            Ok((record, old))
        })?;
        let id = record.id;
        let made = Folder::make_directory(&folder.directory(id)).and_then(|()| {
            let checkout = Checkout::begin(&folder.files(id), &self.task)?;
            let filled = fill::fill(&checkout, &reader, record.below, root, self.options.threads)?;
            checkout.publish(false).map(|()| filled)
        });
        let filled = match made {
            Ok(filled) => filled,
            Err(error) => {
                let _stage = self.task.begin(Phase::Removing, None);
                let _ = self.without_task().catalog().and_then(|catalog| {
                    catalog.write(|tx| match tx.get::<Lowers>(&root)? {
                        Some(there) if there.id == id => tx.remove::<Lowers>(&root).map(drop),
                        // Evicted meanwhile, and another's since.
                        _ => Ok(()),
                    })
                });
                let _ = folder.remove(id);
                return Err(error);
            }
        };
        let state = if filled.is_faithful { LowerState::Ready } else { LowerState::Impossible };
        let below = if filled.is_faithful && filled.lies_over { below } else { Stack::new() };
        let record = LowerRecord::over(id, &below, state, self.surroundings.now()).made(folder);
        self.catalog()?.write(|tx| {
            // Nobody takes it while it is made, but it may have been removed with what it was for.
            match tx.get::<Lowers>(&root)? {
                Some(there) if there.id == id => tx.put::<Lowers>(&root, &record),
                _ => Err(Error::conflict(
                    Subject::Catalog,
                    "what was made for a workspace was removed; try again",
                )),
            }
        })?;
        if let Some(old) = old {
            folder.remove(old.id)?;
        }
        if state == LowerState::Impossible {
            folder.remove(id)?;
            return Ok(None);
        }
        Ok(Some([vec![(root, id)], below].concat()))
    }

    /// What is there for an image that this one came from, or nothing. Where too many lie over each other already, the one
    /// at the bottom.
    fn nearest_lower(&self, folder: &Folder, reader: &ObjectReader, image: &ImageVersion) -> Result<Stack> {
        let there: HashSet<_> =
            self.read(|tx| tx.collect::<Lowers>(&[]))?.into_iter().map(|(root, _)| root).collect();
        if there.is_empty() {
            return Ok(Stack::new());
        }
        for step in layer::history(reader, image.layer).take(LOOKED_BACK) {
            // What is told of the past may be gone.
            let Ok((_, step)) = step else { break };
            if step.root == image.root || !there.contains(&step.root) {
                continue;
            }
            if let Lower::Ready(mut stack) = self.known_lower(folder, step.root)? {
                if stack.len() >= DEEPEST {
                    stack = stack.split_off(stack.len() - 1);
                }
                return Ok(stack);
            }
        }
        Ok(Stack::new())
    }
}

impl LowerRecord {
    /// A directory that lies over others.
    fn over(id: WorkspaceId, below: &[(ObjectId, WorkspaceId)], state: LowerState, now: Moment) -> Self {
        let below = below.first().map(|(root, _)| *root);
        Self { id, below, state, boot: process::boot(), used_ms: now.unix_ms(), bytes: Added(None) }
    }

    /// One that is made.
    fn made(self, folder: &Folder) -> Self {
        let bytes = allocated_bytes(&folder.files(self.id)).ok();
        Self { bytes: Added(bytes), ..self }
    }

    /// What a workspace over these becomes for the image that it is committed as; none if too many would lie over each
    /// other.
    pub(super) fn of_workspace(
        folder: &Folder,
        id: WorkspaceId,
        lower: &[(ObjectId, WorkspaceId)],
        now: Moment,
    ) -> Option<Self> {
        (lower.len() < DEEPEST).then(|| Self::over(id, lower, LowerState::Ready, now).made(folder))
    }
}

/// Says that a root's directory is in use now.
pub(super) fn touch_lower(tx: &mut WriteTx, root: ObjectId, now: Moment) -> Result<()> {
    let Some(record) = tx.get::<Lowers>(&root)? else { return Ok(()) };
    tx.put::<Lowers>(&root, &LowerRecord { used_ms: now.unix_ms(), ..record })
}
