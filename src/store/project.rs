//! Projects: the scopes that images and tags belong to.

use std::ops::ControlFlow;
use std::sync::Arc;

use serde::Serialize;

use crate::catalog::record::ProjectRecord;
use crate::catalog::table::{Images, Projects, Sequence, Tags, key_bytes};
use crate::catalog::{Direction, ReadTables, WriteTx};
use crate::error::{Error, ErrorKind, Remedy, Result, Subject};
use crate::id::ProjectId;
use crate::name::ProjectName;
use crate::task::Task;
use crate::time::Moment;

use super::Store;
use super::limits::ProjectLimits;
use crate::engine::Engine;

/// One project of a store, or its public scope: all that is done with images and tags is done from here, and sees
/// nothing of any other project.
#[derive(Clone, Debug)]
pub struct Project {
    pub(super) store: Arc<Engine>,
    pub(super) id: ProjectId,
    pub(super) name: ProjectName,
}

/// A project in a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ProjectInfo {
    /// Its name.
    pub name: ProjectName,
    /// When it was made.
    pub created: Moment,
    /// Images it owns or has adopted.
    pub image_count: u64,
    /// What it may have.
    pub limits: ProjectLimits,
}

impl Store {
    /// Makes a project. Errors: [`AlreadyExists`](ErrorKind::AlreadyExists), and
    /// [`Invalid`](ErrorKind::Invalid) for `public`, which every store has.
    pub fn create_project(&self, name: &ProjectName) -> Result<Project> {
        let subject = || Subject::Project(name.to_string());
        if name.is_public() {
            return Err(Error::invalid(subject(), "is the public scope, which every store has"));
        }
        let id = self.0.write(|tx| {
            if tx.get::<Projects>(name)?.is_some() {
                return Err(Error::new(ErrorKind::AlreadyExists, subject(), "exists already"));
            }
            create(tx, name, self.0.surroundings.now())
        })?;
        Ok(self.handle(id, name))
    }

    /// The project of this name; `public` is the public scope. Error: [`NotFound`](ErrorKind::NotFound).
    pub fn project(&self, name: &ProjectName) -> Result<Project> {
        if name.is_public() {
            return Ok(self.handle(ProjectId::PUBLIC, name));
        }
        let record = self.0.read(|tx| tx.get::<Projects>(name))?.ok_or_else(|| no_such_project(name))?;
        Ok(self.handle(record.id, name))
    }

    /// The project named [`default`](ProjectName::DEFAULT), made on first use.
    pub fn default_project(&self) -> Result<Project> {
        let name: ProjectName = ProjectName::DEFAULT
            .parse()
            .map_err(|_| Error::invalid(Subject::Argument("project"), "bad name"))?;
        let catalog = self.0.catalog()?;
        if let Some(record) = catalog.read(|tx| tx.get::<Projects>(&name))? {
            return Ok(self.handle(record.id, &name));
        }
        let id = catalog.write(|tx| match tx.get::<Projects>(&name)? {
            Some(record) => Ok(record.id),
            None => create(tx, &name, self.0.surroundings.now()),
        })?;
        Ok(self.handle(id, &name))
    }

    /// Every project, by name.
    pub fn projects(&self) -> Result<Vec<ProjectInfo>> {
        self.0.read(|tx| {
            let mut infos = Vec::new();
            for (name, record) in tx.collect::<Projects>(&[])? {
                let mut image_count = 0;
                tx.scan::<Images>(&key_bytes(&record.id), None, Direction::Ascending, |_, _| {
                    image_count += 1;
                    Ok(ControlFlow::Continue(()))
                })?;
                infos.push(ProjectInfo {
                    name,
                    created: Moment::from_unix_ms(record.created_ms),
                    image_count,
                    limits: ProjectLimits::from(&record),
                });
            }
            Ok(infos)
        })
    }

    /// Removes a project. One that has images is a [`Conflict`](ErrorKind::Conflict), and one that has workspaces
    /// [`InUse`](ErrorKind::InUse), unless `force` is set; then they go with it, and the images' tags. A workspace whose
    /// [path](crate::Workspace::path) would be refused, since not all that is there is its own, keeps the project.
    pub fn remove_project(&self, name: &ProjectName, force: bool) -> Result<()> {
        if name.is_public() {
            return Err(Error::invalid(Subject::Project(name.to_string()), "can't be removed"));
        }
        let remove = |tx: &mut WriteTx| {
            let record = tx.get::<Projects>(name)?.ok_or_else(|| absent(name))?;
            let (ended, live) = super::workspace::forget_workspaces(tx, record.id)?;
            if live > 0 && !force {
                let message = match live {
                    1 => "has a workspace; discard it first, or force".to_owned(),
                    count => format!("has {count} workspaces; discard them first, or force"),
                };
                return Err(Error::new(ErrorKind::InUse, Subject::Project(name.to_string()), message));
            }
            self.0.check_can_end(&ended)?;
            let images = tx.collect::<Images>(&key_bytes(&record.id))?;
            if !images.is_empty() && !force {
                let message = match images.len() {
                    1 => "has an image; remove it first, or force".to_owned(),
                    count => format!("has {count} images; remove them first, or force"),
                };
                return Err(Error::conflict(Subject::Project(name.to_string()), message));
            }
            for ((scope, tag), _) in tx.collect::<Tags>(&key_bytes(&record.id))? {
                super::tags::remove_tag(tx, scope, &tag)?;
            }
            for ((scope, image), _) in tx.collect::<Images>(&key_bytes(&record.id))? {
                super::tags::delete_image(tx, scope, image)?;
            }
            super::lineage::forget_lineage(tx, record.id)?;
            tx.remove::<Projects>(name)?;
            Ok(ended)
        };
        let ended = self.0.freeing(|| self.0.write(remove))?;
        self.0.remove_workspaces(ended.iter().map(|record| record.id));
        Ok(())
    }

    fn handle(&self, id: ProjectId, name: &ProjectName) -> Project {
        Project { store: Arc::clone(&self.0), id, name: name.clone() }
    }
}

fn create(tx: &mut WriteTx, name: &ProjectName, now: Moment) -> Result<ProjectId> {
    let id = ProjectId::new(tx.next(Sequence::Project)?);
    tx.put::<Projects>(name, &ProjectRecord { id, created_ms: now.unix_ms(), max_layer_bytes: None })?;
    Ok(id)
}

pub(super) fn no_such_project(name: &ProjectName) -> Error {
    absent(name).with_remedy(Remedy::CreateProject)
}

/// The same for one that is to go, and that there is no use in making.
fn absent(name: &ProjectName) -> Error {
    Error::not_found(Subject::Project(name.to_string()), "no such project")
}

impl Project {
    /// The project's name.
    #[must_use]
    pub fn name(&self) -> &ProjectName {
        &self.name
    }

    /// Returns a handle on the same project whose calls, and those of all handles that come from it, are of this task.
    #[must_use]
    pub fn with_task(&self, task: &Task) -> Self {
        Self { store: self.store.with_task(task), ..self.clone() }
    }

    /// Whether this is the public scope.
    #[must_use]
    pub fn is_public(&self) -> bool {
        self.id == ProjectId::PUBLIC
    }

    /// Fails if the project was removed since this handle was made.
    pub(super) fn check(&self, tx: &impl ReadTables) -> Result<()> {
        self.limits_in(tx).map(drop)
    }

    /// What the project may have. Fails if it was removed since this handle was made.
    pub(super) fn limits_in(&self, tx: &impl ReadTables) -> Result<ProjectLimits> {
        if self.is_public() {
            return Ok(ProjectLimits::default());
        }
        let record = tx.get::<Projects>(&self.name)?.filter(|record| record.id == self.id);
        record.map(|record| ProjectLimits::from(&record)).ok_or_else(|| no_such_project(&self.name))
    }
}
