//! Commits: a changed directory as a new image that shares everything else with its base.
//!
//! What the checkout's state vouches for is not opened. The rest is read, corrected by what the checkout could not set
//! (see `host::state`), and becomes one edit of the base's tree.

mod base;
mod marks;
mod missing;
mod upper;

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use crate::catalog::record::{DirectoryUse, ImageVersion, OriginRecord};
use crate::error::{Error, Remedy, Result, Subject};
use crate::host::file_time;
use crate::host::source::{Found, SourceTree};
use crate::host::stat::{FileKind, Stat};
use crate::host::state::StateRow;
use crate::ingest::{Changing, Scan, Scanned, SourceReport, Walk, WalkRules, capture_listed};
use crate::layer::{self, Delta};
use crate::name::{ImageRef, TagName};
use crate::pack::reader::ObjectReader;
use crate::path::TreePath;
use crate::task::Phase;
use crate::tree::{self, Entry, InodeKind, Root, Timestamp};

use super::import::{Draft, LayerDraft, WriteReport};
use super::limits::check_layer_bytes;
use super::links::{self, Links, Members};
use super::project::Project;
use super::workspace::OfWorkspace;
use crate::engine::closure::{self, Needs};
use crate::engine::session::WriteSession;
use crate::ledger::directories::{DirectoryPlace, KnownDirectory};
pub(super) use base::Base;
use base::Changed;
pub use marks::OverlayMarks;
use missing::Missing;

/// What goes with a commit besides the directory.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct CommitOptions {
    /// The image that the directory is a changed copy of; none for a checkout of this store, which knows its own.
    pub base: Option<ImageRef>,
    /// Tags for the image, set in the transaction that publishes it.
    pub tags: Vec<TagName>,
    /// The user's words.
    pub comment: String,
    /// Most bytes of file content in what is added or modified: a larger layer is refused.
    pub max_layer_bytes: Option<u64>,
    /// What becomes of a directory's files that change while they are read.
    pub changing: Changing,
}

impl CommitOptions {
    /// How a directory is read.
    fn rules(&self) -> WalkRules {
        WalkRules { changing: self.changing, ..WalkRules::default() }
    }
}

/// What a directory has that its base has not.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) entries: BTreeMap<TreePath, Option<Entry>>,
    /// Paths that are in the base and no longer there.
    pub(super) gone: Vec<TreePath>,
    /// What is known of the files that were read, for the next time.
    pub(super) rows: BTreeMap<TreePath, StateRow>,
    /// Paths that were read.
    pub(super) examined: u64,
}

impl Project {
    /// Commits a directory as a new image whose parent is its base. A directory that equals its base gives the base's
    /// own UUID back.
    ///
    /// Errors: [`Invalid`](crate::ErrorKind::Invalid) for a directory that is no checkout of this project, without a
    /// base; [`Io`](crate::ErrorKind::Io) naming what can't be read;
    /// [`Conflict`](crate::ErrorKind::Conflict) naming a file that changed each time it was read, unless such files are
    /// [kept](Changing::Keep). Nothing is visible then.
    pub fn commit(&self, directory: impl AsRef<Path>, options: &CommitOptions) -> Result<WriteReport> {
        self.commit_directory(directory.as_ref(), None, options)
    }

    /// The same of a directory that may be a workspace's.
    pub(super) fn commit_directory(
        &self,
        directory: &Path,
        workspace: Option<OfWorkspace>,
        options: &CommitOptions,
    ) -> Result<WriteReport> {
        let _span = tracing::info_span!("commit", project = %self.name, from = ?directory).entered();
        let source = SourceTree::open(directory)?;
        self.store.check_is_no_part(directory)?;
        let catalog = self.store.catalog()?;
        let hold = self.store.hold(&catalog)?;
        let stat = source.root_stat()?;
        let base = self.base_of(directory, &stat, workspace.as_ref(), options)?;
        // What this store wrote is read whatever modes it has; whose modes anything else has is not known.
        let is_own = base.known.is_some() || workspace.is_some();
        let source = if is_own { self.store.lending(source, &stat)? } else { source };
        let started = file_time();
        let (session, reader, options) = self.begin_commit(&hold, options)?;
        drop(catalog);
        session.host().build_on(&base.equal());
        session.limit_content(options.max_layer_bytes);
        let walk = self.store.walk(&source, options.rules());
        let stage = self.store.task.begin(Phase::Reading, None);
        let made = check_is_there(directory, &base, &reader)
            .and_then(|()| changes(&walk, &base, &session, &reader))
            .and_then(|changes| draft(base, changes, started, &session, &reader, &options));
        drop(stage);
        let (step, source) = (workspace.map(|workspace| workspace.step), walk.into_report());
        self.finish(session, made.map(|draft| Draft { workspace: step, source, ..draft }))
    }

    fn base_of(
        &self,
        directory: &Path,
        stat: &Stat,
        workspace: Option<&OfWorkspace>,
        options: &CommitOptions,
    ) -> Result<Base> {
        let (known, named, is_there) = self.store.read(|tx| {
            self.check(tx)?;
            let known = KnownDirectory::find(tx, stat, DirectoryUse::Checkout)?
                .filter(|known| known.record.project == self.id);
            let named = options.base.as_ref().map(|base| self.resolve_in(tx, base)).transpose()?;
            let of_known = |known: &KnownDirectory| self.image_row(tx, known.base());
            let is_there = named.is_some() || known.as_ref().map(of_known).transpose()?.flatten().is_some();
            Ok((known, named.map(|(_, record)| record), is_there))
        })?;
        let (image, root, layer, state) = match (&known, named) {
            // Nothing vouches for a directory that was never this image, nor where the state is lost.
            (known, Some(named)) => {
                let known = known.as_ref().filter(|known| known.base() == named.id);
                let state = known.and_then(|known| self.store.load_state(known).ok());
                (named.id, named.root, named.layer, state)
            }
            (Some(known), None) => {
                let record = &known.record;
                (record.base, record.base_root, record.base_layer, Some(self.store.load_state(known)?))
            }
            (None, None) => {
                let last = workspace.map(|workspace| workspace.last).ok_or_else(|| {
                    let message = format!("is no checkout that project '{}' knows", self.name);
                    Error::invalid(Subject::Host(directory.to_owned()), message).with_remedy(Remedy::NameBase)
                })?;
                (last.image, last.root, last.layer, None)
            }
        };
        // A workspace keeps what it was committed as; its directory may have been committed apart from it since.
        let is_kept = |of: &OfWorkspace| (of.last.root, of.last.layer) == (root, layer);
        let is_there = is_there || workspace.is_some_and(is_kept);
        let place = DirectoryPlace::new(DirectoryUse::Checkout, self.id, directory, stat)?;
        Ok(Base {
            image,
            root,
            layer,
            is_there,
            known,
            place,
            state,
            root_user: workspace.and_then(|workspace| workspace.root_user),
        })
    }
}

/// Finds what changed, and reads it.
pub(super) fn changes(
    walk: &Walk<'_>,
    base: &Base,
    session: &WriteSession,
    reader: &ObjectReader,
) -> Result<Changes> {
    let root = Root::open(reader, base.root)?;
    reader.task().expect(root.entries());
    let nothing = Members::new();
    let wanted = Changed { base, reader, root: &root, members: &nothing };
    let mut linked = Vec::new();
    let mut changes = Scan { walk, wanted: &wanted }.run(session, |scanned| {
        let mut changes = Changes::default();
        let mut missing = Missing::new(base.expected(reader, &root)?);
        for scanned in scanned {
            match scanned? {
                Scanned::Left(found) => {
                    missing.see(&found.path, found.stat.kind == FileKind::Directory)?;
                }
                Scanned::Linked { found, is_wanted } => {
                    missing.see(&found.path, false)?;
                    linked.push((found, is_wanted));
                }
                Scanned::Captured(path, captured) => {
                    missing.see(&path, captured.inode.kind == InodeKind::Directory)?;
                    changes.rows.insert(path.clone(), wanted.row(&path, &captured));
                    changes.entries.insert(path, Some(Entry::Inode(captured.inode)));
                }
            }
        }
        changes.gone = missing.finish()?;
        Ok(changes)
    })?;
    changes.examined = changes.entries.len() as u64;
    if !linked.is_empty() {
        // A name that was read as a file of its own leaves its group as one that is gone does.
        let mut left: Vec<_> = changes.gone.iter().chain(changes.entries.keys()).cloned().collect();
        left.sort_unstable();
        want_broken_groups(reader, &root, &left, &mut linked)?;
    }

    // One name that must be read makes the whole group be put together again.
    let inode = |stat: &Stat| (stat.device, stat.inode);
    let groups: HashSet<_> =
        linked.iter().filter(|(_, is_wanted)| *is_wanted).map(|(found, _)| inode(&found.stat)).collect();
    let linked: Vec<_> = linked
        .into_iter()
        .filter_map(|(found, _)| groups.contains(&inode(&found.stat)).then_some(found))
        .collect();
    changes.examined += linked.len() as u64;
    changes.gone.extend(linked.iter().map(|found| found.path.clone()));
    let mut links = Links::new(linked);
    while let Some(firsts) = links.firsts() {
        let wanted = Changed { members: links.members(), ..wanted };
        let captured = capture_listed(walk, &firsts, session, &wanted)?;
        links.take(walk, firsts, captured)?;
    }
    let (captured, members) = links.finish();
    let wanted = Changed { members: &members, ..wanted };
    for (found, captured) in &captured {
        let row = wanted.row(&found.path, captured);
        let names = members.get(&found.path).into_iter().flatten();
        changes.rows.extend(names.map(|name| (name.clone(), row.clone())));
    }
    let mut writer = session.writer()?;
    let entries = links::entries(&mut writer, captured, &members)?;
    writer.flush()?;
    // What of them was removed since it was found has no entry.
    changes.gone.retain(|path| !entries.contains_key(path));
    changes.gone.sort_unstable();
    changes.entries.extend(changes.gone.iter().map(|path| (path.clone(), None)));
    changes.entries.extend(entries.into_iter().map(|(path, entry)| (path, Some(entry))));
    Ok(changes)
}

/// Makes the names wanted that stay in the base's hard link groups when other names left them: one that was left out does not
/// show in the inode, nor does one that bindfs gives a link count of 1.
fn want_broken_groups(
    reader: &ObjectReader,
    root: &Root,
    left: &[TreePath],
    linked: &mut [(Found, bool)],
) -> Result<()> {
    if left.is_empty() {
        return Ok(());
    }
    let mut firsts = HashSet::new();
    let mut base = tree::iter(reader, root)?;
    for path in left {
        match base.find(path)? {
            Some(Entry::HardLink(first)) => drop(firsts.insert(first)),
            Some(Entry::Inode(inode)) if !inode.links.is_empty() => drop(firsts.insert(path.clone())),
            _ => {}
        }
    }
    let mut base = tree::iter(reader, root)?;
    for (found, is_wanted) in linked.iter_mut().filter(|(_, is_wanted)| !firsts.is_empty() && !is_wanted) {
        *is_wanted = match base.find(&found.path)? {
            Some(Entry::HardLink(first)) => firsts.contains(&first),
            _ => firsts.contains(&found.path),
        };
    }
    Ok(())
}

/// Fails if the image of a checkout was removed and what it had is gone: only its changes are read.
fn check_is_there(directory: &Path, base: &Base, reader: &ObjectReader) -> Result<()> {
    if base.is_there || closure::is_whole(reader, Needs::from(&base.equal()))? {
        return Ok(());
    }
    let message = format!("its image {} was removed; import the directory, or name another base", base.image);
    Err(Error::conflict(Subject::Host(directory.to_owned()), message))
}

/// The image that a base becomes with what changed in a directory.
fn draft(
    base: Base,
    changes: Changes,
    started: Timestamp,
    session: &WriteSession,
    reader: &ObjectReader,
    options: &CommitOptions,
) -> Result<Draft> {
    let Changes { entries, gone, rows, examined } = changes;
    let draft = draft_of_changes(&base.equal(), "commit", entries, session, reader, options)?;
    Ok(Draft { examined, state: base.state_update(started, &rows, &gone)?, ..draft })
}

/// The image that a base becomes with a delta.
pub(super) fn draft_of_delta(
    base: &ImageVersion,
    created_by: &'static str,
    delta: &Delta,
    session: &WriteSession,
    reader: &ObjectReader,
    options: &CommitOptions,
) -> Result<Draft> {
    let entries = edits(base, delta, session, reader)?;
    draft_of_changes(base, created_by, entries, session, reader, options)
}

/// The same as a step from another image, which was made of the base before.
fn draft_of_further_delta(
    last: &ImageVersion,
    base: &ImageVersion,
    delta: &Delta,
    session: &WriteSession,
    reader: &ObjectReader,
    options: &CommitOptions,
) -> Result<Draft> {
    let open = |root| Root::open(reader, root);
    let back = tree::diff(reader.clone(), &open(last.root)?, &open(base.root)?)?;
    let back = back.map(|change| change.map(|change| (change.path, change.after)));
    let mut entries = back.collect::<Result<BTreeMap<_, _>>>()?;
    entries.extend(edits(base, delta, session, reader)?);
    draft_of_changes(last, "commit", entries, session, reader, options)
}

/// A delta as edits of the base's tree.
fn edits(
    base: &ImageVersion,
    delta: &Delta,
    session: &WriteSession,
    reader: &ObjectReader,
) -> Result<BTreeMap<TreePath, Option<Entry>>> {
    let mut writer = session.writer()?;
    let entries = layer::edits(reader, &mut writer, &Root::open(reader, base.root)?, delta)?;
    writer.flush()?;
    Ok(entries)
}

/// The image that a base becomes with these changes, as many as were examined for it.
fn draft_of_changes(
    base: &ImageVersion,
    created_by: &'static str,
    changes: BTreeMap<TreePath, Option<Entry>>,
    session: &WriteSession,
    reader: &ObjectReader,
    options: &CommitOptions,
) -> Result<Draft> {
    let examined = changes.len() as u64;
    let root = Root::open(reader, base.root)?;
    let mut layer = LayerDraft { previous: Some(base.layer), created_by, ..LayerDraft::default() };
    layer.count(reader, &root, &changes)?;
    check_layer_bytes(layer.changed_bytes, options.max_layer_bytes)?;
    let mut writer = session.writer()?;
    let root = tree::edit(reader, &mut writer, &root, changes)?;
    writer.flush()?;
    Ok(Draft {
        root,
        layer,
        origin: OriginRecord::Commit,
        parent: Some(base.image),
        tags: options.tags.clone(),
        comment: options.comment.clone(),
        examined,
        source: SourceReport::default(),
        has_end_mark: None,
        state: None,
        workspace: None,
    })
}

impl LayerDraft {
    /// Counts what the changes do to the base.
    fn count(
        &mut self,
        reader: &ObjectReader,
        root: &Root,
        changes: &BTreeMap<TreePath, Option<Entry>>,
    ) -> Result<()> {
        let mut base = tree::iter(reader, root)?;
        for (path, after) in changes {
            let before = base.find(path)?;
            self.add(before.as_ref(), after.as_ref());
        }
        Ok(())
    }

    /// Counts what becomes of a path.
    fn add(&mut self, before: Option<&Entry>, after: Option<&Entry>) {
        match (before, after) {
            (before, after) if before == after => return,
            (None, _) => self.added += 1,
            (Some(_), Some(_)) => self.modified += 1,
            (_, None) => self.removed += 1,
        }
        self.changed_bytes += after.map_or(0, Entry::file_bytes);
    }
}
