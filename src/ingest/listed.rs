//! Capturing entries that are known already: the hard link groups that a scan left.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Result, Subject};
use crate::host::source::{Found, SourceDirectory, SourceTree};
use crate::pack::session::{PackHost, Session};

use super::capture::{Captured, Capturer, Wanted};

/// File bytes and entries that make a batch.
const BATCH_BYTES: u64 = 1 << 20;
const BATCH_ENTRIES: usize = 256;

/// Reads these entries, none of them a directory, on this many threads; what it gives is in their order.
pub(crate) fn capture_listed<H: PackHost>(
    source: &SourceTree,
    found: &[Found],
    session: &Session<H>,
    wanted: &impl Wanted,
    threads: usize,
) -> Result<Vec<Captured>> {
    let batches = batches(found);
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let done = Mutex::new(Vec::with_capacity(batches.len()));
    let work = || -> Result<()> {
        let mut capturer = Capturer::new(wanted, session.writer()?);
        let mut parent = None;
        while !stop.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(batch) = batches.get(number) else { break };
            let mut captured = Vec::with_capacity(batch.len());
            for found in *batch {
                captured.push(capturer.entry(parent_of(source, found, &mut parent)?, found)?);
            }
            done.lock().unwrap_or_else(PoisonError::into_inner).push((number, captured));
        }
        capturer.into_sink().flush()
    };
    crate::threads::run_all(threads.min(batches.len()), &stop, work)?;
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_unstable_by_key(|(number, _)| *number);
    Ok(done.into_iter().flat_map(|(_, captured)| captured).collect())
}

/// The directory of an entry; neighbours share it.
fn parent_of<'d, 't>(
    source: &'t SourceTree,
    found: &Found,
    cached: &'d mut Option<SourceDirectory<'t>>,
) -> Result<&'d SourceDirectory<'t>> {
    let path = found.path.parent().unwrap_or_default();
    if cached.as_ref().is_none_or(|cached| *cached.path() != path) {
        *cached = source.directory(&path)?;
    }
    cached.as_ref().ok_or_else(|| {
        let message = "was removed while its tree was read; try again when it is quiet";
        Error::conflict(Subject::Host(source.host_path(&path)), message)
    })
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
