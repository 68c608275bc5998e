//! Tags, and the removal of images, which follows their tags.
//!
//! Invariants, kept by the functions here alone: every row of `tags` has its mirror in `image_tags`; a scope that
//! has a tag of an image has a row of that image, its own or an adopted copy; an adopted copy lives exactly as
//! long as a tag of that scope names it.

use serde::Serialize;

use crate::catalog::record::{ImageRecord, TagRecord};
use crate::catalog::table::{ImageTags, Images, Tags, key_bytes};
use crate::catalog::{ReadTables, WriteTx};
use crate::error::{Error, ErrorKind, Result, Subject};
use crate::id::{ImageId, ProjectId};
use crate::name::{ImageRef, TagName};
use crate::time::Moment;

use super::project::Project;
use super::resolve::Scope;
use super::workspace::users_of;
use crate::ledger::identity::forget_identity;
use crate::ledger::needed::note_image;

/// What a tag must be now for a conditional move to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// The project has no tag of this name.
    Absent,
    /// The project's tag names this image.
    Image(ImageId),
}

/// What a removal did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RemoveReport {
    /// Tags that are gone.
    pub untagged: Vec<TagName>,
    /// The image, if it is gone too.
    pub removed: Option<ImageId>,
}

impl Project {
    /// Gives an image these tags, all or none. A tag that names another image moves. A public image is adopted:
    /// later changes in the public scope do not touch the project's tag.
    pub fn tag(&self, image: &ImageRef, names: &[TagName]) -> Result<ImageId> {
        self.store.write(|tx| {
            self.check(tx)?;
            let (resolved, record) = self.resolve_in(tx, image)?;
            let now = self.store.surroundings.now();
            names.iter().try_for_each(|name| set_tag(tx, self.id, name, &record, now))?;
            Ok(resolved.id)
        })
    }

    /// Moves one tag only if it is as `expected`; otherwise a [`Conflict`](crate::ErrorKind::Conflict) that says what
    /// it is now.
    pub fn tag_if(&self, image: &ImageRef, name: &TagName, expected: Expected) -> Result<ImageId> {
        self.store.write(|tx| {
            self.check(tx)?;
            let (resolved, record) = self.resolve_in(tx, image)?;
            let current = tx.get::<Tags>(&(self.id, name.clone()))?.map(|tag| tag.image);
            let wanted = match expected {
                Expected::Absent => None,
                Expected::Image(id) => Some(id),
            };
            if current != wanted {
                let show = |id: Option<ImageId>| id.map_or("no image".to_owned(), |id| format!("image {id}"));
                let message = format!("it names {}, not {} as expected", show(current), show(wanted));
                return Err(Error::conflict(Subject::Tag(name.to_string()), message));
            }
            set_tag(tx, self.id, name, &record, self.store.surroundings.now())?;
            Ok(resolved.id)
        })
    }

    /// Removes one of the project's tags and gives the image it named; with `image`, only if it names that one.
    /// The image stays.
    pub fn untag(&self, name: &TagName, image: Option<&ImageRef>) -> Result<ImageId> {
        self.store.freeing(|| {
            self.store.write(|tx| {
                self.check(tx)?;
                let tag = self.own_tag(tx, name)?;
                if let Some(image) = image {
                    let (resolved, _) = self.resolve_in(tx, image)?;
                    if resolved.id != tag.image {
                        let message = format!("it names image {}, not {}", tag.image, resolved.id);
                        return Err(Error::conflict(Subject::Tag(name.to_string()), message));
                    }
                }
                remove_tag(tx, self.id, name)?;
                Ok(tag.image)
            })
        })
    }

    /// Removes all of the project's tags of an image and gives them. The image stays.
    pub fn untag_all(&self, image: &ImageRef) -> Result<Vec<TagName>> {
        self.store.freeing(|| {
            self.store.write(|tx| {
                self.check(tx)?;
                let (resolved, _) = self.resolve_in(tx, image)?;
                let names = tags_of(tx, self.id, resolved.id)?;
                names.iter().try_for_each(|name| remove_tag(tx, self.id, name))?;
                Ok(names)
            })
        })
    }

    /// Removes by tag: the tag, and the image with its last one. Removes by UUID: the image and its tag; several
    /// tags are a [`Conflict`](crate::ErrorKind::Conflict) unless `force` is set. What only the public scope has
    /// can't be removed from a project.
    ///
    /// An image that one of the project's workspaces was made from is [`InUse`](ErrorKind::InUse) unless `force` is set;
    /// then the image is gone, and its content stays until the last of them ends.
    pub fn remove(&self, reference: &ImageRef, force: bool) -> Result<RemoveReport> {
        self.store.freeing(|| {
            self.store.write(|tx| {
                self.check(tx)?;
                let (resolved, _) = self.resolve_in(tx, reference)?;
                let own_row = tx.get::<Images>(&(self.id, resolved.id))?;
                if own_row.is_none()
                    || (resolved.tag.is_some() && resolved.scope == Scope::Public && !self.is_public())
                {
                    return Err(self.only_public(Subject::Reference(reference.to_string())));
                }
                let tags = tags_of(tx, self.id, resolved.id)?;
                let gone = match resolved.tag {
                    Some(tag) => vec![tag],
                    None if tags.len() > 1 && !force => {
                        let names: Vec<_> = tags.iter().map(TagName::as_str).collect();
                        let message =
                            format!("it has the tags {}; remove by tag, or force", names.join(", "));
                        return Err(Error::conflict(Subject::Image(resolved.id), message));
                    }
                    None => tags.clone(),
                };
                let is_owner = own_row.is_some_and(|row| row.owner == self.id);
                let is_last = gone.len() == tags.len();
                if is_last && !force {
                    // An adopted image whose last tag goes is seen no more only if it is not public any more.
                    let stays = !is_owner && tx.get::<Images>(&(ProjectId::PUBLIC, resolved.id))?.is_some();
                    if !stays {
                        self.check_is_unused(tx, resolved.id)?;
                    }
                }
                gone.iter().try_for_each(|name| remove_tag(tx, self.id, name))?;
                let removed = (is_owner && is_last).then_some(resolved.id);
                if let Some(id) = removed {
                    delete_image(tx, self.id, id)?;
                }
                Ok(RemoveReport { untagged: gone, removed })
            })
        })
    }

    fn check_is_unused(&self, tx: &impl ReadTables, image: ImageId) -> Result<()> {
        let users = users_of(tx, self.id, image)?;
        let Some(first) = users.first() else { return Ok(()) };
        let message = match users.len() {
            1 => format!("workspace '{first}' uses it; end that first, or force"),
            count => format!("workspace '{first}' and {} more use it; end them first, or force", count - 1),
        };
        Err(Error::new(ErrorKind::InUse, Subject::Image(image), message))
    }

    fn own_tag(&self, tx: &impl ReadTables, name: &TagName) -> Result<TagRecord> {
        if let Some(tag) = tx.get::<Tags>(&(self.id, name.clone()))? {
            return Ok(tag);
        }
        let subject = Subject::Tag(name.to_string());
        if !self.is_public() && tx.get::<Tags>(&(ProjectId::PUBLIC, name.clone()))?.is_some() {
            return Err(self.only_public(subject));
        }
        Err(Error::not_found(subject, format!("project '{}' has no such tag", self.name)))
    }

    fn only_public(&self, subject: Subject) -> Error {
        let message = format!("belongs to the public scope, which project '{}' can only read", self.name);
        Error::invalid(subject, message)
    }
}

/// The names that a scope gives an image, ascending.
pub(super) fn tags_of(tx: &impl ReadTables, scope: ProjectId, image: ImageId) -> Result<Vec<TagName>> {
    let rows = tx.collect::<ImageTags>(&key_bytes(&(scope, image)))?;
    Ok(rows.into_iter().map(|((_, name), ())| name).collect())
}

/// Makes `name` in `scope` name the image, adopting it where it is another scope's.
pub(super) fn set_tag(
    tx: &mut WriteTx,
    scope: ProjectId,
    name: &TagName,
    image: &ImageRecord,
    now: Moment,
) -> Result<()> {
    let key = (scope, name.clone());
    let old = tx.get::<Tags>(&key)?;
    if old.is_some_and(|old| old.image == image.id) {
        return Ok(());
    }
    if old.is_some() {
        remove_tag(tx, scope, name)?;
    }
    if tx.get::<Images>(&(scope, image.id))?.is_none() {
        tx.put::<Images>(&(scope, image.id), image)?;
        note_image(tx, image)?;
    }
    tx.put::<Tags>(&key, &TagRecord { image: image.id, set_ms: now.unix_ms() })?;
    tx.put::<ImageTags>(&((scope, image.id), name.clone()), &())
}

/// Removes a tag, and an adopted image with its last one.
pub(super) fn remove_tag(tx: &mut WriteTx, scope: ProjectId, name: &TagName) -> Result<()> {
    let key = (scope, name.clone());
    let Some(tag) = tx.get::<Tags>(&key)? else { return Ok(()) };
    tx.remove::<Tags>(&key)?;
    tx.remove::<ImageTags>(&((scope, tag.image), name.clone()))?;
    let is_adopted = tx.get::<Images>(&(scope, tag.image))?.is_some_and(|row| row.owner != scope);
    if is_adopted && tags_of(tx, scope, tag.image)?.is_empty() {
        tx.remove::<Images>(&(scope, tag.image))?;
    }
    Ok(())
}

/// Removes an image of its owner that has no tags left there, and what finds it.
pub(super) fn delete_image(tx: &mut WriteTx, scope: ProjectId, image: ImageId) -> Result<()> {
    let Some(record) = tx.get::<Images>(&(scope, image))? else { return Ok(()) };
    forget_identity(tx, scope, &record)?;
    tx.remove::<Images>(&(scope, image)).map(drop)
}
