//! Overlay mounts: a directory in which lower directories show through what is written.
//!
//! Directories are given to the kernel by `/proc/self/fd`, so no character of a path can be taken for an option, and any
//! number of lower directories fits into the one page that options may have.

use std::collections::HashMap;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, StatFs, XattrFlags, fsetxattr, major, minor, mkdirat, openat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, OpenTreeFlags, mount, open_tree};

use crate::error::{Error, Result, Subject};
use crate::id::random_uuid;
use crate::tree::{Content, Inode, InodeKind, Timestamp};

use super::failed;
use super::mounts::{self, end_mount};
use super::stat::{Stat, device_number};

/// What a directory of an overlay has: what was written, the kernel's own, and the merged view.
pub(crate) const FILES: &str = "files";
pub(crate) const WORK: &str = "work";
pub(crate) const MERGED: &str = "merged";
/// What else a directory has in which a mount is tried: what lies below.
pub(crate) const LOWER: &str = "lower";

/// How directories begin in which mounts are tried.
pub(crate) const PROBE: &str = "probe-";

/// How the sources of workspaces' mounts begin.
pub(super) const SOURCE: &str = "layerstone-";

/// `OVERLAYFS_SUPER_MAGIC`.
const OVERLAY_MAGIC: u32 = 0x794c_7630;

/// `FUSE_SUPER_MAGIC`.
const FUSE_MAGIC: u32 = 0x6573_5546;

/// An attribute that is set to learn whether attributes of its kind can be.
const TRUSTED_PROBE: &str = "trusted.overlay.probe";

/// What the kernel takes for the absence of what lies below.
pub(crate) const WHITEOUT: InodeKind = InodeKind::CharDevice { major: 0, minor: 0 };

/// Returns an inode that hides what lies below.
pub(crate) fn whiteout() -> Inode {
    Inode {
        mode: 0,
        uid: 0,
        gid: 0,
        mtime: Timestamp::default(),
        xattrs: Content::empty(),
        links: Content::empty(),
        kind: WHITEOUT,
    }
}

/// What is to be mounted: directories below one folder.
pub(crate) struct Overlay<'a> {
    pub(crate) folder: &'a Path,
    /// The lower directories, uppermost first, relative to the folder.
    pub(crate) lower: Vec<String>,
    /// The directory of [`FILES`], [`WORK`] and [`MERGED`], relative to the folder.
    pub(crate) place: String,
    /// Whether nothing needs to outlive a crash: then the kernel syncs nothing.
    pub(crate) is_volatile: bool,
}

impl Overlay<'_> {
    /// Mounts it. Directories may be renamed in it, and of a file whose attributes change only they are copied.
    /// [`Conflict`](ErrorKind::Conflict) if there are files where it is to be mounted.
    pub(crate) fn mount(&self) -> Result<()> {
        let target = self.folder.join(&self.place).join(MERGED);
        check_is_empty(&target)?;
        self.try_mount(&target).map_err(|error| failed(target, "mount an overlay on it", error))
    }

    fn try_mount(&self, target: &Path) -> rustix::io::Result<()> {
        let folder = open_directory(self.folder)?;
        let at = |name: &str| format!("/proc/self/fd/{}/{name}", folder.as_raw_fd());
        let lower: Vec<_> = self.lower.iter().map(|name| at(name)).collect();
        let (place, lower) = (&self.place, lower.join(":"));
        let (files, work) = (at(&format!("{place}/{FILES}")), at(&format!("{place}/{WORK}")));
        let mut options =
            format!("lowerdir={lower},upperdir={files},workdir={work},index=off,redirect_dir=on,metacopy=on");
        if self.is_volatile {
            options.push_str(",volatile");
        }
        let options = CString::new(options).map_err(|_| Errno::INVAL)?;
        let source = source(&Stat::of(&open_directory(&self.folder.join(place).join(FILES))?, b"")?);
        // A device node of an image is not to be the host's device.
        mount(source, target, "overlay", MountFlags::NODEV, options.as_c_str())
    }
}

/// What a mount with this upper directory is called in lists of mounts: found there under whatever path it is mounted.
pub(crate) fn source(files: &Stat) -> String {
    format!("{SOURCE}{:x}-{:x}", files.device, files.inode)
}

/// Fails with [`Conflict`](crate::ErrorKind::Conflict) if there are files in the directory that an overlay is mounted on.
pub(crate) fn check_is_empty(target: &Path) -> Result<()> {
    if is_empty(target).map_err(|error| Error::host(target, "list it", error))? {
        return Ok(());
    }
    let message = "has files that were written while nothing was mounted there; move them away";
    Err(Error::conflict(Subject::Host(target.to_owned()), message))
}

/// The same while the overlay is mounted there. Where the kernel does not let this process look, only unmounting shows them.
pub(crate) fn check_hides_nothing(target: &Path) -> Result<()> {
    let (Some(above), Some(name)) = (target.parent(), target.file_name()) else { return Ok(()) };
    // The directory above as a mount of its own, which has nothing mounted in it.
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let Ok(bare) = open_tree(CWD, above, flags) else { return Ok(()) };
    if is_empty(&Path::new("/proc/self/fd").join(bare.as_raw_fd().to_string()).join(name)).unwrap_or(true) {
        return Ok(());
    }
    let message = "has files under the mount, where they were written while it was not there; unmount it, and move them away";
    Err(Error::conflict(Subject::Host(target.to_owned()), message))
}

/// Returns whether there is nothing in a directory, or no directory.
fn is_empty(directory: &Path) -> std::io::Result<bool> {
    match std::fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        other => Ok(other?.next().is_none()),
    }
}

/// Who else has an overlay mounted that this process has not, or not any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct OtherMounts {
    /// Whether somebody has it: in a mount namespace of its own, or bound to another place.
    pub(crate) any: bool,
    /// A process that works in one: its root, its current directory or an open file is there.
    pub(crate) user: Option<u32>,
}

/// Looks for mounts with this upper directory, whatever they are mounted on. The kernel lets such a directory be mounted
/// twice, and then promises nothing.
pub(crate) fn other_mounts(files: &Path) -> Result<OtherMounts> {
    let mut found = OtherMounts::default();
    let Some(source) = Stat::find(files)?.map(|stat| source(&stat)) else { return Ok(found) };
    // The device numbers that the mounts have in each mount namespace.
    let mut devices: HashMap<u64, Vec<u64>> = HashMap::new();
    for (number, path) in processes()? {
        // One that ended meanwhile has nothing; of another user's nothing can be learned.
        let Ok(namespace) = std::fs::metadata(path.join("ns/mnt")) else { continue };
        let devices = devices.entry(namespace.ino()).or_insert_with(|| {
            let mounts = mounts_of(&path).into_iter();
            let own = mounts.filter(|mount| mount.overlay.as_deref() == Some(source.as_bytes()));
            own.map(|mount| mount.device).collect()
        });
        if devices.is_empty() {
            continue;
        }
        found.any = true;
        if works_on(&path, |_, device| devices.contains(&device)) {
            found.user = Some(number);
            break;
        }
    }
    Ok(found)
}

/// Returns a process that works in an overlay of this device number which is mounted nowhere any more (`umount -l`).
pub(crate) fn user_of_detached(device: u64) -> Result<Option<u32>> {
    // Of mount namespaces: whether the number is that of anything mounted there, which is not detached.
    let mut sees: HashMap<u64, bool> = HashMap::new();
    for (number, path) in processes()? {
        let Ok(namespace) = std::fs::metadata(path.join("ns/mnt")) else { continue };
        let is_mounted = sees
            .entry(namespace.ino())
            .or_insert_with(|| mounts_of(&path).iter().any(|mount| mount.device == device));
        // A number that was free again may be that of no overlay.
        let is_overlay = |path: &Path| rustix::fs::statfs(path).is_ok_and(|found| is_overlay(&found));
        if !*is_mounted && works_on(&path, |path, found| found == device && is_overlay(path)) {
            return Ok(Some(number));
        }
    }
    Ok(None)
}

/// Returns whether an open file is one of an overlay, or, if `or_fuse`, of a FUSE, as fuse-overlayfs is one.
pub(super) fn has(file: impl AsFd, or_fuse: bool) -> rustix::io::Result<bool> {
    let found = rustix::fs::fstatfs(file)?;
    Ok(is_overlay(&found) || (or_fuse && i128::from(found.f_type) == i128::from(FUSE_MAGIC)))
}

fn is_overlay(found: &StatFs) -> bool {
    i128::from(found.f_type) == i128::from(OVERLAY_MAGIC)
}

/// The processes that this one sees, by their numbers, with their directories.
pub(super) fn processes() -> Result<impl Iterator<Item = (u32, PathBuf)>> {
    let processes = std::fs::read_dir("/proc");
    let processes = processes.map_err(|error| Error::host(Path::new("/proc"), "list it", error))?;
    Ok(processes.flatten().filter_map(|process| {
        let number = process.file_name().to_str()?.parse().ok()?;
        Some((number, process.path()))
    }))
}

/// The mounts that a process sees; none if it ended meanwhile, or is another user's.
pub(super) fn mounts_of(process: &Path) -> Vec<mounts::Mount> {
    mounts::parse(&std::fs::read(process.join("mountinfo")).unwrap_or_default())
}

/// Whether a process has its root, its current directory or an open file at a path, with its device number, that counts.
fn works_on(process: &Path, counts: impl Fn(&Path, u64) -> bool) -> bool {
    let is_there = |path: &Path| {
        std::fs::metadata(path).is_ok_and(|metadata| {
            let device = metadata.dev();
            counts(path, device_number(major(device), minor(device)))
        })
    };
    let mut files = std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    is_there(&process.join("cwd"))
        || is_there(&process.join("root"))
        || files.any(|file| is_there(&file.path()))
}

/// Why this process can't mount overlays whose written part lies in `folder`; none if it can. Found out by doing it.
pub(crate) fn why_not(folder: &Path) -> Result<Option<String>> {
    let place = format!("{PROBE}{}", random_uuid().simple());
    let directory = folder.join(&place);
    let io = |error| failed(directory.clone(), "make a directory", error);
    make_directory(&directory).map_err(io)?;
    // So that whoever clears up knows that it is not left over.
    let lock = || std::fs::File::open(&directory).and_then(|file| file.lock().map(|()| file));
    let _lock = lock().map_err(|error| Error::host(&directory, "lock it", error))?;
    for name in [LOWER, FILES, WORK, MERGED] {
        make_directory(&directory.join(name)).map_err(io)?;
    }
    let overlay = Overlay { folder, lower: vec![format!("{place}/{LOWER}")], place, is_volatile: true };
    let target = directory.join(MERGED);
    let set_trusted = || {
        let files = open_directory(&directory.join(FILES))?;
        fsetxattr(&files, TRUSTED_PROBE, b"", XattrFlags::empty())
    };
    let tried = set_trusted().and_then(|()| overlay.try_mount(&target));
    if tried.is_ok() {
        end_mount(&target)?;
    }
    super::checkout::remove_tree(&directory)?;
    Ok(match tried {
        Ok(()) => None,
        Err(Errno::PERM | Errno::ACCESS) => Some("this process may not mount".to_owned()),
        Err(Errno::NODEV) => Some("this kernel has no overlay file system".to_owned()),
        Err(error) => Some(format!("the kernel can't mount an overlay here: {error}")),
    })
}

/// Makes a directory that only its owner can enter.
pub(crate) fn make_directory(path: &Path) -> rustix::io::Result<()> {
    mkdirat(CWD, path, Mode::from_raw_mode(0o700))
}

/// Makes everything durable that the file system of a directory has.
pub(crate) fn sync_all(path: &Path) -> Result<()> {
    let sync = || rustix::fs::syncfs(open_directory(path)?);
    sync().map_err(|error| failed(path.to_owned(), "sync its file system", error))
}

/// Makes the entries and the attributes of a directory durable.
pub(crate) fn sync_directory(path: &Path) -> Result<()> {
    let sync = || rustix::fs::fsync(open_directory(path)?);
    sync().map_err(|error| failed(path.to_owned(), "sync it", error))
}

fn open_directory(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty())
}
