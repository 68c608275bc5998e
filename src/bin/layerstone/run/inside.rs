//! Where paths lead for a process that has an image as its root directory, with what a runtime mounts over it.

use layerstone::{EntryInfo, EntryKind, ErrorKind, Image, Result, TreePath};

/// How many links are followed, as by the kernel.
const MOST_LINKS: usize = 40;
/// What both runtimes mount, with all that is below.
const MOUNTED: [&[u8]; 3] = [b"proc", b"dev", b"sys"];

/// Where a path leads.
pub(super) enum Place {
    /// To an entry of the image.
    Entry(EntryInfo),
    /// Into what is mounted over it: what is there is not known yet.
    Mounted,
}

/// An image as such a process sees it.
pub(super) struct Inside<'i> {
    image: &'i Image,
    /// The process's working directory.
    directory: Vec<u8>,
    /// The mount points, by the names that they have and where these lead.
    mounts: Vec<TreePath>,
}

impl<'i> Inside<'i> {
    pub(super) fn new(image: &'i Image, directory: &[u8]) -> Result<Self> {
        let mut mounts = Vec::new();
        for name in MOUNTED {
            let Ok(path) = TreePath::root().join(name) else { continue };
            mounts.extend(entry(image, &path)?.map(|entry| entry.path));
            mounts.push(path);
        }
        Ok(Self { image, directory: directory.to_owned(), mounts })
    }

    pub(super) fn image(&self) -> &'i Image {
        self.image
    }

    /// Follows a path as the kernel does: `..` goes up from where a link led. None if it leads to nothing.
    pub(super) fn find(&self, path: &[u8]) -> Result<Option<Place>> {
        let mut rest: Vec<Vec<u8>> = components(path);
        if !path.starts_with(b"/") {
            rest.extend(components(&self.directory));
        }
        let (mut at, mut links) = (TreePath::root(), 0);
        while let Some(name) = rest.pop() {
            let is_mount = self.mounts.contains(&at);
            if name == b".." {
                if !is_mount && !self.is_directory(&at)? {
                    return Ok(None);
                }
                at = at.parent().unwrap_or_default();
                continue;
            }
            if is_mount {
                return Ok(Some(Place::Mounted));
            }
            // No image has what can't be a path.
            let Ok(next) = at.join(&name) else { return Ok(None) };
            if self.mounts.contains(&next) {
                at = next;
            } else if let Some(entry) = entry(self.image, &next)? {
                if self.is_below_mount(&entry.path) {
                    return Ok(Some(Place::Mounted));
                }
                at = entry.path;
            } else {
                // A link may lead to what only a mount has.
                let Some(target) = self.target(&next)?.filter(|_| links < MOST_LINKS) else {
                    return Ok(None);
                };
                links += 1;
                if target.starts_with(b"/") {
                    at = TreePath::root();
                }
                rest.extend(components(&target));
            }
        }
        if self.mounts.contains(&at) {
            return Ok(Some(Place::Mounted));
        }
        Ok(entry(self.image, &at)?.map(Place::Entry))
    }

    fn is_directory(&self, path: &TreePath) -> Result<bool> {
        Ok(entry(self.image, path)?.is_some_and(|entry| entry.kind == EntryKind::Directory))
    }

    fn is_below_mount(&self, path: &TreePath) -> bool {
        let mut above = path.parent();
        while let Some(path) = above {
            if self.mounts.contains(&path) {
                return true;
            }
            above = path.parent();
        }
        false
    }

    /// Where a link points that leads to nothing in the image.
    fn target(&self, path: &TreePath) -> Result<Option<Vec<u8>>> {
        let found = found(self.image.list(path))?;
        Ok(found.and_then(|entries| entries.into_iter().next()).and_then(|entry| entry.target))
    }
}

/// The components of a path, the first last.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    let components = path.rsplit(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b"."));
    components.map(<[u8]>::to_vec).collect()
}

/// The entry that a path leads to in the image alone; none if it leads to nothing.
fn entry(image: &Image, path: &TreePath) -> Result<Option<EntryInfo>> {
    found(image.entry(path))
}

/// None for a path that leads nowhere, through a file, or by links that lead to each other.
fn found<T>(outcome: Result<T>) -> Result<Option<T>> {
    match outcome {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Invalid) => Ok(None),
        Err(error) => Err(error),
    }
}
