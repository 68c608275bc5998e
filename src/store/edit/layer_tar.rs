//! Layers as OCI images have them: tars in which names beginning with `.wh.` take away.

use std::collections::HashSet;
use std::io::Read;

use crate::archive::Limits;
use crate::error::{Error, ErrorKind, Result, Subject};
use crate::ingest::{LayerMember, read_layer};
use crate::path::TreePath;
use crate::tree::{InodeKind, Led};

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
        let Some(gone) = name.strip_prefix(WHITEOUT) else { return Ok(Self::Put) };
        let directory = path.parent().unwrap_or_default();
        if name == OPAQUE {
            return Ok(Self::Clear(directory));
        }
        let gone = directory.join(gone).map_err(|error| invalid(path, format!("as a whiteout {error}")));
        gone.map(Self::Remove)
    }
}

/// The member's path, if it is a directory.
fn directory<'m>(path: &'m TreePath, member: &LayerMember) -> Option<&'m TreePath> {
    matches!(member, LayerMember::Inode(inode, _) if inode.kind == InodeKind::Directory).then_some(path)
}

impl Editor<'_> {
    /// Applies a layer's tar.
    pub(super) fn apply_tar(&mut self, tar: impl Read) -> Result<()> {
        let members = read_layer(tar, Limits::default(), self.session, self.threads)?;
        let directories: HashSet<_> =
            members.iter().filter_map(|(path, member)| directory(path, member)).collect();
        // They take away what lower layers have: all before anything is put.
        for (path, _) in &members {
            self.take_away(Effect::of(path)?, &directories)?;
        }
        drop(directories);
        members.into_iter().try_for_each(|(path, member)| match Effect::of(&path)? {
            Effect::Put => self.place_member(&path, member),
            Effect::Remove(_) | Effect::Clear(_) | Effect::Nothing => Ok(()),
        })
    }

    /// What is not there needs no removal.
    fn take_away(&mut self, whiteout: Effect, directories: &HashSet<&TreePath>) -> Result<()> {
        let (directory, path, is_clear) = match whiteout {
            Effect::Remove(path) => (path.parent().unwrap_or_default(), path, false),
            Effect::Clear(path) => (path.clone(), path, true),
            Effect::Put | Effect::Nothing => return Ok(()),
        };
        // Where the layer makes a directory of what was none, a link of the base leads elsewhere: nothing was below.
        let mut above = Some(directory);
        while let Some(path) = above {
            if directories.contains(&path)
                && self.changes.find(&path)?.is_some_and(|inode| inode.kind != InodeKind::Directory)
            {
                return Ok(());
            }
            above = path.parent();
        }
        match self.follow(&path, is_clear) {
            Ok(Led::To(path, inode)) if is_clear => {
                if inode.kind == InodeKind::Directory {
                    self.changes.clear(&path)
                } else {
                    Ok(())
                }
            }
            Ok(Led::To(path, _)) => self.changes.remove(&path),
            Ok(Led::Missing(_)) => Ok(()),
            // The way goes through a file, or in a circle: nothing is there.
            Err(error) if error.kind() == ErrorKind::Invalid => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn place_member(&mut self, path: &TreePath, member: LayerMember) -> Result<()> {
        // A link on the way is followed, as a process in the image would; the last part is what is replaced.
        let path = match self.follow(path, false)? {
            Led::To(path, _) => path,
            Led::Missing(path) => {
                self.make_parents(&path)?;
                path
            }
        };
        match member {
            LayerMember::Inode(inode, xattrs) => {
                self.remember_xattrs(&path, &inode, &xattrs)?;
                self.changes.put(&path, inode)
            }
            LayerMember::HardLink(target) => {
                let refused = |what: &str| {
                    let subject = Subject::ArchiveEntry(path.to_string());
                    Error::invalid(subject, format!("is a hard link to {target}, {what}"))
                };
                let Led::To(target, inode) = self.follow(&target, false)? else {
                    return Err(refused("which is not there"));
                };
                if inode.kind == InodeKind::Directory {
                    return Err(refused("which is a directory"));
                }
                if path.starts_with(&target) || target.starts_with(&path) {
                    return Err(refused("which is itself, or above or below it"));
                }
                self.changes.link(&path, &target)
            }
        }
    }
}
