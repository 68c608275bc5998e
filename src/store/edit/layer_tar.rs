//! Layers as OCI images have them: tars in which names beginning with `.wh.` take away.

use std::collections::{BTreeSet, HashMap};
use std::io::Read;
use std::ops::Bound;

use crate::archive::{Found, GaveWay, Limits, is_link_to_directory, route};
use crate::error::{Error, ErrorKind, Result, Subject};
use crate::ingest::{LayerMember, LayerTar, Tar, TarOptions, read_layer};
use crate::path::TreePath;
use crate::tree::{Inode, InodeKind};

use super::editor::{Editor, invalid};

/// What the name of a whiteout begins with.
const WHITEOUT: &[u8] = b".wh.";
/// The name that empties its directory.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// What other names begin with that mean something to the program that made the layer, and nothing here.
const RESERVED: &[u8] = b".wh..wh.";

/// What a member of a layer does.
enum Effect {
    /// It is put where it says.
    Put,
    /// It takes a path away.
    Remove(TreePath),
    /// It takes away what is in a directory.
    Clear(TreePath),
    Nothing,
}

impl Effect {
    /// What a member does, by its path.
    fn of(path: &TreePath) -> Result<Self> {
        let name = path.file_name().unwrap_or_default();
        if name != OPAQUE && path.components().any(|name| name.starts_with(RESERVED)) {
            return Ok(Self::Nothing);
        }
        let directory = path.parent().unwrap_or_default();
        if directory.components().any(|name| name.starts_with(WHITEOUT)) {
            return Err(invalid(path, "lies below a whiteout, which is no directory"));
        }
        let Some(gone) = name.strip_prefix(WHITEOUT) else { return Ok(Self::Put) };
        if name == OPAQUE {
            return Ok(Self::Clear(directory));
        }
        let gone = directory.join(gone).map_err(|error| invalid(path, format!("as a whiteout {error}")));
        gone.map(Self::Remove)
    }
}

/// What a layer puts at a path, as far as whiteouts care: they are taken before it is put.
enum Planned<'m> {
    Directory,
    Symlink(&'m [u8]),
}

impl<'m> Planned<'m> {
    fn of(member: &'m LayerMember) -> Option<Self> {
        match member {
            LayerMember::Inode(Inode { kind: InodeKind::Directory, .. }, _) => Some(Self::Directory),
            LayerMember::Inode(Inode { kind: InodeKind::Symlink(target), .. }, _) => {
                Some(Self::Symlink(target))
            }
            LayerMember::Inode(..) | LayerMember::HardLink(_) => None,
        }
    }
}

impl Editor<'_> {
    /// Applies a layer's tar.
    pub(super) fn apply_tar(&mut self, stream: impl Read, options: &TarOptions) -> Result<()> {
        let tar = Tar { stream, limits: Limits::default(), options };
        let LayerTar { members, has_end_mark, report } = read_layer(tar, self.session, self.threads)?;
        self.source.add_tar(report);
        self.examined += members.len() as u64;
        self.has_end_mark = Some(has_end_mark && self.has_end_mark.unwrap_or(true));
        let mut planned = HashMap::new();
        for (path, member) in &members {
            match Planned::of(member) {
                Some(Planned::Directory) => _ = planned.entry(path).or_insert(Planned::Directory),
                Some(link @ Planned::Symlink(_)) => _ = planned.insert(path, link),
                None => {}
            }
        }
        // They take away what lower layers have: all before anything is put.
        for (path, _) in &members {
            self.session.task().check()?;
            self.take_away(path, &planned)?;
        }
        drop(planned);
        let mut put = BTreeSet::new();
        members.into_iter().try_for_each(|(path, member)| match Effect::of(&path)? {
            Effect::Put => self.place_member(&path, member, &mut put),
            Effect::Remove(_) | Effect::Clear(_) | Effect::Nothing => Ok(()),
        })
    }

    /// Takes away what a whiteout says; what is not there needs no removal.
    fn take_away(&mut self, named: &TreePath, planned: &HashMap<&TreePath, Planned<'_>>) -> Result<()> {
        match Effect::of(named)? {
            Effect::Remove(_) | Effect::Clear(_) => {}
            Effect::Put | Effect::Nothing => return Ok(()),
        }
        let path = match route(named, named, |path| self.stands_at(path, planned)) {
            Ok(path) => path,
            // The way leads nowhere.
            Err(error) if error.kind() == ErrorKind::Invalid => return Ok(()),
            Err(error) => return Err(error),
        };
        match Effect::of(&path)? {
            Effect::Remove(gone) if self.changes.find(&gone)?.is_some() => self.changes.remove(&gone),
            Effect::Clear(directory) => match self.changes.find(&directory)? {
                Some(Inode { kind: InodeKind::Directory, .. }) => self.changes.clear(&directory),
                _ => Ok(()),
            },
            Effect::Remove(_) | Effect::Put | Effect::Nothing => Ok(()),
        }
    }

    /// Returns what stands at a path, with what is planned in place of what is there.
    fn stands_at(&mut self, path: &TreePath, planned: &HashMap<&TreePath, Planned<'_>>) -> Result<Found> {
        let mut at = path.clone();
        loop {
            match planned.get(&at) {
                Some(Planned::Symlink(target)) => return Ok(Found::Symlink { at, target: (*target).into() }),
                Some(Planned::Directory) if at == *path => return Ok(Found::Directory),
                Some(Planned::Directory) => return Ok(Found::Nothing),
                None => {}
            }
            match self.changes.find(&at)?.map(|inode| inode.kind) {
                Some(InodeKind::Symlink(target)) => return Ok(Found::Symlink { at, target }),
                Some(InodeKind::Directory) if at == *path => return Ok(Found::Directory),
                Some(InodeKind::Directory) => return Ok(Found::Nothing),
                Some(_) => return Ok(Found::Other { at }),
                None => {}
            }
            let Some(parent) = at.parent() else { return Ok(Found::Nothing) };
            at = parent;
        }
    }

    /// Puts a member where it leads. `put` has the paths that the layer has put so far.
    fn place_member(
        &mut self,
        named: &TreePath,
        member: LayerMember,
        put: &mut BTreeSet<TreePath>,
    ) -> Result<()> {
        let nothing = HashMap::new();
        let is_directory = matches!(Planned::of(&member), Some(Planned::Directory));
        let path = route(named, named, |path| self.stands_at(path, &nothing))?;
        match member {
            LayerMember::Inode(inode, xattrs) => {
                // A link of the base is replaced by a directory, as overlays do; one of the layer's own is kept.
                if is_directory
                    && put.contains(&path)
                    && is_link_to_directory(&path, |path| self.stands_at(path, &nothing))?
                {
                    return Ok(());
                }
                if let (InodeKind::Symlink(_), Some(below)) = (&inode.kind, first_below(put, &path)) {
                    let message = format!("is a symbolic link over a directory that already has {below}");
                    return Err(refused(named, message));
                }
                self.make_way(named, &path, put)?;
                self.remember_xattrs(&path, &inode, &xattrs)?;
                self.changes.put(&path, inode)?;
            }
            LayerMember::HardLink(target) => {
                let target = self.link_target(named, &path, &target)?;
                if target == path {
                    return Ok(());
                }
                self.make_way(named, &path, put)?;
                self.changes.link(&path, &target)?;
            }
        }
        while !is_directory && let Some(below) = first_below(put, &path).cloned() {
            GaveWay::note(&mut self.source.gave_way, &below);
            put.remove(&below);
        }
        put.insert(path);
        Ok(())
    }

    /// Makes the directories of a path. Where it goes through a file of the layer's own, that is removed, as in every tar.
    fn make_way(&mut self, named: &TreePath, path: &TreePath, put: &mut BTreeSet<TreePath>) -> Result<()> {
        let Some(parent) = path.parent() else { return Ok(()) };
        match self.stands_at(&parent, &HashMap::new())? {
            Found::Directory => return Ok(()),
            Found::Other { at } if put.remove(&at) => {
                GaveWay::note(&mut self.source.gave_way, &at);
                self.changes.remove(&at)?;
            }
            Found::Other { at } => {
                return Err(refused(named, format!("goes through {at}, which is no directory")));
            }
            Found::Nothing | Found::Symlink { .. } => {}
        }
        self.make_parents(path)
    }

    /// Returns where the target of a hard link at `path` is.
    fn link_target(&mut self, named: &TreePath, path: &TreePath, target: &TreePath) -> Result<TreePath> {
        let nothing = HashMap::new();
        let found = route(named, target, |path| self.stands_at(path, &nothing))?;
        let what = match self.changes.find(&found)?.map(|inode| inode.kind) {
            None => "which is not there",
            Some(InodeKind::Directory) => "which is a directory",
            Some(_) if *path != found && (path.starts_with(&found) || found.starts_with(path)) => {
                "which is above or below it"
            }
            Some(_) => return Ok(found),
        };
        Err(refused(named, format!("is a hard link to {target}, {what}")))
    }
}

fn refused(named: &TreePath, message: String) -> Error {
    Error::invalid(Subject::ArchiveEntry(named.to_string()), message)
}

fn first_below<'p>(put: &'p BTreeSet<TreePath>, path: &TreePath) -> Option<&'p TreePath> {
    let mut after = put.range::<TreePath, _>((Bound::Excluded(path), Bound::Unbounded));
    after.next().filter(|found| found.starts_with(path))
}
