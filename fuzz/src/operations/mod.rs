//! Any bytes as calls of a store, through two handles in turn: each comes to what the model says, also where it is refused.
//!
//! What changes a store, and what that means, is shared with the crash tests, which only make calls that succeed.

mod call;
pub mod check;
pub mod effect;
pub mod mishap;
pub mod model;
pub mod outcome;

use std::fmt::Debug;
use std::sync::Arc;

use layerstone::id::ImageId;
use layerstone::testing::{Chance, SimulatedDisk, SimulatedMachine};
use layerstone::{ErrorKind, Image, Store};

use call::{Call, Calls, HANDLES};
use check::{Verdict, check_collection, check_sound, observe, options, told};
use effect::{Effect, collect, name, read_all};
use mishap::{Mishap, befall};
use model::Model;
use outcome::is_scope_name;

/// Calls that are made of one input: more of them cost time, and find what fewer would.
const CALLS_MAX: usize = 100;
/// Of what a failure prints: contents are long.
const CALL_CHARS: usize = 400;

/// Says whether no call was refused.
pub fn check(bytes: &[u8]) -> bool {
    let (mut run, mut calls) = (Run::new(), Calls::new(bytes));
    let mut is_taken = true;
    for _ in 0..CALLS_MAX {
        let Some((handle, call)) = calls.next(&run.model) else { break };
        match run.make(handle, &call) {
            Ok(outcome) => is_taken &= outcome.is_ok(),
            Err(fault) => {
                let shown: String = format!("{call:?}").chars().take(CALL_CHARS).collect();
                panic!("{fault}\nthrough handle {handle} by {shown}");
            }
        }
    }
    run.end().unwrap();
    is_taken
}

/// What came of a call that is as it should be.
type Outcome<T = ()> = Result<T, ErrorKind>;

/// Compares what came of a call with what should.
fn compare<T: Debug, E: Debug>(
    real: layerstone::Result<T>,
    expected: Outcome<E>,
    is_it: impl FnOnce(&T, &E) -> bool,
) -> Verdict<Outcome<T>> {
    match (real, expected) {
        (Ok(real), Ok(expected)) if is_it(&real, &expected) => Ok(Ok(real)),
        (Err(error), Err(kind)) if error.kind() == kind => Ok(Err(kind)),
        (real, expected) => Err(format!("{real:?}, and not {expected:?}")),
    }
}

/// A handle of the store, as one process has it.
struct Handle {
    is_exclusive: bool,
    /// Images that are being read.
    kept: Vec<Image>,
    store: Store,
}

/// The store and its model, side by side.
struct Run {
    disk: SimulatedDisk,
    machine: Arc<SimulatedMachine>,
    handles: [Option<Handle>; HANDLES],
    model: Model,
}

impl Run {
    fn new() -> Self {
        Self {
            disk: SimulatedDisk::default(),
            machine: Arc::new(SimulatedMachine::new(1, 0)),
            handles: [const { None }; HANDLES],
            model: Model::default(),
        }
    }

    /// Makes a call, and compares what comes of it with what should.
    fn make(&mut self, handle: usize, call: &Call) -> Verdict<Outcome> {
        if let Call::Open { is_exclusive, held_bytes } = call {
            return self.open(handle, *is_exclusive, *held_bytes);
        }
        if let Call::Mishap { mishap, seed } = call {
            return self.befall(*mishap, *seed).map(Ok);
        }
        if self.handles[handle].is_none() {
            self.open(handle, false, 1 << 20)?.map_err(|kind| format!("it does not open: {kind:?}"))?;
        }
        match call {
            Call::Open { .. } | Call::Mishap { .. } => Ok(Ok(())),
            Call::Close => {
                self.handles[handle] = None;
                Ok(Ok(()))
            }
            Call::Change(effect) => self.change(handle, effect),
            Call::WaitForUpkeep => {
                self.store(handle).wait_for_upkeep();
                Ok(Ok(()))
            }
            Call::Keep { scope, image } => self.keep(handle, scope, *image),
            Call::Read => self.read(handle).map(Ok),
            Call::List => {
                let expected = self.admit(handle, true).map(|()| self.model.view());
                let view = compare(observe(self.store(handle)), expected, PartialEq::eq)?;
                Ok(view.map(drop))
            }
            Call::Verify { is_quick } => {
                let store = self.store(handle);
                let report = if *is_quick { store.verify_quick() } else { store.verify() };
                let report = compare(report, self.admit(handle, true), |report, ()| report.is_sound())?;
                Ok(report.map(drop))
            }
        }
    }

    /// Something befalls the store when all have let go of it, and it is repaired.
    fn befall(&mut self, mishap: Mishap, seed: u64) -> Verdict<()> {
        (0..HANDLES).try_for_each(|handle| self.read(handle))?;
        self.handles = [const { None }; HANDLES];
        let opened = Store::open_simulated(&self.disk, &self.machine, options());
        drop(told("it does not open before a mishap", opened)?);
        let repaired = befall(mishap, &self.disk, &self.machine, &self.model, &mut Chance::of(&[seed]))?;
        (self.disk, self.model) = (repaired.disk, repaired.model);
        Ok(())
    }

    fn store(&self, handle: usize) -> &Store {
        &self.handles[handle].as_ref().unwrap().store
    }

    /// Whether a call gets as far as to the catalog: what it names are names, and nobody keeps the store for themselves.
    fn admit(&self, handle: usize, is_named: bool) -> Outcome {
        let mut others = self.handles.iter().enumerate().filter(|(other, _)| *other != handle);
        match others.any(|(_, other)| other.as_ref().is_some_and(|other| other.is_exclusive)) {
            _ if !is_named => Err(ErrorKind::Invalid),
            true => Err(ErrorKind::Locked),
            false => Ok(()),
        }
    }

    fn open(&mut self, handle: usize, is_exclusive: bool, held_bytes: usize) -> Verdict<Outcome> {
        self.handles[handle] = None;
        // One that is shared needs the lock for its calls alone.
        let expected = if is_exclusive { self.admit(handle, true) } else { Ok(()) };
        let options = options().held_bytes(held_bytes).exclusive(is_exclusive);
        let opened = Store::open_simulated(&self.disk, &self.machine, options);
        let opened = compare(opened, expected, |_, ()| true)?;
        Ok(opened.map(|store| self.handles[handle] = Some(Handle { is_exclusive, kept: Vec::new(), store })))
    }

    fn change(&mut self, handle: usize, effect: &Effect) -> Verdict<Outcome> {
        let is_read = self.handles.iter().flatten().any(|handle| !handle.kept.is_empty());
        let store = self.store(handle);
        let made = match effect {
            // What is being read waits for another collection.
            Effect::Collect { full } if is_read => collect(store, *full).map(|_| None),
            _ => effect.apply(store),
        };
        let admitted = self.admit(handle, !effect.is_misnamed());
        let expected = admitted.and_then(|()| effect.expected(&self.model));
        let made = compare(made, expected, |made, expected| expected.is(*made, &self.model))?;
        Ok(made.map(|made| self.model = effect.learn(&self.model, made)))
    }

    fn keep(&mut self, handle: usize, scope: &str, image: ImageId) -> Verdict<Outcome> {
        let store = self.store(handle);
        let found = name(scope)
            .and_then(|scope| store.project(&scope))
            .and_then(|project| project.find(&image.into()));
        let expected = self.admit(handle, is_scope_name(scope)).and_then(|()| {
            let is_seen = self.model.scopes.contains_key(scope) && self.model.seen(scope).contains(&image);
            is_seen.then_some(image).ok_or(ErrorKind::NotFound)
        });
        let found = compare(found, expected, |found, expected| found.id() == *expected)?;
        let kept = self.handles[handle].iter_mut().map(|handle| &mut handle.kept);
        Ok(found.map(|image| kept.for_each(|kept| kept.push(image.clone()))))
    }

    /// Reads what a handle keeps, which others may have removed and collected.
    fn read(&self, handle: usize) -> Verdict<()> {
        for image in self.handles[handle].iter().flat_map(|handle| &handle.kept) {
            let content = told("an image that was kept", read_all(image))?;
            if content != *self.model.contents[&image.id()] {
                return Err(format!("image {}, which was kept, has other content", image.id()));
            }
        }
        Ok(())
    }

    fn end(mut self) -> Verdict<()> {
        (0..HANDLES).try_for_each(|handle| self.read(handle))?;
        self.handles = [const { None }; HANDLES];
        let opened = Store::open_simulated(&self.disk, &self.machine, options().exclusive(true));
        let store = told("it does not open in the end", opened)?;
        check_sound(&store, "in the end")?;
        let view = told("it can't be listed in the end", observe(&store))?;
        if view != self.model.view() {
            return Err(format!("in the end it is {view:?}, and not {:?}", self.model.view()));
        }
        check_collection(&self.disk, &store, &self.model)
    }
}
