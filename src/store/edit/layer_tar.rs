//! Layers as OCI images have them: tars in which names beginning with `.wh.` take away.

use std::io::Read;

use crate::archive::Limits;
use crate::error::Result;
use crate::ingest::{LayerMember, read_layer};
use crate::path::TreePath;
use crate::tree::{Inode, InodeKind, Led};

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
        let Some(gone) = name.strip_prefix(WHITEOUT) else { return Ok(Self::Put) };
        let directory = path.parent().unwrap_or_default();
        if name == OPAQUE {
            return Ok(Self::Clear(directory));
        }
        if name.starts_with(RESERVED) {
            return Ok(Self::Nothing);
        }
        let gone = directory.join(gone).map_err(|error| invalid(path, format!("as a whiteout {error}")));
        gone.map(Self::Remove)
    }
}

impl Editor<'_> {
    /// Applies a layer's tar.
    pub(super) fn apply_tar(&mut self, tar: impl Read) -> Result<()> {
        let members = read_layer(tar, Limits::default(), self.session, self.threads)?;
        let mut placed = Vec::new();
        // They take away what lower layers have: all before anything is put.
        for (path, member) in members {
            match Effect::of(&path)? {
                Effect::Put => placed.push((path, member)),
                Effect::Nothing => {}
                // What is not there needs no removal.
                Effect::Remove(gone) => {
                    if let Led::To(gone, _) = self.follow(&gone, false)? {
                        self.changes.remove(&gone)?;
                    }
                }
                Effect::Clear(directory) => {
                    if let Led::To(directory, Inode { kind: InodeKind::Directory, .. }) =
                        self.follow(&directory, true)?
                    {
                        self.changes.clear(&directory)?;
                    }
                }
            }
        }
        placed.into_iter().try_for_each(|(path, member)| self.place_member(&path, member))
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
            LayerMember::Inode(inode) => self.changes.put(&path, inode),
            LayerMember::HardLink(target) => {
                let target = self.lead(&target, false)?;
                if path == target { Ok(()) } else { self.changes.link(&path, &target) }
            }
        }
    }
}
