//! Where workspaces lie: a folder of the store's directory, with a directory for each workspace and for each lower
//! directory, named by its number. A row comes before its directory and goes before it, so a directory without a row is left
//! over from what was killed.

use std::fs::{File, TryLockError};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::error::{Error, Result};
use crate::host::checkout::remove_tree;
use crate::host::overlay::{self, FILES, MERGED, WORK};
use crate::id::WorkspaceId;

/// Held by whoever makes a lower directory or cleans up.
const LOCK: &str = "lock";

/// The folder.
#[derive(Debug)]
pub(in crate::store) struct Folder {
    path: PathBuf,
    /// Why no overlay can be mounted here, once that was tried.
    why_not: OnceLock<Option<String>>,
}

impl Folder {
    pub(in crate::store) fn new(store: &Path) -> Self {
        Self { path: store.join("workspaces"), why_not: OnceLock::new() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the folder where it is missing: only its owner can enter it, since the files of images have any mode.
    pub(super) fn make(&self) -> Result<()> {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.path);
        made.map_err(|error| Error::host(&self.path, "make the folder of workspaces", error))
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

    /// Where an overlay is mounted.
    pub(super) fn merged(&self, id: WorkspaceId) -> PathBuf {
        self.directory(id).join(MERGED)
    }

    pub(super) fn make_directory(path: &Path) -> Result<()> {
        overlay::make_directory(path).map_err(|error| Error::host(path, "make a directory", error.into()))
    }

    /// Waits until nobody else makes a lower directory or cleans up.
    pub(super) fn lock(&self) -> Result<File> {
        let path = self.path.join(LOCK);
        let file = Self::lock_file(&path)?;
        file.lock().map_err(|error| Error::host(&path, "lock it", error))?;
        Ok(file)
    }

    /// The same, or nothing if somebody does.
    pub(super) fn try_lock(&self) -> Result<Option<File>> {
        let path = self.path.join(LOCK);
        let file = Self::lock_file(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(Error::host(&path, "lock it", error)),
        }
    }

    fn lock_file(path: &Path) -> Result<File> {
        let file = File::options().create(true).append(true).open(path);
        file.map_err(|error| Error::host(path, "open it", error))
    }

    /// Waits until nobody else mounts, commits or ends the workspace.
    pub(super) fn lock_workspace(&self, id: WorkspaceId) -> Result<File> {
        let path = self.directory(id);
        let lock = || File::open(&path).and_then(|file| file.lock().map(|()| file));
        lock().map_err(|error| Error::host(&path, "lock it", error))
    }

    /// Why no overlay can be mounted here; none if one can.
    pub(super) fn why_not_overlay(&self) -> Result<Option<String>> {
        if let Some(known) = self.why_not.get() {
            return Ok(known.clone());
        }
        let _lock = self.lock()?;
        let why_not = overlay::why_not(&self.path)?;
        Ok(self.why_not.get_or_init(|| why_not).clone())
    }

    /// Removes the number's directory, and ends what is mounted in it.
    pub(super) fn remove(&self, id: WorkspaceId) -> Result<()> {
        remove_directory(&self.directory(id))
    }

    /// Removes all but the files.
    pub(super) fn keep_files(&self, id: WorkspaceId) -> Result<()> {
        remove_tree(&self.merged(id))?;
        remove_tree(&self.directory(id).join(WORK))
    }

    /// Directories, and the numbers that they are named by: what tries overlays has none.
    pub(super) fn list(&self) -> Result<Vec<(PathBuf, Option<WorkspaceId>)>> {
        let io = |error| Error::host(&self.path, "list it", error);
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(io)? {
            let name = entry.map_err(io)?.file_name();
            let name = name.to_string_lossy();
            if name != LOCK {
                found.push((self.path.join(&*name), name.parse().ok().map(WorkspaceId::new)));
            }
        }
        Ok(found)
    }
}

/// Removes a directory, and ends what is mounted in it.
pub(super) fn remove_directory(directory: &Path) -> Result<()> {
    overlay::end_mount(&directory.join(MERGED))?;
    remove_tree(directory)
}
