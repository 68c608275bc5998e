//! From a reference to an image.

use serde::Serialize;

use crate::catalog::ReadTables;
use crate::catalog::record::ImageRecord;
use crate::catalog::table::{Images, Tags};
use crate::error::{Error, Result, Subject};
use crate::id::{ImageId, ProjectId};
use crate::name::{ImageRef, TagName};

use super::project::Project;

/// Which scope something belongs to, seen from a project.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// The project itself.
    Project,
    /// The public scope.
    Public,
}

impl Scope {
    /// The scope of what a project of this number owns, seen from where it can be seen at all.
    pub(super) fn of(id: ProjectId) -> Self {
        if id == ProjectId::PUBLIC { Self::Public } else { Self::Project }
    }
}

/// What a reference stands for now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Resolved {
    /// The image.
    #[serde(rename = "image")]
    pub id: ImageId,
    /// The scope that answered: the tag's where a tag did, otherwise the image's.
    pub scope: Scope,
    /// The tag that answered, none for a UUID.
    pub tag: Option<TagName>,
}

impl Project {
    /// What `reference` stands for: a UUID; then the literal tag, in the project and then in the public scope;
    /// then, where it has no `:`, `NAME:latest` the same way. Error: [`NotFound`](crate::ErrorKind::NotFound),
    /// for what another project has as for what nobody has.
    pub fn resolve(&self, reference: &ImageRef) -> Result<Resolved> {
        self.store.read(|tx| {
            self.check(tx)?;
            self.resolve_in(tx, reference).map(|(resolved, _)| resolved)
        })
    }

    /// The image's row as this project sees it: its own or adopted one, then the public one.
    pub(super) fn image_row(&self, tx: &impl ReadTables, id: ImageId) -> Result<Option<ImageRecord>> {
        match tx.get::<Images>(&(self.id, id))? {
            None if !self.is_public() => tx.get::<Images>(&(ProjectId::PUBLIC, id)),
            found => Ok(found),
        }
    }

    pub(super) fn resolve_in(
        &self,
        tx: &impl ReadTables,
        reference: &ImageRef,
    ) -> Result<(Resolved, ImageRecord)> {
        let not_found = || {
            let message = format!("no such image or tag in project '{}' or the public scope", self.name);
            Error::not_found(Subject::Reference(reference.to_string()), message)
        };
        if let ImageRef::Id(id) = reference {
            let record = self.image_row(tx, *id)?.ok_or_else(not_found)?;
            let scope = Scope::of(record.owner);
            return Ok((Resolved { id: *id, scope, tag: None }, record));
        }
        let name = reference.as_tag().ok_or_else(not_found)?;
        for candidate in [Some(name.clone()), name.with_latest()].into_iter().flatten() {
            for scope in self.scopes() {
                let Some(tag) = tx.get::<Tags>(&(scope, candidate.clone()))? else { continue };
                let record = tx.get::<Images>(&(scope, tag.image))?.ok_or_else(|| {
                    Error::corrupt(
                        Subject::Tag(candidate.to_string()),
                        "it names an image that has no record",
                    )
                })?;
                let resolved = Resolved { id: tag.image, scope: Scope::of(scope), tag: Some(candidate) };
                return Ok((resolved, record));
            }
        }
        Err(not_found())
    }

    /// The scopes this project reads, in the order in which they answer.
    pub(super) fn scopes(&self) -> impl Iterator<Item = ProjectId> + use<> {
        let public = (!self.is_public()).then_some(ProjectId::PUBLIC);
        [Some(self.id), public].into_iter().flatten()
    }
}
