//! Work that is handed out in the order of paths, and results that come back in it.
//!
//! A job is known by the path that its results begin at. Doing it gives steps: results, and places where those of
//! further jobs belong. Any number of threads do jobs, always the one next in order; the consumer walks the steps as if
//! one thread had done all. Once many results wait for the consumer, only what it waits for is done, so memory is
//! bounded however far the jobs are apart in cost.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, ErrorKind, Result, Subject};
use crate::path::TreePath;
use crate::sync::lock;

/// Steps that may wait for the consumer.
pub(super) const WAITING_STEPS_MAX: usize = 32 << 10;
/// Steps for which it is worth waking the consumer before all is done.
const WAKING_STEPS: usize = 1 << 10;

/// A job's number, by which its steps are found.
type Ticket = u64;
/// Where a job is in the order.
type Place = (TreePath, Ticket);

/// What a job gave at one point of the order.
enum Step<T> {
    Result(T),
    /// The steps of this job belong here.
    Job(Ticket),
}

struct State<J, T> {
    pending: BTreeMap<Place, J>,
    running: BTreeSet<Place>,
    done: HashMap<Ticket, Vec<Step<T>>>,
    waiting_steps: usize,
    next_ticket: Ticket,
    idle_workers: usize,
    /// The job that the consumer waits for.
    wanted: Option<Ticket>,
    /// Nothing more is to be done: the first error, which the consumer gets, or the consumer has gone.
    end: Option<Result<()>>,
}

/// Jobs of type `J` that give results of type `T`.
pub(super) struct Queue<J, T> {
    state: Mutex<State<J, T>>,
    /// There may be something to do, or nothing more.
    work: Condvar,
    /// There may be something to take.
    results: Condvar,
}

impl<J, T> Queue<J, T> {
    /// A queue with the job that everything begins with.
    pub(super) fn new(path: TreePath, first: J) -> Self {
        let state = State {
            pending: BTreeMap::from([((path, 0), first)]),
            running: BTreeSet::new(),
            done: HashMap::new(),
            waiting_steps: 0,
            next_ticket: 1,
            idle_workers: 0,
            wanted: None,
            end: None,
        };
        Self { state: Mutex::new(state), work: Condvar::new(), results: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State<J, T>> {
        lock(&self.state)
    }

    /// Does jobs until there are none. The first error ends all.
    pub(super) fn work(&self, mut run: impl FnMut(J, &mut Steps<'_, J, T>) -> Result<()>) {
        // A thread that dies must not leave the others waiting.
        let guard = DiedGuard(self);
        while let Some((place, job)) = self.take() {
            let mut steps = Steps { queue: self, steps: Vec::new() };
            let outcome = run(job, &mut steps);
            let steps = steps.steps;
            let mut state = self.lock();
            state.running.remove(&place);
            match outcome {
                Ok(()) => {
                    state.waiting_steps += steps.len();
                    state.done.insert(place.1, steps);
                }
                Err(error) => state.finish(Err(error)),
            }
            self.wake(&state);
        }
        std::mem::forget(guard);
    }

    /// Ends all with an error, unless it has ended: for a thread that can't even begin to work.
    pub(super) fn fail(&self, error: Error) {
        let mut state = self.lock();
        state.finish(Err(error));
        self.wake(&state);
    }

    /// Wakes those for whom a job that ended changes something. Waking costs more than a small job.
    fn wake(&self, state: &State<J, T>) {
        let is_over = state.is_over();
        if is_over || state.waiting_steps >= WAITING_STEPS_MAX {
            self.work.notify_all();
        }
        let is_done = state.wanted.is_some_and(|wanted| state.done.contains_key(&wanted));
        if is_over || (is_done && state.waiting_steps >= WAKING_STEPS) {
            self.results.notify_all();
        }
    }

    fn take(&self) -> Option<(Place, J)> {
        let mut state = self.lock();
        loop {
            if state.is_over() {
                return None;
            }
            if state.may_start() {
                let (place, job) = state.pending.pop_first()?;
                state.running.insert(place.clone());
                return Some((place, job));
            }
            state.idle_workers += 1;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle_workers -= 1;
        }
    }

    /// The results in order. One consumer alone may walk them; when it is dropped, the work ends.
    pub(super) fn results(&self) -> Results<'_, J, T> {
        Results { queue: self, open: Vec::new(), next: Some(0) }
    }
}

impl<J, T> State<J, T> {
    /// Whether the next job may be started: there is room for what it gives, or all that is before it was taken.
    fn may_start(&self) -> bool {
        self.pending.first_key_value().is_some_and(|(place, _)| {
            self.waiting_steps < WAITING_STEPS_MAX
                || self.running.first().is_none_or(|running| place < running)
        })
    }

    /// Whether no job will end any more.
    fn is_over(&self) -> bool {
        self.end.is_some() || (self.pending.is_empty() && self.running.is_empty())
    }

    fn finish(&mut self, end: Result<()>) {
        self.end.get_or_insert(end);
    }
}

struct DiedGuard<'q, J, T>(&'q Queue<J, T>);

impl<J, T> Drop for DiedGuard<'_, J, T> {
    fn drop(&mut self) {
        self.0.fail(crate::threads::died());
    }
}

/// What the job that is being done gives, in order.
pub(super) struct Steps<'q, J, T> {
    queue: &'q Queue<J, T>,
    steps: Vec<Step<T>>,
}

impl<J, T> Steps<'_, J, T> {
    pub(super) fn push(&mut self, result: T) {
        self.steps.push(Step::Result(result));
    }

    /// Lets any thread do another job, whose results begin at `path`. They must be given a place, with
    /// [`push_later`](Self::push_later).
    pub(super) fn start(&self, path: TreePath, job: J) -> Later {
        let mut state = self.queue.lock();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.pending.insert((path, ticket), job);
        if state.idle_workers > 0 {
            self.queue.work.notify_one();
        }
        Later(ticket)
    }

    /// What that job gives comes here.
    pub(super) fn push_later(&mut self, Later(ticket): Later) {
        self.steps.push(Step::Job(ticket));
    }
}

/// A job that was started, whose results have no place yet.
#[must_use]
pub(super) struct Later(Ticket);

/// Iterator of [`Queue::results`]. It ends after an error.
pub(super) struct Results<'q, J, T> {
    queue: &'q Queue<J, T>,
    /// The steps of jobs that are walked, each inside the one before.
    open: Vec<std::vec::IntoIter<Step<T>>>,
    /// The job whose steps come next.
    next: Option<Ticket>,
}

impl<J, T> Results<'_, J, T> {
    fn wait_for(&self, ticket: Ticket) -> Result<std::vec::IntoIter<Step<T>>> {
        let mut state = self.queue.lock();
        loop {
            if let Some(steps) = state.done.remove(&ticket) {
                let was_full = state.waiting_steps >= WAITING_STEPS_MAX;
                state.waiting_steps -= steps.len();
                state.wanted = None;
                if was_full {
                    self.queue.work.notify_all();
                }
                return Ok(steps.into_iter());
            }
            if let Some(end) = &mut state.end {
                let ended = || Error::new(ErrorKind::Cancelled, Subject::Argument("scan"), "it was ended");
                return Err(std::mem::replace(end, Ok(())).err().unwrap_or_else(ended));
            }
            state.wanted = Some(ticket);
            state = self.queue.results.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<J, T> Iterator for Results<'_, J, T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(ticket) = self.next.take() {
                match self.wait_for(ticket) {
                    Ok(steps) => self.open.push(steps),
                    Err(error) => {
                        self.open.clear();
                        return Some(Err(error));
                    }
                }
            }
            match self.open.last_mut()?.next() {
                None => drop(self.open.pop()),
                Some(Step::Result(result)) => return Some(Ok(result)),
                Some(Step::Job(ticket)) => self.next = Some(ticket),
            }
        }
    }
}

impl<J, T> Drop for Results<'_, J, T> {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.finish(Ok(()));
        self.queue.wake(&state);
    }
}
