//! Capturing entries that are known already: the hard link groups that a scan left.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::error::Result;
use crate::host::source::{Found, SourceDirectory, SourceTree};
use crate::pack::session::{PackHost, Session};
use crate::sync::lock;

use super::capture::{Captured, Capturer, Wanted};
use super::walk::Walk;

/// File bytes and entries that make a batch.
const BATCH_BYTES: u64 = 1 << 20;
const BATCH_ENTRIES: usize = 256;

/// Reads these entries, none of them a directory; what it gives is in their order, with none for what is gone.
pub(crate) fn capture_listed<H: PackHost>(
    walk: &Walk<'_>,
    found: &[Found],
    session: &Session<H>,
    wanted: &impl Wanted,
) -> Result<Vec<Option<Captured>>> {
    let batches = batches(found);
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let done = Mutex::new(Vec::with_capacity(batches.len()));
    let task = session.task();
    let work = || -> Result<()> {
        let mut capturer = Capturer::new(walk, wanted, session.writer()?, task.clone());
        let mut parent = None;
        while !stop.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(batch) = batches.get(number) else { break };
            let mut captured = Vec::with_capacity(batch.len());
            for found in *batch {
                task.check()?;
                let parent = parent_of(walk.source, found, &mut parent)?;
                let entry = parent.map(|parent| capturer.entry(parent, found)).transpose()?;
                captured.push(entry.flatten());
            }
            lock(&done).push((number, captured));
        }
        capturer.into_sink().flush()
    };
    crate::threads::run_all(walk.threads.min(batches.len()), &stop, work)?;
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_unstable_by_key(|(number, _)| *number);
    Ok(done.into_iter().flat_map(|(_, captured)| captured).collect())
}

/// Looks again for what was found; what is gone is left out.
pub(crate) fn find_again(source: &SourceTree, found: &[Found]) -> Result<Vec<Found>> {
    let mut parent = None;
    let mut again = Vec::new();
    for found in found {
        if let Some(parent) = parent_of(source, found, &mut parent)? {
            again.extend(parent.find(found.name())?);
        }
    }
    Ok(again)
}

/// The directory of an entry, which neighbours share; none if it is gone.
fn parent_of<'d, 't>(
    source: &'t SourceTree,
    found: &Found,
    cached: &'d mut Option<SourceDirectory<'t>>,
) -> Result<Option<&'d SourceDirectory<'t>>> {
    let path = found.path.parent().unwrap_or_default();
    if cached.as_ref().is_none_or(|cached| *cached.path() != path) {
        *cached = match source.directory(&path) {
            // Another thing has its name now: what was in it is gone.
            Err(error) if error.is_conflict() => None,
            opened => opened?,
        };
    }
    Ok(cached.as_ref())
}

fn batches(found: &[Found]) -> Vec<&[Found]> {
    let mut bytes = 0;
    let mut count = 0;
    let is_together = |_: &Found, next: &Found| {
        bytes += next.stat.size;
        count += 1;
        let is_full = bytes >= BATCH_BYTES || count >= BATCH_ENTRIES;
        if is_full {
            (bytes, count) = (0, 0);
        }
        !is_full
    };
    found.chunk_by(is_together).collect()
}
