//! What a verification says.

use serde::Serialize;

use crate::error::{Error, Result};
use crate::id::{ImageId, ProjectId};
use crate::name::{ProjectName, TagName};
use crate::path::TreePath;

use super::catalog::CatalogRows;
use super::images::Losses;

/// Faults that are told; the others are counted.
const FAULTS_TOLD: usize = 1000;
/// Damaged images that are told; the others are counted.
const IMAGES_TOLD: usize = 1000;

/// What [`Store::verify`](crate::Store::verify) has read, and what is wrong.
#[derive(Clone, Debug, Default, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct VerifyReport {
    /// Packs that were looked at.
    pub packs: u64,
    /// Objects that were checked against their ids; none where contents were not read.
    pub objects: Option<u64>,
    /// Bytes of packs that were read; none where contents were not read.
    pub stored_bytes: Option<u64>,
    /// Raw bytes of the objects; none where contents were not read.
    pub bytes: Option<u64>,
    /// Images whose objects were looked for, each in each project that has it.
    pub images: u64,
    /// Faults in all.
    pub fault_count: u64,
    /// The first faults, each naming what is damaged: at most 1,000.
    #[serde(serialize_with = "as_texts")]
    #[cfg_attr(feature = "schema", schemars(with = "Vec<String>"))]
    pub faults: Vec<Error>,
    /// Images that the faults concern, in all.
    pub damaged_image_count: u64,
    /// The first of them, and what of each is lost: at most 1,000.
    pub damaged_images: Vec<DamagedImage>,
    /// Whether others than its owner have any permission on the store's directory: who may enter it reads all images. New
    /// stores are for their owner alone; those of older versions are as the umask was.
    pub is_open_to_others: bool,
}

/// An image that needs what is damaged or missing.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DamagedImage {
    /// The project's name, `public`, or its number where it has no name any more.
    pub project: String,
    /// The image.
    pub image: ImageId,
    /// The tags that it has in the project.
    pub tags: Vec<TagName>,
    /// Paths that can't be read, in all.
    pub lost_paths: u64,
    /// The first of them: at most 100, each perhaps with those that follow it.
    pub lost: Vec<LostPath>,
    /// Why the image's history can't be read, if that is so.
    #[serde(serialize_with = "as_optional_text")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub lost_history: Option<Error>,
}

impl DamagedImage {
    /// One of which it is not known any more what was lost.
    pub(in crate::maintenance) fn unreported(
        project: String,
        image: ImageId,
        tags: Vec<TagName>,
        lost_paths: u64,
    ) -> Self {
        Self { project, image, tags, lost_paths, lost: Vec::new(), lost_history: None }
    }
}

/// What of an image can't be read.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LostPath {
    /// The path.
    #[serde(flatten)]
    pub path: TreePath,
    /// How many paths that is: more than one where a node of the tree is lost, and with it the paths that follow.
    pub paths: u64,
    /// What is damaged.
    #[serde(serialize_with = "as_text")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub cause: Error,
}

fn as_text<S: serde::Serializer>(error: &Error, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(error)
}

pub(in crate::maintenance) fn as_texts<S: serde::Serializer>(
    errors: &[Error],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(errors.iter().map(ToString::to_string))
}

#[expect(clippy::ref_option, reason = "serde calls it so")]
fn as_optional_text<S: serde::Serializer>(error: &Option<Error>, serializer: S) -> Result<S::Ok, S::Error> {
    error.as_ref().map(ToString::to_string).serialize(serializer)
}

/// A scope in words: the project's name where it has one.
pub(in crate::maintenance) fn scope_name(scope: ProjectId, name: Option<&ProjectName>) -> String {
    match name {
        Some(name) => name.to_string(),
        None if scope == ProjectId::PUBLIC => "public".to_owned(),
        None => format!("number {scope}"),
    }
}

impl DamagedImage {
    pub(in crate::maintenance) fn new(
        project: String,
        image: ImageId,
        tags: Vec<TagName>,
        losses: Losses,
    ) -> Self {
        let Losses { paths, first, history } = losses;
        Self { project, image, tags, lost_paths: paths, lost: first, lost_history: history }
    }
}

impl VerifyReport {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.fault_count == 0 && self.damaged_image_count == 0
    }

    /// That of a verification which has found nothing yet.
    pub(super) fn begin(reads_contents: bool) -> Self {
        let none_yet = reads_contents.then_some(0);
        Self { objects: none_yet, stored_bytes: none_yet, bytes: none_yet, ..Self::default() }
    }

    pub(super) fn add_fault(&mut self, fault: Error) {
        self.fault_count += 1;
        if self.faults.len() < FAULTS_TOLD {
            self.faults.push(fault);
        }
    }

    /// Takes an error for a fault if it is one: what can't be read now may be sound.
    pub(super) fn note(&mut self, error: Error) -> Result<()> {
        if error.is_corrupt() {
            self.add_fault(error);
            return Ok(());
        }
        Err(error)
    }

    pub(super) fn add_losses(
        &mut self,
        losses: Losses,
        rows: &CatalogRows,
        scope: ProjectId,
        image: ImageId,
    ) {
        if losses.is_none() {
            return;
        }
        self.damaged_image_count += 1;
        if self.damaged_images.len() < IMAGES_TOLD {
            let project = scope_name(scope, rows.project_name(scope));
            self.damaged_images.push(DamagedImage::new(project, image, rows.tags_of(scope, image), losses));
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.packs += other.packs;
        let read = |total: &mut Option<u64>, more: Option<u64>| *total = total.zip(more).map(|(a, b)| a + b);
        read(&mut self.objects, other.objects);
        read(&mut self.stored_bytes, other.stored_bytes);
        read(&mut self.bytes, other.bytes);
        self.fault_count += other.fault_count - other.faults.len() as u64;
        other.faults.into_iter().for_each(|fault| self.add_fault(fault));
    }
}
