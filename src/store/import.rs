//! Imports.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use crate::archive::Limits;
use crate::catalog::record::{DirectoryRecord, DirectoryUse, ImageRecord, ImageVersion, OriginRecord};
use crate::catalog::table::{Identities, Images, Sequence, key_bytes};
use crate::catalog::{Direction, ReadTables, WriteTx};
use crate::error::{Error, Remedy, Result, Subject};
use crate::format::record;
use crate::host::file_time;
use crate::host::source::SourceTree;
use crate::host::stat::Stat;
use crate::host::state::{SegmentRows, StateRow, Unset};
use crate::id::{DirectoryId, ImageId, ObjectId};
use crate::ingest::{
    Budget, Changing, Everything, Excludes, Scan, Scanned, SourceReport, TarOptions, Walk, WalkRules,
    capture_listed, refuse_saved_image,
};
use crate::layer::LayerRecord;
use crate::name::TagName;
use crate::object::{ObjectKind, ObjectSink};
use crate::pack::reader::ObjectReader;
use crate::path::TreePath;
use crate::task::Phase;
use crate::time::Moment;
use crate::tree::{self, Entry, Root, Timestamp};

use super::commit::{Base, Changes, changes};
use crate::engine::state_files::StateFile;
use crate::ledger::identity::{identity, identity_of};
use crate::ledger::needed::note_image;

use super::limits::check_layer_bytes;
use super::lineage::remember_parent;
use super::links::{self, Links};
use super::project::Project;
use super::tags::set_tag;
use super::workspace::WorkspaceStep;
use crate::engine::closure::Needs;
use crate::engine::image_id::{latest_created, remember_image_id, time_and_counter};
use crate::engine::session::WriteSession;
use crate::ledger::directories::{DirectoryPlace, KnownDirectory, StateChange, StateUpdate, is_precious};

/// A file that changed so shortly before an import is read again by the next: whatever the file system's clock is like, a
/// later change would have got another time.
const SETTLE_SECONDS: i64 = 2;

/// Clocks may differ by so much without a report.
const CLOCK_SLACK_MS: u64 = 10_000;

/// What goes with an import besides its content.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct ImportOptions {
    /// Tags for the image, set in the transaction that publishes it.
    pub tags: Vec<TagName>,
    /// The user's words.
    pub comment: String,
    /// Read every file of a directory, also those that an earlier import of it has read and whose size and times are as
    /// they were.
    pub reread: bool,
    /// What becomes of a directory's files that change while they are read.
    pub changing: Changing,
    /// Leave out what is mounted below a directory: mount points stay, as empty directories and files. A subvolume that is
    /// not mounted by itself is part of the file system that it lies in.
    pub one_file_system: bool,
    /// What of a directory is left out.
    pub exclude: Excludes,
    /// What it may ask for at most.
    pub limits: Limits,
    /// Expectations of a tar. Of a directory only [`accept_saved_image`](TarOptions::accept_saved_image) counts.
    pub tar: TarOptions,
}

/// What an import or a commit did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WriteReport {
    /// The image.
    pub image: ImageId,
    /// Whether it is new; otherwise the same content was there already.
    pub is_new: bool,
    /// Paths in the image.
    pub entries: u64,
    /// Bytes of file content in the image.
    pub bytes: u64,
    /// Paths that were examined beyond their metadata.
    pub examined: u64,
    /// Raw bytes of objects that were new to the store.
    pub new_bytes: u64,
    /// Bytes appended to packs.
    pub stored_bytes: u64,
    /// What the image does not have of the directory that was read.
    pub source: SourceReport,
    /// When the project's newest image before this one was made, if that is later than the clock says now by more than ten
    /// seconds: the clock was wrong then, or is now. Ids ascend all the same.
    pub later_image: Option<Moment>,
    /// Whether the tars that were read had the two zero blocks which end one; without them a tar may have been cut off between
    /// two members. None where none was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub has_end_mark: Option<bool>,
}

/// An image that only lacks its id.
pub(super) struct Draft {
    pub(super) root: Root,
    pub(super) layer: LayerDraft,
    pub(super) origin: OriginRecord,
    pub(super) parent: Option<ImageId>,
    pub(super) tags: Vec<TagName>,
    pub(super) comment: String,
    pub(super) examined: u64,
    pub(super) source: SourceReport,
    pub(super) has_end_mark: Option<bool>,
    pub(super) state: Option<StateUpdate>,
    pub(super) workspace: Option<WorkspaceStep>,
}

impl Draft {
    /// A state file that must be written before the draft is published as an image.
    fn state_file(&self, image: &ImageRecord, now: Moment) -> Option<Arc<StateFile>> {
        let StateUpdate { place, change: StateChange::Whole(_, file), .. } = self.state.as_ref()? else {
            return None;
        };
        if is_precious(place.usage) {
            file.name_checkout(place.record(&ImageVersion::from(image), now));
        }
        Some(Arc::clone(file))
    }
}

/// The tree of a directory that was imported.
struct ImportedTree {
    root: Root,
    /// Paths that were read.
    examined: u64,
    state: Option<StateUpdate>,
}

/// What a layer record says of its step.
#[derive(Default)]
pub(super) struct LayerDraft {
    pub(super) previous: Option<ObjectId>,
    pub(super) created_by: &'static str,
    pub(super) added: u64,
    pub(super) modified: u64,
    pub(super) removed: u64,
    pub(super) changed_bytes: u64,
}

impl Project {
    /// Imports a directory of the host, with everything below it, as an image. The same content imported before
    /// gives the same image and stores nothing; of a directory that this project has imported before, only files are read
    /// whose inode, size or times are not what they were, or that had changed within two seconds of that import.
    ///
    /// What is gone when it is to be read is left out. The store's own directory is never read, and is refused as `path`, with all in it but
    /// workspaces. The report has what the image
    /// lacks, and what was mounted below the directory.
    ///
    /// Errors: [`NotFound`](crate::ErrorKind::NotFound) for the directory;
    /// [`Io`](crate::ErrorKind::Io) naming what can't be read; [`Conflict`](crate::ErrorKind::Conflict) naming a file
    /// that changed each time it was read, and [`Unsupported`](crate::ErrorKind::Unsupported) one whose size is not what its
    /// file system says, unless such files are [kept](Changing::Keep), and an OCI image layout, which holds layers instead of
    /// files; [`QuotaExceeded`](crate::ErrorKind::QuotaExceeded) and [`TimedOut`](crate::ErrorKind::TimedOut) for a limit that it passes. Nothing is visible then.
    pub fn import_directory(&self, path: impl AsRef<Path>, options: &ImportOptions) -> Result<WriteReport> {
        let _span = tracing::info_span!("import", project = %self.name, from = ?path.as_ref()).entered();
        let catalog = self.store.catalog()?;
        let hold = self.store.hold(&catalog)?;
        catalog.read(|tx| self.check(tx))?;
        let source = SourceTree::open(path.as_ref())?;
        self.store.check_is_no_part(path.as_ref())?;
        options.exclude.check_relative_to(path.as_ref())?;
        if !options.tar.accept_saved_image {
            refuse_saved_image(&source)?;
        }
        let stat = source.root_stat()?;
        let place = DirectoryPlace::new(DirectoryUse::Import(self.id), self.id, path.as_ref(), &stat)?;
        let base = if options.reread { None } else { self.imported_before(&place, &stat)? };
        let started = file_time();
        let observed = Timestamp { seconds: started.seconds - SETTLE_SECONDS, ..started };
        let (session, reader) = self.store.begin_session(&hold)?;
        drop(catalog);
        let rules = WalkRules {
            changing: options.changing,
            one_file_system: options.one_file_system,
            excluded: options.exclude.matcher()?,
        };
        let walk = self.store.walk(&source, rules).within(Budget::new(&options.limits));
        let stage = self.store.task.begin(Phase::Reading, None);
        let made = match base {
            None => self.import_all(&walk, &session, place, observed),
            Some(base) => import_changes(&walk, base, &session, &reader, observed),
        };
        // Not to be published behind its time.
        let made = made.and_then(|made| walk.check_time(&TreePath::root()).map(|()| made));
        let made = made.map_err(advise_exclusion);
        let report = walk.into_report();
        let made = made.map(|ImportedTree { root, examined, state }| Draft {
            layer: LayerDraft {
                created_by: "import directory",
                added: root.entries(),
                changed_bytes: root.bytes(),
                ..LayerDraft::default()
            },
            origin: OriginRecord::Directory,
            parent: None,
            tags: options.tags.clone(),
            comment: options.comment.clone(),
            examined,
            source: report,
            has_end_mark: None,
            state,
            workspace: None,
            root,
        });
        drop(stage);
        self.finish(session, made)
    }

    /// The image that a directory equalled when this project imported it last, as far as both are still known.
    fn imported_before(&self, place: &DirectoryPlace, stat: &Stat) -> Result<Option<Base>> {
        let known = self.store.read(|tx| {
            let known = KnownDirectory::find(tx, stat, place.usage)?;
            let base = known.as_ref().map(|known| self.image_row(tx, known.base())).transpose()?.flatten();
            Ok(known.filter(|known| base.is_some_and(|base| base.root == known.record.base_root)))
        })?;
        let Some(known) = known else { return Ok(None) };
        // A state that is lost or damaged is no loss: all is read.
        let Ok(state) = self.store.load_state(&known) else { return Ok(None) };
        let DirectoryRecord { base: image, base_root: root, base_layer: layer, .. } = known.record;
        let place = place.clone();
        Ok(Some(Base {
            image,
            root,
            layer,
            is_there: true,
            known: Some(known),
            place,
            state: Some(state),
            root_user: None,
        }))
    }

    /// Stores a directory of which nothing is known.
    fn import_all(
        &self,
        walk: &Walk<'_>,
        session: &WriteSession,
        place: DirectoryPlace,
        observed: Timestamp,
    ) -> Result<ImportedTree> {
        let (root, rows) = store_tree(walk, session)?;
        let change = StateChange::Whole(None, Arc::new(StateFile::pack(&rows.finish(observed, &[]))?));
        let abandoned = self.store.abandoned_directories()?;
        let state = StateUpdate { place, change, abandoned };
        Ok(ImportedTree { examined: root.entries(), root, state: Some(state) })
    }

    /// Publishes a draft, or gives up the session it was made in.
    pub(super) fn finish(&self, session: WriteSession, made: Result<Draft>) -> Result<WriteReport> {
        let _stage = self.store.task.begin(Phase::Publishing, None);
        let found = made.and_then(|draft| {
            self.store.task.check()?;
            loop {
                match self.prepare(&session, &draft)? {
                    Prepared::New(record) => return Ok((draft, record, true)),
                    Prepared::Known(record) if self.settle_known(&draft, &record)? => {
                        return Ok((draft, record, false));
                    }
                    // It was removed a moment ago, so it is made anew.
                    Prepared::Known(_) => {}
                }
            }
        });
        match found {
            Err(error) => {
                self.store.abandon(session);
                Err(error)
            }
            Ok((draft, record, false)) => {
                self.store.abandon(session);
                Ok(report(&record, &draft, false, 0, 0))
            }
            Ok((draft, record, true)) => {
                let (new_bytes, stored_bytes) = (session.new_raw_bytes(), session.written_bytes());
                let (project, draft) = (self.clone(), Arc::new(draft));
                let shared = Arc::clone(&draft);
                let state = draft.state_file(&record, self.store.surroundings.now());
                let publish = move |tx: &mut WriteTx| project.publish_image(tx, &shared, record.clone());
                let published = self.store.publish(session, state, publish)?;
                let Published { record, is_new, is_late, later_image, gone } = published;
                tracing::info!(image = %record.id, is_new, new_bytes, stored_bytes, "made an image");
                self.store.remove_states(gone);
                if is_late {
                    self.store.dump_late_image(record.id);
                }
                let report = report(&record, &draft, is_new, new_bytes, stored_bytes);
                Ok(WriteReport { later_image, ..report })
            }
        }
    }

    /// Does what follows from a draft being an image that is there; false if it is gone.
    fn settle_known(&self, draft: &Draft, record: &ImageRecord) -> Result<bool> {
        let has_changed = draft.state.is_some() && draft.examined > 0;
        if !has_changed && draft.tags.is_empty() && draft.workspace.is_none() {
            return Ok(true);
        }
        let settled = self.store.write_with_state(
            draft.state_file(record, self.store.surroundings.now()).as_deref(),
            |tx| match self.image_row(tx, record.id)? {
                Some(_) => self.settle(tx, draft, record).map(Some),
                None => Ok(None),
            },
        )?;
        let is_there = settled.is_some();
        self.store.remove_states(settled.unwrap_or_default());
        Ok(is_there)
    }

    /// Finds the image that this draft already is, or writes the records that a new one needs.
    fn prepare(&self, session: &WriteSession, draft: &Draft) -> Result<Prepared> {
        let catalog = self.store.catalog()?;
        let (known, id) = catalog.read(|tx| {
            self.check(tx)?;
            Ok((self.known_image(tx, draft)?, self.store.next_image_id(tx)?))
        })?;
        drop(catalog);
        if let Some(record) = known {
            return Ok(Prepared::Known(record));
        }
        let diff_id = match draft.origin {
            OriginRecord::Tar(digest) => Some(digest),
            OriginRecord::Directory | OriginRecord::Commit => None,
        };
        // The clock's: only the id is later than the last one whatever the clock says. It is never earlier than this.
        let created_ms = self.store.surroundings.now().min(latest_created(id)).unix_ms();
        let layer = LayerRecord {
            previous: draft.layer.previous,
            root: draft.root.id,
            created_ms,
            created_by: draft.layer.created_by.to_owned(),
            comment: draft.comment.clone(),
            added: draft.layer.added,
            modified: draft.layer.modified,
            removed: draft.layer.removed,
            changed_bytes: draft.layer.changed_bytes,
            diff_id,
        };
        let mut writer = session.writer()?;
        let image = ImageRecord {
            id,
            owner: self.id,
            root: draft.root.id,
            layer: layer.write(&mut writer)?,
            parent: draft.parent,
            created_ms,
            origin: draft.origin,
            entries: draft.root.entries(),
            logical_bytes: draft.root.bytes(),
            comment: draft.comment.clone(),
        };
        let bytes = record::encode_object(&image).map_err(|error| {
            Error::invalid(Subject::Argument("comment"), format!("the image record {error}"))
        })?;
        writer.put(ObjectKind::Image, &bytes)?;
        writer.flush()?;
        Ok(Prepared::New(image))
    }

    /// The image that this draft would only repeat: the same import, or a commit's unchanged parent.
    fn known_image(&self, tx: &impl ReadTables, draft: &Draft) -> Result<Option<ImageRecord>> {
        if draft.origin == OriginRecord::Commit {
            let parent = draft.parent.map(|parent| self.image_row(tx, parent)).transpose()?.flatten();
            return Ok(parent.filter(|parent| parent.root == draft.root.id));
        }
        let identity = identity(draft.root.id, draft.origin);
        match tx.get::<Identities>(&(self.id, identity))? {
            Some(id) => tx.get::<Images>(&(self.id, id)),
            None => Ok(None),
        }
    }

    /// Makes the image visible, or gives the one that a racer published meanwhile.
    fn publish_image(&self, tx: &mut WriteTx, draft: &Draft, record: ImageRecord) -> Result<Published> {
        let limits = self.limits_in(tx)?;
        if record.origin == OriginRecord::Commit {
            // Again, since the limit may have been set while the commit was made.
            check_layer_bytes(draft.layer.changed_bytes, limits.max_layer_bytes)?;
        }
        let mut later_image = None;
        let (record, is_new, is_late) = if let Some(known) = self.known_image(tx, draft)? {
            (known, false, false)
        } else {
            later_image = self.later_image(tx, &record)?;
            let is_late = tx.last(Sequence::Image)? > time_and_counter(record.id);
            tx.put::<Images>(&(self.id, record.id), &record)?;
            note_image(tx, &record)?;
            remember_image_id(tx, record.id)?;
            remember_parent(tx, self.id, &record)?;
            if record.origin != OriginRecord::Commit {
                tx.put::<Identities>(&(self.id, identity_of(&record)), &record.id)?;
            }
            (record, true, is_late)
        };
        let gone = self.settle(tx, draft, &record)?;
        Ok(Published { record, is_new, is_late, later_image, gone })
    }

    /// When the project's newest image was made, if the clock said less when this one was.
    fn later_image(&self, tx: &impl ReadTables, image: &ImageRecord) -> Result<Option<Moment>> {
        let is_later = |moment: Moment| moment.unix_ms() > image.created_ms.saturating_add(CLOCK_SLACK_MS);
        // An id was pushed then, so nothing is looked for otherwise.
        if !is_later(latest_created(image.id)) {
            return Ok(None);
        }
        let mut newest = None;
        tx.scan::<Images>(&key_bytes(&self.id), None, Direction::Descending, |_, record| {
            newest = Some(record.created());
            Ok(ControlFlow::Break(()))
        })?;
        Ok(newest.filter(|newest| is_later(*newest)))
    }

    /// What follows from an image being the draft's: its tags, what its directory is equal to now, and what becomes of its
    /// workspace. Gives directories whose state files may go afterwards.
    fn settle(&self, tx: &mut WriteTx, draft: &Draft, image: &ImageRecord) -> Result<Vec<DirectoryId>> {
        let now = self.store.surroundings.now();
        draft.tags.iter().try_for_each(|name| set_tag(tx, self.id, name, image, now))?;
        draft.workspace.as_ref().map_or(Ok(()), |step| step.take(tx, self.id, image))?;
        draft.state.as_ref().map_or(Ok(Vec::new()), |update| self.store.advance_directory(tx, update, image))
    }
}

/// What became of a draft.
struct Published {
    record: ImageRecord,
    is_new: bool,
    /// Whether an image with a later id was published before.
    is_late: bool,
    /// See [`WriteReport::later_image`].
    later_image: Option<Moment>,
    /// Directories whose state files may go.
    gone: Vec<DirectoryId>,
}

/// Stores what of a directory is not as it was.
fn import_changes(
    walk: &Walk<'_>,
    base: Base,
    session: &WriteSession,
    reader: &ObjectReader,
    observed: Timestamp,
) -> Result<ImportedTree> {
    session.host().build_on(Needs::tree(base.root));
    let Changes { entries, gone, rows, examined } = changes(walk, &base, session, reader)?;
    let mut root = Root::open(reader, base.root)?;
    if !entries.is_empty() {
        let mut writer = session.writer()?;
        root = tree::edit(reader, &mut writer, &root, entries)?;
        writer.flush()?;
    }
    Ok(ImportedTree { root, examined, state: base.state_update(observed, &rows, &gone)? })
}

/// Stores a directory's tree while it is scanned, and gives what its files were like. Hard link groups are put in
/// afterwards: only then are all their names known.
fn store_tree(walk: &Walk<'_>, session: &WriteSession) -> Result<(Root, SegmentRows)> {
    let scan = Scan { walk, wanted: &Everything };
    let mut linked = Vec::new();
    let mut rows = SegmentRows::default();
    let (mut writer, root) = scan.run(session, |scanned| {
        let mut writer = session.tree_writer()?;
        let mut failure = None;
        let entries = scanned.map_while(|scanned| scanned.map_err(|error| failure = Some(error)).ok());
        let root = tree::build(
            &mut writer,
            entries.filter_map(|scanned| match scanned {
                Scanned::Captured(path, captured) => {
                    rows.push(&path, &StateRow::new(&captured.stat, Unset::default()));
                    Some((path, Entry::Inode(captured.inode)))
                }
                Scanned::Linked { found, .. } => {
                    // It is read later, and if it is not the same then, the row is of a file that is gone.
                    rows.push(&found.path, &StateRow::new(&found.stat, Unset::default()));
                    linked.push(found);
                    None
                }
                Scanned::Left(_) => None,
            }),
        );
        failure.map_or(root, Err).map(|root| (writer, root))
    })?;
    writer.flush()?;
    if linked.is_empty() {
        return Ok((root, rows));
    }
    let mut links = Links::new(linked);
    while let Some(firsts) = links.firsts() {
        let captured = capture_listed(walk, &firsts, session, &Everything)?;
        links.take(walk, firsts, captured)?;
    }
    let (captured, members) = links.finish();
    let entries = links::entries(&mut writer, captured, &members)?;
    let changes = entries.into_iter().map(|(path, entry)| (path, Some(entry)));
    let root = tree::edit(&writer.read_back()?, &mut writer, &root, changes)?;
    writer.flush()?;
    Ok((root, rows))
}

/// Says of what can't be read that it can be left out.
fn advise_exclusion(error: Error) -> Error {
    let is_denied = error.is_of_host() && error.is_permission_denied();
    match error.remedy() {
        Some(Remedy::KeepChanging) => error.with_remedy(Remedy::ExcludeOrKeepChanging),
        // Only file systems of others (FUSE, NFS) and user namespaces refuse root.
        None if is_denied && rustix::process::geteuid().is_root() => error.with_remedy(Remedy::ExcludeAsRoot),
        None if is_denied => error.with_remedy(Remedy::Exclude),
        _ => error,
    }
}

enum Prepared {
    Known(ImageRecord),
    New(ImageRecord),
}

fn report(
    record: &ImageRecord,
    draft: &Draft,
    is_new: bool,
    new_bytes: u64,
    stored_bytes: u64,
) -> WriteReport {
    WriteReport {
        image: record.id,
        is_new,
        entries: record.entries,
        bytes: record.logical_bytes,
        examined: draft.examined,
        new_bytes,
        stored_bytes,
        source: draft.source.clone(),
        later_image: None,
        has_end_mark: draft.has_end_mark,
    }
}
