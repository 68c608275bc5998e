//! Where what is damaged is set aside.
//!
//! A file that the new catalog will not name gets a further name in the folder before that catalog takes over, so that there is
//! no moment at which a crash leaves it without one. Its name in the store goes afterwards. Where the file system has no hard
//! links it is copied, under an unfinished name first. A repair that is run again finds what the one before it set aside,
//! by its bytes, and does not do it twice.
//!
//! The directories of lost workspaces can't be linked, so they are moved, and before the catalog takes over: behind it, what
//! has no row is a leftover that the next workspace's maker removes. The folder's own name is durable before, their new names
//! before their old ones go. A repair that is killed behind that leaves the damaged store without them, and the next one
//! names them again.

use std::path::Path;

use crate::disk::{Disk, OpenMode, cannot_link};
use crate::error::{Error, Result, Subject};
use crate::layout::{QUARANTINE, UNFINISHED, WORKSPACES};

/// Bytes that are copied or compared at once.
const COPY_BYTES: usize = 1 << 20;

/// What one repair sets aside.
pub(super) struct Quarantine<'d> {
    disk: &'d dyn Disk,
    location: &'d Path,
    names: Vec<String>,
}

impl<'d> Quarantine<'d> {
    pub(super) fn new(disk: &'d dyn Disk, location: &'d Path) -> Self {
        Self { disk, location, names: Vec::new() }
    }

    /// Gives a file a further name in the folder, if it is there. It is durable after [`Self::sync`].
    pub(super) fn keep(&mut self, name: &str) -> Result<()> {
        let kept = self.try_keep(name).map_err(|error| self.failed(error))?;
        self.names.extend(kept);
        Ok(())
    }

    /// Moves the directories of workspaces, those that are still there, and gives where each is. All of it is durable then.
    pub(super) fn take_workspaces(&mut self, names: &[String]) -> Result<Vec<Option<String>>> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let taken = self.try_take_workspaces(names).map_err(|error| self.failed(error))?;
        self.names.extend(taken.iter().flatten().cloned());
        Ok(taken)
    }

    fn failed(&self, error: std::io::Error) -> Error {
        let subject = Subject::Store(self.location.to_owned());
        Error::io(subject, "set aside what is damaged in its folder 'quarantine'", error)
    }

    fn try_keep(&self, name: &str) -> std::io::Result<Option<String>> {
        if !self.disk.exists(name)? {
            return Ok(None);
        }
        self.disk.create_dir(QUARANTINE)?;
        for aside in asides(name) {
            if !self.disk.exists(&aside)? {
                self.link_or_copy(name, &aside)?;
                return Ok(Some(aside));
            }
            if self.is_same(name, &aside)? {
                // A repair that was killed may have made its name and not synced its bytes.
                self.disk.open(&aside, OpenMode::Read)?.sync()?;
                return Ok(Some(aside));
            }
        }
        Ok(None)
    }

    fn try_take_workspaces(&self, names: &[String]) -> std::io::Result<Vec<Option<String>>> {
        self.disk.create_dir(QUARANTINE)?;
        self.disk.sync_dir("")?;
        let taken: Vec<_> = names.iter().map(|name| self.try_take(name)).collect::<Result<_, _>>()?;
        self.disk.sync_dir(QUARANTINE)?;
        if self.disk.exists(WORKSPACES)? {
            self.disk.sync_dir(WORKSPACES)?;
        }
        Ok(taken)
    }

    /// Moves a folder, if it is there; if not, gives where a repair that was killed moved it.
    fn try_take(&self, name: &str) -> std::io::Result<Option<String>> {
        let mut moved_before = None;
        for aside in asides(name) {
            if self.disk.exists(&aside)? {
                moved_before = Some(aside);
            } else if self.disk.exists(name)? {
                self.disk.rename(name, &aside)?;
                return Ok(Some(aside));
            } else {
                break;
            }
        }
        Ok(moved_before)
    }

    fn is_same(&self, one: &str, other: &str) -> std::io::Result<bool> {
        let (one, other) = (self.disk.open(one, OpenMode::Read)?, self.disk.open(other, OpenMode::Read)?);
        let len = one.len()?;
        if other.len()? != len {
            return Ok(false);
        }
        let mut buffers = [vec![0; COPY_BYTES], vec![0; COPY_BYTES]];
        let mut offset = 0;
        while offset < len {
            let bytes = usize::try_from(len - offset).unwrap_or(usize::MAX).min(COPY_BYTES);
            let [left, right] = buffers.each_mut().map(|buffer| buffer.get_mut(..bytes).unwrap_or_default());
            one.read_at(left, offset)?;
            other.read_at(right, offset)?;
            if left != right {
                return Ok(false);
            }
            offset += bytes as u64;
        }
        Ok(true)
    }

    fn link_or_copy(&self, name: &str, aside: &str) -> std::io::Result<()> {
        match self.disk.link(name, aside) {
            Err(error) if cannot_link(&error) => self.copy(name, aside),
            // Its bytes may be what a killed process wrote and did not sync.
            linked => linked.and_then(|()| self.disk.open(name, OpenMode::Read)?.sync()),
        }
    }

    fn copy(&self, name: &str, aside: &str) -> std::io::Result<()> {
        let unfinished = format!("{aside}{UNFINISHED}");
        self.disk.remove(&unfinished)?;
        let from = self.disk.open(name, OpenMode::Read)?;
        let to = self.disk.open(&unfinished, OpenMode::CreateNew)?;
        let (mut offset, len) = (0, from.len()?);
        let mut buffer = vec![0; COPY_BYTES];
        while offset < len {
            let bytes = usize::try_from(len - offset).unwrap_or(usize::MAX).min(COPY_BYTES);
            let bytes = buffer.get_mut(..bytes).unwrap_or_default();
            from.read_at(bytes, offset)?;
            to.write_at(bytes, offset)?;
            offset += bytes.len() as u64;
        }
        to.sync()?;
        self.disk.rename(&unfinished, aside)
    }

    /// Makes the files that were set aside durable.
    pub(super) fn sync(&self) -> Result<()> {
        if self.names.is_empty() {
            return Ok(());
        }
        let synced = self.disk.sync_dir(QUARANTINE).and_then(|()| self.disk.sync_dir(""));
        synced.map_err(|error| self.failed(error))
    }

    /// The names in the folder of what was set aside.
    pub(super) fn into_names(self) -> Vec<String> {
        self.names
    }
}

/// The names in the folder that something of the store can get, in the order in which they are given.
fn asides(name: &str) -> impl Iterator<Item = String> + use<> {
    let name = name.replace('/', "-");
    (1_u64..).map(move |number| format!("{QUARANTINE}/{name}-{number}"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use super::*;
    use crate::disk::RealDisk;
    use crate::disk::recording::{DiskLog, DiskOperation, RecordingDisk};

    #[test]
    fn workspaces_have_a_durable_place_before_they_go_and_are_named_again() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("workspaces/0000000007/files")).unwrap();
        let log = DiskLog::default();
        let disk =
            RecordingDisk::new(Arc::new(RealDisk::open_or_create(folder.path()).unwrap()), log.clone());
        let take = || {
            let mut quarantine = Quarantine::new(&disk, folder.path());
            quarantine
                .take_workspaces(&["workspaces/0000000007".into(), "workspaces/0000000008".into()])
                .unwrap();
            quarantine.into_names()
        };
        let aside = "quarantine/workspaces-0000000007-1";
        assert_eq!(take(), [aside]);
        let sync = |folder: &str| DiskOperation::SyncDir { folder: folder.to_owned() };
        let moved = DiskOperation::Rename { from: "workspaces/0000000007".to_owned(), to: aside.to_owned() };
        assert_eq!(log.take(), [sync(""), moved, sync("quarantine"), sync("workspaces")]);
        assert!(folder.path().join(aside).join("files").is_dir());
        assert_eq!(take(), [aside], "as after a kill");
    }

    #[test]
    fn what_a_killed_repair_linked_is_synced() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("quarantine")).unwrap();
        fs::write(folder.path().join("format"), "damaged").unwrap();
        fs::hard_link(folder.path().join("format"), folder.path().join("quarantine/format-1")).unwrap();
        let log = DiskLog::default();
        let disk =
            RecordingDisk::new(Arc::new(RealDisk::open_or_create(folder.path()).unwrap()), log.clone());
        let mut quarantine = Quarantine::new(&disk, folder.path());
        quarantine.keep("format").unwrap();
        assert_eq!(log.take(), [DiskOperation::Sync { name: "quarantine/format-1".to_owned() }]);
        assert_eq!(quarantine.into_names(), ["quarantine/format-1"]);
    }
}
