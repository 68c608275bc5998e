//! Workspaces: writable copies of images, several on one image at once.
//!
//! Where the process may mount, a workspace is an overlay: what is written lies over a directory that all workspaces on the
//! image share (see `lower`). Elsewhere it is a checkout of its own. Its row keeps its image's content until it ends.

mod clean;
mod create;
mod fill;
mod folder;
mod lower;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::catalog::record::{
    DirectoryUse, Equal, HolderRecord, ImageRecord, LowerRecord, WorkspaceForm, WorkspaceRecord,
};
use crate::catalog::table::{Lowers, Workspaces, key_bytes};
use crate::catalog::{ReadTables, WriteTx};
use crate::error::{Error, ErrorKind, Result, Subject};
use crate::host::overlay::{self, OtherMounts, Overlay};
use crate::host::source::SourceTree;
use crate::id::{ImageId, ObjectId, ProjectId, WorkspaceId};
use crate::name::WorkspaceName;
use crate::time::Moment;

use super::commit::CommitOptions;
use super::import::{Draft, WriteReport};
use super::known::KnownDirectory;
use super::project::Project;
use super::{Inner, holder};
pub(super) use clean::forget_workspaces;
pub(super) use folder::Folder;
use lower::Lower;

/// For how long what is in use is tried again: a process may be about to leave it.
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// How a workspace is made.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct WorkspaceOptions {
    /// Its name, unique in its project; none for one that is made up.
    pub name: Option<WorkspaceName>,
    /// A checkout of its own even where an overlay could be mounted.
    pub full_copy: bool,
    /// It ends with this process, whatever becomes of it; so nothing that is written need be durable.
    pub temporary: bool,
}

/// How a workspace shows its image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkspaceKind {
    /// An overlay mount over files that several workspaces share.
    Overlay,
    /// A checkout of its own.
    Checkout,
}

/// A workspace in a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
    pub path: PathBuf,
    /// Whether its files are there now.
    pub is_mounted: bool,
    /// The process that alone it is for, if it is temporary.
    pub process: Option<u32>,
}

/// A writable copy of an image. Its files are those in [`path`](Self::path), and stay, whatever becomes of this
/// handle, until it [ends](Self::discard): its image can't be removed until then without force, and its content not at all.
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

    /// The directory to work in. Mounts it, if it is an overlay that is not mounted, as after a boot.
    pub fn path(&self) -> Result<PathBuf> {
        let store = &self.project.store;
        let folder = store.workspaces()?;
        let record = self.finished()?;
        let _lock = folder.lock_workspace(self.id)?;
        let is_overlay = record.form == WorkspaceForm::Overlay;
        let path = if is_overlay { folder.merged(self.id) } else { folder.files(self.id) };
        if !folder.files(self.id).is_dir() {
            return Err(Error::corrupt(
                Subject::Host(folder.files(self.id)),
                "the workspace's files are missing",
            ));
        }
        if is_overlay && !overlay::is_mounted(&path) {
            self.check_is_unused(folder)?;
            let lower = store.lower(folder, &record.base)?.ok_or_else(|| {
                Error::unsupported(
                    subject(&self.name),
                    "what it lies over can't be made by this process; be root",
                )
            })?;
            mount(folder, self.id, &lower, record.holder.is_some())?;
        }
        Ok(path)
    }

    /// Commits what was changed as a new image, and stays. If nothing was, gives the UUID back of the image that it was
    /// committed as last, or made from. In a full copy that belongs to another user than root, new files of that user are
    /// root's in the image.
    ///
    /// Errors: as of [`Project::commit`]; [`Invalid`](ErrorKind::Invalid) with a [base](CommitOptions::base);
    /// [`InUse`](ErrorKind::InUse) for a temporary workspace of another process.
    pub fn commit(&self, options: &CommitOptions) -> Result<WriteReport> {
        self.commit_as(options, false)
    }

    /// Commits what was changed, and ends. The workspace stays as it is if this fails.
    ///
    /// Errors: as of [`commit`](Self::commit); [`InUse`](ErrorKind::InUse) also while a process works in it.
    pub fn commit_and_end(&self, options: &CommitOptions) -> Result<WriteReport> {
        self.commit_as(options, true)
    }

    /// Ends it: what was written in it since the last commit is gone.
    ///
    /// Error: [`InUse`](ErrorKind::InUse) while a process works in it, or for a temporary one of another process.
    pub fn discard(&self) -> Result<()> {
        let folder = self.project.store.workspaces()?;
        let record = self.finished()?;
        let lock = folder.lock_workspace(self.id)?;
        self.unmount(folder, &record)?;
        self.end(folder, &record)?;
        drop(lock);
        self.project.store.evict_lowers(folder)
    }

    fn commit_as(&self, options: &CommitOptions, ends: bool) -> Result<WriteReport> {
        if options.base.is_some() {
            let message = "is the image that the workspace was made from; leave the option out";
            return Err(Error::invalid(Subject::Argument("base"), message));
        }
        let folder = self.project.store.workspaces()?;
        self.finished()?;
        let lock = folder.lock_workspace(self.id)?;
        // Another commit may have come first.
        let record = self.finished()?;
        let report = match record.form {
            WorkspaceForm::Checkout => {
                let user = (rustix::process::geteuid(), rustix::process::getegid());
                let root_user = (!user.0.is_root()).then_some((user.0.as_raw(), user.1.as_raw()));
                let report = self.project.commit_as_user(&folder.files(self.id), root_user, options)?;
                if ends {
                    self.end(folder, &record)?;
                }
                report
            }
            WorkspaceForm::Overlay | WorkspaceForm::Unfinished => {
                let end = match ends {
                    true if self.unmount(folder, &record)? => End::AsLower,
                    true => End::Whole,
                    false => End::Not,
                };
                self.commit_overlay(folder, &record, options, end)?
            }
        };
        drop(lock);
        if ends {
            self.project.store.evict_lowers(folder)?;
        }
        Ok(report)
    }

    fn commit_overlay(
        &self,
        folder: &Folder,
        record: &WorkspaceRecord,
        options: &CommitOptions,
        end: End,
    ) -> Result<WriteReport> {
        let (project, store) = (&self.project, &self.project.store);
        let files = SourceTree::open(&folder.files(self.id))?;
        // An image that is gone is no parent, and its tree may be gone too.
        let last = store.read(|tx| project.image_row(tx, record.last.image))?;
        let last = last.map_or(record.base, |image| Equal::from(&image));
        let becomes = match store.known_lower(folder, record.base.root)? {
            Lower::Ready(lower) if end == End::AsLower => LowerRecord::of_workspace(self.id, &lower),
            _ => None,
        };
        let ends = end != End::Not;
        let step = WorkspaceStep { name: self.name.clone(), id: self.id, ends, becomes };
        let (session, reader, options) = project.begin_commit(options)?;
        session.limit_content(options.max_layer_bytes);
        let made = project.draft_of_workspace(&files, (&record.base, &last), &session, &reader, &options);
        let report = project.finish(session, made.map(|draft| Draft { workspace: Some(step), ..draft }))?;
        if ends {
            let lowers = store.read(|tx| tx.collect::<Lowers>(&[]))?;
            if lowers.iter().any(|(_, lower)| lower.id == self.id) {
                folder.keep_files(self.id)?;
            } else {
                folder.remove(self.id)?;
            }
        }
        Ok(report)
    }

    /// Ends its mount, if it is one. Gives whether nothing can write to its files any more.
    fn unmount(&self, folder: &Folder, record: &WorkspaceRecord) -> Result<bool> {
        // A process that just ended may still be taken apart.
        let merged = folder.merged(self.id);
        retry_while_in_use(|| overlay::end_mount(&merged))?;
        // A temporary one is nobody else's.
        if record.form != WorkspaceForm::Overlay || record.holder.is_some() {
            return Ok(true);
        }
        self.check_is_unused(folder)
    }

    /// Fails if a process works in a mount that this one does not see. Gives whether there is none.
    fn check_is_unused(&self, folder: &Folder) -> Result<bool> {
        let files = folder.files(self.id);
        // One that is just being started may have another's directory, until it goes where it is to work.
        retry_while_in_use(|| {
            let OtherMounts { any, user } = overlay::other_mounts(&files)?;
            let Some(process) = user else { return Ok(!any) };
            let message = format!(
                "process {process} works in it, where it is mounted in another mount namespace or at another place; end that \
                 first"
            );
            Err(Error::new(ErrorKind::InUse, subject(&self.name), message))
        })
    }

    /// Removes its row, and then its files.
    fn end(&self, folder: &Folder, record: &WorkspaceRecord) -> Result<()> {
        let store = &self.project.store;
        let stat = match record.form {
            WorkspaceForm::Checkout => {
                SourceTree::open(&folder.files(self.id)).and_then(|source| source.root_stat()).ok()
            }
            WorkspaceForm::Overlay | WorkspaceForm::Unfinished => None,
        };
        let mut states = Vec::new();
        self.change(|tx, _| {
            let find = |stat| KnownDirectory::find(tx, stat, DirectoryUse::Checkout);
            let known: Vec<_> = stat.as_ref().map(find).transpose()?.flatten().into_iter().collect();
            states = Inner::forget_directories(tx, &known)?;
            Ok(None)
        })?;
        store.remove_states(states);
        folder.remove(self.id)
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
            |holder: &HolderRecord| *holder != holder::this_process() && !holder::is_dead(holder);
        if record.form == WorkspaceForm::Unfinished || record.holder.as_ref().is_some_and(is_foreign) {
            return Err(self.unfinished(&record));
        }
        Ok(record)
    }

    fn unfinished(&self, record: &WorkspaceRecord) -> Error {
        let process = record.holder.as_ref().map_or(0, |holder| holder.process);
        let message = format!("is used by process {process}, with which it ends");
        Error::new(ErrorKind::InUse, subject(&self.name), message)
    }

    /// Makes its row another, or removes it.
    fn change(
        &self,
        change: impl FnOnce(&mut WriteTx, WorkspaceRecord) -> Result<Option<WorkspaceRecord>>,
    ) -> Result<()> {
        self.project.store.catalog()?.write(|tx| {
            let record = self.record_in(tx)?;
            let key = (self.project.id, self.name.clone());
            match change(tx, record)? {
                Some(record) => tx.put::<Workspaces>(&key, &record),
                None => tx.remove::<Workspaces>(&key).map(drop),
            }
        })
    }
}

/// Whether a workspace ends with a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Not,
    /// With all its files.
    Whole,
    /// What it wrote may lie below others.
    AsLower,
}

/// What becomes of a workspace in the transaction that publishes what it was committed as.
pub(super) struct WorkspaceStep {
    name: WorkspaceName,
    id: WorkspaceId,
    ends: bool,
    /// What its files then are for other workspaces.
    becomes: Option<LowerRecord>,
}

impl WorkspaceStep {
    pub(super) fn take(&self, tx: &mut WriteTx, project: ProjectId, image: &ImageRecord) -> Result<()> {
        let key = (project, self.name.clone());
        let found = tx.get::<Workspaces>(&key)?.filter(|record| record.id == self.id);
        let record = found.ok_or_else(|| Error::conflict(subject(&self.name), "was ended meanwhile"))?;
        if !self.ends {
            return tx.put::<Workspaces>(&key, &WorkspaceRecord { last: Equal::from(image), ..record });
        }
        tx.remove::<Workspaces>(&key)?;
        if let Some(becomes) = &self.becomes
            && tx.get::<Lowers>(&image.root)?.is_none()
        {
            tx.put::<Lowers>(&image.root, becomes)?;
        }
        Ok(())
    }
}

impl Inner {
    /// The folder of workspaces; a store in memory has none.
    fn workspaces(&self) -> Result<&Folder> {
        self.workspaces.as_ref().ok_or_else(|| {
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
        let is_mounted = kind == WorkspaceKind::Checkout || overlay::is_mounted(&path);
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
    record.holder.as_ref().is_some_and(holder::is_dead)
}

fn mount(
    folder: &Folder,
    id: WorkspaceId,
    lower: &[(ObjectId, WorkspaceId)],
    is_volatile: bool,
) -> Result<()> {
    let lower = lower.iter().map(|(_, id)| format!("{}/{}", Folder::name(*id), overlay::FILES)).collect();
    Overlay { folder: folder.path(), lower, place: Folder::name(id), is_volatile }.mount()
}

fn retry_while_in_use<T>(attempt: impl Fn() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + LONGEST_WAIT;
    loop {
        match attempt() {
            Err(error) if error.kind() == ErrorKind::InUse && Instant::now() < deadline => {
                std::thread::sleep(LONGEST_WAIT / 50);
            }
            outcome => return outcome,
        }
    }
}

fn subject(name: &WorkspaceName) -> Subject {
    Subject::Workspace(name.to_string())
}

#[cfg(test)]
mod tests;
