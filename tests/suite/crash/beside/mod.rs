//! Two at once on one disk, processes or threads of one: each stops at any of its calls while the other goes on, or is killed
//! there. What both were told is what they would have been told had one call come after the other, and so is what is left.
//!
//! Which call is stopped at comes from a seed; `LAYERSTONE_CRASH_REPLAY_BESIDE=SEED:NUMBER` plays one again, and
//! `LAYERSTONE_CRASH_PLAYS` says how many are played. Of threads one that waits for the other within the process is found by
//! the time that it takes, so on a busy machine a play of theirs may come out another way.

mod act;
mod actor;

use std::sync::Arc;

use layerstone::Store;
use layerstone::id::ImageId;
use layerstone::testing::{Chance, Media, Omissions, Pick, SimulatedDisk, SimulatedMachine};

use super::check::{Allowed, Depth, check};
use super::number;
use super::operations::check::{Verdict, observe, options};
use super::operations::effect::Effect;
use super::operations::model::{Content, Model};
use super::run::{Plan, Run};
use act::{Act, Story, Told, find_model};
use actor::Actor;

/// Played with the tests.
const PLAYS: u64 = 2_000;
const PLAYS_OF_SCENE: u64 = 50;
const THREADS: u64 = 2;

/// What is done to a store of which the model is known.
struct Scene {
    before: Model,
    disk: SimulatedDisk,
    seed: u64,
}

impl Scene {
    /// The store after some steps of a workload.
    fn new(seed: u64) -> Self {
        let disk = SimulatedDisk::default();
        let plan = Plan { is_exclusive: false, with_groups: false, ..Plan::new(seed) };
        let mut run = Run::new(plan, &disk);
        for _ in 0..8 + seed % 8 {
            run.take_step().unwrap();
        }
        Self { before: run.model().clone(), disk, seed }
    }

    fn acts(&self, chance: &mut Chance) -> [Vec<Act>; 2] {
        let first = self.act(chance);
        let mut others = Vec::new();
        // Most often the other takes away what the first needs.
        if chance.below(3) > 0 {
            let scopes = &self.before.scopes;
            let owners = |image: &ImageId| {
                let owner = scopes.iter().find(|(_, scope)| scope.owned.contains(image));
                owner.map(|(scope, _)| {
                    Act::Change(Effect::Remove { scope: scope.clone(), image: *image, force: true })
                })
            };
            others.extend(match &first {
                Act::Change(Effect::Commit { base, .. }) => owners(base),
                Act::Change(Effect::Tag { image, .. }) | Act::Read { image, .. } => owners(image),
                Act::Change(Effect::Import { scope, .. }) if chance.below(4) == 0 && scope != "public" => {
                    Some(Act::Change(Effect::RemoveProject { scope: scope.clone(), force: true }))
                }
                _ => None,
            });
            others.push(Act::Change(Effect::Collect { full: chance.flip() }));
        } else {
            others.push(self.act(chance));
        }
        while chance.flip() {
            others.push(self.act(chance));
        }
        let mut acts = [vec![first], others];
        if chance.below(4) == 0 {
            acts[0].push(self.act(chance));
        }
        if chance.flip() {
            acts.swap(0, 1);
        }
        acts
    }

    fn act(&self, chance: &mut Chance) -> Act {
        let model = &self.before;
        let scopes: Vec<_> = model.scopes.keys().cloned().collect();
        let scope = chance.pick(&scopes).unwrap().clone();
        let seen: Vec<_> = model.seen(&scope).into_iter().collect();
        let owned: Vec<_> = model.scopes[&scope].owned.iter().copied().collect();
        let known: Vec<_> = model.contents.values().cloned().collect();
        let tags = |chance: &mut Chance| {
            let tags = ["x", "y", "z"].map(str::to_owned).into_iter();
            tags.filter(|_| chance.below(3) == 0).collect::<Vec<_>>()
        };
        match chance.below(16) {
            // What was there before, and may be needed by nothing now.
            0..5 if !known.is_empty() => {
                let content = chance.pick(&known).unwrap().clone();
                Act::Change(Effect::Import { scope, content, tags: tags(chance) })
            }
            5..8 if !seen.is_empty() => {
                let base = *chance.pick(&seen).unwrap();
                let written = vec![("new".to_owned(), chance.bytes(2_000))];
                Act::Change(Effect::Commit { scope, base, removed: Vec::new(), written, tags: tags(chance) })
            }
            8..10 if !seen.is_empty() => Act::Read { image: *chance.pick(&seen).unwrap(), scope },
            10 if !owned.is_empty() => {
                Act::Change(Effect::Remove { image: *chance.pick(&owned).unwrap(), scope, force: true })
            }
            11 if !seen.is_empty() => {
                let image = *chance.pick(&seen).unwrap();
                Act::Change(Effect::Tag { scope, image, tags: vec!["x".to_owned()] })
            }
            12 => Act::Upkeep,
            13 => Act::Verify,
            14 => Act::Change(Effect::Collect { full: chance.flip() }),
            _ => {
                let len = chance.index(6_000);
                let content = Content::new([("f".to_owned(), chance.bytes(len))].into());
                Act::Change(Effect::Import { scope, content, tags: tags(chance) })
            }
        }
    }

    /// One order of the calls of both.
    fn play(&self, number: u64, omissions: Omissions) -> Verdict<()> {
        let mut chance = Chance::of(&[self.seed, number]);
        let (disk, machine) = (self.disk.fork(), SimulatedMachine::new(self.seed | 1 << 62, 0));
        disk.set_omissions(omissions);
        let acts = self.acts(&mut chance);
        let brief = acts.each_ref().map(|acts| acts.iter().map(Act::brief).collect::<Vec<_>>());
        let played = || {
            let actors = actors(acts, (&disk, &machine), &mut chance)?;
            let stories = run(&actors, &mut chance);
            drop(actors);
            let [first, second] = stories;
            self.check((&disk, &machine), &[first?, second?], chance.next())
        };
        played().map_err(|fault| {
            format!("LAYERSTONE_CRASH_REPLAY_BESIDE={}:{number}\n{brief:#?}\n{fault}", self.seed)
        })
    }

    fn check(
        &self,
        (disk, machine): (&SimulatedDisk, &SimulatedMachine),
        stories: &[Story; 2],
        seed: u64,
    ) -> Verdict<()> {
        let view = {
            let machine = Arc::new(machine.beside(4));
            let store = Store::open_simulated(disk, &machine, options());
            observe(&store.map_err(|error| format!("it does not open: {error}"))?)
        };
        let view = view.map_err(|error| format!("it can't be listed: {error}"))?;
        let after = find_model(&self.before, stories.each_ref(), &view)?;
        let allowed = Allowed { before: &after, under_way: None, after: None };
        check(&disk.image(), allowed, Depth::Use, seed)?;
        check_power_cut(disk, stories, &self.before, seed)
            .map_err(|fault| format!("after a power cut: {fault}"))
    }
}

/// What was acknowledged is durable. What one who was killed had almost done may be seen by the other and go with the power
/// all the same, so what that one only saw does not count.
fn check_power_cut(disk: &SimulatedDisk, stories: &[Story; 2], before: &Model, seed: u64) -> Verdict<()> {
    let changes = stories.each_ref().map(|story| {
        let changes = story
            .iter()
            .filter(|(act, told)| matches!((act, told), (Act::Change(_), Told::Done(_) | Told::Nothing)));
        changes.cloned().collect::<Story>()
    });
    let image = Media::default().after(&disk.log()).crash(Pick::Durable).0;
    let machine = Arc::new(SimulatedMachine::new(seed, 0));
    let store = Store::open_simulated(&SimulatedDisk::new(&image), &machine, options());
    let view = store.and_then(|store| observe(&store)).map_err(|error| error.to_string())?;
    let after = find_model(before, changes.each_ref(), &view)?;
    check(&image, Allowed { before: &after, under_way: None, after: None }, Depth::Usual, seed).map(drop)
}

/// Two processes, or two threads of one that may hold the store.
fn actors(
    [first, second]: [Vec<Act>; 2],
    (disk, machine): (&SimulatedDisk, &SimulatedMachine),
    chance: &mut Chance,
) -> Verdict<[Actor; 2]> {
    let [held, others] = [0, 1].map(|_| chance.pick(&[0, 3_000, 1 << 20]).copied().unwrap());
    let beside = (disk, machine);
    if chance.flip() {
        return Ok([Actor::process(2, beside, held, first), Actor::process(3, beside, others, second)]);
    }
    let options = options().held_bytes(held).exclusive(chance.flip());
    let store = Store::open_simulated(disk, &Arc::new(machine.beside(2)), options);
    let store = store.map_err(|error| format!("it does not open: {error}"))?;
    Ok([Actor::thread(&store, first), Actor::thread(&store, second)])
}

/// Lets both take a few turns of some calls each, then each go as far as it can.
fn run(actors: &[Actor; 2], chance: &mut Chance) -> [Verdict<Story>; 2] {
    std::thread::scope(|scope| {
        let running = [&actors[0], &actors[1]].map(|actor| actor.spawn(scope));
        let (mut next, mut is_over, mut turns) = (0, [false; 2], 0);
        let few = 1 + chance.below(3);
        let killed_after = (chance.below(4) == 0).then(|| (chance.below(few + 1), chance.index(2)));
        while is_over != [true; 2] {
            let most = chance.pick(&[10, 60, 300]).copied().unwrap();
            let calls = (turns < few).then(|| 1 + chance.below(most));
            is_over[next] = is_over[next] || actors[next].turn.run(calls);
            if let Some((_, killed)) = killed_after.filter(|(after, _)| *after == turns) {
                actors[killed].kill();
            }
            turns += 1;
            next = 1 - next;
        }
        running.map(|thread| thread.join().unwrap())
    })
}

/// Plays many; gives what failed.
fn play_all(first_seed: u64, plays: u64, omissions: Omissions) -> Vec<String> {
    let work = |thread: u64| {
        let mut failures = Vec::new();
        for scene in (0..plays.div_ceil(PLAYS_OF_SCENE)).filter(|scene| scene % THREADS == thread) {
            let scene = Scene::new(first_seed + scene);
            failures.extend((0..PLAYS_OF_SCENE).filter_map(|number| scene.play(number, omissions).err()));
        }
        failures
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || work(thread))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn what_two_do_at_once_could_have_been_done_one_after_the_other() {
    if let Ok(replay) = std::env::var("LAYERSTONE_CRASH_REPLAY_BESIDE") {
        let (seed, number) = replay.split_once(':').expect("name it as SEED:NUMBER");
        let scene = Scene::new(seed.parse().unwrap());
        return scene.play(number.parse().unwrap(), Omissions::default()).unwrap();
    }
    let plays = number("LAYERSTONE_CRASH_PLAYS", PLAYS);
    let failures = play_all(number("LAYERSTONE_CRASH_SEED", 1), plays, Omissions::default());
    println!("{plays} plays of two at once");
    let told: Vec<_> = failures.iter().take(10).map(|failure| format!("{failure:.3000}")).collect();
    assert!(failures.is_empty(), "{} of {plays} failed:\n{}", failures.len(), told.join("\n\n"));
}

#[test]
fn holds_that_nobody_sees_are_noticed() {
    let is_loss = |failure: &String| failure.contains("it is damaged") || failure.contains("is missing");
    // On a busy machine two rarely meet.
    let mut rounds =
        (0..4).map(|round| play_all(1 + round * 500, 500, Omissions { holds: true, ..Omissions::default() }));
    let lost = rounds.find_map(|failures| failures.into_iter().find(is_loss));
    let lost = lost.expect("objects that are needed are collected");
    println!("no holds: {lost:.2000}");
}
