//! Every call of a short workload fails, in every way, once or from then on: no call of the store panics, and what was
//! acknowledged is there afterwards.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use layerstone::testing::{Chance, DiskCall, Fault, FaultKind, Media, Pick, SimulatedDisk};

use super::check::{Allowed, Depth, check, use_it};
use super::operations::check::Verdict;
use super::operations::effect::Effect;
use super::operations::model::{Content, PUBLIC};
use super::run::{Plan, Run};

fn seed() -> u64 {
    super::number("LAYERSTONE_CRASH_SEED", 2)
}

fn plan(seed: u64, is_exclusive: bool) -> Plan {
    Plan { steps: 10, is_exclusive, with_groups: false, ..Plan::new(seed) }
}

/// A workload between two steps, and the disk that it is on.
struct Stage {
    run: Run,
    disk: SimulatedDisk,
}

/// The stages before each step, and the calls of all.
fn stages(plan: Plan) -> (Vec<Stage>, SimulatedDisk) {
    let disk = SimulatedDisk::default();
    let mut run = Run::new(plan, &disk);
    let mut stages = Vec::new();
    loop {
        stages.push(Stage { run: run.clone(), disk: disk.fork() });
        if !run.take_step().unwrap() {
            return (stages, disk);
        }
    }
}

fn changes_something(call: DiskCall) -> bool {
    use DiskCall as C;
    !matches!(call, C::Open | C::Exists | C::List | C::Lock | C::Read | C::Len | C::Map)
}

/// What the fault leads to from this stage on; everything that must hold then.
fn fail(stage: &Stage, fault: Fault) -> Verdict<()> {
    let disk = stage.disk.fork();
    let mut run = stage.run.upon(&disk);
    disk.set_fault(Some(fault));
    let ended = catch_unwind(AssertUnwindSafe(|| {
        // A lasting fault may leave steps alone that it does not concern.
        while run.take_step()? && (fault.is_lasting || disk.calls().len() <= fault.call) {}
        Ok::<_, layerstone::Error>(())
    }));
    match ended {
        Err(_) => return Err("a call panicked".to_owned()),
        Ok(Err(error)) if error.to_string().contains("thread died") => return Err(error.to_string()),
        Ok(_) => {}
    }
    let (before, under_way) = (run.model().clone(), run.under_way.clone());
    drop(run);
    disk.set_fault(None);
    let allowed = Allowed { before: &before, under_way: under_way.as_ref(), after: None };
    let seed = Chance::of(&[fault.call as u64]).next();
    let opened = check(&disk.image(), allowed, Depth::Usual, seed);
    let model = opened.map_err(|fault| format!("opened anew: {fault}"))?;
    if !changes_something(disk.calls()[fault.call]) {
        // The disk is as after a crash between two operations.
        return Ok(());
    }
    let durable = || Media::default().after(&disk.log()).crash(Pick::Durable).0;
    check(&durable(), allowed, Depth::Usual, seed).map_err(|fault| format!("after a power cut: {fault}"))?;

    // The machine goes on, with a page cache that has what the failed sync lost, and only later loses power.
    let content = Content::new([("later".to_owned(), vec![7; 5_000])].into());
    let effect = Effect::Import { scope: PUBLIC.to_owned(), content, tags: vec!["later".to_owned()] };
    let is_exclusive = !seed.is_multiple_of(4);
    let used = use_it(&disk, &model, &effect, seed | 1 << 63, is_exclusive)
        .map_err(|fault| format!("used without a restart: {fault}"))?;
    let allowed = Allowed { before: &used, under_way: None, after: None };
    check(&durable(), allowed, Depth::Usual, seed)
        .map(drop)
        .map_err(|fault| format!("used without a restart, then a power cut: {fault}"))
}

/// Every fault of every call, shared out to two threads; gives how many there were, and what failed.
fn fail_everywhere(
    stages: &[Stage],
    whole: &SimulatedDisk,
    faults: impl Fn(usize) -> Vec<(FaultKind, bool)>,
) -> (usize, Vec<String>) {
    let calls = whole.calls();
    let all: Vec<_> = calls
        .iter()
        .enumerate()
        .flat_map(|(number, call)| {
            let concerning = faults(number).into_iter().filter(|(kind, _)| kind.concerns(*call));
            concerning.map(move |(kind, is_lasting)| Fault { call: number, kind, is_lasting })
        })
        .collect();
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|threads| {
        for _ in 0..2 {
            threads.spawn(|| {
                while let Some(fault) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let after = stages.partition_point(|stage| stage.disk.calls().len() <= fault.call);
                    if let Err(told) = fail(&stages[after - 1], *fault) {
                        let call = calls[fault.call];
                        failures
                            .lock()
                            .unwrap()
                            .push(format!("{fault:?} ({call:?}) in step {after}: {told}"));
                    }
                }
            });
        }
    });
    (all.len(), failures.into_inner().unwrap())
}

fn tell(what: &str, (count, failures): (usize, Vec<String>)) {
    println!("{what}: {count} faults");
    let told = failures.iter().take(20).map(|failure| failure.chars().take(600).collect::<String>() + "\n");
    assert!(
        failures.is_empty(),
        "{what}: {} of {count} failed:\n{}",
        failures.len(),
        told.collect::<String>()
    );
}

#[test]
fn every_call_of_a_shared_store_fails_in_every_way() {
    let seed = seed();
    let (stages, whole) = stages(plan(seed, false));
    // What differs little from another way is done to a fourth of the calls.
    let all = |number: usize| {
        let all = FaultKind::ALL.into_iter().flat_map(|kind| [(kind, false), (kind, true)]);
        let is_rare = |fault: &(FaultKind, bool)| {
            fault.0 == FaultKind::Quota || *fault == (FaultKind::Interrupted, true)
        };
        all.filter(|fault| number.is_multiple_of(4) || !is_rare(fault)).collect()
    };
    tell(&format!("workload {seed}"), fail_everywhere(&stages, &whole, all));
}

/// A held store can't begin in the middle, so each call fails in one way, and each way at every eighth call.
#[test]
fn every_call_of_a_held_store_fails() {
    let seed = seed();
    let (mut stages, whole) = stages(plan(seed, true));
    stages.truncate(1);
    let some = |number: usize| {
        let kind = FaultKind::ALL[number % FaultKind::ALL.len()];
        vec![(kind, false), (kind, true), (FaultKind::Io, number.is_multiple_of(2))]
    };
    tell(&format!("held, workload {seed}"), fail_everywhere(&stages, &whole, some));
}
