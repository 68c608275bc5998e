//! One way through a directory of the host: what of it is read, and what is to be said of it afterwards.

use std::borrow::Cow;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result, Subject};
use crate::host::source::{Found, SourceDirectory, SourceTree};
use crate::path::TreePath;
use crate::sync::lock;

use super::budget::Budget;
use super::exclude::Excluded;
use super::report::SourceReport;

/// What becomes of a file that can't be read as it was at one moment, because it changes all the time (a log), or because its
/// size is never what its file system says (as in `/proc`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Changing {
    /// The file is named, and there is no image.
    #[default]
    Refuse,
    /// The image has as many bytes of the file as it had when it was listed, or as could be read of them; where the listed
    /// size is wrong, all that could be read. The [report](crate::SourceReport::changed) names the file.
    Keep,
}

/// Rules for reading a directory: what is left out, and what becomes of files that change.
#[derive(Debug, Default)]
pub(crate) struct WalkRules {
    pub(crate) changing: Changing,
    /// Whether mounts below are left out.
    pub(crate) one_file_system: bool,
    pub(crate) excluded: Excluded,
}

/// A directory that is read, all through.
pub(crate) struct Walk<'s> {
    pub(crate) source: &'s SourceTree,
    rules: WalkRules,
    /// The device and inode of the store's own directory, which is left out.
    store: Option<(u64, u64)>,
    /// What may be found, if there are limits.
    budget: Option<Budget>,
    pub(crate) threads: usize,
    report: Mutex<SourceReport>,
}

impl<'s> Walk<'s> {
    /// A way through a directory on so many threads, around the store's own.
    pub(crate) fn new(
        source: &'s SourceTree,
        rules: WalkRules,
        store: Option<(u64, u64)>,
        threads: usize,
    ) -> Self {
        Self { source, rules, store, budget: None, threads, report: Mutex::default() }
    }

    /// The same where no more may be found than a budget has.
    pub(crate) fn within(self, budget: Budget) -> Self {
        Self { budget: Some(budget), ..self }
    }

    /// Returns what is to be said of the directory, once it was read.
    pub(crate) fn into_report(self) -> SourceReport {
        let mut report = self.report.into_inner().unwrap_or_else(PoisonError::into_inner);
        // The order in which threads find things means nothing.
        report.changed.sort_unstable();
        report.changed.dedup();
        report.mounts_read.sort_unstable();
        report.mounts_left_out.sort_unstable();
        report.not_kept.sort_unstable_by(|a, b| a.what.cmp(&b.what));
        report
    }

    fn report(&self) -> MutexGuard<'_, SourceReport> {
        lock(&self.report)
    }

    /// Takes what was found, before it is read. Gives whether it is a mount point, and what is mounted there is left out.
    pub(super) fn take(&self, found: &Found) -> Result<bool> {
        let subject = || Subject::Host(self.source.host_path(&found.path));
        self.budget.as_ref().map_or(Ok(()), |budget| budget.take(found, subject))?;
        self.note_not_kept(&found.path, found.stat.unkept());
        if !found.stat.is_mount_point || found.path.is_root() {
            return Ok(false);
        }
        let mut report = self.report();
        let is_left_out = self.rules.one_file_system;
        let mounts = if is_left_out { &mut report.mounts_left_out } else { &mut report.mounts_read };
        mounts.push(found.path.clone());
        Ok(is_left_out)
    }

    /// Fails once reading what is at a path has taken too long.
    pub(crate) fn check_time(&self, path: &TreePath) -> Result<()> {
        let subject = || Subject::Host(self.source.host_path(path));
        self.budget.as_ref().map_or(Ok(()), |budget| budget.check_time(subject))
    }

    /// Whether what is mounted below is left out.
    pub(super) fn leaves_out_mounts(&self) -> bool {
        self.rules.one_file_system
    }

    /// Tells whether a name of a directory is left out, and counts it.
    pub(super) fn excludes(
        &self,
        directory: &SourceDirectory<'_>,
        name: &[u8],
        is_directory: bool,
    ) -> Result<bool> {
        let excluded = &self.rules.excluded;
        let excludes = !excluded.is_empty() && excluded.has(&directory.join(name)?, is_directory);
        if excludes {
            self.report().excluded += 1;
        }
        Ok(excludes)
    }

    /// Tells whether this is the store's own directory, which is left out; as the root it is refused.
    pub(super) fn is_store(&self, found: &Found) -> Result<bool> {
        if self.store != Some((found.stat.device, found.stat.inode)) {
            return Ok(false);
        }
        if found.path.is_root() {
            let message = "is the store itself; name a directory outside";
            return Err(Error::invalid(Subject::Host(self.source.host_path(&found.path)), message));
        }
        self.report().store = Some(found.path.clone());
        Ok(true)
    }

    /// Notes kinds of things that this path has and that no image keeps.
    pub(crate) fn note_not_kept(&self, path: &TreePath, what: impl Iterator<Item = &'static str>) {
        for what in what {
            self.report().add_not_kept(Cow::Borrowed(what), 1, path);
        }
    }

    /// Goes on past a path that changed; fails with the error instead where such files are refused.
    pub(crate) fn pass_changed(&self, path: &TreePath, error: impl FnOnce() -> Error) -> Result<()> {
        match self.rules.changing {
            Changing::Refuse => Err(error()),
            Changing::Keep => {
                self.report().changed.push(path.clone());
                Ok(())
            }
        }
    }
}
