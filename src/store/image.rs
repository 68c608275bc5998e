//! Images as users see them.

use std::sync::OnceLock;

use serde::Serialize;

use crate::catalog::ReadTables;
use crate::catalog::record::{ImageRecord, OriginRecord};
use crate::catalog::table::Tags;
use crate::error::Result;
use crate::format::hex;
use crate::id::{ImageId, ObjectId, ProjectId};
use crate::layer;
use crate::name::{ImageRef, TagName};
use crate::pack::reader::ObjectReader;
use crate::task::Task;
use crate::time::Moment;
use crate::tree::Root;

use super::project::Project;
use super::resolve::Scope;
use super::tags::tags_of;

/// How an image came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum ImageKind {
    /// From outside.
    Imported,
    /// From another image of the store.
    Committed,
}

/// An image, as listings and inspections show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ImageInfo {
    /// Its UUID.
    #[serde(rename = "image")]
    pub id: ImageId,
    /// The scope that owns it.
    pub scope: Scope,
    /// The tags it has here: the project's, and the public ones that the project does not shadow.
    pub tags: Vec<TagName>,
    /// When it was made.
    pub created: Moment,
    /// How it came to be.
    pub kind: ImageKind,
    /// The image it was committed from.
    pub parent: Option<ImageId>,
    /// The id of its tree: equal trees have equal ones, in every store.
    pub root: ObjectId,
    /// Paths in it, its root directory included.
    pub entries: u64,
    /// Bytes of file content in it, each hard link group once.
    pub bytes: u64,
    /// SHA-256 of the tar it was imported from, uncompressed, in hexadecimal.
    pub tar_sha256: Option<String>,
    /// What was said at its making.
    pub comment: String,
}

/// One step of an image's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LayerInfo {
    /// The step's id.
    #[serde(rename = "layer")]
    pub id: ObjectId,
    /// The tree after it.
    pub root: ObjectId,
    /// When it was made.
    pub created: Moment,
    /// What made it.
    pub created_by: String,
    /// Paths that were not there before.
    pub added: u64,
    /// Paths whose entry changed.
    pub modified: u64,
    /// Paths that are gone.
    pub removed: u64,
    /// Bytes of file content in what was added or modified.
    pub bytes: u64,
    /// What was said at its making.
    pub comment: String,
}

/// An image of a project, found and ready to be read. It reads the state of the store in which it was found: all that it had
/// stays until the handle and what was made of it are dropped, also if it is removed and collected. So a handle that is kept
/// for days keeps collections from freeing what was removed meanwhile; a [`LazyImage`] does not.
#[derive(Clone, Debug)]
pub struct Image {
    pub(super) project: Project,
    pub(super) record: ImageRecord,
    pub(super) info: ImageInfo,
    pub(super) reader: ObjectReader,
    /// Its tree, once something was looked for in it.
    root: OnceLock<Root>,
}

/// A reference together with the project it is meant in: costs no look-up until it is used.
#[derive(Clone, Debug)]
pub struct LazyImage {
    project: Project,
    reference: ImageRef,
}

impl LazyImage {
    /// The reference.
    #[must_use]
    pub fn reference(&self) -> &ImageRef {
        &self.reference
    }

    /// Finds the image as it is now.
    pub fn find(&self) -> Result<Image> {
        self.project.find(&self.reference)
    }
}

impl Project {
    /// A handle on what `reference` will stand for when it is used.
    #[must_use]
    pub fn image(&self, reference: ImageRef) -> LazyImage {
        LazyImage { project: self.clone(), reference }
    }

    /// The image that `reference` stands for now. Error: [`NotFound`](crate::ErrorKind::NotFound).
    pub fn find(&self, reference: &ImageRef) -> Result<Image> {
        let catalog = self.store.catalog()?;
        let hold = self.store.hold(&catalog)?;
        let (record, info) = catalog.read(|tx| {
            self.check(tx)?;
            let (_, record) = self.resolve_in(tx, reference)?;
            let info = self.info(tx, &record)?;
            Ok((record, info))
        })?;
        let reader = self.store.reader(&catalog, &hold)?;
        Ok(Image { project: self.clone(), record, info, reader, root: OnceLock::new() })
    }

    /// How this project sees an image.
    pub(super) fn info(&self, tx: &impl ReadTables, record: &ImageRecord) -> Result<ImageInfo> {
        let mut tags = tags_of(tx, self.id, record.id)?;
        if !self.is_public() {
            for name in tags_of(tx, ProjectId::PUBLIC, record.id)? {
                let is_shadowed = tx.get::<Tags>(&(self.id, name.clone()))?.is_some();
                if !is_shadowed {
                    tags.push(name);
                }
            }
            tags.sort_unstable();
        }
        let (kind, tar_sha256) = match record.origin {
            OriginRecord::Directory => (ImageKind::Imported, None),
            OriginRecord::Tar(digest) => (ImageKind::Imported, Some(hex(&digest))),
            OriginRecord::Commit => (ImageKind::Committed, None),
        };
        Ok(ImageInfo {
            id: record.id,
            scope: Scope::of(record.owner),
            tags,
            created: record.created(),
            kind,
            parent: record.parent,
            root: record.root,
            entries: record.entries,
            bytes: record.logical_bytes,
            tar_sha256,
            comment: record.comment.clone(),
        })
    }
}

impl Image {
    /// Returns a handle on the same image whose calls, and those of all handles that come from it, are of this task.
    #[must_use]
    pub fn with_task(&self, task: &Task) -> Self {
        let reader = self.reader.clone().with_task(task);
        Self { project: self.project.with_task(task), reader, ..self.clone() }
    }

    /// The image's UUID.
    #[must_use]
    pub fn id(&self) -> ImageId {
        self.record.id
    }

    /// What listings show of it.
    #[must_use]
    pub fn info(&self) -> &ImageInfo {
        &self.info
    }

    /// The steps that led to it, newest first.
    pub fn history(&self) -> Result<Vec<LayerInfo>> {
        let steps = layer::history(&self.reader, self.record.layer);
        steps
            .map(|step| {
                let (id, record) = step?;
                Ok(LayerInfo {
                    id,
                    root: record.root,
                    created: Moment::from_unix_ms(record.created_ms),
                    created_by: record.created_by,
                    added: record.added,
                    modified: record.modified,
                    removed: record.removed,
                    bytes: record.changed_bytes,
                    comment: record.comment,
                })
            })
            .collect()
    }

    pub(super) fn root(&self) -> Result<Root> {
        if let Some(root) = self.root.get() {
            return Ok(*root);
        }
        let root = Root::open(&self.reader, self.record.root)?;
        Ok(*self.root.get_or_init(|| root))
    }
}
