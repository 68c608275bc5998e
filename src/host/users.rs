//! Who works in a directory that no mount of its own guards: processes whose current directory, root, program or open file is
//! below it.
//!
//! Only root finds another user's processes. One that this process's `/proc` does not show is not found.

use std::ffi::OsStr;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::error::{Error, Result};

use super::failed;
use super::mounts::{Mount, mount_id};
use super::overlay::{mounts_of, processes};

/// Returns a process that works in a directory or below it, under whatever path it sees that.
pub(crate) fn user_of(directory: &Path) -> Result<Option<u32>> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = openat(CWD, directory, flags, Mode::empty());
    let opened = opened.map_err(|error| failed(directory.to_owned(), "look at it", error))?;
    let link = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()));
    let named = std::fs::read_link(&link).map_err(|error| Error::host(directory, "look at it", error))?;
    let searched = Searched {
        place: place_in(Path::new("/proc/self"), &link, &named),
        namespace: namespace(Path::new("/proc/self")),
        path: named,
    };
    // Ours is open until the search has ended, and counts as nobody's.
    let own = std::process::id();
    Ok(processes()?
        .find(|(number, path)| searched.has(path, (*number == own).then_some(&link)))
        .map(|(number, _)| number))
}

/// A directory as the processes' links may name it.
struct Searched {
    path: PathBuf,
    namespace: Option<u64>,
    place: Option<Place>,
}

/// Where something is in its file system, wherever that is mounted.
#[derive(PartialEq, Eq)]
struct Place {
    device: u64,
    path: PathBuf,
}

impl Searched {
    /// Whether a process works in it, but for the one link that is the search's own.
    fn has(&self, process: &Path, own: Option<&PathBuf>) -> bool {
        let is_same_namespace = self.namespace.is_some() && namespace(process) == self.namespace;
        let own = own.and_then(|own| own.file_name());
        let files = std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        let files = files.filter(|file| Some(file.file_name().as_os_str()) != own).map(|file| file.path());
        let links = ["cwd", "root", "exe"].map(|name| process.join(name));
        links.into_iter().chain(files).any(|link| self.is_in(process, &link, is_same_namespace))
            || is_same_namespace && self.is_mapped(process)
    }

    fn is_in(&self, process: &Path, link: &Path, is_same_namespace: bool) -> bool {
        let Ok(named) = std::fs::read_link(link) else { return false };
        // Most are sockets, pipes and devices.
        if !named.is_absolute() || named.starts_with("/dev") {
            return false;
        }
        if is_same_namespace && named.starts_with(&self.path) {
            return true;
        }
        let Some(place) = &self.place else { return false };
        place_in(process, link, &named)
            .is_some_and(|found| found.device == place.device && found.path.starts_with(&place.path))
    }

    /// Whether it has a file of it in its memory, which needs not be open any more.
    fn is_mapped(&self, process: &Path) -> bool {
        let maps = std::fs::read(process.join("maps")).unwrap_or_default();
        maps.split(|byte| *byte == b'\n').any(|line| {
            let path = line.iter().position(|byte| *byte == b'/').and_then(|at| line.get(at..));
            path.is_some_and(|path| Path::new(OsStr::from_bytes(path)).starts_with(&self.path))
        })
    }
}

/// Where what a link of a process leads to is in its file system, by the mounts that the process sees.
fn place_in(process: &Path, link: &Path, named: &Path) -> Option<Place> {
    let id = mount_id(link)?;
    let mount: Mount = mounts_of(process).into_iter().find(|mount| mount.id == id)?;
    let below = named.strip_prefix(&mount.target).ok()?;
    let root = Path::new(OsStr::from_bytes(&mount.root));
    Some(Place { device: mount.device, path: root.join(below) })
}

/// The mount namespace of a process, if that can be known.
fn namespace(process: &Path) -> Option<u64> {
    std::fs::metadata(process.join("ns/mnt")).ok().map(|found| found.ino())
}
