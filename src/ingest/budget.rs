//! What a scan may find in all before it is refused.

use std::collections::HashSet;
use std::sync::Mutex;

use crate::archive::Limits;
use crate::error::{Error, ErrorKind, Remedy, Result, Subject};
use crate::host::source::Found;
use crate::host::stat::FileKind;
use crate::sync::lock;
use crate::task::Deadline;

/// An import's limits and what was found so far, by all threads of a scan.
pub(crate) struct Budget {
    limits: Limits,
    deadline: Deadline,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    entries: u64,
    bytes: u64,
    /// Device and inode of files with several names, which count once.
    linked: HashSet<(u64, u64)>,
}

impl Budget {
    /// That of an import which begins now.
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { limits: limits.clone(), deadline: Deadline::after(limits.time_max), taken: Mutex::default() }
    }

    /// Fails once it has taken too long.
    pub(crate) fn check_time(&self, subject: impl FnOnce() -> Subject) -> Result<()> {
        self.deadline.check(subject)
    }

    /// Takes what was found, before it is read; `subject` is what it is.
    pub(crate) fn take(&self, found: &Found, subject: impl Fn() -> Subject) -> Result<()> {
        self.deadline.check(&subject)?;
        let Limits { entries_max, logical_bytes_max, .. } = self.limits;
        let mut taken = lock(&self.taken);
        taken.entries = taken.entries.saturating_add(1);
        let is_file = found.stat.kind == FileKind::File;
        if is_file && (!found.is_linked() || taken.linked.insert((found.stat.device, found.stat.inode))) {
            taken.bytes = taken.bytes.saturating_add(found.stat.size);
        }
        let passed = |what: &str, name: &'static str, limit: u64| {
            let message = format!("with it {what} passes the limit of {limit}");
            let error = Error::new(ErrorKind::QuotaExceeded, subject(), message);
            Err(error.with_remedy(Remedy::RaiseLimit { name }))
        };
        if taken.entries > entries_max {
            return passed("the number of entries", "entries_max", entries_max);
        }
        if taken.bytes > logical_bytes_max {
            return passed("the size of all files", "logical_bytes_max", logical_bytes_max);
        }
        Ok(())
    }
}
