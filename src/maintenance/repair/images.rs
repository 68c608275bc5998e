//! Which images the repaired store has.
//!
//! An image stays if all that it needs is sound: whoever shares content with an image counts on that. One that is not is
//! told with its paths and its tags, and is in the catalog no more.

use std::collections::{BTreeMap, BTreeSet};

use crate::catalog::record::{ImageRecord, LineageRecord, OriginRecord, ProjectRecord, WorkspaceRecord};
use crate::catalog::table::Sequence;
use crate::engine::image_id::time_and_counter;
use crate::error::{Error, Result, Subject};
use crate::format::record::Added;
use crate::id::{ImageId, ObjectId, ProjectId};
use crate::ledger::identity::identity_of;
use crate::maintenance::verify::{DamagedImage, ImageWalk, Losses, scope_name};
use crate::name::ProjectName;
use crate::task::Phase;
use crate::time::Moment;

use super::report::{FoundImage, RepairReport};
use super::rows::Rows;
use super::salvage::Damaged;
use super::scan::FoundRecord;
use super::workspaces::label;

impl Rows {
    /// Adds the images that only packs tell of, unless they were removed: a catalog that lost no row would have them
    /// otherwise, and so would a dump that was written after they were made; and no pack is condemned that an image needs.
    /// `include_removed` adds all.
    pub(super) fn add_found(
        &mut self,
        found: BTreeMap<ImageId, FoundRecord>,
        include_removed: bool,
        report: &mut RepairReport,
    ) {
        for (id, FoundRecord { image, is_condemned }) in found {
            let scope = image.owner;
            self.raise(Sequence::Project, scope.get());
            self.raise(Sequence::Image, time_and_counter(id));
            if self.images.contains_key(&(scope, id)) {
                continue;
            }
            let is_newer = self.dump.is_none_or(|dump| time_and_counter(id) > dump.newest_image);
            let was_removed = self.is_whole || !is_newer || is_condemned;
            let name = scope_name(scope, self.project_name(scope));
            let told = FoundImage { project: name, image: id, created: image.created() };
            if was_removed {
                report.removed.push(told.clone());
                if !include_removed {
                    continue;
                }
                self.recalled.insert((scope, id));
            }
            // The same import may be there already: which of the two was removed, if any, nothing tells.
            self.images.insert((scope, id), image);
            report.restored.push(told);
        }
    }

    /// Drops what can't be read, and whatever names it, and gives the images.
    pub(super) fn drop_damaged(
        &mut self,
        walk: &mut ImageWalk<'_>,
        report: &mut RepairReport,
    ) -> Result<Vec<Damaged>> {
        let (mut damaged, mut dropped) = (Vec::new(), Vec::new());
        let task = walk.task();
        let _stage = task.begin(Phase::CheckingImages, self.images.len() as u64);
        for ((scope, id), image) in &self.images {
            task.advance(1, 0)?;
            let mut losses = Losses::default();
            walk.follow(image.root, Some(image.layer), &mut losses)?;
            if !losses.is_none() {
                damaged.push((*scope, *id, losses));
            }
        }
        for (scope, id, losses) in damaged {
            // Of what was removed, part may have been collected: that is no loss.
            if self.recalled.contains(&(scope, id)) {
                self.images.remove(&(scope, id));
                report.restored.retain(|restored| restored.image != id);
                continue;
            }
            if let Some(image) = self.images.remove(&(scope, id)) {
                let (lost_paths, has_history) = (losses.paths(), losses.has_history());
                dropped.push(Damaged { scope, image, lost_paths, has_history });
            }
            report.restored.retain(|restored| restored.image != id);
            let project = scope_name(scope, self.project_name(scope));
            report.damaged_images.push(DamagedImage::new(project, id, self.tags_of(scope, id), losses));
            self.tags.retain(|(of, _), tag| (*of, tag.image) != (scope, id));
        }
        let mut lost = Vec::new();
        for ((scope, name), WorkspaceRecord { base, last, .. }) in &self.workspaces {
            let mut losses = Losses::default();
            for equal in [base, last] {
                walk.follow(equal.root, Some(equal.layer), &mut losses)?;
            }
            if !losses.is_none() {
                lost.push((*scope, name.clone()));
            }
        }
        for key in lost {
            let name = label(self, key.0, &key.1.to_string());
            self.lost_workspaces.extend(self.workspaces.remove(&key).map(|record| (record.id, name)));
        }
        self.drop_dangling(report);
        Ok(dropped)
    }

    /// Drops tags that name no image, and adopted images that no tag names.
    fn drop_dangling(&mut self, report: &mut RepairReport) {
        let images = &self.images;
        self.tags.retain(|(scope, name), tag| {
            let is_there = images.contains_key(&(*scope, tag.image));
            if !is_there {
                let message = format!("it named image {}, which is not there", tag.image);
                report.add_fault(Error::corrupt(Subject::Tag(name.to_string()), message));
            }
            is_there
        });
        let tagged: BTreeSet<_> = self.tags.iter().map(|((scope, _), tag)| (*scope, tag.image)).collect();
        self.images.retain(|key, image| image.owner == key.0 || tagged.contains(key));
    }

    /// Adds what images were made from, where only their records tell of it.
    pub(super) fn add_parents(&mut self) {
        let own = self.images.iter().filter(|((scope, _), image)| image.owner == *scope);
        for (key, parent) in own.filter_map(|(key, image)| Some((key, image.parent?))) {
            let parents = [key.0, ProjectId::PUBLIC].map(|scope| self.images.get(&(scope, parent)));
            let created_ms = parents.into_iter().flatten().next().map(|record| record.created_ms);
            let row = LineageRecord { parent, parent_created_ms: Added(created_ms) };
            self.lineage.entry(*key).or_insert(row);
        }
    }

    /// Makes the projects that rows are of and that have no name any more.
    pub(super) fn add_projects(&mut self, now: Moment) {
        let images = self.images.keys().map(|(scope, _)| *scope);
        let workspaces = self.workspaces.keys().map(|(scope, _)| *scope);
        let known: BTreeSet<_> = self.projects.values().map(|record| record.id).collect();
        let wanted: BTreeSet<_> = images.chain(workspaces).filter(|scope| !known.contains(scope)).collect();
        for id in wanted.into_iter().filter(|scope| *scope != ProjectId::PUBLIC) {
            self.raise(Sequence::Project, id.get());
            let record = ProjectRecord { id, created_ms: now.unix_ms(), max_layer_bytes: None };
            let names =
                std::iter::successors(Some(format!("recovered-{id}")), |name| Some(format!("{name}-")));
            let free = names.filter_map(|name| name.parse::<ProjectName>().ok());
            if let Some(name) = free.take(8).find(|name| !self.projects.contains_key(name)) {
                self.projects.insert(name, record);
            }
        }
    }
}

/// Calls projects in the report as they are called now: some have a name only since their rows were made.
pub(super) fn name_projects(rows: &Rows, report: &mut RepairReport) {
    for (name, record) in &rows.projects {
        let unnamed = scope_name(record.id, None);
        let found = report.restored.iter_mut().chain(&mut report.removed).map(|image| &mut image.project);
        let salvaged = report.salvaged.iter_mut().map(|image| &mut image.project);
        let damaged = report.damaged_images.iter_mut().map(|image| &mut image.project);
        for told in found.chain(salvaged).chain(damaged).filter(|told| **told == unnamed) {
            *told = name.to_string();
        }
    }
}

/// What makes an import the same as another; nothing for a commit.
pub(super) fn import_identity(image: &ImageRecord) -> Option<(ProjectId, ObjectId)> {
    (image.origin != OriginRecord::Commit).then(|| (image.owner, identity_of(image)))
}
