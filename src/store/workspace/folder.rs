//! Where workspaces lie: a folder of the store's directory, with a directory for each workspace and for each lower
//! directory, named by its number. A row comes before its directory and goes before it, so a directory without a row is left
//! over from what was killed.

use std::fs::{File, TryLockError};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use crate::error::{Error, ErrorKind, Result, Subject};
use crate::host::checkout::remove_own;
use crate::host::overlay::{self, FILES, MERGED, PROBE, WORK};
use crate::host::stat::Stat;
use crate::host::users::user_of;
use crate::id::{ObjectId, WorkspaceId};
use crate::layout::WORKSPACES;
use crate::task::Task;

use super::mark;
use super::own::{clear_mount_point, is_kernels, remove_directory};

/// How the files begin that are locked by whoever makes a lower directory, and how many there are.
const LOCK: &str = "lock-";
const LOCKS: u8 = 32;
/// How the files begin in which changed modes are noted.
const JOURNAL: &str = "lent-";
/// The name of a full copy's files while they are committed for the last time: one that the store takes for its own.
const ENDING: &str = ".layerstone-ending";
const LONGEST_UNLOCKED: Duration = Duration::from_secs(1);

/// The folder.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// Why no overlay can be mounted here, once that was tried.
    why_not: Arc<OnceLock<Option<String>>>,
}

impl Folder {
    pub(crate) fn new(store: &Path, why_not: Arc<OnceLock<Option<String>>>) -> Self {
        Self { path: store.join(WORKSPACES), why_not }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the folder where it is missing: only its owner can enter it, since the files of images have any mode.
    pub(super) fn make(&self) -> Result<()> {
        if self.path.is_dir() {
            return Ok(());
        }
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.path);
        made.map_err(|error| Error::host(&self.path, "make the folder of workspaces", error))?;
        self.path.parent().map_or(Ok(()), overlay::sync_directory)
    }

    /// Where it is noted which modes were changed in a directory, for as long as it is read.
    pub(super) fn journal(&self, directory: &Stat) -> PathBuf {
        let Stat { device, inode, born, .. } = directory;
        self.path.join(format!("{JOURNAL}{device:x}-{inode:x}-{:x}-{:x}", born.seconds, born.nanos))
    }

    /// The number's directory relative to the folder.
    pub(super) fn name(id: WorkspaceId) -> String {
        format!("{:010}", id.get())
    }

    /// The number's directory.
    pub(super) fn directory(&self, id: WorkspaceId) -> PathBuf {
        self.path.join(Self::name(id))
    }

    /// What was written, or all that there is of what is no overlay.
    pub(super) fn files(&self, id: WorkspaceId) -> PathBuf {
        self.directory(id).join(FILES)
    }

    /// Where the files of a full copy are while its last commit reads them: whoever writes by their path fails, instead of
    /// writing what is neither in the image nor left.
    pub(super) fn ending(&self, id: WorkspaceId) -> PathBuf {
        self.directory(id).join(ENDING)
    }

    /// Moves the files of a full copy away from their path, unless a process works in them.
    pub(super) fn take_away(&self, id: WorkspaceId) -> Result<()> {
        let (files, ending) = (self.files(id), self.ending(id));
        rename(&files, &ending)?;
        // One that came by the path until now has a file open, or stands in it.
        check_is_unused(&ending).inspect_err(|_| drop(self.put_back(id)))
    }

    /// Takes that back, if it was done.
    pub(super) fn put_back(&self, id: WorkspaceId) -> Result<()> {
        let (files, ending) = (self.files(id), self.ending(id));
        if Stat::find(&ending)?.is_none() || Stat::find(&files)?.is_some() {
            return Ok(());
        }
        rename(&ending, &files)
    }

    /// Where an overlay is mounted.
    pub(super) fn merged(&self, id: WorkspaceId) -> PathBuf {
        self.directory(id).join(MERGED)
    }

    pub(super) fn make_directory(path: &Path) -> Result<()> {
        overlay::make_directory(path).map_err(|error| Error::host(path, "make a directory", error.into()))
    }

    /// Waits until nobody else makes a directory for this root. Roots share some locks, so that none has to be removed.
    pub(super) fn lock_root(&self, root: &ObjectId, task: &Task) -> Result<File> {
        let path = self.path.join(format!("{LOCK}{:02x}", root.as_bytes()[0] % LOCKS));
        let file = File::options().create(true).append(true).open(&path);
        lock(file.map_err(|error| Error::host(&path, "lock it", error))?, &path, task)
    }

    /// Waits until nobody else mounts, commits or ends the workspace; nothing if its directory is gone.
    pub(super) fn lock_workspace(&self, id: WorkspaceId, task: &Task) -> Result<Option<File>> {
        let path = self.directory(id);
        match File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::host(&path, "lock it", error)),
            Ok(file) => lock(file, &path, task).map(Some),
        }
    }

    /// Why no overlay can be mounted here; none if one can.
    pub(super) fn why_not_overlay(&self) -> Result<Option<String>> {
        if let Some(known) = self.why_not.get() {
            return Ok(known.clone());
        }
        let why_not = overlay::why_not(&self.path)?;
        Ok(self.why_not.get_or_init(|| why_not).clone())
    }

    /// Removes the number's directory, and ends the mount of its files. Where anything else is mounted, or was written where
    /// that mount was not, all of it stays.
    pub(super) fn remove(&self, id: WorkspaceId) -> Result<()> {
        remove_directory(&self.directory(id))
    }

    /// The same, unless a process works in a mount of its files, wherever that is.
    pub(super) fn remove_unused(&self, id: WorkspaceId) -> Result<()> {
        clear_mount_point(&self.directory(id))?;
        let files = self.files(id);
        if files.is_dir()
            && let Some(process) = overlay::other_mounts(&files)?.user
        {
            let message = format!("process {process} works in it; end that first");
            return Err(Error::new(ErrorKind::InUse, Subject::Host(files), message));
        }
        self.check_copy_is_unused(id)?;
        self.remove(id)
    }

    /// Fails with *in use* if a process works in a workspace's files themselves, as it does in a full copy.
    pub(super) fn check_copy_is_unused(&self, id: WorkspaceId) -> Result<()> {
        let files = self.files(id);
        if files.is_dir() { check_is_unused(&files) } else { Ok(()) }
    }

    /// Removes all but the files.
    pub(super) fn keep_files(&self, id: WorkspaceId) -> Result<()> {
        mark::remove(&self.directory(id));
        clear_mount_point(&self.directory(id))?;
        self.remove_work(id)
    }

    /// Removes what the kernel keeps for itself.
    pub(super) fn remove_work(&self, id: WorkspaceId) -> Result<()> {
        remove_own(&self.directory(id).join(WORK), is_kernels)
    }

    pub(super) fn make_work(&self, id: WorkspaceId) -> Result<()> {
        Self::make_directory(&self.directory(id).join(WORK))
    }

    /// Numbers that have a directory, and directories in which a mount was tried by a process that is gone.
    pub(super) fn list(&self) -> Result<(Vec<WorkspaceId>, Vec<PathBuf>)> {
        let io = |error| Error::host(&self.path, "list it", error);
        let (mut ids, mut probes) = (Vec::new(), Vec::new());
        let entries = match std::fs::read_dir(&self.path) {
            // It is made with the first workspace.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((ids, probes)),
            other => other.map_err(io)?,
        };
        for entry in entries {
            let entry = entry.map_err(io)?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if let Ok(number) = name.parse() {
                ids.push(WorkspaceId::new(number));
            } else if name.starts_with(PROBE) && is_left_over(&entry) {
                probes.push(entry.path());
            }
        }
        Ok((ids, probes))
    }
}

fn check_is_unused(files: &Path) -> Result<()> {
    let Some(process) = user_of(files)? else { return Ok(()) };
    let message = format!("is busy: process {process} works in it or has a file of it open; end that first");
    Err(Error::new(ErrorKind::InUse, Subject::Host(files.to_owned()), message))
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to).map_err(|error| Error::host(from, "move it", error))
}

/// Locks a file, waiting until no other process has it locked.
fn lock(file: File, path: &Path, task: &Task) -> Result<File> {
    let mut waiting = task.wait();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => waiting.pause(None)?,
            Err(TryLockError::Error(error)) => return Err(Error::host(path, "lock it", error)),
        }
    }
}

/// Whether nobody tries a mount in a directory: it is locked soon after it was made.
fn is_left_over(entry: &std::fs::DirEntry) -> bool {
    let made = entry.metadata().and_then(|metadata| metadata.modified());
    // One of the future is from before the clock was put right.
    let age = |made: SystemTime| made.elapsed().unwrap_or_else(|future| future.duration());
    let is_old = made.is_ok_and(|made| age(made) >= LONGEST_UNLOCKED);
    is_old && File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok())
}
