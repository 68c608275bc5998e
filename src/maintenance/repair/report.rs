//! What a repair did.

use std::path::PathBuf;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::id::ImageId;
use crate::json;
use crate::maintenance::verify::DamagedImage;
use crate::time::Moment;

/// Faults that are told; the others are counted.
const FAULTS_TOLD: usize = 1000;

/// How much of the catalog could be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum CatalogState {
    /// All of it.
    #[default]
    Whole,
    /// Some rows may be lost, or it is an older copy: the dump and the packs' own records were used, too.
    Damaged,
    /// Nothing.
    Missing,
}

/// What [`Store::repair`](crate::Store::repair) found and did.
#[derive(Clone, Debug, Default, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RepairReport {
    /// How much of the catalog could be read.
    pub catalog: CatalogState,
    /// When the dump was written from which lost rows were taken, if any was: what changed since may be as it was then.
    pub dump_written: Option<Moment>,
    /// Packs that are in the store now.
    pub packs: u64,
    /// Objects in them that the new index finds.
    pub objects: u64,
    /// What was damaged, in all.
    pub fault_count: u64,
    /// The first of it, each naming what is damaged: at most 1,000.
    #[serde(serialize_with = "crate::maintenance::verify::as_texts")]
    #[cfg_attr(feature = "schema", schemars(with = "Vec<String>"))]
    pub faults: Vec<Error>,
    /// Images that are sound and in the store, each in each project that has it.
    pub images: u64,
    /// Those of them that only their records in packs told of: tags on them are lost, unless they had been removed.
    pub restored: Vec<FoundImage>,
    /// Images that were found in packs and had been removed: they are in the store only if that was asked for.
    pub removed: Vec<FoundImage>,
    /// Images that are lost in part and so are no longer in the store, with the tags that are gone with them. One that only
    /// the dump named may have been removed since it was written, if there was no room for a newer one.
    pub damaged_images: Vec<DamagedImage>,
    /// Whether there may have been images that nothing tells of any more: their rows were in a catalog that is lost, and
    /// their records in a pack that is damaged, or in packs that are all gone. They were made after the dump was written, if there is one.
    pub may_lack_images: bool,
    /// Images without tags that have what is sound of those.
    pub salvaged: Vec<SalvagedImage>,
    /// Checkouts that the store knows no more: a commit must name their base.
    #[serde(serialize_with = "json::host_paths")]
    #[cfg_attr(feature = "schema", schemars(with = "Vec<json::Path>"))]
    pub lost_checkouts: Vec<PathBuf>,
    /// Workspaces that are no longer in the store, each with where their files are in its directory, if they are there.
    pub lost_workspaces: Vec<String>,
    /// What was set aside, in the store's folder `quarantine`, by this repair or by one before it that was killed: files, and
    /// directories of workspaces.
    pub quarantined: Vec<String>,
}

/// An image whose record was found in a pack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FoundImage {
    /// The project's name, `public`, or its number where it has no name any more.
    pub project: String,
    /// The image.
    pub image: ImageId,
    /// When it was made.
    pub created: Moment,
}

/// An image that has what is sound of a damaged one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SalvagedImage {
    /// The project's name, `public`, or its number where it has no name any more.
    pub project: String,
    /// The image.
    pub image: ImageId,
    /// The damaged one, which is its parent.
    pub of: ImageId,
    /// Paths in it.
    pub entries: u64,
}

impl RepairReport {
    /// Whether something that was there is lost, as far as that can be known: without a catalog nothing tells of tags that
    /// were set on older images since the dump was written.
    #[must_use]
    pub fn has_losses(&self) -> bool {
        self.may_lack_images
            || self.may_lack_tags()
            || !self.damaged_images.is_empty()
            || !self.lost_checkouts.is_empty()
            || !self.lost_workspaces.is_empty()
    }

    /// Whether there are images whose rows are lost, and with them the tags that were on them.
    #[must_use]
    pub fn may_lack_tags(&self) -> bool {
        self.restored.iter().any(|image| !self.removed.contains(image))
    }

    pub(super) fn add_fault(&mut self, fault: Error) {
        self.fault_count += 1;
        if self.faults.len() < FAULTS_TOLD {
            self.faults.push(fault);
        }
    }

    pub(super) fn add_faults(&mut self, other: Self) {
        self.fault_count += other.fault_count - other.faults.len() as u64;
        other.faults.into_iter().for_each(|fault| self.add_fault(fault));
    }

    /// Takes an error for a fault if it is one: what can't be read now may be sound.
    pub(super) fn note(&mut self, error: Error) -> Result<()> {
        if error.is_corrupt() {
            self.add_fault(error);
            return Ok(());
        }
        Err(error)
    }
}
