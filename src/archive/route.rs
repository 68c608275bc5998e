//! Where a member goes: through the symbolic links on its way, inside the tree alone.
//!
//! Programs extract into a file system whose kernel follows a link that an earlier member made. Here the image's root takes the
//! place of the host's, so an absolute target is one from the image's root. One rule for all archives:
//!
//! - A link on the way to a member, or to a hard link's target, is followed; the last part of a name never is.
//! - A link on the way must lead to a directory that is there: one that leads to nothing, to anything else, out of the tree, or
//!   through more than 40 links is an error.
//! - A directory over a link that leads to a directory leaves both as they are. Over any other link it takes its place.
//! - A link over a directory in which the archive put something is an error: what is there would be lost.
//!
//! What programs do with the same archives, as measured:
//!
//! | archive | GNU tar 1.34 | bsdtar 3.6.2 `-P` | here |
//! |---|---|---|---|
//! | `lib -> usr/lib`, a chain of such links; `lib/y` | followed | followed | followed |
//! | `lib -> /usr/lib` or a `..` that stays inside; `lib/y` | followed with `-P`, else an error | followed | followed |
//! | a link to nothing, or a loop; a member below | error | error | error |
//! | a link to a file; a member below | error | the link is replaced | error |
//! | `lib -> usr/lib`; directory `lib` | replaced, kept with `--keep-directory-symlink` | kept | kept |
//! | a link to nothing or to a file; a directory there | replaced | replaced | replaced |
//! | `lib/y`; `lib -> usr/lib` | error | error | error |
//! | a hard link to `lib/a`, `lib` being a link | followed | followed | followed |

use crate::error::{Error, Result, Subject};
use crate::path::{PathError, TreePath};

/// How many links are followed on the way to one path: as many as Linux follows.
const LOOKS_MAX: usize = 40;

/// What stands at a path or above it, no link followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A directory at the path, whether or not an entry named it.
    Directory,
    /// Nothing at the path, and nothing but directories above it.
    Nothing,
    /// A symbolic link at the path or above it.
    Symlink {
        /// Where it is.
        at: TreePath,
        /// Where it leads.
        target: Box<[u8]>,
    },
    /// Something else at the path or above it that is no directory.
    Other {
        /// Where it is.
        at: TreePath,
    },
}

/// Returns where `path` leads, its last part not followed; `find` says what stands at a path. `member` is the one that an error
/// names, and `path` its own or its target.
///
/// Where the way goes through what is neither a directory nor a link, and no link led there, that is left to the caller.
pub(crate) fn route(
    member: &TreePath,
    path: &TreePath,
    mut find: impl FnMut(&TreePath) -> Result<Found>,
) -> Result<TreePath> {
    let mut looks_left = LOOKS_MAX;
    let mut led = path.clone();
    let mut link = None;
    while let Some(parent) = led.parent() {
        let (at, target) = match (find(&parent)?, &link) {
            (Found::Symlink { at, target }, _) => (at, target),
            (Found::Other { at }, Some(link)) => return Err(refuse(member, path, link, &no_directory(&at))),
            (Found::Directory | Found::Nothing | Found::Other { .. }, _) => break,
        };
        let directory = match lead(&at, &target, &mut looks_left, &mut find)? {
            Ok(directory) => directory,
            Err(why) => return Err(refuse(member, path, &at, &why)),
        };
        led = joined(&directory, led.components().skip(at.depth()))
            .map_err(|error| refuse(member, path, &at, &format!("to a path that {error}")))?;
        link = Some(at);
    }
    Ok(led)
}

/// Returns whether what stands at `path` is a link that leads to a directory.
pub(crate) fn is_link_to_directory(
    path: &TreePath,
    mut find: impl FnMut(&TreePath) -> Result<Found>,
) -> Result<bool> {
    let Found::Symlink { at, target } = find(path)? else { return Ok(false) };
    let mut looks_left = LOOKS_MAX;
    Ok(at == *path && lead(&at, &target, &mut looks_left, &mut find)?.is_ok())
}

/// Returns the directory that the link at `link` leads to, or in words where else it leads.
fn lead(
    link: &TreePath,
    target: &[u8],
    looks_left: &mut usize,
    find: &mut impl FnMut(&TreePath) -> Result<Found>,
) -> Result<std::result::Result<TreePath, String>> {
    // Always a directory that is there, so the way back from it is its parent.
    let mut here = start(link, target);
    let mut ahead: Vec<Vec<u8>> = Vec::new();
    push_parts(&mut ahead, target);
    while let Some(name) = ahead.pop() {
        if name == b".." {
            let Some(parent) = here.parent() else { return Ok(Err("out of the tree".to_owned())) };
            here = parent;
            continue;
        }
        // All names up to the next `..` are one look.
        let mut names = vec![name];
        while let Some(name) = ahead.pop_if(|name| name != b"..") {
            names.push(name);
        }
        let next = match joined(&here, names.iter().map(Vec::as_slice)) {
            Ok(next) => next,
            Err(error) => return Ok(Err(format!("to a path that {error}"))),
        };
        let Some(left) = looks_left.checked_sub(1) else {
            return Ok(Err(format!("through more than {LOOKS_MAX} links")));
        };
        *looks_left = left;
        match find(&next)? {
            Found::Directory => here = next,
            Found::Nothing => return Ok(Err(format!("to {next}, where nothing is yet"))),
            Found::Other { at } => return Ok(Err(no_directory(&at))),
            Found::Symlink { at, target } => {
                let rest: Vec<_> = next.components().skip(at.depth()).map(<[u8]>::to_vec).collect();
                ahead.extend(rest.into_iter().rev());
                push_parts(&mut ahead, &target);
                here = start(&at, &target);
            }
        }
    }
    Ok(Ok(here))
}

/// Returns the directory that a link's target starts from.
fn start(link: &TreePath, target: &[u8]) -> TreePath {
    if target.starts_with(b"/") { TreePath::root() } else { link.parent().unwrap_or_default() }
}

/// Pushes the parts of a link's target, the first last.
fn push_parts(ahead: &mut Vec<Vec<u8>>, target: &[u8]) {
    let parts = target.split(|byte| *byte == b'/').rev();
    ahead.extend(parts.filter(|part| !matches!(*part, b"" | b".")).map(<[u8]>::to_vec));
}

fn joined<'n>(
    directory: &TreePath,
    names: impl Iterator<Item = &'n [u8]>,
) -> std::result::Result<TreePath, PathError> {
    let mut key = directory.as_key().to_vec();
    for name in names {
        if !key.is_empty() {
            key.push(0);
        }
        key.extend_from_slice(name);
    }
    TreePath::from_key(&key)
}

fn no_directory(at: &TreePath) -> String {
    format!("to {at}, which is no directory")
}

fn refuse(member: &TreePath, path: &TreePath, link: &TreePath, leads: &str) -> Error {
    let what = if member == path { "goes" } else { "is a hard link whose target goes" };
    let message = format!("{what} through the link {link}, which leads {leads}");
    Error::invalid(Subject::ArchiveEntry(member.to_string()), message)
}
