//! What in a workspace's directory is the workspace's own: all else is neither committed nor deleted.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::catalog::record::{FolderRecord, PlaceRecord, WorkspaceForm, WorkspaceRecord};
use crate::engine::process;
use crate::error::{Error, ErrorKind, Result, Subject};
use crate::format::record::Added;
use crate::host::checkout::{PRIVATE, foreign, loosen, remove_own};
use crate::host::mounts::{Mounted, OwnMount, end_mount, mounted, other_place_of};
use crate::host::overlay::{self, FILES, LOWER, MERGED, WORK};
use crate::host::stat::{FileKind, Stat};
use crate::ledger::directories::born_ns;
use crate::path::escape_bytes;

use super::folder::Folder;
use super::mark;

impl Folder {
    /// Fails with *conflict* or *in use* unless what is there of a workspace is its own: nothing else lies where its files are
    /// or beside them, is mounted over them, or was written where its mount was not, its mount is at no other place, and nobody
    /// works in one that is at none. What is missing altogether is not looked at here.
    pub(super) fn check_own(&self, record: &WorkspaceRecord) -> Result<()> {
        self.check_place(record)?;
        if record.form != WorkspaceForm::Overlay || self.is_mounted(record)? {
            return Ok(());
        }
        let files = Stat::find(&self.files(record.id))?;
        let Some(device) = mount_of(record, files.as_ref()) else { return Ok(()) };
        match overlay::user_of_detached(device)? {
            None => Ok(()),
            Some(process) => Err(Error::new(
                ErrorKind::InUse,
                Subject::Host(self.merged(record.id)),
                format!(
                    "process {process} works in the workspace's mount, which was unmounted meanwhile (umount -l); end that first"
                ),
            )),
        }
    }

    /// The same, and that its mount hides nothing, which would be in the way once that was ended.
    pub(super) fn check_can_end(&self, record: &WorkspaceRecord) -> Result<()> {
        self.check_own(record)?;
        if self.is_mounted(record)? { overlay::check_hides_nothing(&self.merged(record.id)) } else { Ok(()) }
    }

    /// The same as [`check_own`](Self::check_own), but for who works in a mount that is at no place.
    pub(super) fn check_place(&self, record: &WorkspaceRecord) -> Result<()> {
        let path = self.directory(record.id);
        let Some(directory) = Stat::find(&path)? else { return Ok(()) };
        check_directory(&path, &directory)?;
        check_names(&path, is_own)?;
        let path = self.files(record.id);
        let files = Stat::find(&path)?;
        if let Some(files) = &files {
            check_directory(&path, files)?;
            if is_another(record, files) && !self.is_copy(record)? {
                let message = "is another directory than the workspace was made with; put that back, or move this one away";
                return Err(Error::conflict(Subject::Host(path), message));
            }
        }
        if record.form == WorkspaceForm::Overlay {
            self.check_overlay(record, files.as_ref())?;
        }
        Ok(())
    }

    /// Returns whether this is not the folder that a workspace was in: then all of it was copied, or restored.
    fn is_copy(&self, record: &WorkspaceRecord) -> Result<bool> {
        let folder = record.place.0.and_then(|made| made.folder.0);
        Ok(folder.is_some() && folder != self.mark()?)
    }

    /// Where a workspace of a copied store is now, if the row still has where it was.
    pub(super) fn new_place(&self, record: &WorkspaceRecord) -> Result<Option<PlaceRecord>> {
        let files = Stat::find(&self.files(record.id))?;
        let is_moved = files.is_some_and(|files| is_another(record, &files)) && self.is_copy(record)?;
        if is_moved { self.place(record, false) } else { Ok(None) }
    }

    /// How the folder is known from a copy of it.
    fn mark(&self) -> Result<Option<FolderRecord>> {
        let stat = Stat::find(self.path())?;
        Ok(stat.map(|stat| FolderRecord { inode: stat.inode, born_ns: born_ns(&stat) }))
    }

    fn check_overlay(&self, record: &WorkspaceRecord, files: Option<&Stat>) -> Result<()> {
        let work = self.directory(record.id).join(WORK);
        if let Some(stat) = Stat::find(&work)? {
            check_directory(&work, &stat)?;
            check_names(&work, is_kernels)?;
            // The next mount empties it.
            check_names(&work.join(WORK), |name| name.starts_with(b"#") || name == b"incompat")?;
        }
        let merged = self.merged(record.id);
        let own = files.map(|files| own_mount(record, files));
        if check_mount_point(&merged, own.as_ref())? != Mounted::Nothing {
            return Ok(());
        }
        let elsewhere = own.map(|own| other_place_of(&own.source, &merged)).transpose()?.flatten();
        elsewhere.map_or(Ok(()), |place| {
            let place = escape_bytes(place.as_os_str().as_bytes());
            let message = format!(
                "the workspace's mount is at {place}; move it back (mount --move), or unmount it there"
            );
            Err(Error::new(ErrorKind::InUse, Subject::Host(merged), message))
        })
    }

    /// Fails if a workspace's overlay, or a part of it, is mounted at another place, too. Mounts that the kernel made there with
    /// its own have ended with that.
    pub(super) fn check_is_nowhere_else(&self, record: &WorkspaceRecord) -> Result<()> {
        let merged = self.merged(record.id);
        let Some(files) = Stat::find(&self.files(record.id))? else { return Ok(()) };
        let elsewhere = other_place_of(&overlay::source(&files), &merged)?;
        elsewhere.map_or(Ok(()), |place| {
            let message = format!("is mounted at {}, too; unmount it there first", place.display());
            Err(Error::new(ErrorKind::InUse, Subject::Host(merged), message))
        })
    }

    /// Fails if the directory of a workspace is missing because the folder is not the one that it was made in, or that can't be
    /// known: it may be there still, under what is mounted over it.
    pub(super) fn check_is_not_hidden(&self, record: &WorkspaceRecord) -> Result<()> {
        if Stat::find(&self.directory(record.id))?.is_some() {
            return Ok(());
        }
        let Some(folder) = Stat::find(self.path())? else { return Ok(()) };
        let made_in = record.place.0.and_then(|made| made.folder.0);
        if !folder.is_mount_point || made_in.is_some() && made_in == self.mark()? {
            return Ok(());
        }
        let message =
            "is a mount point without the workspace's files; unmount what hides them, or mount what has them";
        Err(Error::new(ErrorKind::InUse, Subject::Host(self.path().to_owned()), message))
    }

    /// Whether a workspace's overlay is mounted where it belongs.
    pub(super) fn is_mounted(&self, record: &WorkspaceRecord) -> Result<bool> {
        let own = Stat::find(&self.files(record.id))?.map(|files| own_mount(record, &files));
        Ok(mounted(&self.merged(record.id), own.as_ref())? == Mounted::Own)
    }

    /// The directory of a workspace's files and the device number of its overlay, which is mounted or not.
    pub(super) fn place(&self, record: &WorkspaceRecord, is_mounted: bool) -> Result<Option<PlaceRecord>> {
        let mount = if is_mounted { Stat::find(&self.merged(record.id))? } else { None };
        let mount = Added(Some(mount.map_or(0, |stat| stat.device)));
        let (files, folder) = (Stat::find(&self.files(record.id))?, Added(self.mark()?));
        Ok(files.map(|Stat { device, inode, .. }| PlaceRecord { device, inode, mount, folder }))
    }
}

/// Returns whether these are other files than a workspace was made with. Those of another device are not compared.
fn is_another(record: &WorkspaceRecord, files: &Stat) -> bool {
    record.place.0.is_some_and(|made| made.device == files.device && made.inode != files.inode)
}

/// How the overlay of a workspace is known that has these files.
fn own_mount(record: &WorkspaceRecord, files: &Stat) -> OwnMount {
    OwnMount { source: overlay::source(files), device: mount_of(record, Some(files)) }
}

/// The device number of a workspace's overlay, if it was mounted in this boot, with these files where they are there.
fn mount_of(record: &WorkspaceRecord, files: Option<&Stat>) -> Option<u64> {
    let is_of_this_boot = record.mounted_by.as_ref().is_some_and(|by| by.boot == process::boot());
    let made = record.place.0.filter(|_| is_of_this_boot)?;
    let is_same = files.is_none_or(|files| (made.device, made.inode) == (files.device, files.inode));
    made.mount.0.filter(|device| is_same && *device != 0)
}

/// Whether the store makes this name in a workspace's directory, or the command `run`, which keeps there what it mounts.
fn is_own(name: &[u8]) -> bool {
    let names = [FILES, WORK, MERGED];
    names.iter().any(|own| own.as_bytes() == name) || name.starts_with(PRIVATE.as_bytes())
}

/// Whether the kernel makes this name in the directory that an overlay has for it.
pub(super) fn is_kernels(name: &[u8]) -> bool {
    matches!(name, b"work" | b"index")
}

/// Removes a workspace's directory, and ends the mount of its files. What the store did not make in it stays.
pub(super) fn remove_directory(directory: &Path) -> Result<()> {
    clear_mount_point(directory)?;
    check_names(&directory.join(WORK), is_kernels)?;
    mark::remove(directory);
    remove_own(directory, is_own)
}

/// The same for a directory in which a mount was tried.
pub(super) fn remove_probe(directory: &Path) -> Result<()> {
    clear_mount_point(directory)?;
    remove_own(directory, |name| is_own(name) || name == LOWER.as_bytes())
}

/// Ends the mount of a directory's files, and removes what it was mounted on, which must be empty.
pub(super) fn clear_mount_point(directory: &Path) -> Result<()> {
    let Some(stat) = Stat::find(directory)? else { return Ok(()) };
    check_directory(directory, &stat)?;
    let (merged, files) = (directory.join(MERGED), Stat::find(&directory.join(FILES))?);
    let own = files.map(|files| OwnMount { source: overlay::source(&files), device: None });
    // After the last of them is ended, what it hid.
    while check_mount_point(&merged, own.as_ref())? == Mounted::Own {
        end_mount(&merged)?;
    }
    let mut removed = std::fs::remove_dir(&merged);
    if removed.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied) {
        loosen(directory);
        removed = std::fs::remove_dir(&merged);
    }
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::host(&merged, "remove it", error))
        }
        _ => Ok(()),
    }
}

/// Fails unless only the overlay with these files is mounted on a directory, or nothing is and the directory is empty.
fn check_mount_point(merged: &Path, own: Option<&OwnMount>) -> Result<Mounted> {
    let Some(stat) = Stat::find(merged)? else { return Ok(Mounted::Nothing) };
    let found = mounted(merged, own)?;
    match found {
        Mounted::Own => {}
        Mounted::Nothing => {
            check_directory(merged, &stat)?;
            overlay::check_is_empty(merged)?;
        }
        Mounted::Other => return Err(covered(merged)),
    }
    Ok(found)
}

/// Fails unless all names in a directory are among those that are its own, if it is there.
fn check_names(directory: &Path, is_own: impl Fn(&[u8]) -> bool) -> Result<()> {
    let io = |error| Error::host(directory, "list it", error);
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(io)?,
    };
    for entry in entries {
        let entry = entry.map_err(io)?;
        if !is_own(entry.file_name().as_bytes()) {
            return Err(foreign(entry.path()));
        }
    }
    Ok(())
}

/// Fails unless a path is a directory of its folder's own file system.
fn check_directory(path: &Path, stat: &Stat) -> Result<()> {
    if stat.is_mount_point {
        return Err(covered(path));
    }
    if stat.kind != FileKind::Directory {
        let message = "is not the directory that the store made; move it away, and put that back";
        return Err(Error::conflict(Subject::Host(path.to_owned()), message));
    }
    Ok(())
}

fn covered(path: &Path) -> Error {
    let message = "has something mounted on it that is not the workspace's; unmount that first";
    Error::new(ErrorKind::InUse, Subject::Host(path.to_owned()), message)
}
