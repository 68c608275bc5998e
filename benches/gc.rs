#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "a benchmark: a failure ends it")]
//! What a collection costs, against what is needed and against what is not, and how long a commit beside it waits.
//!
//! Each figure is of a store of its own: a collection can't be repeated on what it has freed. On generated data by default;
//! `LAYERSTONE_BENCH_TREE=DIR` begins with a tree of yours (see `corpora`).

mod given;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use given::tree;
use layerstone::id::ImageId;
use layerstone::testing::{DiskLog, DiskOperation};
use layerstone::{
    CommitOptions, GcOptions, GcReport, ImportOptions, LazyImage, Project, Store, StoreOptions,
};

/// Files that each image changes, and bytes of each.
const FILES: usize = 25;
const FILE_BYTES: usize = 8_000;

struct Given {
    scratch: tempfile::TempDir,
    store: Store,
    project: Project,
    base: LazyImage,
    log: DiskLog,
}

fn noise(mut state: u64) -> Vec<u8> {
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..FILE_BYTES).map(|_| next()).collect()
}

/// Makes an image of the base with some files that no other has.
fn make(base: &LazyImage, number: u64) -> ImageId {
    // A handle that is kept would keep what is collected.
    let mut edit = base.find().unwrap().edit();
    for file in 0..FILES {
        let path = format!("/gc/{:02}/{file:02}", number % 40);
        edit = edit.write(path, noise(number * 1000 + file as u64));
    }
    edit.commit(&CommitOptions::default()).unwrap().image
}

impl Given {
    /// A store of so many images that stay, and so many that go, in turns.
    fn new(needed: u64, unneeded: u64) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let log = DiskLog::default();
        let options = StoreOptions::default().pack_bytes(16 << 20).exclusive(true);
        let store = Store::open_recorded(scratch.path().join("store"), options, &log).unwrap();
        let project = store.default_project().unwrap();
        let report = project.import_directory(tree(scratch.path()), &ImportOptions::default()).unwrap();
        let base = project.image(report.image.into());
        let all = needed + unneeded;
        for number in 0..all {
            let id = make(&base, number);
            // Spread evenly over the packs.
            if (number + 1) * unneeded / all > number * unneeded / all {
                project.remove(&id.into(), true).unwrap();
            }
        }
        store.wait_for_upkeep();
        let _ = (log.take(), log.take_reads());
        Self { scratch, store, project, base, log }
    }

    fn collect(&self, full: bool) -> (GcReport, Duration) {
        let start = Instant::now();
        let report = self.store.collect_garbage(&GcOptions { full, ..GcOptions::default() }).unwrap();
        (report, start.elapsed())
    }
}

#[allow(clippy::cast_precision_loss, reason = "a digit is shown")]
fn mb(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn costs() {
    println!("needed  unneeded  full   time      read      written   before    freed     objects");
    for (needed, unneeded) in [(0, 100), (100, 0), (100, 100), (100, 400), (400, 0), (400, 100), (400, 400)] {
        for full in [false, true] {
            let given = Given::new(needed, unneeded);
            let (report, time) = given.collect(full);
            let read = given.log.take_reads().iter().map(|read| read.bytes).sum();
            let written = given.log.take().into_iter().map(|operation| match operation {
                DiskOperation::Write { bytes, .. } => bytes,
                _ => 0,
            });
            println!(
                "{needed:>6}  {unneeded:>8}  {full:<5}  {:<8}  {:<8}  {:<8}  {:<8}  {:<8}  {}",
                format!("{:.0} ms", time.as_secs_f64() * 1e3),
                mb(read),
                mb(written.sum()),
                mb(report.bytes_before),
                mb(report.net_freed_bytes()),
                report.needed_objects
            );
        }
    }
}

/// Commits one after the other until told to stop, and gives how long each took.
fn commit_until(given: &Given, from: u64, is_over: &AtomicBool) -> Vec<Duration> {
    let mut times = Vec::new();
    for number in from.. {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        let edit = given.base.find().unwrap().edit().write("/gc/new", number.to_le_bytes().to_vec());
        let start = Instant::now();
        edit.commit(&CommitOptions::default()).unwrap();
        times.push(start.elapsed());
    }
    times.sort_unstable();
    times
}

fn tell(what: &str, times: &[Duration]) {
    let ms = |time: Option<&Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1e3);
    println!(
        "{what}: {} commits, median {:.1} ms, 99 % {:.1} ms, longest {:.1} ms",
        times.len(),
        ms(times.get(times.len() / 2)),
        ms(times.get(times.len() * 99 / 100)),
        ms(times.last())
    );
}

fn pauses() {
    let given = Given::new(400, 400);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let commits = scope.spawn(|| commit_until(&given, 0, &is_over));
        std::thread::sleep(Duration::from_secs(3));
        is_over.store(true, Ordering::Relaxed);
        tell("alone", &commits.join().unwrap());
    });
    is_over.store(false, Ordering::Relaxed);
    std::thread::scope(|scope| {
        let commits = scope.spawn(|| commit_until(&given, 1 << 32, &is_over));
        let (start, mut collections) = (Instant::now(), 0);
        while start.elapsed() < Duration::from_secs(6) {
            given.collect(collections % 2 == 1);
            collections += 1;
            // Something to free for the next.
            for number in 0..20 {
                let number = (1 << 40) + collections * 100 + number;
                let id = make(&given.base, number);
                given.project.remove(&id.into(), true).unwrap();
            }
        }
        is_over.store(true, Ordering::Relaxed);
        tell(&format!("beside {collections} collections"), &commits.join().unwrap());
    });
    assert!(given.store.verify().unwrap().is_sound());
    drop(given.scratch);
}

fn main() {
    costs();
    pauses();
}
