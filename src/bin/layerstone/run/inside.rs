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
    Mounted(Below),
}

/// A path below a mount, as far as it is known.
pub(super) struct Below {
    /// Which one, by its name in the root directory.
    pub(super) mount: &'static [u8],
    pub(super) names: Vec<Vec<u8>>,
}

/// An image as such a process sees it.
pub(super) struct Inside<'i> {
    image: &'i Image,
    /// The process's working directory.
    directory: Vec<u8>,
    /// The mount points, by the names that they have and where these lead.
    mounts: Vec<(TreePath, &'static [u8])>,
}

impl<'i> Inside<'i> {
    pub(super) fn new(image: &'i Image, directory: &[u8]) -> Result<Self> {
        let mut mounts = Vec::new();
        for name in MOUNTED {
            let Ok(path) = TreePath::root().join(name) else { continue };
            mounts.extend(entry(image, &path)?.map(|entry| (entry.path, name)));
            mounts.push((path, name));
        }
        Ok(Self { image, directory: directory.to_owned(), mounts })
    }

    pub(super) fn image(&self) -> &'i Image {
        self.image
    }

    /// Follows a path as the kernel does: `..` goes up from where a link led, and what a `/` ends is a directory. None if it
    /// leads to nothing.
    pub(super) fn find(&self, path: &[u8]) -> Result<Option<Place>> {
        let is_directory = path.ends_with(b"/") || path.ends_with(b"/.");
        Ok(self.follow(path)?.filter(|place| match place {
            Place::Entry(entry) => !is_directory || entry.kind == EntryKind::Directory,
            Place::Mounted(_) => true,
        }))
    }

    fn follow(&self, path: &[u8]) -> Result<Option<Place>> {
        let mut rest: Vec<Vec<u8>> = components(path);
        if !path.starts_with(b"/") {
            rest.extend(components(&self.directory));
        }
        let (mut at, mut links) = (TreePath::root(), 0);
        while let Some(name) = rest.pop() {
            let mount = self.mount_at(&at);
            if name == b".." {
                if mount.is_none() && !self.is_directory(&at)? {
                    return Ok(None);
                }
                at = at.parent().unwrap_or_default();
                continue;
            }
            if let Some(mount) = mount {
                rest.push(name);
                return Ok(Some(below(mount, Vec::new(), rest)));
            }
            // No image has what can't be a path.
            let Ok(next) = at.join(&name) else { return Ok(None) };
            if self.mount_at(&next).is_some() {
                at = next;
            } else if let Some(entry) = entry(self.image, &next)? {
                if let Some((mount, names)) = self.mount_above(&entry.path) {
                    return Ok(Some(below(mount, names, rest)));
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
        if let Some(mount) = self.mount_at(&at) {
            return Ok(Some(below(mount, Vec::new(), Vec::new())));
        }
        Ok(entry(self.image, &at)?.map(Place::Entry))
    }

    fn is_directory(&self, path: &TreePath) -> Result<bool> {
        Ok(entry(self.image, path)?.is_some_and(|entry| entry.kind == EntryKind::Directory))
    }

    fn mount_at(&self, path: &TreePath) -> Option<&'static [u8]> {
        self.mounts.iter().find(|(place, _)| place == path).map(|(_, mount)| *mount)
    }

    /// The mount that a path is below, and the names from there to it.
    fn mount_above(&self, path: &TreePath) -> Option<(&'static [u8], Vec<Vec<u8>>)> {
        let (mut path, mut names) = (path.clone(), Vec::new());
        while let (Some(name), Some(parent)) = (path.file_name().map(<[u8]>::to_vec), path.parent()) {
            names.insert(0, name);
            if let Some(mount) = self.mount_at(&parent) {
                return Some((mount, names));
            }
            path = parent;
        }
        None
    }

    /// Where a link points that leads to nothing in the image.
    fn target(&self, path: &TreePath) -> Result<Option<Vec<u8>>> {
        let found = found(self.image.list(path))?;
        Ok(found.and_then(|entries| entries.into_iter().next()).and_then(|entry| entry.target))
    }
}

fn below(mount: &'static [u8], mut names: Vec<Vec<u8>>, rest: Vec<Vec<u8>>) -> Place {
    names.extend(rest.into_iter().rev());
    Place::Mounted(Below { mount, names })
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
