//! The states that crashes leave: made from a log, one after the other, and checked.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use layerstone::testing::{
    Chance, Choice, DiskImage, Media, Omissions, Pick, SimulatedDisk, SimulatedOperation,
};

use super::check::{Allowed, Depth, changes, check};
use super::operations::check::Verdict;
use super::operations::model::Model;
use super::run::{Plan, Run};

/// Outcomes that are looked at for each boundary; most boundaries have fewer that differ.
const PICKS: u64 = 24;
const THREADS: usize = 2;

/// A workload that ran, and what the model said after each call.
pub(super) struct History {
    plan: Plan,
    pub(super) log: Vec<SimulatedOperation>,
    models: Vec<Model>,
}

/// What came of looking.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) states: u64,
    pub(super) workloads: u64,
    pub(super) operations: u64,
    /// Each with how to see it again.
    pub(super) failures: Vec<String>,
}

impl History {
    pub(super) fn record(plan: Plan) -> Self {
        Self::record_with(plan, Omissions::default()).unwrap()
    }

    pub(super) fn record_with(plan: Plan, omissions: Omissions) -> layerstone::Result<Self> {
        let disk = SimulatedDisk::default();
        disk.set_omissions(omissions);
        let models = Run::new(plan, &disk).finish()?;
        Ok(Self { plan, log: disk.take_log(), models })
    }

    /// What a store may be after the first operations of the log.
    fn allowed(&self, mark: Option<u64>) -> Allowed<'_> {
        // Calls are counted from 1, since 0 is the empty store; each begins with an even mark and ends with an odd one.
        let call = usize::try_from(mark.unwrap_or(1) / 2).unwrap();
        match mark {
            Some(mark) if mark % 2 == 0 => {
                Allowed { before: &self.models[call - 1], under_way: None, after: Some(&self.models[call]) }
            }
            _ => Allowed { before: &self.models[call], under_way: None, after: None },
        }
    }

    fn check(&self, image: &DiskImage, mark: Option<u64>, boundary: u64, pick: u64) -> Verdict<()> {
        let seed = Chance::of(&[self.plan.seed, boundary, pick, 1]).next();
        let depth = match seed % 512 {
            0 => Depth::CrashAgain,
            1..32 => Depth::Use,
            _ => Depth::Usual,
        };
        check(image, self.allowed(mark), depth, seed).map(drop)
    }

    /// Checks the states of each boundary that differ from all before; gives how many they are, and what failed.
    pub(super) fn explore(&self, states_max: &AtomicU64) -> (u64, Vec<String>) {
        let mut media = Media::default();
        let (mut mark, mut failures) = (None, Vec::new());
        let mut known = HashSet::new();
        for (operation, boundary) in self.log.iter().zip(1..) {
            media.apply(operation);
            if let SimulatedOperation::Mark(number) = operation {
                mark = Some(*number);
            }
            for pick in 0..PICKS {
                let (image, choice) = media.crash(numbered_pick(self.plan.seed, boundary, pick));
                if !known.insert((image.fingerprint(), mark)) {
                    continue;
                }
                if states_max
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                    .is_err()
                {
                    return (known.len() as u64 - 1, failures);
                }
                if let Err(fault) = self.check(&image, mark, boundary, pick) {
                    failures.push(self.tell(boundary, pick, &choice, &fault));
                }
            }
        }
        (known.len() as u64, failures)
    }

    fn tell(&self, boundary: u64, pick: u64, choice: &Choice, fault: &str) -> String {
        let (seed, place) = (self.plan.seed, usize::try_from(boundary).unwrap());
        let first = place.saturating_sub(12);
        let before: Vec<_> = changes(&self.log[first..place]).map(brief).collect();
        format!(
            "LAYERSTONE_CRASH_REPLAY={seed}:{boundary}:{pick}\nafter {}\nkept {choice:?}\n{fault}",
            before.join(", ")
        )
    }

    /// Checks one state again.
    pub(super) fn replay(&self, boundary: u64, pick: u64) -> Verdict<()> {
        let mut media = Media::default();
        let mut mark = None;
        for operation in self.log.iter().take(usize::try_from(boundary).unwrap()) {
            media.apply(operation);
            if let SimulatedOperation::Mark(number) = operation {
                mark = Some(*number);
            }
        }
        let (image, choice) = media.crash(numbered_pick(self.plan.seed, boundary, pick));
        let checked = self.check(&image, mark, boundary, pick);
        checked.map_err(|fault| self.tell(boundary, pick, &choice, &fault))
    }
}

/// What a crash at a boundary leaves, by the number of the pick.
pub(super) fn numbered_pick(seed: u64, boundary: u64, pick: u64) -> Pick {
    match pick {
        0 => Pick::Durable,
        1 => Pick::Everything,
        _ => Pick::Seeded(Chance::of(&[seed, boundary, pick]).next()),
    }
}

/// An operation without its bytes.
fn brief(operation: &SimulatedOperation) -> String {
    match operation {
        SimulatedOperation::Write { file, offset, bytes } => {
            format!("Write {{ file: {file}, offset: {offset}, bytes: {} }}", bytes.len())
        }
        other => format!("{other:?}"),
    }
}

/// Runs workload after workload until there were so many distinct states.
pub(super) fn explore(first_seed: u64, states: u64, plan: impl Fn(u64) -> Plan + Sync) -> Found {
    let (left, seed) = (AtomicU64::new(states), AtomicU64::new(first_seed));
    let found = Mutex::new(Found::default());
    std::thread::scope(|threads| {
        for _ in 0..THREADS {
            threads.spawn(|| {
                while left.load(Ordering::Relaxed) > 0 {
                    let history = History::record(plan(seed.fetch_add(1, Ordering::Relaxed)));
                    let (states, failures) = history.explore(&left);
                    let mut found = found.lock().unwrap();
                    found.states += states;
                    found.workloads += 1;
                    found.operations += history.log.len() as u64;
                    found.failures.extend(failures);
                }
            });
        }
    });
    found.into_inner().unwrap()
}
