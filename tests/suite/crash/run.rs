//! A workload from a seed, on a simulated disk: what is called, and what the model says after each call.

use std::collections::BTreeMap;
use std::sync::Arc;

use layerstone::Store;
use layerstone::id::ImageId;
use layerstone::testing::{Chance, Sabotage, SimulatedDisk, SimulatedMachine};

use super::operations::check::options;
use super::operations::effect::Effect;
use super::operations::model::{Content, Model, PUBLIC};

const PROJECTS: [&str; 3] = ["a", "b", "c"];
const TAGS: [&str; 4] = ["x", "y", "z", "x:1"];

/// What is to be run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) steps: u64,
    /// The store is held; otherwise each step opens it.
    pub(super) is_exclusive: bool,
    /// Whether sessions are published together, from threads of their own.
    pub(super) with_groups: bool,
    pub(super) sabotage: Option<Sabotage>,
}

impl Plan {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, steps: 16, is_exclusive: seed % 2 == 1, with_groups: true, sabotage: None }
    }
}

/// A workload under way.
#[derive(Clone)]
pub(super) struct Run {
    plan: Plan,
    disk: SimulatedDisk,
    chance: Chance,
    held: Option<Store>,
    /// What was acknowledged: the model before the first call, and after each.
    pub(super) models: Vec<Model>,
    /// The call under way, or the one that failed.
    pub(super) under_way: Option<Effect>,
    step: u64,
}

impl Run {
    pub(super) fn new(plan: Plan, disk: &SimulatedDisk) -> Self {
        Self {
            plan,
            disk: disk.clone(),
            chance: Chance::of(&[plan.seed, 1]),
            held: None,
            models: vec![Model::default()],
            under_way: None,
            step: 0,
        }
    }

    /// Goes on with a store that holds what the model says.
    pub(super) fn after(plan: Plan, disk: &SimulatedDisk, model: Model) -> Self {
        Self { models: vec![model], ..Self::new(plan, disk) }
    }

    /// Goes on upon another disk in the same state. The store must not be held.
    pub(super) fn upon(&self, disk: &SimulatedDisk) -> Self {
        Self { disk: disk.clone(), ..self.clone() }
    }

    pub(super) fn model(&self) -> &Model {
        self.models.last().unwrap()
    }

    /// Takes all steps, and ends.
    pub(super) fn finish(mut self) -> layerstone::Result<Vec<Model>> {
        while self.take_step()? {}
        Ok(self.models)
    }

    /// Takes the next step; says whether there was one.
    pub(super) fn take_step(&mut self) -> layerstone::Result<bool> {
        if self.step == self.plan.steps {
            return Ok(false);
        }
        self.step += 1;
        let store = self.open()?;
        match self.chance.below(20) {
            0 if self.plan.with_groups => self.publish_together(&store)?,
            1..4 => store.wait_for_upkeep(),
            _ => {
                let effect = self.choose();
                self.take(&store, &effect)?;
            }
        }
        Ok(true)
    }

    /// Takes a step that the caller chose.
    pub(super) fn take_this(&mut self, effect: &Effect) -> layerstone::Result<()> {
        self.step += 1;
        self.plan.steps += 1;
        let store = self.open()?;
        self.take(&store, effect)
    }

    fn open(&mut self) -> layerstone::Result<Store> {
        if let Some(held) = &self.held {
            return Ok(held.clone());
        }
        // A session that may hold little takes a pack of its own.
        let held_bytes = self.chance.pick(&[0, 3_000, 1 << 20]).copied().unwrap();
        let mut options = options().held_bytes(held_bytes).exclusive(self.plan.is_exclusive);
        if let Some(sabotage) = self.plan.sabotage {
            options = options.sabotage(sabotage);
        }
        // The same boot, but what is drawn does not depend on what steps before drew.
        let machine = Arc::new(SimulatedMachine::new(self.plan.seed, self.step << 16));
        let store = Store::open_simulated(&self.disk, &machine, options)?;
        if self.plan.is_exclusive {
            self.held = Some(store.clone());
        }
        Ok(store)
    }

    /// Makes a call, with its marks in the log; what it did is acknowledged when this returns.
    fn take(&mut self, store: &Store, effect: &Effect) -> layerstone::Result<()> {
        self.acknowledge(effect, || effect.apply(store))
    }

    fn acknowledge(
        &mut self,
        effect: &Effect,
        call: impl FnOnce() -> layerstone::Result<Option<ImageId>>,
    ) -> layerstone::Result<()> {
        let number = self.models.len() as u64;
        self.under_way = Some(effect.clone());
        self.disk.mark(2 * number);
        let made = call()?;
        self.disk.mark(2 * number + 1);
        self.under_way = None;
        let expected = effect.expected(self.model());
        assert!(expected.is_ok_and(|expected| expected.is(made, self.model())), "{expected:?}, not {made:?}");
        self.models.push(effect.learn(self.model(), made));
        Ok(())
    }

    /// Two sessions are published in one transaction. The project of the first goes while they wait, so that it fails.
    fn publish_together(&mut self, store: &Store) -> layerstone::Result<()> {
        let scopes: Vec<_> = self.model().scopes.keys().filter(|scope| *scope != PUBLIC).cloned().collect();
        let (Some(doomed), Some(kept)) = (scopes.first(), scopes.get(1)) else { return Ok(()) };
        let [doomed_import, kept_import] = [doomed, kept].map(|scope| Effect::Import {
            scope: scope.clone(),
            content: self.content(),
            tags: self.tags(),
        });
        let turn = store.hold_publications();
        std::thread::scope(|threads| {
            let first = threads.spawn(|| doomed_import.apply(store));
            while store.waiting_publications() < 1 && !first.is_finished() {
                std::thread::yield_now();
            }
            let second = threads.spawn(|| kept_import.apply(store));
            while store.waiting_publications() < 2 && !second.is_finished() {
                std::thread::yield_now();
            }
            self.take(store, &Effect::RemoveProject { scope: doomed.clone(), force: true })?;
            self.acknowledge(&kept_import, || {
                drop(turn);
                let refused = first.join().unwrap();
                assert!(refused.is_err_and(|error| error.is_not_found()), "its project is gone");
                second.join().unwrap()
            })
        })
    }

    /// The next call: one that succeeds.
    fn choose(&mut self) -> Effect {
        let model = self.model().clone();
        let missing = PROJECTS.iter().find(|name| !model.scopes.contains_key(**name));
        if let Some(name) = missing.filter(|_| self.chance.below(3) == 0) {
            return Effect::CreateProject((*name).to_owned());
        }
        let scopes: Vec<_> = model.scopes.keys().cloned().collect();
        let scope = self.chance.pick(&scopes).unwrap().clone();
        let seen: Vec<_> = model.seen(&scope).into_iter().collect();
        let (own_tags, owned): (Vec<_>, Vec<_>) = {
            let scope = &model.scopes[&scope];
            (scope.tags.keys().cloned().collect(), scope.owned.iter().copied().collect())
        };
        match self.chance.below(20) {
            0..8 if !seen.is_empty() => self.commit(&model, scope, &seen),
            8..11 if !seen.is_empty() => {
                Effect::Tag { image: *self.chance.pick(&seen).unwrap(), tags: self.tags(), scope }
            }
            11..13 if !own_tags.is_empty() => {
                Effect::Untag { tag: self.chance.pick(&own_tags).unwrap().clone(), scope }
            }
            13..15 if !owned.is_empty() => {
                Effect::Remove { image: *self.chance.pick(&owned).unwrap(), scope, force: true }
            }
            15 if scope != PUBLIC => Effect::RemoveProject { scope, force: true },
            16..18 => Effect::Collect { full: self.chance.flip() },
            _ => Effect::Import { content: self.content(), tags: self.tags(), scope },
        }
    }

    fn commit(&mut self, model: &Model, scope: String, seen: &[ImageId]) -> Effect {
        let base = *self.chance.pick(seen).unwrap();
        let paths: Vec<_> = model.contents[&base].keys().cloned().collect();
        let removed =
            if paths.len() > 3 { vec![self.chance.pick(&paths).unwrap().clone()] } else { Vec::new() };
        let written = (0..=self.chance.below(2)).map(|file| (format!("new{file}"), self.bytes())).collect();
        Effect::Commit { scope, base, removed, written, tags: self.tags() }
    }

    fn content(&mut self) -> Content {
        let files = 2 + self.chance.below(5);
        (0..files).map(|file| (format!("f{file}"), self.bytes())).collect::<BTreeMap<_, _>>().into()
    }

    /// Most files are small, some take a good part of a pack.
    fn bytes(&mut self) -> Vec<u8> {
        let most = self.chance.pick(&[40, 600, 600, 3_000, 12_000]).copied().unwrap();
        let len = self.chance.index(most);
        self.chance.bytes(len)
    }

    fn tags(&mut self) -> Vec<String> {
        let mut tags: Vec<_> =
            (0..self.chance.below(4)).map(|_| (*self.chance.pick(&TAGS).unwrap()).to_owned()).collect();
        tags.sort_unstable();
        tags.dedup();
        tags
    }
}
