//! Committing workspaces, and ending them.

use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::catalog::record::{
    DirectoryUse, ImageRecord, ImageVersion, LowerRecord, WorkspaceForm, WorkspaceRecord,
};
use crate::catalog::table::{Lowers, Workspaces};
use crate::catalog::{ReadTables, WriteTx};
use crate::engine::{Engine, process};
use crate::error::{Error, Result, Subject};
use crate::host::mounts::mounts_below;
use crate::host::source::SourceTree;
use crate::id::{ProjectId, WorkspaceId};
use crate::ledger::directories::KnownDirectory;
use crate::ledger::needed::note_workspace;
use crate::name::WorkspaceName;
use crate::path::TreePath;
use crate::store::commit::CommitOptions;
use crate::store::import::{Draft, WriteReport};
use crate::task::Phase;
use crate::time::Moment;

use super::folder::Folder;
use super::lower::{Lower, touch_lower};
use super::{Workspace, subject};

/// Whether a workspace ends with a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Not,
    /// With all its files.
    Whole,
    /// What it wrote may lie below others.
    AsLower,
}

/// What a commit of a checkout knows of the workspace that it is.
#[derive(Clone)]
pub(crate) struct OfWorkspace {
    /// The owner and group whose new files are root's.
    pub(crate) root_user: Option<(u32, u32)>,
    /// What it was committed as last, where nothing else is known of the directory.
    pub(crate) last: ImageVersion,
    pub(crate) step: WorkspaceStep,
}

/// What becomes of a workspace in the transaction that publishes what it was committed as.
#[derive(Clone)]
pub(crate) struct WorkspaceStep {
    name: WorkspaceName,
    id: WorkspaceId,
    ends: bool,
    /// What its files then are for other workspaces.
    becomes: Option<LowerRecord>,
    /// When it was committed.
    now: Moment,
}

impl Workspace {
    /// Commits what was changed as a new image, and stays. If nothing was, gives the UUID back of the image that it was
    /// committed as last, or made from. In a full copy, if this process is not root, new files of its user are root's in the
    /// image.
    ///
    /// What is mounted in an overlay is [left out](crate::SourceReport::mounts_left_out).
    ///
    /// Errors: as of [`Project::commit`](crate::Project::commit); [`InUse`](crate::ErrorKind::InUse) if anything is mounted in a
    /// full copy; [`Invalid`](crate::ErrorKind::Invalid) with a
    /// [base](CommitOptions::base); [`InUse`](crate::ErrorKind::InUse) for a temporary workspace of another process.
    pub fn commit(&self, options: &CommitOptions) -> Result<WriteReport> {
        self.commit_as(options, false)
    }

    /// Commits what was changed, and ends. If this fails the workspace stays as it is; a temporary one can be
    /// [kept](Self::keep) then.
    ///
    /// Errors: as of [`commit`](Self::commit); [`InUse`](crate::ErrorKind::InUse) also while a process works in
    /// it (see [`discard`](Self::discard)).
    pub fn commit_and_end(&self, options: &CommitOptions) -> Result<WriteReport> {
        self.commit_as(options, true)
    }

    /// Ends it: what was written in it since the last commit is gone.
    ///
    /// Error: [`InUse`](crate::ErrorKind::InUse) while a process works in it, or for a temporary workspace of another process. The
    /// kernel knows who works in an overlay. In a full copy a process is found by its current directory, root, program, open
    /// files and memory maps, which only root can see of other users' processes, and nobody of those in a `/proc` of their own.
    pub fn discard(&self) -> Result<()> {
        let folder = &self.project.store.workspaces()?;
        let (lock, record) = self.locked(folder)?;
        self.unmount(folder, &record)?;
        let now = self.project.store.surroundings.now();
        self.change(|tx, record| touch_lower(tx, record.base.root, now).map(|()| None))?;
        self.clear_away(folder, lock);
        Ok(())
    }

    /// Removes what is left of one that has ended. What can't be removed now is left to the next that is made.
    fn clear_away(&self, folder: &Folder, lock: Option<File>) {
        let _stage = self.task().begin(Phase::Removing, None);
        let ended = self.without_task();
        let _ = ended.remove_files(folder);
        drop(lock);
        let _ = ended.project.store.evict_lowers(folder);
    }

    fn commit_as(&self, options: &CommitOptions, ends: bool) -> Result<WriteReport> {
        if options.base.is_some() {
            let message = "is the image that the workspace was made from; leave the option out";
            return Err(Error::invalid(Subject::Argument("base"), message));
        }
        let folder = &self.project.store.workspaces()?;
        let (lock, record) = self.with_files(folder)?;
        let report = if record.form == WorkspaceForm::Checkout {
            // Of what is mounted in it the image would have what the mount shows, and not what lies below.
            if ends {
                self.unmount(folder, &record)?;
                folder.take_away(self.id)?;
                let made = self.commit_checkout(&folder.ending(self.id), &record, options, ends);
                made.inspect_err(|_| drop(folder.put_back(self.id)))?
            } else {
                self.check_has_no_mounts(folder)?;
                self.commit_checkout(&folder.files(self.id), &record, options, ends)?
            }
        } else if ends {
            let end = if self.unmount(folder, &record)? { End::AsLower } else { End::Whole };
            let made = self.commit_overlay(folder, &record, options, end);
            made.inspect_err(|_| {
                // Whoever works there goes on where it was. What is not durable can't be mounted again.
                if record.holder.is_none() {
                    let _ = self.without_task().mount(folder, &record);
                }
            })?
        } else {
            self.commit_overlay(folder, &record, options, End::Not)?
        };
        if ends {
            self.clear_away(folder, lock);
        } else {
            self.without_task().mark(folder);
        }
        Ok(report)
    }

    fn commit_checkout(
        &self,
        files: &Path,
        record: &WorkspaceRecord,
        options: &CommitOptions,
        ends: bool,
    ) -> Result<WriteReport> {
        let user = (rustix::process::geteuid(), rustix::process::getegid());
        let of = OfWorkspace {
            root_user: (!user.0.is_root()).then_some((user.0.as_raw(), user.1.as_raw())),
            last: record.last,
            step: WorkspaceStep {
                name: self.name.clone(),
                id: self.id,
                ends,
                becomes: None,
                now: self.project.store.surroundings.now(),
            },
        };
        self.project.commit_directory(files, Some(of), options)
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
        let catalog = store.catalog()?;
        let hold = store.hold(&catalog)?;
        let last = catalog.read(|tx| project.image_row(tx, record.last.image))?;
        drop(catalog);
        let last = last.map_or(record.base, |image| ImageVersion::from(&image));
        let now = store.surroundings.now();
        let becomes = match store.known_lower(folder, record.base.root)? {
            Lower::Ready(lower) if end == End::AsLower => {
                LowerRecord::of_workspace(folder, self.id, &lower, now)
            }
            _ => None,
        };
        let step =
            WorkspaceStep { name: self.name.clone(), id: self.id, ends: end != End::Not, becomes, now };
        let (session, reader, options) = project.begin_commit(&hold, options)?;
        for base in [&record.base, &last] {
            session.host().build_on(base);
        }
        session.limit_content(options.max_layer_bytes);
        let stage = store.task.begin(Phase::Reading, None);
        let made = project.draft_of_workspace(&files, (&record.base, &last), &session, &reader, &options);
        drop(stage);
        let made = made.and_then(|mut draft| {
            draft.source.mounts_left_out = self.mounts_in(folder)?;
            Ok(Draft { workspace: Some(step), ..draft })
        });
        project.finish(session, made)
    }

    /// The paths of what is mounted in its overlay, which no commit reads.
    fn mounts_in(&self, folder: &Folder) -> Result<Vec<TreePath>> {
        let merged = folder.merged(self.id);
        let mounts = mounts_below(&merged)?.into_iter();
        // One that no image can name is in none.
        let paths = mounts.filter_map(|place| {
            let relative = place.strip_prefix(&merged).ok()?;
            TreePath::parse(relative.as_os_str().as_bytes()).ok()
        });
        let mut paths: Vec<_> = paths.collect();
        paths.sort_unstable();
        paths.dedup();
        Ok(paths)
    }

    /// Removes the files of one that has ended, unless others may lie over them.
    fn remove_files(&self, folder: &Folder) -> Result<()> {
        let lowers = self.project.store.read(|tx| tx.collect::<Lowers>(&[]))?;
        if lowers.iter().any(|(_, lower)| lower.id == self.id) {
            return folder.keep_files(self.id);
        }
        let places = [folder.files(self.id), folder.ending(self.id)];
        let known = places
            .iter()
            .find_map(|place| SourceTree::open(place).and_then(|source| source.root_stat()).ok());
        if let Some(stat) = known {
            let store = &self.project.store;
            let known = store.read(|tx| KnownDirectory::find(tx, &stat, DirectoryUse::Checkout))?;
            if known.is_some() {
                let states = store.catalog()?.write(|tx| Engine::forget_directories(tx, known.as_slice()))?;
                store.remove_states(states);
            }
        }
        folder.remove(self.id)
    }
}

impl WorkspaceStep {
    pub(crate) fn take(&self, tx: &mut WriteTx, project: ProjectId, image: &ImageRecord) -> Result<()> {
        let key = (project, self.name.clone());
        let found = tx.get::<Workspaces>(&key)?.filter(|record| record.id == self.id);
        let record = found.ok_or_else(|| Error::conflict(subject(&self.name), "was ended meanwhile"))?;
        if !self.ends {
            let last = ImageVersion::from(image);
            note_workspace(tx, &last)?;
            return tx.put::<Workspaces>(&key, &WorkspaceRecord { last, ..record });
        }
        tx.remove::<Workspaces>(&key)?;
        touch_lower(tx, record.base.root, self.now)?;
        let Some(becomes) = &self.becomes else { return Ok(()) };
        // One of this boot is there or being made, and workspaces may lie over it.
        if tx.get::<Lowers>(&image.root)?.is_none_or(|there| there.boot != process::boot()) {
            tx.put::<Lowers>(&image.root, becomes)?;
        }
        Ok(())
    }
}
