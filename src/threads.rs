//! Work spread over threads that start and end with one call.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ScopedJoinHandle;

use crate::error::{Error, ErrorKind, Result, Subject};

/// Runs `work` on this many threads and waits for all. The first error sets `stop`, which the others look at
/// between two pieces of work, and is what comes back.
pub(crate) fn run_all(threads: usize, stop: &AtomicBool, work: impl Fn() -> Result<()> + Sync) -> Result<()> {
    let guarded = || work().inspect_err(|_| stop.store(true, Ordering::Relaxed));
    if threads <= 1 {
        return guarded();
    }
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(guarded)).collect();
        handles.into_iter().try_for_each(join)
    })
}

/// What a thread came to; one that panicked is an error.
pub(crate) fn join<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|_| Err(died()))
}

/// The error for a thread that panicked.
pub(crate) fn died() -> Error {
    Error::new(ErrorKind::Io, Subject::Argument("thread"), "a worker thread died")
}
