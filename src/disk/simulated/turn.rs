//! Processes and threads that take turns at a disk, so that a test decides in which order their calls come.

use crate::sync::lock;
use std::cell::RefCell;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A thread that waits longer for another is taken to wait for a lock within its process.
const PATIENCE: Duration = Duration::from_millis(10);

thread_local! {
    /// The turn of this thread, if it has one of its own.
    static OWN: RefCell<Option<Turn>> = const { RefCell::new(None) };
}

/// How far a process or a thread may go. Clones are the same; a new one goes on for ever.
#[derive(Clone, Debug, Default)]
pub struct Turn(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// How many calls it may still make; none for as many as it likes.
    left: Option<u64>,
    whose: Whose,
    /// How many of its threads wait to go on.
    waiting: usize,
    is_over: bool,
    is_killed: bool,
}

#[derive(Debug, Default, PartialEq)]
enum Whose {
    /// Nobody's who is directed.
    #[default]
    Free,
    Process,
    /// One thread of a process, which may wait for another.
    Thread,
}

impl Turn {
    /// A process that waits before its first call.
    #[must_use]
    pub fn waiting() -> Self {
        let turn = Self::default();
        {
            let mut state = turn.state();
            state.whose = Whose::Process;
            state.left = Some(0);
        }
        turn
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0.state)
    }

    /// From now on this is the turn of the calling thread, whatever disk it uses.
    pub fn take(&self) {
        self.state().whose = Whose::Thread;
        OWN.set(Some(self.clone()));
    }

    /// The turn of this thread, or else of its process.
    pub(super) fn of_thread_or(process: &Self) -> Self {
        OWN.with_borrow(|own| own.as_ref().unwrap_or(process).clone())
    }

    /// Lets it make so many calls, or all that it wants, and waits until it made them, has to wait for a lock of another, or
    /// is over; says whether it is over.
    pub fn run(&self, calls: Option<u64>) -> bool {
        let mut state = self.state();
        state.left = calls;
        self.0.changed.notify_all();
        while !(state.is_over || state.left == Some(0) && state.waiting > 0) {
            let waited = self.0.changed.wait_timeout(state, PATIENCE);
            let (after, time) = waited.unwrap_or_else(PoisonError::into_inner);
            state = after;
            if time.timed_out() && state.whose == Whose::Thread {
                break;
            }
        }
        state.is_over
    }

    /// It has nothing more to do.
    pub fn end(&self) {
        self.state().is_over = true;
        self.0.changed.notify_all();
    }

    /// Waits until it may make another call; false if it never may.
    pub(super) fn wait(&self) -> bool {
        let mut state = self.state();
        while state.left == Some(0) && !state.is_killed {
            state.waiting += 1;
            self.0.changed.notify_all();
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
        state.left = state.left.map(|left| left.saturating_sub(1));
        !state.is_killed
    }

    /// Ends its turn: it can't go on before another did.
    pub(super) fn give_up(&self) {
        let mut state = self.state();
        if state.whose != Whose::Free {
            state.left = Some(0);
        }
    }

    pub(super) fn kill(&self) {
        let mut state = self.state();
        state.is_killed = true;
        state.left = None;
        self.0.changed.notify_all();
    }

    /// Whether it was killed.
    #[must_use]
    pub fn is_killed(&self) -> bool {
        self.state().is_killed
    }
}
