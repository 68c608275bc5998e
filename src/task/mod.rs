//! Watching and cancelling long work.
//!
//! A task is a few numbers that the work writes and any thread reads, without a lock: the phase, and how much of it is done. Each
//! piece of work that is counted looks at the flag that cancels it, so whatever shows progress can also be stopped, and soon.
//! Handles carry the task (`Store::with_task` and its siblings), and so do readers of objects: each object that is read is a
//! point at which a call may end. What undoes a cancelled call goes on without one.

mod cancellable;
mod deadline;
mod stream;

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result, Subject};

pub(crate) use cancellable::Cancellable;
pub(crate) use deadline::Deadline;
pub use stream::Interruptible;

/// Stands for a total that is unknown.
const UNKNOWN: u64 = u64::MAX;
/// Stands for a process that is unknown, where 0 is none.
const SOMEBODY: u32 = u32::MAX;

const FIRST_PAUSE: Duration = Duration::from_micros(200);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// Shows how far the calls of a handle are, and cancels them. Cheap to clone; all clones are the same task.
///
/// Calls that run at once on handles of one task are counted together, so a program that shows several at once gives each a
/// task of its own. A call that is cancelled fails with [`Cancelled`](ErrorKind::Cancelled) and has changed nothing: what it
/// wrote is removed before it returns, but for full packs, which the next collection frees. One that has made its result visible when it is cancelled returns that.
///
/// ```
/// use layerstone::{ErrorKind, ImportOptions, Store, Task};
/// # fn main() -> layerstone::Result<()> {
/// let task = Task::new();
/// let project = Store::in_memory()?.with_task(&task).default_project()?;
/// # let source = std::env::temp_dir().join(format!("layerstone-task-{}", std::process::id()));
/// # std::fs::create_dir_all(&source).unwrap();
/// // Another thread would show `task.progress()`, or cancel the call while it runs.
/// task.cancel();
/// let error = project.import_directory(&source, &ImportOptions::default()).unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Cancelled);
/// # std::fs::remove_dir_all(source).unwrap();
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Task(Option<Arc<State>>);

#[derive(Debug)]
struct State {
    is_cancelled: AtomicBool,
    phase: AtomicU8,
    done: AtomicU64,
    total: AtomicU64,
    bytes: AtomicU64,
    /// The process that is waited for; 0 if none is.
    holder: AtomicU32,
    /// Wakes streams that wait, once one was made.
    wake: OnceLock<OwnedFd>,
    #[cfg(feature = "testing")]
    watch: Option<Watch>,
}

/// Called whenever something is counted.
#[cfg(feature = "testing")]
struct Watch(Box<dyn Fn(&Task) + Send + Sync>);

#[cfg(feature = "testing")]
impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

impl State {
    fn new() -> Self {
        Self {
            is_cancelled: AtomicBool::new(false),
            phase: AtomicU8::new(Phase::Idle as u8),
            done: AtomicU64::new(0),
            total: AtomicU64::new(UNKNOWN),
            bytes: AtomicU64::new(0),
            holder: AtomicU32::new(0),
            wake: OnceLock::new(),
            #[cfg(feature = "testing")]
            watch: None,
        }
    }
}

/// What a call does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Phase {
    /// Nothing that takes long.
    Idle,
    /// It waits for another process: see [`Progress::holder`].
    Waiting,
    /// It reads a directory or an archive: counted in paths.
    Reading,
    /// It writes a checkout: counted in paths.
    Writing,
    /// It writes the files of an image that its workspaces share, which is done once: counted in paths.
    Preparing,
    /// It writes an archive: counted in paths.
    Exporting,
    /// It makes what it wrote durable and visible.
    Publishing,
    /// It reads packs back: counted in bytes.
    CheckingPacks,
    /// It reads the catalog and the index.
    CheckingIndex,
    /// It follows what images need: counted in images.
    CheckingImages,
    /// It compares images and merges what they changed.
    Merging,
    /// It copies what is needed out of packs: counted in bytes.
    Copying,
    /// It ends a mount.
    Unmounting,
    /// It removes files.
    Removing,
}

/// What a phase is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unit {
    /// Paths of a tree.
    Paths,
    /// Images.
    Images,
    /// Bytes.
    Bytes,
}

/// How far a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// What it does.
    pub phase: Phase,
    /// How much of that is done, in the [unit](Phase::unit) of the phase.
    pub done: u64,
    /// How much there is to do, where that is known. More may come in.
    pub total: Option<u64>,
    /// Bytes of file content that were read or written in this phase.
    pub bytes: u64,
    /// The process that it waits for, where that is known.
    pub holder: Option<u32>,
}

impl Phase {
    const ALL: [Self; 14] = [
        Self::Idle,
        Self::Waiting,
        Self::Reading,
        Self::Writing,
        Self::Preparing,
        Self::Exporting,
        Self::Publishing,
        Self::CheckingPacks,
        Self::CheckingIndex,
        Self::CheckingImages,
        Self::Merging,
        Self::Copying,
        Self::Unmounting,
        Self::Removing,
    ];

    /// What the phase is counted in; `None` if it is not counted.
    #[must_use]
    pub fn unit(self) -> Option<Unit> {
        match self {
            Self::Idle
            | Self::Waiting
            | Self::Publishing
            | Self::CheckingIndex
            | Self::Merging
            | Self::Unmounting
            | Self::Removing => None,
            Self::Reading | Self::Writing | Self::Preparing | Self::Exporting => Some(Unit::Paths),
            Self::CheckingImages => Some(Unit::Images),
            Self::CheckingPacks | Self::Copying => Some(Unit::Bytes),
        }
    }
}

impl Default for Task {
    fn default() -> Self {
        Self::new()
    }
}

impl Task {
    /// Makes a task that is neither under way nor cancelled.
    #[must_use]
    pub fn new() -> Self {
        Self(Some(Arc::new(State::new())))
    }

    /// Makes a task that calls `watch` whenever it is counted, in the thread that does the work: so that a test meets a call
    /// in its middle.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn watched(watch: impl Fn(&Self) + Send + Sync + 'static) -> Self {
        let watch = Some(Watch(Box::new(watch)));
        Self(Some(Arc::new(State { watch, ..State::new() })))
    }

    /// Returns a task without observers, which is never cancelled.
    pub(crate) const fn unobserved() -> Self {
        Self(None)
    }

    /// Ends the calls of this task soon, those that begin later included. It wakes streams that [wait](Self::stream).
    pub fn cancel(&self) {
        let Some(state) = &self.0 else { return };
        state.is_cancelled.store(true, Ordering::SeqCst);
        // A stream that is made meanwhile sees the flag, or is seen here.
        fence(Ordering::SeqCst);
        if let Some(wake) = state.wake.get() {
            stream::wake(wake);
        }
    }

    /// Returns whether the task was cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.as_ref().is_some_and(|state| state.is_cancelled.load(Ordering::SeqCst))
    }

    /// Returns how far the task's calls are.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let idle = Progress { phase: Phase::Idle, done: 0, total: None, bytes: 0, holder: None };
        let Some(state) = &self.0 else { return idle };
        match state.holder.load(Ordering::Relaxed) {
            0 => {}
            SOMEBODY => return Progress { phase: Phase::Waiting, ..idle },
            process => return Progress { phase: Phase::Waiting, holder: Some(process), ..idle },
        }
        let phase = state.phase.load(Ordering::Acquire);
        let total = state.total.load(Ordering::Relaxed);
        Progress {
            phase: Phase::ALL.get(usize::from(phase)).copied().unwrap_or(Phase::Idle),
            done: state.done.load(Ordering::Relaxed),
            total: (total != UNKNOWN).then_some(total),
            bytes: state.bytes.load(Ordering::Relaxed),
            holder: None,
        }
    }

    /// Begins a phase, which ends when the result is dropped.
    pub(crate) fn begin(&self, phase: Phase, total: impl Into<Option<u64>>) -> Stage {
        if let Some(state) = &self.0 {
            state.done.store(0, Ordering::Relaxed);
            state.bytes.store(0, Ordering::Relaxed);
            state.total.store(total.into().unwrap_or(UNKNOWN), Ordering::Relaxed);
            state.phase.store(phase as u8, Ordering::Release);
        }
        Stage(self.clone())
    }

    /// Says how much is to be done in this phase.
    pub(crate) fn expect(&self, total: u64) {
        if let Some(state) = &self.0 {
            state.total.store(total, Ordering::Relaxed);
        }
    }

    /// Counts what was done, and fails if the task was cancelled.
    pub(crate) fn advance(&self, done: u64, bytes: u64) -> Result<()> {
        self.count(done, bytes);
        #[cfg(feature = "testing")]
        if let Some(watch) = self.0.as_ref().and_then(|state| state.watch.as_ref()) {
            (watch.0)(self);
        }
        self.check()
    }

    /// Counts what was done.
    pub(crate) fn count(&self, done: u64, bytes: u64) {
        if let Some(state) = &self.0 {
            state.done.fetch_add(done, Ordering::Relaxed);
            state.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Fails with [`Cancelled`](ErrorKind::Cancelled) if the task was cancelled: for what a program does besides.
    pub fn check(&self) -> Result<()> {
        match &self.0 {
            Some(state) if state.is_cancelled.load(Ordering::Relaxed) => Err(cancelled()),
            _ => Ok(()),
        }
    }

    /// Begins to wait for another process.
    pub(crate) fn wait(&self) -> Waiting<'_> {
        Waiting { task: self, pause: FIRST_PAUSE }
    }
}

/// The error of a call that was cancelled.
fn cancelled() -> Error {
    let message = "cancelled; nothing was changed";
    Error::new(ErrorKind::Cancelled, Subject::Argument("operation"), message)
}

/// A phase that is under way.
#[must_use]
pub(crate) struct Stage(Task);

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(state) = &self.0.0 {
            state.phase.store(Phase::Idle as u8, Ordering::Release);
        }
    }
}

/// Waits for another process, in pauses that grow.
pub(crate) struct Waiting<'t> {
    task: &'t Task,
    pause: Duration,
}

impl Waiting<'_> {
    /// Pauses before the next attempt. Fails if the task was cancelled.
    pub(crate) fn pause(&mut self, holder: Option<u32>) -> Result<()> {
        if let Some(state) = &self.task.0 {
            state.holder.store(holder.unwrap_or(SOMEBODY), Ordering::Relaxed);
        }
        self.task.check()?;
        std::thread::sleep(self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(state) = &self.task.0 {
            state.holder.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_counts_from_its_beginning_to_its_end() {
        let task = Task::new();
        for phase in Phase::ALL {
            assert_eq!(Phase::ALL[phase as usize], phase);
            let stage = task.begin(phase, 7);
            task.advance(2, 30).unwrap();
            task.advance(1, 4).unwrap();
            let progress = task.progress();
            let expected = Progress { phase, done: 3, total: Some(7), bytes: 34, holder: None };
            assert_eq!(progress, expected);
            drop(stage);
            assert_eq!(task.progress().phase, Phase::Idle);
        }
        let _stage = task.begin(Phase::Reading, None);
        assert_eq!(task.progress().total, None);
    }

    #[test]
    fn who_waits_says_for_whom_and_ends_when_cancelled() {
        let task = Task::new();
        let _stage = task.begin(Phase::Reading, None);
        let mut waiting = task.wait();
        waiting.pause(Some(17)).unwrap();
        assert_eq!((task.progress().phase, task.progress().holder), (Phase::Waiting, Some(17)));
        waiting.pause(None).unwrap();
        assert_eq!((task.progress().phase, task.progress().holder), (Phase::Waiting, None));
        task.cancel();
        assert_eq!(waiting.pause(None).unwrap_err().kind(), ErrorKind::Cancelled);
        drop(waiting);
        assert_eq!(task.progress().phase, Phase::Reading);
    }
}
