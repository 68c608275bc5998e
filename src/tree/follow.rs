//! Finding where a path leads inside a tree: through its symbolic links, never out of it.

use super::entry::{Inode, InodeKind};
use crate::error::{Error, Result, Subject};
use crate::path::TreePath;

/// Links followed on the way to one path, as Linux does.
const MAX_LINKS: usize = 40;

/// Where a path leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Followed {
    /// To this path, which is there.
    To(TreePath, Inode),
    /// To this path, which is not, though all on the way to its last missing part is.
    Missing(TreePath),
}

/// Follows the links of `wanted`, those in its last part only if `follow_last`; `find` says what is at a path.
///
/// Fails with *invalid* where the way goes through what is no directory, or through too many links.
pub(crate) fn follow(
    wanted: &TreePath,
    follow_last: bool,
    mut find: impl FnMut(&TreePath) -> Result<Option<Inode>>,
) -> Result<Followed> {
    // A path that is in the tree has directories all the way: only its last part may be a link.
    if let Some(inode) = find(wanted)?
        && !(follow_last && matches!(inode.kind, InodeKind::Symlink(_)))
    {
        return Ok(Followed::To(wanted.clone(), inode));
    }
    // Nor is there a link on the way to what a directory has not.
    if let Some(parent) = wanted.parent()
        && find(&parent)?.is_some_and(|inode| inode.kind == InodeKind::Directory)
        && find(wanted)?.is_none()
    {
        return Ok(Followed::Missing(wanted.clone()));
    }
    let invalid = |path: &TreePath, message: &str| Error::invalid(Subject::Path(path.clone()), message);
    let mut here = TreePath::root();
    let mut found = find(&here)?;
    let mut ahead: Vec<Vec<u8>> = wanted.components().map(<[u8]>::to_vec).collect();
    ahead.reverse();
    let mut links_left = MAX_LINKS;
    while let Some(name) = ahead.pop() {
        if found.as_ref().is_some_and(|inode| inode.kind != InodeKind::Directory) {
            return Err(invalid(&here, "is not a directory"));
        }
        match &*name {
            b"" | b"." => continue,
            b".." => {
                here = here.parent().unwrap_or_default();
                // There is no way back out of what is not there.
                found = if found.is_some() { find(&here)? } else { None };
                continue;
            }
            _ => {}
        }
        let next = here.join(&name).map_err(|error| invalid(wanted, &error.fault().to_string()))?;
        // Nothing is below what is not there.
        let next_found = if found.is_some() { find(&next)? } else { None };
        let target = match &next_found {
            Some(Inode { kind: InodeKind::Symlink(target), .. }) if follow_last || !ahead.is_empty() => {
                target
            }
            _ => {
                (here, found) = (next, next_found);
                continue;
            }
        };
        links_left =
            links_left.checked_sub(1).ok_or_else(|| invalid(wanted, "leads through too many links"))?;
        if target.starts_with(b"/") {
            here = TreePath::root();
            found = find(&here)?;
        }
        ahead.extend(target.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec));
    }
    Ok(match found {
        Some(inode) => Followed::To(here, inode),
        None => Followed::Missing(here),
    })
}
