//! Mounting workspaces, and ending mounts so that nothing can write to their files any more.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::catalog::record::{WorkspaceForm, WorkspaceRecord};
use crate::engine::process;
use crate::error::{Error, ErrorKind, Result, Subject};
use crate::format::record::Added;
use crate::host::mounts::{Spare, end_mount, mounts_below};
use crate::host::overlay::{self, OtherMounts, Overlay};
use crate::id::{ObjectId, WorkspaceId};
use crate::task::Phase;

use super::folder::Folder;
use super::{Workspace, subject};

/// For how long what is in use is tried again: a process may be about to leave it. What `run` has ended may take longer to be
/// taken apart.
const LONGEST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_END: Duration = Duration::from_secs(10);
/// For how long a copy of a mount that nobody works in is waited for: whoever makes a mount namespace has one until it goes
/// where it is to work.
const LONGEST_START: Duration = Duration::from_millis(50);
const PAUSE: Duration = Duration::from_millis(5);

impl Workspace {
    /// The directory to work in. Mounts it, if it is an overlay that is not mounted, as after a boot.
    ///
    /// Errors: [`InUse`](ErrorKind::InUse) where it is mounted elsewhere, or a process works in a mount of it that has ended;
    /// [`Conflict`](ErrorKind::Conflict) and [`InUse`](ErrorKind::InUse) if files were written to the directory while nothing was
    /// mounted there, or put beside the workspace's, if something else is mounted over it, or another directory is in the place of
    /// the workspace's files. What keeps or ends a workspace refuses that as well, and deletes nothing.
    pub fn path(&self) -> Result<PathBuf> {
        let folder = &self.project.store.workspaces()?;
        let (_lock, record) = self.with_files(folder)?;
        if record.form != WorkspaceForm::Overlay {
            return Ok(folder.files(self.id));
        }
        let path = folder.merged(self.id);
        if !folder.is_mounted(&record)? {
            self.check_is_unused(folder, &record)?;
            self.mount(folder, &record)?;
        }
        Ok(path)
    }

    /// Makes a temporary workspace one that stays when this process is gone. It is mounted again by [`path`](Self::path).
    ///
    /// Errors: as of [`path`](Self::path); [`InUse`](ErrorKind::InUse) while a process works in it. What was done in it is not
    /// lost then: it stays, too, and [`path`](Self::path) says again what is in the way.
    pub fn keep(&self) -> Result<()> {
        let folder = &self.project.store.workspaces()?;
        if self.finished()?.holder.is_none() {
            return self.with_files(folder).map(drop);
        }
        let ended = self.with_files(folder).and_then(|(lock, record)| {
            if record.form == WorkspaceForm::Overlay {
                self.unmount(folder, &record)?;
            }
            Ok(lock)
        });
        if ended.as_ref().is_err_and(|error| !matches!(error.kind(), ErrorKind::Conflict | ErrorKind::InUse))
        {
            return ended.map(drop);
        }
        overlay::sync_all(folder.path())?;
        self.change(|_, record| Ok(Some(WorkspaceRecord { holder: None, ..record })))?;
        ended.map(drop)
    }

    /// Mounts it, and remembers from where.
    pub(super) fn mount(&self, folder: &Folder, record: &WorkspaceRecord) -> Result<()> {
        let lower = self.project.store.lower(folder, &record.base)?.ok_or_else(|| {
            let message = "what it lies over can't be made by this process; be root";
            Error::unsupported(subject(&self.name), message)
        })?;
        let remember = |is_mounted| {
            let place = Added(folder.place(record, is_mounted)?);
            let mounted_by = Some(process::this_process());
            let change = |found| WorkspaceRecord { mounted_by: mounted_by.clone(), place, ..found };
            self.change(|_, found| Ok(Some(change(found))))
        };
        // Which mount it is can be known only afterwards, and who has it must be known whatever happens.
        remember(false)?;
        // That of one that was temporary says that nothing was synced, and the kernel would refuse it.
        folder.remove_work(self.id)?;
        folder.make_work(self.id)?;
        mount(folder, self.id, &lower, record.holder.is_some())?;
        remember(true)
    }

    /// Fails if anything is mounted in its directory but its overlay: that would be emptied with a checkout, and keeps an overlay
    /// busy.
    pub(super) fn check_has_no_mounts(&self, folder: &Folder) -> Result<()> {
        let merged = folder.merged(self.id);
        let mounts = mounts_below(&folder.directory(self.id))?;
        if let Some(mounted) = mounts.into_iter().find(|mounted| *mounted != merged) {
            let message = "is mounted in the workspace; unmount it first";
            return Err(Error::new(ErrorKind::InUse, Subject::Host(mounted), message));
        }
        Ok(())
    }

    /// Ends its mount, if it is one, or fails while a process works in it, and leaves it as it was. Gives whether it was one,
    /// and nothing can write to its files any more.
    pub(super) fn unmount(&self, folder: &Folder, record: &WorkspaceRecord) -> Result<bool> {
        self.check_has_no_mounts(folder)?;
        let longest = if record.holder.is_some() { LONGEST_END } else { LONGEST_WAIT };
        let _stage = self.task().begin(Phase::Unmounting, None);
        if record.form != WorkspaceForm::Overlay {
            return self.retry_while_in_use(longest, || folder.check_copy_is_unused(self.id)).map(|()| true);
        }
        let merged = folder.merged(self.id);
        if !folder.is_mounted(record)? {
            return self.check_is_unused(folder, record).map(|_| false);
        }
        overlay::check_hides_nothing(&merged)?;
        let spare = Spare::of(&merged);
        let ended =
            self.end_mounts(folder, record, longest).and_then(|()| self.check_is_unused(folder, record));
        if let (Err(_), Some(spare)) = (&ended, spare)
            && !folder.is_mounted(record)?
        {
            spare.put_back();
        }
        ended
    }

    fn end_mounts(&self, folder: &Folder, record: &WorkspaceRecord, longest: Duration) -> Result<()> {
        let merged = folder.merged(self.id);
        while folder.is_mounted(record)? {
            self.retry_while_in_use(longest, || end_mount(&merged))?;
            folder.check_is_nowhere_else(record)?;
            // What it hid is not the workspace's.
            folder.check_place(record)?;
        }
        Ok(())
    }

    /// Fails if a process works in a mount that this one does not see, or if one could that this one can't see. Gives whether
    /// there is no such mount.
    fn check_is_unused(&self, folder: &Folder, record: &WorkspaceRecord) -> Result<bool> {
        let in_use = |message: String| Err(Error::new(ErrorKind::InUse, subject(&self.name), message));
        if record.mounted_by.as_ref().is_some_and(|by| !process::sees_all_of(by)) {
            let message = "was mounted in another process namespace, whose processes can't be seen from here; use it from there, or \
                           from outside of all";
            return in_use(message.to_owned());
        }
        let files = folder.files(self.id);
        if !files.is_dir() {
            return Ok(false);
        }
        let longest = if record.holder.is_some() { LONGEST_END } else { LONGEST_WAIT };
        let started = Instant::now();
        let mut is_clear = false;
        loop {
            let pause = match overlay::other_mounts(&files)? {
                // A process that was started meanwhile may have been missed, but not twice.
                OtherMounts { any: false, user: None } if is_clear => return Ok(true),
                OtherMounts { any: false, user: None } => Duration::ZERO,
                OtherMounts { user: None, .. } if started.elapsed() >= LONGEST_START => return Ok(false),
                OtherMounts { user: Some(process), .. } if started.elapsed() >= longest => {
                    return in_use(format!(
                        "process {process} works in it, where it is mounted in another mount namespace or at another place; \
                         end that first"
                    ));
                }
                OtherMounts { .. } => PAUSE,
            };
            is_clear = pause.is_zero();
            // One that lasts would have to be mounted again, and is not waited for long.
            if record.holder.is_some() {
                self.task().check()?;
            }
            std::thread::sleep(pause);
        }
    }

    fn retry_while_in_use<T>(&self, longest: Duration, attempt: impl Fn() -> Result<T>) -> Result<T> {
        let deadline = Instant::now() + longest;
        loop {
            match attempt() {
                Err(error) if error.kind() == ErrorKind::InUse && Instant::now() < deadline => {
                    self.task().check()?;
                    std::thread::sleep(PAUSE);
                }
                outcome => return outcome,
            }
        }
    }
}

pub(super) fn mount(
    folder: &Folder,
    id: WorkspaceId,
    lower: &[(ObjectId, WorkspaceId)],
    is_volatile: bool,
) -> Result<()> {
    if !folder.merged(id).exists() {
        Folder::make_directory(&folder.merged(id))?;
    }
    let lower = lower.iter().map(|(_, id)| format!("{}/{}", Folder::name(*id), overlay::FILES)).collect();
    Overlay { folder: folder.path(), lower, place: Folder::name(id), is_volatile }.mount()
}
