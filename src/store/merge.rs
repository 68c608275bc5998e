//! Bringing together what two images made of a third.

use crate::catalog::record::{ImageRecord, ImageVersion};
use crate::error::{Error, Result, Subject};
use crate::id::{ImageId, ObjectId};
use crate::layer;
use crate::name::ImageRef;
use crate::pack::reader::ObjectReader;
use crate::path::TreePath;
use crate::task::Phase;
use crate::tree::Root;

use super::commit::{CommitOptions, draft_of_delta};
use super::import::WriteReport;
use super::project::Project;
use crate::engine::closure::{self, Needs};

/// What came of merging images.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "a merge makes one")]
pub enum MergeOutcome {
    /// An image that has what both changed.
    Merged(WriteReport),
    /// Paths that both changed so that not both can have it their way, ascending; nothing was made.
    Conflicts(Vec<TreePath>),
}

impl MergeOutcome {
    /// What was made; conflicts as an error that says how many they are and names the first.
    pub fn into_report(self) -> Result<WriteReport> {
        match self {
            Self::Merged(report) => Ok(report),
            Self::Conflicts(paths) => {
                let message = match paths.len() {
                    2 => "and another path were changed by both images in another way".to_owned(),
                    0 | 1 => "was changed by both images in another way".to_owned(),
                    count => {
                        format!("and {} other paths were changed by both images in another way", count - 1)
                    }
                };
                Err(Error::conflict(Subject::Path(paths.into_iter().next().unwrap_or_default()), message))
            }
        }
    }
}

impl Project {
    /// Merges what `theirs` changed into `ours`: an image whose parent is `ours`. Both changes are those since the
    /// [`base`](CommitOptions::base), or since the nearest image that both came from.
    ///
    /// What only one changed is taken; where both changed a path, fields of an inode are merged one by one, and of two times
    /// the later stays. A commit's own changes are put upon another image by naming its parent as the
    /// base (`rebase`).
    ///
    /// Errors: [`Invalid`](crate::ErrorKind::Invalid) where no base is given and the images have nothing in common.
    pub fn merge(&self, ours: &ImageRef, theirs: &ImageRef, options: &CommitOptions) -> Result<MergeOutcome> {
        let _span = tracing::info_span!("merge", project = %self.name).entered();
        let catalog = self.store.catalog()?;
        let hold = self.store.hold(&catalog)?;
        let row = |reference: &ImageRef| {
            catalog.read(|tx| {
                self.check(tx)?;
                self.resolve_in(tx, reference).map(|(_, record)| record)
            })
        };
        let (ours, theirs) = (row(ours)?, row(theirs)?);
        let base = options.base.as_ref().map(row).transpose()?;
        // Begun last: its view has the objects of all that was found.
        let (session, reader, options) = self.begin_commit(&hold, options)?;
        drop(catalog);
        for image in [&ours, &theirs] {
            session.host().build_on(image);
        }
        let stage = self.store.task.begin(Phase::Merging, None);
        let base = match base {
            Some(base) => Ok(base.root),
            None => self.root_of_both(&reader, &ours, theirs.id),
        };
        let delta = base.and_then(|base| {
            let open = |root| Root::open(&reader, root);
            layer::merge_delta(&reader, &open(base)?, &open(ours.root)?, &open(theirs.root)?)
        });
        let made = match delta {
            Ok(Err(conflicts)) => {
                self.store.abandon(session);
                let paths = conflicts.into_iter().map(|conflict| conflict.path);
                return Ok(MergeOutcome::Conflicts(paths.collect()));
            }
            Ok(Ok(delta)) => {
                draft_of_delta(&ImageVersion::from(&ours), "merge", &delta, &session, &reader, &options)
            }
            Err(error) => Err(error),
        };
        drop(stage);
        self.finish(session, made).map(MergeOutcome::Merged)
    }

    /// The tree of the nearest image that both came from. It is found in the history of one: the image itself may be gone.
    fn root_of_both(&self, reader: &ObjectReader, ours: &ImageRecord, theirs: ImageId) -> Result<ObjectId> {
        let nothing = || {
            let message = format!(
                "it and image {theirs} came from no common image; name the base to compare them with"
            );
            Error::invalid(Subject::Image(ours.id), message)
        };
        let common = self.common_ancestor(ours.id, theirs)?.ok_or_else(nothing)?;
        // An image is one step after its parent.
        let steps = match self.ancestors(ours.id)?.iter().position(|ancestor| ancestor.id == common) {
            Some(before) => before + 1,
            None => 0,
        };
        let Some((_, step)) = layer::history(reader, ours.layer).nth(steps).transpose()? else {
            return Err(nothing());
        };
        let is_there = self.store.read(|tx| self.image_row(tx, common))?.is_some();
        if !is_there && !closure::is_whole(reader, Needs::tree(step.root))? {
            let message = format!(
                "image {common}, which it and image {theirs} came from, was removed; name another base to compare them with"
            );
            return Err(Error::invalid(Subject::Image(ours.id), message));
        }
        Ok(step.root)
    }
}
