//! Commits of an overlay file system's upper directory: what was written over an image that is its lower layer.
//!
//! An upper directory holds what changed, and marks for the rest (see `marks`): a character device 0/0 (or an empty file with
//! an attribute) where something is gone, and attributes on directories that hide what is below, on those that were renamed,
//! on files of which only the attributes were copied.
//! What the merged view shows is put together from them and the image's tree: no file of the lower layer is opened.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use crate::catalog::record::ImageVersion;
use crate::engine::session::WriteSession;
use crate::error::{Error, Result, Subject};
use crate::host::source::SourceTree;
use crate::host::stat::FileKind;
use crate::id::ObjectId;
use crate::ingest::{Scan, Scanned, Walk, capture_listed};
use crate::layer::{Changeset, Delta};
use crate::name::ImageRef;
use crate::pack::reader::ObjectReader;
use crate::path::TreePath;
use crate::store::import::{Draft, WriteReport};
use crate::store::links::{Links, Members};
use crate::store::project::Project;
use crate::task::Phase;
use crate::tree::{Entry, Inode, InodeKind, Root};

use super::marks::{Hides, MarkReader, Marks, OverlayMarks, take_named_whiteouts};
use super::{CommitOptions, draft_of_delta, draft_of_further_delta};

/// What an upper directory has.
#[derive(Default)]
struct Upper {
    inodes: BTreeMap<TreePath, Inode>,
    /// All names of inodes that have several, by the first.
    members: Members,
}

/// What an upper directory changes, and how many paths it has.
struct UpperDelta {
    delta: Delta,
    examined: u64,
}

impl Project {
    /// Commits an overlay's upper directory, whose lower layer is a checkout of `base`, as a new image whose parent is
    /// `base`: what the overlay's merged view shows. The cost follows the upper directory alone.
    ///
    /// The upper directory's own attributes are the root directory's. Of hard links in the lower layer that an overlay
    /// without `index=on` has copied up, each name is a file of its own, as the merged view shows them.
    ///
    /// Errors: as of [`commit`](Self::commit); [`Invalid`](crate::ErrorKind::Invalid) naming a path whose mark leads to
    /// nothing in the base: the upper directory is of another one; and naming a path with a mark of another kind of overlay
    /// than `marks`; [`Unsupported`](crate::ErrorKind::Unsupported) naming a file with several links that was renamed in an overlay with `index=on`. What was changed there through a name that
    /// was removed afterwards is in the overlay's work directory only, and is not seen.
    pub fn commit_upper(
        &self,
        upper: impl AsRef<Path>,
        base: &ImageRef,
        marks: OverlayMarks,
        options: &CommitOptions,
    ) -> Result<WriteReport> {
        let _span = tracing::info_span!("commit", project = %self.name, from = "upper directory").entered();
        if options.base.is_some() {
            let message = "is an argument of its own here; leave the option out";
            return Err(Error::invalid(Subject::Argument("base"), message));
        }
        let source = SourceTree::open(upper.as_ref())?;
        self.store.check_is_no_part(upper.as_ref())?;
        if source.is_merged_view(marks == OverlayMarks::FuseOverlayfs)? {
            let message = "is a mounted overlay, which shows what is gone as little as what is not changed; name its upper \
                           directory, or import it";
            return Err(Error::invalid(Subject::Host(upper.as_ref().to_owned()), message));
        }
        let catalog = self.store.catalog()?;
        let hold = self.store.hold(&catalog)?;
        let base = catalog.read(|tx| {
            self.check(tx)?;
            self.resolve_in(tx, base).map(|(_, record)| ImageVersion::from(&record))
        })?;
        let (session, reader, options) = self.begin_commit(&hold, options)?;
        drop(catalog);
        session.host().build_on(&base);
        session.limit_content(options.max_layer_bytes);
        let walk = self.store.walk(&source, options.rules());
        let stage = self.store.task.begin(Phase::Reading, None);
        let made = delta_of_upper(&walk, base.root, marks, &session, &reader)
            .and_then(|upper| {
                Ok((draft_of_delta(&base, "commit", &upper.delta, &session, &reader, &options)?, upper))
            })
            .map(|(draft, upper)| Draft { examined: upper.examined, ..draft });
        drop(stage);
        let source = walk.into_report();
        self.finish(session, made.map(|draft| Draft { source, ..draft }))
    }

    /// The image that an upper directory over `base` is, as a step from `last`: another image that it was before.
    pub(in crate::store) fn draft_of_workspace(
        &self,
        upper: &SourceTree,
        (base, last): (&ImageVersion, &ImageVersion),
        session: &WriteSession,
        reader: &ObjectReader,
        options: &CommitOptions,
    ) -> Result<Draft> {
        let walk = self.store.walk(upper, options.rules());
        let upper = delta_of_upper(&walk, base.root, OverlayMarks::OnlyTrusted, session, reader)?;
        let draft = draft_of_further_delta(last, base, &upper.delta, session, reader, options)?;
        Ok(Draft { examined: upper.examined, source: walk.into_report(), ..draft })
    }
}

/// Returns what an upper directory changes in the tree that it lies over.
fn delta_of_upper(
    walk: &Walk<'_>,
    base: ObjectId,
    marks: OverlayMarks,
    session: &WriteSession,
    reader: &ObjectReader,
) -> Result<UpperDelta> {
    let kind = marks;
    kind.check_are_seen(walk.source)?;
    let root = Root::open(reader, base)?;
    let marks = MarkReader::new(kind, walk, reader, &root);
    let mut upper = read_upper(walk, &marks, session)?;
    let examined = upper.inodes.len() as u64;
    let mut marks = marks.into_marks();
    if kind == OverlayMarks::FuseOverlayfs {
        take_named_whiteouts(&mut upper.inodes, &mut marks)?;
    }
    let overlay = Overlay { changes: Changeset::new(reader, &root)?, marks, lower: HashMap::new() };
    Ok(UpperDelta { delta: overlay.merge(upper)?, examined })
}

fn read_upper(walk: &Walk<'_>, marks: &MarkReader<'_>, session: &WriteSession) -> Result<Upper> {
    let scan = Scan { walk, wanted: marks };
    let mut linked = Vec::new();
    let mut inodes = scan.run(session, |scanned| {
        let mut inodes = BTreeMap::new();
        for scanned in scanned {
            match scanned? {
                Scanned::Captured(path, captured) => {
                    marks.check_name(&path, is_empty_file(&captured.inode))?;
                    inodes.insert(path, captured.inode);
                }
                Scanned::Linked { found, .. } => {
                    let is_empty_file = found.stat.kind == FileKind::File && found.stat.size == 0;
                    marks.check_name(&found.path, is_empty_file)?;
                    linked.push(found);
                }
                Scanned::Left(_) => {}
            }
        }
        Ok(inodes)
    })?;
    let (whiteouts, linked): (Vec<_>, Vec<_>) =
        linked.into_iter().partition(|found| marks.is_whiteout(found));
    let others = capture_listed(walk, &whiteouts, session, marks)?;
    let others = whiteouts.into_iter().zip(others);
    inodes.extend(others.filter_map(|(found, captured)| Some((found.path, captured?.inode))));
    let mut links = Links::new(linked);
    while let Some(firsts) = links.firsts() {
        let captured = capture_listed(walk, &firsts, session, marks)?;
        links.take(walk, firsts, captured)?;
    }
    let (captured, members) = links.finish();
    inodes.extend(captured.into_iter().map(|(found, captured)| (found.path, captured.inode)));
    Ok(Upper { inodes, members })
}

/// The merged view, as changes of the base.
struct Overlay<'r> {
    changes: Changeset<&'r ObjectReader>,
    marks: HashMap<TreePath, Marks>,
    /// The directory of the base that shows through each directory of the upper one; none of one that hides all.
    lower: HashMap<TreePath, Option<TreePath>>,
}

impl Overlay<'_> {
    fn merge(mut self, upper: Upper) -> Result<Delta> {
        let Upper { inodes, members } = upper;
        let mut links = Vec::new();
        let mut indexed = Vec::new();
        // In the order of paths, so that a directory comes before what is in it.
        for (path, inode) in inodes {
            let marks = self.marks.get(&path).cloned().unwrap_or_default();
            let is_device = inode.kind == InodeKind::CharDevice { major: 0, minor: 0 };
            let is_marked = marks.hides == Some(Hides::Path) && is_empty_file(&inode);
            if is_device || is_marked {
                if self.changes.find(&path)?.is_some() {
                    self.changes.remove(&path)?;
                }
                continue;
            }
            if inode.kind == InodeKind::Directory {
                self.put_directory(&path, inode, &marks)?;
                continue;
            }
            let lower = self.lower_of(&path, &marks)?;
            let is_partial = marks.is_metacopy && matches!(inode.kind, InodeKind::File(_));
            let inode =
                if is_partial { self.with_lower_content(&path, inode, lower.as_ref())? } else { inode };
            self.changes.put(&path, inode)?;
            links.extend(members.get(&path).into_iter().flatten().map(|name| (name.clone(), path.clone())));
            if marks.is_indexed {
                indexed.push(path);
            }
        }
        for (name, first) in links.into_iter().filter(|(name, first)| name != first) {
            self.changes.link(&name, &first)?;
        }
        for path in indexed {
            self.take_over(&path, members.get(&path))?;
        }
        self.changes.finish()
    }

    /// Makes all names of the lower inode names of the one that was copied from it. Which that was is known by the names
    /// that it kept.
    fn take_over(&mut self, path: &TreePath, names: Option<&BTreeSet<TreePath>>) -> Result<()> {
        let mut groups = BTreeSet::new();
        for name in std::iter::once(path).chain(names.into_iter().flatten()) {
            if let Some(lower) = self.lower_of(name, &Marks::default())? {
                groups.extend(self.changes.base_group(&lower)?);
            }
        }
        if let (Some(group), 1) = (groups.first(), groups.len()) {
            return self.changes.take_over(path, group);
        }
        let message = "was renamed or linked in an overlay with an index, and which other names are links to it is not said \
                       in the upper directory; import the merged view, or mount with index=off";
        Err(Error::unsupported(Subject::Path(path.clone()), message))
    }

    /// Puts a directory, of which the lower one shows what the upper one does not hide.
    fn put_directory(&mut self, path: &TreePath, inode: Inode, marks: &Marks) -> Result<()> {
        let lower = if marks.hides == Some(Hides::Below) { None } else { self.lower_of(path, marks)? };
        let lower = match lower {
            Some(lower) if self.changes.base_entry(&lower)?.is_some_and(|entry| entry.is_directory()) => {
                Some(lower)
            }
            Some(lower) if marks.redirect.is_some() => return Err(astray(path, &lower)),
            _ => None,
        };
        // What is in the lower directory is here already if it came with the directory above: with the base, or with
        // one that was renamed.
        let is_here = lower.is_some() && marks.redirect.is_none();
        if !is_here && self.changes.find(path)?.is_some_and(|there| there.kind == InodeKind::Directory) {
            self.changes.clear(path)?;
        }
        self.changes.put(path, inode)?;
        if let (Some(lower), false) = (&lower, is_here) {
            self.changes.graft(lower, path)?;
        }
        self.lower.insert(path.clone(), lower);
        Ok(())
    }

    /// The path of the base that lies below a path of the upper directory, if one does.
    fn lower_of(&self, path: &TreePath, marks: &Marks) -> Result<Option<TreePath>> {
        let invalid = |error: crate::path::PathError| {
            Error::invalid(Subject::Path(path.clone()), format!("has a redirect that {}", error.fault()))
        };
        if let Some(redirect) = marks.redirect.as_deref().filter(|redirect| redirect.starts_with(b"/")) {
            return TreePath::parse(redirect).map(Some).map_err(invalid);
        }
        let Some(parent) = path.parent() else { return Ok(Some(TreePath::root())) };
        let Some(Some(parent)) = self.lower.get(&parent) else { return Ok(None) };
        let name = marks.redirect.as_deref().or(path.file_name()).unwrap_or_default();
        parent.join(name).map(Some).map_err(invalid)
    }

    /// A file of which the overlay has copied the attributes only.
    fn with_lower_content(
        &mut self,
        path: &TreePath,
        inode: Inode,
        lower: Option<&TreePath>,
    ) -> Result<Inode> {
        let below = match lower.map(|lower| self.changes.base_entry(lower)).transpose()?.flatten() {
            Some(Entry::HardLink(holder)) => self.changes.base_entry(&holder)?,
            found => found,
        };
        match below {
            Some(Entry::Inode(Inode { kind: kind @ InodeKind::File(_), .. })) => Ok(Inode { kind, ..inode }),
            _ => Err(astray(path, lower.unwrap_or(path))),
        }
    }
}

fn is_empty_file(inode: &Inode) -> bool {
    matches!(&inode.kind, InodeKind::File(content) if content.is_empty())
}

fn astray(path: &TreePath, lower: &TreePath) -> Error {
    let message = format!(
        "lies over {lower}, which the base has not as what it is here: name the image that is the overlay's lower layer"
    );
    Error::invalid(Subject::Path(path.clone()), message)
}
