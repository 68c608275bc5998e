//! Making workspaces: the row first, then the files.

use crate::catalog::ReadTables;
use crate::catalog::record::{ImageVersion, WorkspaceForm, WorkspaceRecord};
use crate::catalog::table::{Sequence, Workspaces};
use crate::engine::process;
use crate::error::{Error, ErrorKind, Result, Subject};
use crate::format::record::Added;
use crate::host::checkout::Checkout;
use crate::host::overlay::{self, WORK};
use crate::id::{ProjectId, WorkspaceId};
use crate::ledger::needed::note_workspace;
use crate::name::WorkspaceName;
use crate::pack::reader::ObjectReader;
use crate::store::checkout::{CheckoutOptions, Unremembered};
use crate::store::image::Image;
use crate::task::Phase;

use super::fill::fill_root;
use super::folder::Folder;
use super::lower::{Lower, touch_lower};
use super::mounted::mount;
use super::{Workspace, WorkspaceOptions, subject};

impl Image {
    /// Makes a workspace: an overlay mount where this process may mount one, otherwise a checkout.
    ///
    /// ```
    /// use layerstone::{CommitOptions, ImportOptions, Store, WorkspaceOptions};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let work = std::env::temp_dir().join(format!("layerstone-workspace-{}", std::process::id()));
    /// std::fs::create_dir_all(work.join("source"))?;
    /// let project = Store::open(work.join("store"))?.default_project()?;
    /// let base = project.import_directory(work.join("source"), &ImportOptions::default())?.image;
    ///
    /// let workspace = project.find(&base.into())?.create_workspace(&WorkspaceOptions::default())?;
    /// std::fs::write(workspace.path()?.join("motd"), "hello")?;
    /// let made = workspace.commit_and_end(&CommitOptions::default())?;
    /// assert_eq!(project.find(&made.image.into())?.info().parent, Some(base));
    /// # std::fs::remove_dir_all(work)?;
    /// # Ok(()) }
    /// ```
    ///
    /// Errors: [`AlreadyExists`](ErrorKind::AlreadyExists) for the name; [`NotFound`](ErrorKind::NotFound) if the image was
    /// removed meanwhile; [`Unsupported`](ErrorKind::Unsupported) for a store in memory.
    pub fn create_workspace(&self, options: &WorkspaceOptions) -> Result<Workspace> {
        let store = &self.project.store;
        let folder = &store.workspaces()?;
        folder.make()?;
        store.clean_workspaces(folder)?;
        let now = store.surroundings.now();
        let (name, record) = self.reserve(options)?;
        let mut workspace = Workspace { project: self.project.clone(), name, id: record.id, why_copy: None };
        let made = self.make(folder, record.id, options).and_then(|(form, why_copy)| {
            workspace.why_copy = why_copy;
            let holder = record.holder.clone().filter(|_| options.temporary);
            let place = Added(folder.place(&record, form == WorkspaceForm::Overlay)?);
            workspace.change(|tx, found| {
                touch_lower(tx, found.base.root, now)?;
                let mounted_by = (form == WorkspaceForm::Overlay).then(process::this_process);
                Ok(Some(WorkspaceRecord { form, holder: holder.clone(), mounted_by, place, ..found }))
            })
        });
        match made {
            Ok(()) => Ok(workspace),
            Err(error) => {
                // What can't be cleared away now is left over from a killed process for the next.
                let _stage = workspace.task().begin(Phase::Removing, None);
                let _ =
                    workspace.without_task().change(|_, _| Ok(None)).and_then(|()| folder.remove(record.id));
                Err(error)
            }
        }
    }

    /// Takes a name and a number.
    fn reserve(&self, options: &WorkspaceOptions) -> Result<(WorkspaceName, WorkspaceRecord)> {
        let (project, base) = (&self.project, ImageVersion::from(&self.record));
        project.store.catalog()?.write(|tx| {
            project.check(tx)?;
            if project.image_row(tx, base.image)?.is_none() {
                return Err(Error::not_found(Subject::Image(base.image), "was removed meanwhile"));
            }
            let id = WorkspaceId::new(tx.next(Sequence::Workspace)?);
            let name = match &options.name {
                Some(name) => name.clone(),
                None => free_name(tx, project.id, id)?,
            };
            let key = (project.id, name.clone());
            if tx.get::<Workspaces>(&key)?.is_some() {
                let message = "exists already; choose another name, or end it";
                return Err(Error::new(ErrorKind::AlreadyExists, subject(&name), message));
            }
            let record = WorkspaceRecord {
                id,
                base,
                last: base,
                form: WorkspaceForm::Unfinished,
                created_ms: project.store.surroundings.now().unix_ms(),
                holder: Some(process::this_process()),
                mounted_by: None,
                place: Added(None),
            };
            tx.put::<Workspaces>(&key, &record)?;
            note_workspace(tx, &base)?;
            Ok((name, record))
        })
    }

    /// Makes the files, as an overlay if that can be; if not, says why.
    fn make(
        &self,
        folder: &Folder,
        id: WorkspaceId,
        options: &WorkspaceOptions,
    ) -> Result<(WorkspaceForm, Option<String>)> {
        let mut why_copy = None;
        if !options.full_copy {
            why_copy = self.make_as_overlay(folder, id, options.temporary)?;
            if why_copy.is_none() {
                return Ok((WorkspaceForm::Overlay, None));
            }
            folder.remove(id)?;
        }
        Folder::make_directory(&folder.directory(id))?;
        let is_root = rustix::process::geteuid().is_root();
        let everything = CheckoutOptions {
            devices: is_root,
            all_xattrs: is_root,
            fsync: !options.temporary,
            ..CheckoutOptions::default()
        };
        self.check_out_to(&folder.files(id), everything, Unremembered::Fails)?;
        if !options.temporary {
            overlay::sync_directory(folder.path())?;
        }
        Ok((WorkspaceForm::Checkout, why_copy))
    }

    /// Makes an overlay and mounts it, or says why it can't be one.
    fn make_as_overlay(
        &self,
        folder: &Folder,
        id: WorkspaceId,
        is_temporary: bool,
    ) -> Result<Option<String>> {
        let (store, base) = (&self.project.store, ImageVersion::from(&self.record));
        // Where it lies over what is there, mounting it is the best try; before that is made, another is.
        let is_there = matches!(store.known_lower(folder, base.root)?, Lower::Ready(_));
        if !is_there && let Some(why) = folder.why_not_overlay()? {
            return Ok(Some(why));
        }
        let Some(lower) = store.lower(folder, &base)? else {
            let why = "the image has what can't be shown by an overlay, or what this process can't set";
            return Ok(Some(why.to_owned()));
        };
        make_overlay(folder, id, &self.reader, &base, is_temporary)?;
        match mount(folder, id, &lower, is_temporary) {
            Ok(()) => Ok(None),
            Err(error) => folder.why_not_overlay()?.map_or(Err(error), |why| Ok(Some(why))),
        }
    }
}

/// The part of an overlay that is the workspace's own.
fn make_overlay(
    folder: &Folder,
    id: WorkspaceId,
    reader: &ObjectReader,
    base: &ImageVersion,
    is_temporary: bool,
) -> Result<()> {
    let directory = folder.directory(id);
    Folder::make_directory(&directory)?;
    let checkout = Checkout::begin(&folder.files(id), reader.task())?;
    fill_root(&checkout, reader, base.root)?;
    checkout.publish(false)?;
    for path in [directory.join(WORK), folder.merged(id)] {
        Folder::make_directory(&path)?;
    }
    if !is_temporary {
        for path in [&folder.files(id), &directory, folder.path()] {
            overlay::sync_directory(path)?;
        }
    }
    Ok(())
}

/// A name after the number.
fn free_name(tx: &impl ReadTables, project: ProjectId, id: WorkspaceId) -> Result<WorkspaceName> {
    let mut name = format!("w{id}");
    loop {
        let parsed: WorkspaceName = name.parse()?;
        if tx.get::<Workspaces>(&(project, parsed.clone()))?.is_none() {
            return Ok(parsed);
        }
        name.push('-');
    }
}
