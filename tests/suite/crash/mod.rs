//! Power cuts at every operation of a store: whatever a disk keeps of what was not synced, what was acknowledged is there.
//!
//! A workload from a seed runs once on a simulated disk, which logs each operation with its bytes. From the log come the
//! images that a crash may leave, at each boundary between two operations, and each is opened and checked (`check.rs`)
//! against a model that knows only what the calls mean. The model and its calls are those of the fuzz target `operations`.
//!
//! `LAYERSTONE_CRASH_STATES=3000000` checks so many distinct states instead of the usual number (`just soak`), and
//! `LAYERSTONE_CRASH_SEED=1000` begins with another seed. A failure names its state as `SEED:BOUNDARY:PICK`;
//! `LAYERSTONE_CRASH_REPLAY=SEED:BOUNDARY:PICK` checks just that one, and says what the crash kept.

mod at_rest;
mod beside;
mod check;
mod controls;
mod faults;
mod repair;
mod rounds;
mod run;
mod states;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Instant;

use crate::fuzz::targets::operations;
use states::{Found, History, explore};

/// Seeds whose operations the recipe `traces` prints.
const TRACES: u64 = 50;

/// Checked with the tests.
const STATES: u64 = 50_000;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

#[test]
fn what_was_acknowledged_survives_every_crash() {
    if let Ok(replay) = std::env::var("LAYERSTONE_CRASH_REPLAY") {
        let parts: Vec<u64> = replay.split(':').map(|part| part.parse().unwrap()).collect();
        let [seed, boundary, pick] = parts[..] else { panic!("name it as SEED:BOUNDARY:PICK") };
        return History::record(run::Plan::new(seed)).replay(boundary, pick).unwrap();
    }
    let (start, states) = (Instant::now(), number("LAYERSTONE_CRASH_STATES", STATES));
    let found = explore(number("LAYERSTONE_CRASH_SEED", 1), states, run::Plan::new);
    let Found { states, workloads, operations, failures } = found;
    println!(
        "{states} distinct crash states of {workloads} workloads with {operations} operations in {:.1} s",
        start.elapsed().as_secs_f32()
    );
    assert!(failures.is_empty(), "{} states failed; the first:\n{}", failures.len(), failures[0]);
}

#[test]
fn the_same_seed_gives_the_same_operations() {
    for seed in 1..9 {
        let [one, other] = [0, 1].map(|_| History::record(run::Plan::new(seed)));
        assert!(one.log.len() > 100);
        let differ = one.log.iter().zip(&other.log).position(|(one, other)| one != other);
        assert_eq!(differ.map(|place| (seed, place, &one.log[place], &other.log[place])), None);
        assert_eq!(one.log.len(), other.log.len());
    }
}

/// Prints a line for each seed, with the number of its operations and their hash: `just traces` before and after a change
/// that must not alter what a store writes, or when.
#[test]
#[ignore = "prints, and checks nothing"]
fn traces() {
    for seed in 1..=TRACES {
        let log = History::record(run::Plan::new(seed)).log;
        let mut hasher = DefaultHasher::new();
        log.hash(&mut hasher);
        println!("{seed} {} {:016x}", log.len(), hasher.finish());
    }
}
