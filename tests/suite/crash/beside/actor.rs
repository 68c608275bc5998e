//! Who does it: a process of its own, or a thread of one that both are in.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Duration;

use layerstone::testing::{SimulatedDisk, SimulatedMachine, Turn};
use layerstone::{ErrorKind, Store};

use super::act::{Act, Story, Told, tell};
use crate::crash::operations::check::{Verdict, options};

/// Somebody with what it is to do.
pub(super) struct Actor {
    pub(super) acts: Vec<Act>,
    pub(super) turn: Turn,
    place: Place,
}

enum Place {
    Process { disk: SimulatedDisk, machine: Arc<SimulatedMachine>, held_bytes: usize },
    Thread(Store),
}

impl Actor {
    /// A process of this number beside another, which holds so much before it takes a pack.
    pub(super) fn process(
        number: u32,
        (disk, machine): (&SimulatedDisk, &SimulatedMachine),
        held_bytes: usize,
        acts: Vec<Act>,
    ) -> Self {
        let turn = Turn::waiting();
        let (disk, machine) = (disk.beside(&turn), Arc::new(machine.beside(number)));
        Self { acts, turn, place: Place::Process { disk, machine, held_bytes } }
    }

    /// A thread that uses a store which others use, too.
    pub(super) fn thread(store: &Store, acts: Vec<Act>) -> Self {
        Self { acts, turn: Turn::waiting(), place: Place::Thread(store.clone()) }
    }

    fn open(&self) -> layerstone::Result<Store> {
        match &self.place {
            Place::Process { disk, machine, held_bytes } => {
                // Waiting for a lock ends its turn, however long the other then takes.
                let options = options().held_bytes(*held_bytes).lock_timeout(Duration::from_secs(3600));
                Store::open_simulated(disk, machine, options)
            }
            Place::Thread(store) => {
                self.turn.take();
                Ok(store.clone())
            }
        }
    }

    /// Does all of it; what comes after it was killed is not told.
    fn run(&self) -> Verdict<Story> {
        let mut story = Story::new();
        let store = match self.open() {
            Ok(store) => store,
            Err(_) if self.turn.is_killed() => return Ok(story),
            Err(error) => return Err(format!("it does not open: {error}")),
        };
        for act in &self.acts {
            let took = act.take(&store);
            if self.turn.is_killed() {
                tell(&mut story, act, Told::Nothing);
                break;
            }
            let told = match took {
                Ok(told) => told,
                Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Io) => {
                    return Err(format!("{}: {error}", act.brief()));
                }
                Err(error) => Told::Refused(error.kind(), error.to_string()),
            };
            tell(&mut story, act, told);
        }
        Ok(story)
    }

    /// Does it in a thread of its own, and says when it is over.
    pub(super) fn spawn<'s>(&'s self, scope: &'s Scope<'s, '_>) -> ScopedJoinHandle<'s, Verdict<Story>> {
        scope.spawn(|| {
            let done = catch_unwind(AssertUnwindSafe(|| self.run()));
            self.turn.end();
            done.unwrap_or_else(|_| Err("it panicked".to_owned()))
        })
    }

    /// Kills it, if it is a process.
    pub(super) fn kill(&self) {
        if let Place::Process { disk, machine, .. } = &self.place {
            machine.kill();
            disk.kill();
        }
    }
}
