//! Rounds of use, damage and repair of one store, in any order and number: packs that are damaged, lost content imported again,
//! a catalog that is lost with or without its dump, removed images brought back. What must hold then is in
//! `fuzz/src/operations/mishap.rs`.
//!
//! A failure names its seed; `LAYERSTONE_CRASH_REPLAY_ROUNDS=SEED` runs just that one.

use std::sync::Arc;

use layerstone::testing::{Chance, SimulatedDisk, SimulatedMachine};

use super::operations::check::Verdict;
use super::operations::effect::Effect;
use super::operations::mishap::{MISHAPS, befall};
use super::operations::model::Model;
use super::run::{Plan, Run};

/// Stores that are looked at, and rounds of each.
const STORES: u64 = 40;
const ROUNDS: u64 = 6;

/// Uses the store for a while; what was lost before is imported again.
fn use_store(disk: &SimulatedDisk, model: Model, seed: u64, chance: &mut Chance) -> Model {
    let plan = Plan { steps: 2 + chance.below(8), ..Plan::new(seed) };
    let mut run = Run::after(plan, disk, model);
    let known: Vec<_> = run.model().contents.values().cloned().collect();
    let scopes: Vec<_> = run.model().scopes.keys().cloned().collect();
    for _ in 0..chance.below(4) {
        let Some(content) = chance.pick(&known).cloned() else { break };
        let (scope, tags) = (chance.pick(&scopes).unwrap().clone(), vec!["again".to_owned()]);
        run.take_this(&Effect::Import { scope, content, tags }).unwrap();
    }
    run.finish().unwrap().pop().unwrap()
}

fn run_rounds(seed: u64) -> Verdict<()> {
    let mut chance = Chance::of(&[seed, 7]);
    let mut disk = SimulatedDisk::default();
    let mut model = use_store(&disk, Model::default(), seed, &mut chance);
    let mut past = Vec::new();
    for round in 1..=ROUNDS {
        let mishap = *chance.pick(&MISHAPS).unwrap();
        let machine = Arc::new(SimulatedMachine::new(chance.next() | 1 << 63, 0));
        let repaired = befall(mishap, &disk, &machine, &model, &mut chance);
        let repaired = repaired.map_err(|fault| format!("{fault}, in {mishap:?} after {past:?}"))?;
        past.push((mishap, repaired.was_whole));
        disk = repaired.disk;
        model = use_store(&disk, repaired.model, seed << 8 | round, &mut chance);
    }
    Ok(())
}

#[test]
fn what_lived_is_there_or_named_after_any_rounds_of_damage_and_repair() {
    if let Ok(seed) = std::env::var("LAYERSTONE_CRASH_REPLAY_ROUNDS") {
        return run_rounds(seed.parse().unwrap()).unwrap();
    }
    let stores = super::number("LAYERSTONE_CRASH_STATES", super::STATES) * STORES / super::STATES;
    let first = super::number("LAYERSTONE_CRASH_SEED", 1);
    let failures: Vec<_> = (first..first + stores)
        .filter_map(|seed| run_rounds(seed).err().map(|fault| format!("{seed}: {fault}")))
        .collect();
    assert!(failures.is_empty(), "{} of {stores} failed; the first is {}", failures.len(), failures[0]);
}
