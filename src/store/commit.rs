//! Commits: a changed directory as a new image that shares everything else with its base.
//!
//! What the checkout's state vouches for is not opened. The rest is read, corrected by what the checkout could not set
//! (see `host::state`), and becomes one edit of the base's tree.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;

use crate::catalog::record::OriginRecord;
use crate::error::{Error, Result, Subject};
use crate::host::source::{Found, SourceTree, Xattr};
use crate::host::stat::{FileKind, Stat};
use crate::host::state::{State, StateRow, Unset, encode_segment};
use crate::id::{ImageId, ObjectId};
use crate::ingest::{self, Captured};
use crate::name::{ImageRef, TagName};
use crate::pack::reader::ObjectReader;
use crate::path::TreePath;
use crate::tree::{self, Entry, Inode, Root, Timestamp, Xattrs};

use super::checkout::{KnownCheckout, StateNews, StateUpdate, file_time};
use super::import::{Draft, LayerDraft, WriteReport, group_links};
use super::project::Project;
use super::session::WriteSession;

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
}

/// What a state file may grow beyond twice its size before it is written anew.
const STATE_SLACK_BYTES: u64 = 64 << 10;

/// What a directory is compared with.
struct Base {
    image: ImageId,
    root: ObjectId,
    layer: ObjectId,
    checkout: Option<KnownCheckout>,
    /// The directory's absolute path.
    directory: Vec<u8>,
    /// What is known of the directory's files; none where nothing is.
    state: Option<State>,
}

/// What is to be done about the paths of a directory.
#[derive(Default)]
struct Plan {
    /// Entries to be read, whole hard link groups among them.
    examine: Vec<Found>,
    /// Paths that are in the base and no longer there.
    gone: Vec<TreePath>,
}

impl Project {
    /// Commits a directory as a new image whose parent is its base. A directory that equals its base gives the base's
    /// own UUID back.
    ///
    /// Errors: [`Invalid`](crate::ErrorKind::Invalid) for a directory that is no checkout of this project, without a
    /// base; [`Io`](crate::ErrorKind::Io) naming what can't be read;
    /// [`Conflict`](crate::ErrorKind::Conflict) naming a file that changed while it was read. Nothing is visible then.
    pub fn commit(&self, directory: impl AsRef<Path>, options: &CommitOptions) -> Result<WriteReport> {
        let directory = directory.as_ref();
        let source = SourceTree::open(directory)?;
        let base = self.base_of(directory, &source.root_stat()?, options)?;
        let started = file_time();
        let found = source.walk(self.store.own_directory())?.collect::<Result<Vec<_>>>()?;
        let (session, reader) = self.store.begin_session()?;
        let made = self.draft(&source, &found, base, started, &session, &reader, options);
        self.finish(session, made)
    }

    fn base_of(&self, directory: &Path, stat: &Stat, options: &CommitOptions) -> Result<Base> {
        let (known, named) = self.store.read(|tx| {
            self.check(tx)?;
            let known = KnownCheckout::find(tx, stat)?.filter(|known| known.record.project == self.id);
            let named = options.base.as_ref().map(|base| self.resolve_in(tx, base)).transpose()?;
            Ok((known, named.map(|(_, record)| record)))
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
                let message = format!(
                    "is no checkout that project '{}' knows; name the image it is based on",
                    self.name
                );
                return Err(Error::invalid(Subject::Host(directory.to_owned()), message));
            }
        };
        let directory = std::path::absolute(directory)
            .map_err(|error| Error::io(Subject::Host(directory.to_owned()), "find it", error))?;
        let directory = directory.into_os_string().into_encoded_bytes();
        Ok(Base { image, root, layer, checkout: known, directory, state })
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one commit, each used once")]
    fn draft(
        &self,
        source: &SourceTree,
        found: &[Found],
        base: Base,
        started: Timestamp,
        session: &WriteSession,
        reader: &ObjectReader,
        options: &CommitOptions,
    ) -> Result<Draft> {
        let root = Root::open(reader, base.root)?;
        let plan = base.plan(found, reader, &root)?;
        let (firsts, members) = group_links(&plan.examine);
        let correct = |path: &TreePath, inode: &mut Inode, xattrs: &mut Vec<Xattr>| {
            let known = base.known_name(path, &members).filter(|(_, row)| !row.unset.is_empty());
            known.map_or(Ok(()), |(name, row)| correct(reader, &root, name, &row.unset, inode, xattrs))
        };
        let captured = ingest::capture(source, &firsts, session, self.store.options.threads, &correct)?;
        let rows = base.rows(&firsts, &captured, &members);
        let mut writer = session.writer()?;
        let mut changes: BTreeMap<TreePath, Option<Entry>> = BTreeMap::new();
        changes.extend(plan.gone.iter().map(|path| (path.clone(), None)));
        for (found, captured) in firsts.into_iter().zip(captured) {
            match members.get(&found.path) {
                Some(members) => {
                    let entries = tree::group::entries(&mut writer, captured.inode, members.clone())?;
                    changes.extend(entries.into_iter().map(|(path, entry)| (path, Some(entry))));
                }
                None => {
                    changes.insert(found.path, Some(Entry::Inode(captured.inode)));
                }
            }
        }
        let mut layer =
            LayerDraft { previous: Some(base.layer), created_by: "commit", ..LayerDraft::default() };
        layer.count(reader, &root, &changes)?;
        let new_root = tree::edit(reader, &mut writer, &root, changes)?;
        writer.flush()?;
        let parent = base.image;
        let state = base.state_update(started, &rows, &plan.gone);
        Ok(Draft {
            root: new_root,
            layer,
            origin: OriginRecord::Commit,
            parent: Some(parent),
            tags: options.tags.clone(),
            comment: options.comment.clone(),
            examined: plan.examine.len() as u64,
            state,
        })
    }
}

impl Base {
    /// What the checkout's state becomes, if the directory is one.
    fn state_update(
        self,
        started: Timestamp,
        rows: &BTreeMap<TreePath, StateRow>,
        gone: &[TreePath],
    ) -> Option<StateUpdate> {
        let checkout = self.checkout?;
        let segment = encode_segment(started, rows.iter(), gone);
        let bytes = checkout.record.state_bytes + segment.len() as u64;
        let news = match self.state {
            None => StateNews::Whole(segment),
            Some(state) if bytes > 2 * checkout.record.whole_state_bytes + STATE_SLACK_BYTES => {
                StateNews::Whole(state.rewritten(started, rows, gone))
            }
            Some(_) => StateNews::Segment(segment),
        };
        Some(StateUpdate { checkout, directory: self.directory, news })
    }

    fn plan(&self, found: &[Found], reader: &ObjectReader, root: &Root) -> Result<Plan> {
        let is_group = |stat: &Stat| stat.links > 1 && stat.kind != FileKind::Directory;
        let changed: HashSet<&TreePath> = found
            .iter()
            .filter(|item| !self.state.as_ref().is_some_and(|state| state.trusts(&item.path, &item.stat)))
            .map(|item| &item.path)
            .collect();
        // One member that must be read makes the whole group be put together anew.
        let groups: HashSet<(u64, u64)> = found
            .iter()
            .filter(|item| is_group(&item.stat) && changed.contains(&item.path))
            .map(|item| (item.stat.device, item.stat.inode))
            .collect();
        let is_examined = |item: &&Found| {
            changed.contains(&item.path)
                || (is_group(&item.stat) && groups.contains(&(item.stat.device, item.stat.inode)))
        };
        let examine = found.iter().filter(is_examined).cloned().collect();
        Ok(Plan { examine, gone: self.gone(found, reader, root)? })
    }

    fn gone(&self, found: &[Found], reader: &ObjectReader, root: &Root) -> Result<Vec<TreePath>> {
        let kept: BTreeMap<&TreePath, FileKind> =
            found.iter().map(|item| (&item.path, item.stat.kind)).collect();
        let Some(state) = &self.state else {
            let paths = tree::iter(reader, root)?.map(|entry| entry.map(|(path, _)| path));
            return paths
                .filter(|path| path.as_ref().map_or(true, |path| !kept.contains_key(path)))
                .collect();
        };
        let has_directory = |path: &TreePath| {
            path.parent().is_none_or(|parent| kept.get(&parent) == Some(&FileKind::Directory))
        };
        // What was never made is not missing, as long as there is a directory that it would be in.
        let is_there = |path: &TreePath, row: &StateRow| {
            kept.contains_key(path) || (row.unset.omitted && has_directory(path))
        };
        Ok(state.iter().filter(|(path, row)| !is_there(path, row)).map(|(path, _)| path.clone()).collect())
    }

    /// The path, among the names of the inode that was found first at `first`, that the state has, and its row: a
    /// further link may come before the name that was checked out.
    fn known_name<'a>(
        &'a self,
        first: &'a TreePath,
        members: &'a BTreeMap<TreePath, BTreeSet<TreePath>>,
    ) -> Option<(&'a TreePath, &'a StateRow)> {
        let state = self.state.as_ref()?;
        let names = members.get(first).into_iter().flatten();
        std::iter::once(first).chain(names).find_map(|name| Some((name, state.get(name)?)))
    }

    /// The rows of what was read, for the next commit.
    fn rows(
        &self,
        firsts: &[Found],
        captured: &[Captured],
        members: &BTreeMap<TreePath, BTreeSet<TreePath>>,
    ) -> BTreeMap<TreePath, StateRow> {
        let mut rows = BTreeMap::new();
        for (found, captured) in firsts.iter().zip(captured) {
            let (stat, inode) = (&captured.stat, &captured.inode);
            let differs = (stat.uid, stat.gid) != (inode.uid, inode.gid);
            let mode_differs = stat.mode != inode.mode && stat.kind != FileKind::Symlink;
            let unset = Unset {
                owner: differs.then_some((stat.uid, stat.gid)),
                mode: mode_differs.then_some(stat.mode),
                xattrs: self
                    .known_name(&found.path, members)
                    .map(|(_, row)| row.unset.xattrs.clone())
                    .unwrap_or_default(),
                omitted: false,
            };
            let row = StateRow::new(stat, unset);
            for member in members.get(&found.path).into_iter().flatten() {
                rows.insert(member.clone(), row.clone());
            }
            rows.insert(found.path.clone(), row);
        }
        rows
    }
}

/// Takes from the base what the checkout could not set and nobody set since.
fn correct(
    reader: &ObjectReader,
    root: &Root,
    path: &TreePath,
    unset: &Unset,
    inode: &mut Inode,
    xattrs: &mut Vec<Xattr>,
) -> Result<()> {
    let Some((_, base)) = tree::group::resolve(reader, root, path)? else { return Ok(()) };
    if unset.owner == Some((inode.uid, inode.gid)) {
        (inode.uid, inode.gid) = (base.uid, base.gid);
    }
    if unset.mode == Some(inode.mode) {
        inode.mode = base.mode;
    }
    if !unset.xattrs.is_empty() {
        let kept = Xattrs::read(reader, &base.xattrs)?;
        for name in &unset.xattrs {
            let is_missing = xattrs.iter().all(|(found, _)| found != name);
            if let Some(value) = kept.get(name).filter(|_| is_missing) {
                xattrs.push((name.clone(), value.to_vec()));
            }
        }
    }
    Ok(())
}

impl LayerDraft {
    /// Counts what the changes do to the base.
    fn count(
        &mut self,
        reader: &ObjectReader,
        root: &Root,
        changes: &BTreeMap<TreePath, Option<Entry>>,
    ) -> Result<()> {
        for (path, after) in changes {
            let before = tree::get(reader, root, path)?;
            match (&before, after) {
                (before, after) if before == after => continue,
                (None, Some(_)) => self.added += 1,
                (Some(_), Some(_)) => self.modified += 1,
                (_, None) => self.removed += 1,
            }
            self.changed_bytes += after.as_ref().map_or(0, Entry::file_bytes);
        }
        Ok(())
    }
}
