//! Workspaces: writable copies of images, several on one image at once.
//!
//! Where the process may mount, a workspace is an overlay: what is written lies over a directory that all workspaces on the
//! image share (see `lower`). Elsewhere it is a checkout of its own. Its row keeps its image's content until it ends.

mod clean;
mod commit;
mod create;
mod evict;
mod fill;
mod folder;
mod lower;
pub(crate) mod mark;
mod mounted;
mod own;

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use crate::catalog::record::{HolderRecord, WorkspaceForm, WorkspaceRecord};
use crate::catalog::table::{Workspaces, key_bytes};
use crate::catalog::{ReadTables, WriteTx};
use crate::error::{Error, ErrorKind, Result, Subject};
use crate::format::record::Added;
use crate::host::source::SourceTree;
use crate::host::stat::Stat;
use crate::id::{ImageId, ProjectId, WorkspaceId};
use crate::json;
use crate::name::WorkspaceName;
use crate::task::Task;
use crate::time::Moment;

use super::project::Project;
use crate::engine::{Engine, process};
pub use clean::LeftOver;
pub(crate) use clean::{Cleanable, Cleaned, forget_workspaces};
pub(super) use commit::{OfWorkspace, WorkspaceStep};
pub(super) use folder::Folder;

/// How a workspace is made.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct WorkspaceOptions {
    /// Its name, unique in its project; none for one that is made up.
    pub name: Option<WorkspaceName>,
    /// A checkout of its own even where an overlay could be mounted.
    pub full_copy: bool,
    /// It ends with this process, whatever becomes of it, unless it is [kept](Workspace::keep); so nothing that is written need
    /// be durable.
    pub temporary: bool,
}

/// How a workspace shows its image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum WorkspaceKind {
    /// An overlay mount over files that several workspaces share.
    Overlay,
    /// A checkout of its own.
    Checkout,
}

/// A workspace in a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WorkspaceInfo {
    /// Its name.
    pub name: WorkspaceName,
    /// The image it was made from.
    pub image: ImageId,
    /// How it shows the image.
    pub kind: WorkspaceKind,
    /// When it was made.
    pub created: Moment,
    /// Its directory, which is empty while an overlay is not mounted: see [`Workspace::path`].
    #[serde(flatten, serialize_with = "json::host_path")]
    #[cfg_attr(feature = "schema", schemars(with = "json::Path"))]
    pub path: PathBuf,
    /// Whether its files are there now, and nothing else.
    pub is_mounted: bool,
    /// The process that alone it is for, if it is temporary.
    pub process: Option<u32>,
}

/// A writable copy of an image. Its files are those in [`path`](Self::path), and stay, whatever becomes of this
/// handle, until it [ends](Self::discard). Until then [`Project::remove`] refuses its image without force, and the content
/// that it needs stays whatever becomes of the image.
#[derive(Clone, Debug)]
pub struct Workspace {
    project: Project,
    name: WorkspaceName,
    id: WorkspaceId,
    why_copy: Option<String>,
}

impl Project {
    /// The project's workspaces, by name.
    pub fn workspaces(&self) -> Result<Vec<WorkspaceInfo>> {
        let rows = self.store.read(|tx| {
            self.check(tx)?;
            tx.collect::<Workspaces>(&key_bytes(&self.id))
        })?;
        let finished = rows.into_iter().filter(|(_, record)| !has_ended(record));
        finished.filter_map(|((_, name), record)| self.store.info(name, &record).transpose()).collect()
    }

    /// The workspace of this name. Error: [`NotFound`](ErrorKind::NotFound).
    pub fn workspace(&self, name: &WorkspaceName) -> Result<Workspace> {
        let record = self.store.read(|tx| {
            self.check(tx)?;
            tx.get::<Workspaces>(&(self.id, name.clone()))
        })?;
        let record = record.filter(|record| !has_ended(record)).ok_or_else(|| {
            let message = format!("project '{}' has no such workspace", self.name);
            Error::not_found(subject(name), message)
        })?;
        Ok(Workspace { project: self.clone(), name: name.clone(), id: record.id, why_copy: None })
    }
}

impl Workspace {
    /// Returns a handle on the same workspace whose calls are of this task.
    #[must_use]
    pub fn with_task(&self, task: &Task) -> Self {
        Self { project: self.project.with_task(task), ..self.clone() }
    }

    fn task(&self) -> &Task {
        &self.project.store.task
    }

    /// Returns a handle that can't be cancelled, to undo or to end what was begun.
    fn without_task(&self) -> Self {
        self.with_task(&Task::unobserved())
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &WorkspaceName {
        &self.name
    }

    /// What listings show of it.
    pub fn info(&self) -> Result<WorkspaceInfo> {
        let record = self.record()?;
        self.project.store.info(self.name.clone(), &record)?.ok_or_else(|| self.unfinished(&record))
    }

    /// Why it is a full copy though that was not asked for: known to whoever made it.
    #[must_use]
    pub fn why_copy(&self) -> Option<&str> {
        self.why_copy.as_deref()
    }

    fn record(&self) -> Result<WorkspaceRecord> {
        self.project.store.read(|tx| self.record_in(tx))
    }

    fn record_in(&self, tx: &impl ReadTables) -> Result<WorkspaceRecord> {
        let found = tx.get::<Workspaces>(&(self.project.id, self.name.clone()))?;
        found
            .filter(|record| record.id == self.id)
            .ok_or_else(|| Error::not_found(subject(&self.name), "has ended"))
    }

    /// Its record, once it is made, and if it is not another process's.
    fn finished(&self) -> Result<WorkspaceRecord> {
        let record = self.record()?;
        let is_foreign =
            |holder: &HolderRecord| *holder != process::this_process() && !process::is_dead(holder);
        if record.form == WorkspaceForm::Unfinished || record.holder.as_ref().is_some_and(is_foreign) {
            return Err(self.unfinished(&record));
        }
        Ok(record)
    }

    /// The same, once nobody else mounts, commits or ends it, for as long as the lock is held, if what is there is its own. One
    /// whose directory is gone has no lock.
    fn locked(&self, folder: &Folder) -> Result<(Option<File>, WorkspaceRecord)> {
        folder.check_is_not_hidden(&self.finished()?)?;
        let lock = folder.lock_workspace(self.id, self.task())?;
        // Another may have ended it meanwhile.
        let record = self.finished()?;
        if record.form == WorkspaceForm::Checkout && lock.is_some() {
            // A commit was killed.
            folder.put_back(self.id)?;
        }
        folder.check_own(&record)?;
        Ok((lock, record))
    }

    /// The same of one that has its files.
    fn with_files(&self, folder: &Folder) -> Result<(Option<File>, WorkspaceRecord)> {
        let (lock, record) = self.locked(folder)?;
        let files = folder.files(self.id);
        if !files.is_dir() {
            let message = "the workspace's files are missing; put them back, or unmount what hides them, or discard the workspace";
            return Err(Error::corrupt(Subject::Host(files), message));
        }
        let Some(place) = folder.new_place(&record)? else { return Ok((lock, record)) };
        let place = Added(Some(place));
        self.change(|_, found| Ok(Some(WorkspaceRecord { place, ..found })))?;
        Ok((lock, WorkspaceRecord { place, ..record }))
    }

    fn unfinished(&self, record: &WorkspaceRecord) -> Error {
        let process = record.holder.as_ref().map_or(0, |holder| holder.process);
        let message = format!("is used by process {process}, with which it ends");
        Error::new(ErrorKind::InUse, subject(&self.name), message)
    }

    /// Makes its row another, or removes it.
    fn change(
        &self,
        change: impl Fn(&mut WriteTx, WorkspaceRecord) -> Result<Option<WorkspaceRecord>>,
    ) -> Result<()> {
        let store = &self.project.store;
        let key = (self.project.id, self.name.clone());
        let change = |tx: &mut WriteTx| {
            let changed = change(tx, self.record_in(tx)?)?;
            match &changed {
                Some(record) => tx.put::<Workspaces>(&key, record)?,
                None => tx.remove::<Workspaces>(&key).map(drop)?,
            }
            Ok(changed)
        };
        if let Some(record) = store.freeing(|| store.catalog()?.write(change))? {
            mark::write(&store.workspaces()?.directory(self.id), &key, &record);
        }
        Ok(())
    }

    /// Has its directory say what its row says, after a commit changed that.
    fn mark(&self, folder: &Folder) {
        if let Ok(record) = self.record() {
            mark::write(&folder.directory(self.id), &(self.project.id, self.name.clone()), &record);
        }
    }
}

impl Engine {
    /// A tree of which the user that this process is reads all that is his. Root reads everything anyway.
    pub(super) fn lending(&self, source: SourceTree, root: &Stat) -> Result<SourceTree> {
        match self.workspace_folder() {
            Some(folder) if !rustix::process::geteuid().is_root() => {
                folder.make()?;
                source.lending(&folder.journal(root))
            }
            _ => Ok(source),
        }
    }

    /// Returns the folder of workspaces; a store in memory has none.
    pub(crate) fn workspace_folder(&self) -> Option<Folder> {
        (!self.is_in_memory).then(|| Folder::new(&self.location, Arc::clone(&self.why_no_overlay)))
    }

    fn workspaces(&self) -> Result<Folder> {
        self.workspace_folder().ok_or_else(|| {
            let subject = Subject::Store(self.location.clone());
            Error::unsupported(
                subject,
                "a store in memory has no directory for workspaces; use one on a disk",
            )
        })
    }

    /// What a listing shows; none for one that is being made.
    fn info(&self, name: WorkspaceName, record: &WorkspaceRecord) -> Result<Option<WorkspaceInfo>> {
        let folder = self.workspaces()?;
        let (kind, path) = match record.form {
            WorkspaceForm::Unfinished => return Ok(None),
            WorkspaceForm::Overlay => (WorkspaceKind::Overlay, folder.merged(record.id)),
            WorkspaceForm::Checkout => (WorkspaceKind::Checkout, folder.files(record.id)),
        };
        let is_mounted = kind == WorkspaceKind::Checkout || folder.is_mounted(record)?;
        let process = record.holder.as_ref().map(|holder| holder.process);
        let (image, created) = (record.base.image, Moment::from_unix_ms(record.created_ms));
        Ok(Some(WorkspaceInfo { name, image, kind, created, path, is_mounted, process }))
    }
}

/// The names of the project's workspaces that were made from an image.
pub(super) fn users_of(
    tx: &impl ReadTables,
    project: ProjectId,
    image: ImageId,
) -> Result<Vec<WorkspaceName>> {
    let rows = tx.collect::<Workspaces>(&key_bytes(&project))?;
    let users = rows.into_iter().filter(|(_, record)| record.base.image == image && !has_ended(record));
    Ok(users.map(|((_, name), _)| name).collect())
}

/// Whether it was for a process that is gone.
fn has_ended(record: &WorkspaceRecord) -> bool {
    record.holder.as_ref().is_some_and(process::is_dead)
}

fn subject(name: &WorkspaceName) -> Subject {
    Subject::Workspace(name.to_string())
}

#[cfg(test)]
mod tests;
