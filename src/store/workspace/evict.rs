//! Which lower directories stay when no workspace lies over them, and what they take on the disk.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use crate::catalog::record::{LowerRecord, LowerState, WorkspaceForm};
use crate::catalog::table::{Images, Lowers, Workspaces};
use crate::catalog::{Direction, ReadTables};
use crate::engine::{Engine, process};
use crate::error::Result;
use crate::host::usage::allocated_bytes;
use crate::id::{ObjectId, WorkspaceId};
use crate::task::Phase;
use crate::time::Moment;

use super::clean::Cleanable;
use super::folder::Folder;

/// How many are kept that nothing lies over.
const KEPT_IDLE: usize = 4;

/// Lower directories that are kept and that no workspace lies over.
#[derive(Clone, Copy, Debug)]
struct Kept {
    /// Directories that nothing lies over.
    count: usize,
    /// Bytes of all.
    bytes: u64,
}

/// What lower directories took, and take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LowerUsage {
    pub(crate) bytes_before: u64,
    pub(crate) freed_bytes: u64,
    /// What stays though no workspace lies over it.
    pub(crate) idle_bytes: u64,
}

/// The rows that decide.
#[derive(Debug)]
struct Rows {
    lowers: HashMap<ObjectId, LowerRecord>,
    /// Which workspaces there are, and what each was made from.
    bases: HashMap<WorkspaceId, ObjectId>,
    boot: String,
}

impl Engine {
    /// Removes the directories that nothing lies over: those of an earlier boot, and of the others the least recently used.
    pub(super) fn evict_lowers(&self, folder: &Folder) -> Result<()> {
        self.evict(folder, &HashSet::new(), self.kept()).map(drop)
    }

    /// Removes those of roots that no image has, too, and with `all` each that no workspace lies over; in a dry run says what
    /// would go, once what it has of workspaces was cleaned. One that is published meanwhile has its directory made again.
    pub(crate) fn collect_lowers(
        &self,
        folder: &Folder,
        all: bool,
        dry_run: Option<&Cleanable>,
    ) -> Result<LowerUsage> {
        let mut rows = self.read(Rows::read)?;
        rows.measure(folder);
        let bytes_before = rows.bytes(|_| true);
        let unneeded = self.unneeded_lowers()?;
        let kept = if all { Kept { count: 0, bytes: 0 } } else { self.kept() };
        let freed_bytes = if let Some(cleanable) = dry_run {
            rows.bases.retain(|id, _| !cleanable.ended.contains(id));
            rows.evict_all(&unneeded, kept, self.surroundings.now())
        } else {
            let freed_bytes = self.evict(folder, &unneeded, kept)?;
            rows = self.read(Rows::read)?;
            rows.measure(folder);
            freed_bytes
        };
        let held = rows.held();
        let idle_bytes = rows.bytes(|root| !held.contains(root));
        Ok(LowerUsage { bytes_before, freed_bytes, idle_bytes })
    }

    fn kept(&self) -> Kept {
        Kept { count: KEPT_IDLE, bytes: self.options.workspace_cache_bytes }
    }

    /// Roots of lower directories that no image has.
    fn unneeded_lowers(&self) -> Result<HashSet<ObjectId>> {
        self.read(|tx| {
            let lowers = tx.collect::<Lowers>(&[])?.into_iter();
            let mut roots: HashSet<_> = lowers.map(|(root, _)| root).collect();
            if !roots.is_empty() {
                tx.scan::<Images>(&[], None, Direction::Ascending, |_, image| {
                    roots.remove(&image.root);
                    Ok(ControlFlow::Continue(()))
                })?;
            }
            Ok(roots)
        })
    }

    /// Gives the bytes that were freed.
    fn evict(&self, folder: &Folder, unneeded: &HashSet<ObjectId>, kept: Kept) -> Result<u64> {
        let (mut freed_bytes, now) = (0, self.surroundings.now());
        while !self.read(Rows::read)?.evictable(unneeded, kept, now).is_empty() {
            let evicted = self.catalog()?.write(|tx| {
                let rows = Rows::read(tx)?;
                let evicted = rows.evictable(unneeded, kept, now);
                evicted.iter().try_for_each(|(root, _)| tx.remove::<Lowers>(root).map(drop))?;
                Ok(evicted)
            })?;
            let _stage = self.task.begin(Phase::Removing, None);
            for (_, record) in evicted {
                let bytes = record.bytes.0.unwrap_or_else(|| measured(folder, &record));
                // What can't be removed now is left to the next that cleans up.
                freed_bytes += folder.remove(record.id).map_or(0, |()| bytes);
            }
        }
        Ok(freed_bytes)
    }
}

impl Rows {
    fn read(tx: &impl ReadTables) -> Result<Self> {
        let lowers = tx.collect::<Lowers>(&[])?.into_iter().collect();
        let workspaces = tx.collect::<Workspaces>(&[])?;
        let over = workspaces.iter().filter(|(_, workspace)| workspace.form != WorkspaceForm::Checkout);
        let bases = over.map(|(_, workspace)| (workspace.id, workspace.base.root)).collect();
        Ok(Self { lowers, bases, boot: process::boot() })
    }

    /// Looks at the directories of rows that don't say what those take.
    fn measure(&mut self, folder: &Folder) {
        for record in self.lowers.values_mut() {
            record.bytes.0 = record.bytes.0.or_else(|| Some(measured(folder, record)));
        }
    }

    fn bytes(&self, counts: impl Fn(&ObjectId) -> bool) -> u64 {
        self.lowers.iter().filter(|(root, _)| counts(root)).map(|(_, record)| bytes_of(record)).sum()
    }

    /// Roots that workspaces lie over, all the way down.
    fn held(&self) -> HashSet<ObjectId> {
        let mut held = HashSet::new();
        for base in self.bases.values() {
            let mut next = Some(*base);
            while let Some(root) = next.filter(|root| held.insert(*root)) {
                next = self.lowers.get(&root).and_then(|record| record.below);
            }
        }
        held
    }

    /// Directories that may go: nothing lies over them, and they are unneeded, of an earlier boot, unfinished, or more than are
    /// kept.
    fn evictable(
        &self,
        unneeded: &HashSet<ObjectId>,
        kept: Kept,
        now: Moment,
    ) -> Vec<(ObjectId, LowerRecord)> {
        let below = self.lowers.values().filter_map(|record| record.below);
        let used: HashSet<_> = self.bases.values().copied().chain(below).collect();
        // That a root is impossible takes no room. Of what is unfinished, whoever makes it has a workspace.
        let is_there = |(root, record): &(&ObjectId, &LowerRecord), state| {
            record.boot == self.boot && record.state == state && !unneeded.contains(root)
        };
        let is_useful = |lower: &_| is_there(lower, LowerState::Ready);
        let idle = self.lowers.iter().filter(|lower| !used.contains(lower.0));
        let mut idle: Vec<_> = idle.filter(|lower| !is_there(lower, LowerState::Impossible)).collect();
        // One that was used in the future is from before the clock was put right, and their order is not known.
        let now_ms = now.unix_ms();
        let used_ms = |record: &LowerRecord| Some(record.used_ms).filter(|used_ms| *used_ms <= now_ms);
        idle.sort_unstable_by_key(|lower| (is_useful(lower), used_ms(lower.1)));
        let useful = idle.iter().filter(|lower| is_useful(lower)).count();
        let must_go = idle.len() - useful.min(kept.count);
        let held = self.held();
        let mut bytes = self.bytes(|root| !held.contains(root));
        let mut gone = Vec::new();
        for (root, record) in idle {
            if gone.len() >= must_go && bytes <= kept.bytes {
                break;
            }
            bytes = bytes.saturating_sub(bytes_of(record));
            gone.push((*root, record.clone()));
        }
        gone
    }

    /// Evicts as long as anything can go, and gives the bytes of that.
    fn evict_all(&mut self, unneeded: &HashSet<ObjectId>, kept: Kept, now: Moment) -> u64 {
        let before = self.bytes(|_| true);
        loop {
            let evicted = self.evictable(unneeded, kept, now);
            if evicted.is_empty() {
                return before - self.bytes(|_| true);
            }
            for (root, _) in evicted {
                self.lowers.remove(&root);
            }
        }
    }
}

fn bytes_of(record: &LowerRecord) -> u64 {
    record.bytes.0.unwrap_or(0)
}

fn measured(folder: &Folder, record: &LowerRecord) -> u64 {
    // Only its maker knows where the files of one lie that is being made.
    let is_made = record.state != LowerState::Unfinished;
    let place = if is_made { folder.files(record.id) } else { folder.directory(record.id) };
    allocated_bytes(&place).unwrap_or(0)
}
