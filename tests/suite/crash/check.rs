//! What must hold of a store after a crash or a fault, whatever was lost.

use std::sync::Arc;

use layerstone::Store;
use layerstone::testing::{
    Chance, DiskImage, Media, Pick, SimulatedDisk, SimulatedMachine, SimulatedOperation,
};

use super::operations::check::{
    Verdict, check_collection, check_content, check_sound, observe, options, told,
};
use super::operations::effect::Effect;
use super::operations::model::{Content, Model, PUBLIC, View};

/// What a store may be: what the model was when the last call was acknowledged, or with the call under way.
#[derive(Clone, Copy)]
pub(super) struct Allowed<'m> {
    pub(super) before: &'m Model,
    pub(super) under_way: Option<&'m Effect>,
    /// What the call under way made, where that is known.
    pub(super) after: Option<&'m Model>,
}

/// How much is looked at.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Depth {
    /// All but what follows.
    Usual,
    /// The recovered store goes on to be used.
    Use,
    /// And crashes again, in its recovery or that use.
    CrashAgain,
}

/// The model that a view shows, if it is an allowed one.
fn find_model(allowed: Allowed<'_>, view: &View) -> Verdict<Model> {
    if allowed.before.view() == *view {
        return Ok(allowed.before.clone());
    }
    let after = allowed.after.cloned().or_else(|| {
        let seen = view.values().flatten().map(|(image, _)| *image);
        let new = seen.filter(|image| !allowed.before.contents.contains_key(image)).max();
        allowed.under_way.map(|effect| effect.learn(allowed.before, new))
    });
    if let Some(after) = after.filter(|after| after.view() == *view) {
        return Ok(after);
    }
    let before = allowed.before.view();
    Err(format!(
        "the store is neither before nor after {:?}:\n{view:?}\nbefore it was\n{before:?}",
        allowed.under_way
    ))
}

/// Reads back the newest image, and one more.
fn check_contents(store: &Store, model: &Model, view: &View, chance: &mut Chance) -> Verdict<()> {
    let all: Vec<_> = view
        .iter()
        .flat_map(|(scope, images)| images.iter().map(move |(image, _)| (scope, *image)))
        .collect();
    let newest = all.iter().max_by_key(|(_, image)| *image);
    for (scope, image) in newest.into_iter().chain(chance.pick(&all)) {
        check_content(store, model, scope, *image)?;
    }
    Ok(())
}

pub(super) fn changes(log: &[SimulatedOperation]) -> impl Iterator<Item = &SimulatedOperation> {
    log.iter().filter(|operation| !matches!(operation, SimulatedOperation::Mark(_)))
}

fn open(disk: &SimulatedDisk, boot: u64, is_exclusive: bool) -> Verdict<Store> {
    let machine = Arc::new(SimulatedMachine::new(boot, 0));
    let options = options().held_bytes(3_000).exclusive(is_exclusive);
    told("it does not open", Store::open_simulated(disk, &machine, options))
}

/// Opens what is left and checks all that is promised. A panic is a fault too.
pub(super) fn check(image: &DiskImage, allowed: Allowed<'_>, depth: Depth, seed: u64) -> Verdict<Model> {
    let checked = std::panic::AssertUnwindSafe(|| check_unguarded(image, allowed, depth, seed));
    std::panic::catch_unwind(checked).unwrap_or_else(|_| Err("it panicked".to_owned()))
}

fn check_unguarded(image: &DiskImage, allowed: Allowed<'_>, depth: Depth, seed: u64) -> Verdict<Model> {
    let disk = SimulatedDisk::new(image);
    let mut chance = Chance::new(seed);
    // Held stores are checked in a fraction of the time: each call of the others opens the catalog.
    let (boot, is_exclusive) = (chance.next() | 1 << 63, chance.below(16) > 0);
    let store = open(&disk, boot, is_exclusive)?;
    let view = told("it can't be listed", observe(&store))?;
    let model = find_model(allowed, &view)?;
    check_sound(&store, "as it was left")?;
    check_contents(&store, &model, &view, &mut chance)?;
    drop(store);
    let mut log = disk.take_log();
    // If nothing was changed, the next one would see and do the same.
    if depth == Depth::Usual && changes(&log).next().is_none() {
        return Ok(model);
    }
    let store = open(&disk, boot + 1, is_exclusive)?;
    if told("it can't be listed again", observe(&store))? != view {
        return Err("opened again it is another".to_owned());
    }
    drop(store);
    if let Some(change) = changes(&disk.take_log()).next() {
        return Err(format!("opening it again changes it: {change:?}"));
    }
    if depth == Depth::Usual {
        return Ok(model);
    }
    let bytes = chance.bytes(5_000);
    let content = Content::new([("later".to_owned(), bytes)].into());
    let tags = vec!["later".to_owned()];
    let effect = Effect::Import { scope: PUBLIC.to_owned(), content, tags };
    let used = use_it(&disk, &model, &effect, boot + 2, is_exclusive)?;
    if depth == Depth::CrashAgain {
        log.extend(disk.take_log());
        crash_again(image, &log, &model, &effect, &used, &mut chance)?;
    }
    Ok(model)
}

const ACKNOWLEDGED: u64 = 1;

/// A further import succeeds, and stays.
pub(super) fn use_it(
    disk: &SimulatedDisk,
    model: &Model,
    effect: &Effect,
    boot: u64,
    is_exclusive: bool,
) -> Verdict<Model> {
    let store = open(disk, boot, is_exclusive)?;
    disk.mark(0);
    let made = told("it takes no further import", effect.apply(&store))?;
    disk.mark(ACKNOWLEDGED);
    drop(store);
    let after = effect.learn(model, made);
    let store = open(disk, boot + 1, is_exclusive)?;
    let view = told("it can't be listed after an import", observe(&store))?;
    if view != after.view() {
        return Err(format!("a further import gave another store: {view:?}"));
    }
    check_sound(&store, "after an import")?;
    check_content(&store, &after, PUBLIC, made.unwrap())?;
    check_collection(disk, &store, &after)?;
    Ok(after)
}

/// The power goes while it recovers, or in the further import.
fn crash_again(
    image: &DiskImage,
    log: &[SimulatedOperation],
    model: &Model,
    effect: &Effect,
    used: &Model,
    chance: &mut Chance,
) -> Verdict<()> {
    let mut media = Media::new(image);
    let mut allowed = Allowed { before: model, under_way: None, after: None };
    for (place, operation) in log.iter().enumerate() {
        media.apply(operation);
        match operation {
            SimulatedOperation::Mark(ACKNOWLEDGED) => {
                allowed = Allowed { before: used, under_way: None, after: None }
            }
            SimulatedOperation::Mark(_) => {
                allowed = Allowed { before: model, under_way: Some(effect), after: Some(used) };
            }
            _ if media.is_durable() => {}
            _ => {
                let (image, choice) = media.crash(Pick::Seeded(chance.next()));
                check(&image, allowed, Depth::Usual, chance.next()).map_err(|fault| {
                    format!("after a second crash at operation {place} of {}, {choice:?}: {fault}", log.len())
                })?;
            }
        }
    }
    Ok(())
}
