//! The catalog's rows: that each decodes, and that they agree with each other.
//!
//! Every table is read whole, row by row, so that one that is damaged hides no other.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::catalog::ReadTables;
use crate::catalog::record::{
    CondemnedPackRecord, DirectoryRecord, DirectoryUse, FrameRecord, ImageRecord, LeaseRecord,
    OpenPackRecord, OriginRecord, ProjectRecord, SealedPackRecord, SegmentRecord, TagRecord, WorkspaceRecord,
};
use crate::catalog::table::{
    Children, Collections, CondemnedPacks, Directories, DirectoryAppended, DirectoryPlaces, Frames,
    Identities, ImageTags, Images, Leases, Lineage, Lowers, Needed, OpenPacks, Projects, RemovedPacks,
    SealedPacks, Segments, Sequence, Sequences, Table, Tags, Workspaces,
};
use crate::engine::Engine;
use crate::engine::image_id::time_and_counter;
use crate::error::{Error, Result, Subject};
use crate::id::{DirectoryId, ImageId, LeaseId, ObjectId, PackId, ProjectId, SegmentId};
use crate::ledger::directories::KnownDirectory;
use crate::ledger::identity::{identity_keys, identity_of};
use crate::name::{ProjectName, TagName, WorkspaceName};
use crate::pack::index::OpenPackObjects;
use crate::pack::session::WrittenFrame;

use super::images::{ImageWalk, Losses};
use super::packs::Extent;
use super::report::VerifyReport;

/// The rows of the catalog that can be read.
pub(super) struct CatalogRows {
    sequences: Vec<(Sequence, u64)>,
    projects: BTreeMap<ProjectId, ProjectName>,
    pub(super) images: Vec<(ProjectId, ImageRecord)>,
    identities: BTreeMap<(ProjectId, ObjectId), ImageId>,
    tags: BTreeMap<(ProjectId, TagName), TagRecord>,
    image_tags: BTreeSet<((ProjectId, ImageId), TagName)>,
    parents: BTreeSet<((ProjectId, ImageId), ImageId)>,
    children: BTreeSet<((ProjectId, ImageId), ImageId)>,
    open_packs: BTreeMap<PackId, OpenPackRecord>,
    sealed_packs: BTreeMap<PackId, SealedPackRecord>,
    condemned_packs: BTreeMap<PackId, CondemnedPackRecord>,
    removed_packs: BTreeSet<PackId>,
    frames: BTreeMap<(PackId, u64), FrameRecord>,
    pub(super) segments: BTreeMap<SegmentId, SegmentRecord>,
    leases: BTreeMap<LeaseId, LeaseRecord>,
    directories: BTreeMap<DirectoryId, DirectoryRecord>,
    places: BTreeMap<((u64, u64), DirectoryUse), DirectoryId>,
    appended: BTreeSet<(DirectoryId, u64)>,
    workspaces: Vec<((ProjectId, WorkspaceName), WorkspaceRecord)>,
}

fn row_fault<T: Table>(message: impl Into<String>) -> Error {
    Error::corrupt(Subject::Record(T::NAME), message)
}

/// The rows of a table that can be read; the others are faults.
fn rows<T: Table, C: FromIterator<(T::Key, T::Value)>>(tx: &impl ReadTables, report: &mut VerifyReport) -> C {
    let mut found = Vec::new();
    tx.each::<T>(|row| match row {
        Ok(row) => found.push(row),
        Err(error) => report.add_fault(error),
    });
    found.into_iter().collect()
}

/// The keys of a table whose rows say no more.
fn keys<T: Table<Key: Ord>>(tx: &impl ReadTables, report: &mut VerifyReport) -> BTreeSet<T::Key> {
    let rows: Vec<_> = rows::<T, _>(tx, report);
    rows.into_iter().map(|(key, _)| key).collect()
}

impl CatalogRows {
    /// Reads every table, with the faults of its rows.
    pub(super) fn read(tx: &impl ReadTables) -> (Self, VerifyReport) {
        let report = &mut VerifyReport::begin(true);
        let projects: Vec<(ProjectName, ProjectRecord)> = rows::<Projects, _>(tx, report);
        let images: Vec<((ProjectId, ImageId), ImageRecord)> = rows::<Images, _>(tx, report);
        let lineage: Vec<_> = rows::<Lineage, _>(tx, report);
        let appended: Vec<((DirectoryId, u64), Vec<u8>)> = rows::<DirectoryAppended, _>(tx, report);
        let _: Vec<_> = rows::<Lowers, _>(tx, report);
        let _: Vec<_> = rows::<Collections, _>(tx, report);
        let _: Vec<_> = rows::<Needed, _>(tx, report);
        let mut all = Self {
            sequences: rows::<Sequences, _>(tx, report),
            projects: BTreeMap::new(),
            images: Vec::new(),
            identities: rows::<Identities, _>(tx, report),
            tags: rows::<Tags, _>(tx, report),
            image_tags: keys::<ImageTags>(tx, report),
            parents: lineage.into_iter().map(|((scope, child), row)| ((scope, row.parent), child)).collect(),
            children: keys::<Children>(tx, report),
            open_packs: rows::<OpenPacks, _>(tx, report),
            sealed_packs: rows::<SealedPacks, _>(tx, report),
            condemned_packs: rows::<CondemnedPacks, _>(tx, report),
            removed_packs: keys::<RemovedPacks>(tx, report),
            frames: rows::<Frames, _>(tx, report),
            segments: rows::<Segments, _>(tx, report),
            leases: rows::<Leases, _>(tx, report),
            directories: rows::<Directories, _>(tx, report),
            places: rows::<DirectoryPlaces, _>(tx, report),
            appended: appended.into_iter().map(|(key, _)| key).collect(),
            workspaces: rows::<Workspaces, _>(tx, report),
        };
        for (name, ProjectRecord { id, .. }) in projects {
            if let Some(other) = all.projects.insert(id, name.clone()) {
                report.add_fault(row_fault::<Projects>(format!("'{other}' and '{name}' have one number")));
            }
        }
        for ((scope, id), image) in images {
            if id != image.id {
                report.add_fault(row_fault::<Images>(format!("image {} is in the row of {id}", image.id)));
            }
            all.images.push((scope, image));
        }
        (all, std::mem::take(report))
    }

    pub(super) fn project_name(&self, scope: ProjectId) -> Option<&ProjectName> {
        self.projects.get(&scope)
    }

    /// The tags of an image, as the tags themselves say.
    pub(super) fn tags_of(&self, scope: ProjectId, image: ImageId) -> Vec<TagName> {
        let own = self.tags.iter().filter(|((of, _), tag)| *of == scope && tag.image == image);
        own.map(|((_, name), _)| name.clone()).collect()
    }

    /// What of each pack counts.
    pub(super) fn extents(&self) -> Vec<Extent> {
        let open = self.open_packs.iter().filter(|(_, record)| record.committed_bytes > 0);
        let open = open.map(|(pack, record)| (*pack, record.committed_bytes, record.domain));
        let sealed = self.sealed_packs.iter().map(|(pack, record)| (*pack, record.bytes, record.domain));
        open.chain(sealed).collect()
    }

    /// The objects of open packs that are in no segment.
    pub(super) fn open_objects(&self) -> Vec<(Arc<OpenPackObjects>, u64)> {
        let of = |(pack, record): (&PackId, &OpenPackRecord)| {
            let objects = OpenPackObjects::new(*pack, record.indexed_bytes);
            let frames = self.frames.range((*pack, 0)..=(*pack, u64::MAX)).map(|((_, offset), frame)| {
                let FrameRecord { frame_bytes, objects } = frame.clone();
                WrittenFrame { offset: *offset, frame_bytes, objects }
            });
            objects.extend(frames, record.committed_bytes);
            (Arc::new(objects), record.committed_bytes)
        };
        self.open_packs.iter().map(of).collect()
    }

    /// Packs in which nobody finds anything who begins now, and since which generation.
    pub(super) fn withdrawn(&self) -> HashMap<PackId, u64> {
        let condemned = self.condemned_packs.iter().map(|(pack, record)| (*pack, record.generation));
        self.removed_packs.iter().map(|pack| (*pack, 0)).chain(condemned).collect()
    }

    /// Fails rows that other rows contradict.
    fn check(&self, report: &mut VerifyReport) {
        self.check_images(report);
        self.check_tags(report);
        self.check_packs(report);
        self.check_directories(report);
        self.check_sequences(report);
        for ((scope, parent), child) in self.parents.symmetric_difference(&self.children) {
            let message =
                format!("image {child} of project {scope} and its parent {parent} don't name each other");
            report.add_fault(row_fault::<Lineage>(message));
        }
    }

    fn check_scope(&self, scope: ProjectId, what: &str, report: &mut VerifyReport) {
        if scope != ProjectId::PUBLIC && !self.projects.contains_key(&scope) {
            report.add_fault(row_fault::<Projects>(format!(
                "{what} is of project {scope}, which is not there"
            )));
        }
    }

    fn check_images(&self, report: &mut VerifyReport) {
        let present: BTreeSet<_> = self.images.iter().map(|(scope, image)| (*scope, image.id)).collect();
        let tagged: BTreeSet<_> = self.tags.iter().map(|((scope, _), tag)| (*scope, tag.image)).collect();
        let found: BTreeSet<_> = self.identities.iter().map(|((scope, _), image)| (*scope, *image)).collect();
        for (scope, image) in &self.images {
            let id = image.id;
            self.check_scope(*scope, &format!("image {id}"), report);
            if image.owner != *scope && !tagged.contains(&(*scope, id)) {
                let message = format!("image {id} was adopted by project {scope}, where no tag names it");
                report.add_fault(row_fault::<Images>(message));
            }
            let is_import = image.owner == *scope && image.origin != OriginRecord::Commit;
            if is_import && !found.contains(&(*scope, id)) {
                report.add_fault(row_fault::<Identities>(format!("image {id} is not found by its content")));
            }
        }
        self.check_identities(report);
        for ((scope, name), tag) in &self.tags {
            if !present.contains(&(*scope, tag.image)) {
                let message = format!("it names image {}, which project {scope} has not got", tag.image);
                report.add_fault(Error::corrupt(Subject::Tag(name.to_string()), message));
            }
        }
    }

    /// Fails rows that lead to an image which is not there, or has other content.
    fn check_identities(&self, report: &mut VerifyReport) {
        let mut rightful = BTreeSet::new();
        for (scope, image) in &self.images {
            let keys = identity_keys(identity_of(image)).map(|key| (*scope, key));
            let found = keys.map_while(|key| self.identities.get(&key).map(|found| (key, *found)));
            rightful.extend(found.filter(|(_, found)| *found == image.id));
        }
        for ((scope, key), image) in &self.identities {
            if !rightful.contains(&((*scope, *key), *image)) {
                let message = format!("image {image} of project {scope} is not there, or has other content");
                report.add_fault(row_fault::<Identities>(message));
            }
        }
    }

    fn check_tags(&self, report: &mut VerifyReport) {
        let tags = self.tags.iter().map(|((scope, name), tag)| ((*scope, tag.image), name.clone()));
        for ((scope, image), name) in self.image_tags.symmetric_difference(&tags.collect()) {
            let message = format!("it and image {image} of project {scope} don't name each other");
            report.add_fault(Error::corrupt(Subject::Tag(name.to_string()), message));
        }
    }

    fn check_packs(&self, report: &mut VerifyReport) {
        let fault = |pack: PackId, message: &str| Error::corrupt(Subject::Pack(pack), message);
        for (pack, record) in &self.open_packs {
            if self.sealed_packs.contains_key(pack) {
                report.add_fault(fault(*pack, "it is both open and sealed"));
            }
            if self.condemned_packs.contains_key(pack) || self.removed_packs.contains(pack) {
                report.add_fault(fault(*pack, "it is both open and condemned"));
            }
            if record.owner.is_some_and(|owner| !self.leases.contains_key(&owner)) {
                report.add_fault(fault(*pack, "it is owned by a lease that is not there"));
            }
            let frames = self.frames.range((*pack, 0)..=(*pack, u64::MAX));
            let objects: u64 = frames.map(|(_, frame)| frame.objects.len() as u64).sum();
            if record.indexed_objects + objects != record.objects {
                let message = format!(
                    "it has {} objects, of which {} are in segments and {objects} in rows",
                    record.objects, record.indexed_objects
                );
                report.add_fault(fault(*pack, &message));
            }
        }
        for pack in self.sealed_packs.keys() {
            if self.condemned_packs.contains_key(pack) || self.removed_packs.contains(pack) {
                report.add_fault(fault(*pack, "it is both sealed and condemned"));
            }
        }
        for ((pack, offset), frame) in &self.frames {
            let end = offset + u64::from(frame.frame_bytes);
            let record = self.open_packs.get(pack);
            if record.is_none_or(|open| *offset < open.indexed_bytes || end > open.committed_bytes) {
                report.add_fault(fault(*pack, &format!("the frame at byte {offset} has a row and may not")));
            }
        }
    }

    fn check_directories(&self, report: &mut VerifyReport) {
        for (place, id) in &self.places {
            let row = self.directories.get(id).map(|row| ((row.device, row.inode), row.usage));
            if row.as_ref() != Some(place) {
                report.add_fault(row_fault::<DirectoryPlaces>(format!("directory {id} is not there")));
            }
        }
        for (id, row) in &self.directories {
            if !self.places.contains_key(&((row.device, row.inode), row.usage)) {
                report.add_fault(row_fault::<DirectoryPlaces>(format!("directory {id} is not found")));
            }
            let appended = self.appended.range((*id, 0)..(*id, row.appended)).count() as u64;
            if appended != row.appended {
                let message = format!("directory {id} has {appended} of {} rows", row.appended);
                report.add_fault(row_fault::<DirectoryAppended>(message));
            }
        }
    }

    /// Numbers that were given out are not given out again.
    fn check_sequences(&self, report: &mut VerifyReport) {
        let highest = |numbers: &mut dyn Iterator<Item = u64>| numbers.max().unwrap_or(0);
        let packs = self.open_packs.keys().chain(self.sealed_packs.keys());
        let packs = packs.chain(self.condemned_packs.keys()).chain(&self.removed_packs);
        let used = [
            (Sequence::Project, highest(&mut self.projects.keys().map(|id| id.get()))),
            (Sequence::Pack, highest(&mut packs.map(|id| id.get().into()))),
            (Sequence::Segment, highest(&mut self.segments.keys().map(|id| id.get().into()))),
            (Sequence::Lease, highest(&mut self.leases.keys().map(|id| id.get()))),
            (Sequence::Directory, highest(&mut self.directories.keys().map(|id| id.get()))),
            (Sequence::Workspace, highest(&mut self.workspaces.iter().map(|(_, row)| row.id.get()))),
            (Sequence::Image, highest(&mut self.images.iter().map(|(_, image)| time_and_counter(image.id)))),
        ];
        for (sequence, number) in used {
            if self.last(sequence) < number {
                let message = format!("number {number} of '{}' was never given out", sequence.as_str());
                report.add_fault(row_fault::<Sequences>(message));
            }
        }
    }

    fn last(&self, sequence: Sequence) -> u64 {
        let found = self.sequences.iter().find(|(found, _)| *found == sequence);
        found.map_or(0, |(_, number)| *number)
    }

    /// The time and counter of the newest image that was made.
    pub(super) fn newest_image(&self) -> u64 {
        self.last(Sequence::Image)
    }

    /// Looks for what workspaces need of their images, which may be gone.
    pub(super) fn check_workspaces(&self, walk: &mut ImageWalk<'_>, report: &mut VerifyReport) -> Result<()> {
        for ((scope, name), workspace) in &self.workspaces {
            self.check_scope(*scope, &format!("workspace '{name}'"), report);
            for equal in [workspace.base, workspace.last] {
                let mut losses = Losses::default();
                walk.follow(equal.root, Some(equal.layer), &mut losses)?;
                report.add_losses(losses, self, *scope, equal.image);
            }
        }
        Ok(())
    }
}

impl Engine {
    /// Compares the rows with each other, and with the files that only rows lead to.
    pub(super) fn check_rows(
        &self,
        rows: &CatalogRows,
        is_full: bool,
        report: &mut VerifyReport,
    ) -> Result<()> {
        rows.check(report);
        for (id, record) in &rows.directories {
            let known = KnownDirectory { id: *id, record: record.clone() };
            check_state(self, &known, is_full).or_else(|error| report.note(error))?;
        }
        Ok(())
    }
}

/// Fails with *corrupt* if a checkout's state can't be read. That of an imported directory is no loss.
fn check_state(store: &Engine, known: &KnownDirectory, is_full: bool) -> Result<()> {
    if known.record.usage != DirectoryUse::Checkout {
        return Ok(());
    }
    if is_full { store.load_state(known).map(drop) } else { known.measure_state(&*store.disk) }
}
