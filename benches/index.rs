#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    missing_docs,
    reason = "a benchmark: a failure ends it"
)]
//! Look-ups in the object index of a large store: one that has the object, one that has not, and opening the store.
//!
//! On 2 million generated ids by default; `LAYERSTONE_BENCH_OBJECTS=100000000` for as many, which take 5 GB on the disk,
//! `LAYERSTONE_BENCH_STORE=DIR` says where.

use std::path::Path;
use std::time::Instant;

use criterion::{Criterion, criterion_group, criterion_main};
use layerstone::Store;

const OBJECTS: u64 = 2_000_000;

/// Bytes of files in a folder.
fn folder_bytes(folder: &Path) -> u64 {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

/// Memory of this process that no file backs.
fn anonymous_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

fn index(criterion: &mut Criterion) {
    let objects = std::env::var("LAYERSTONE_BENCH_OBJECTS").map_or(OBJECTS, |number| number.parse().unwrap());
    let scratch = match std::env::var_os("LAYERSTONE_BENCH_STORE") {
        Some(folder) => tempfile::tempdir_in(folder),
        None => tempfile::tempdir(),
    };
    let scratch = scratch.unwrap();
    let place = scratch.path().join("store");
    let simulated = Store::open(&place).unwrap().simulate_index(objects).unwrap();

    let before = anonymous_kb();
    let began = Instant::now();
    let store = Store::open(&place).unwrap();
    let view = store.index_view().unwrap();
    let opened = began.elapsed();
    let present: Vec<_> = (0..1 << 20).map(|seed| simulated.present(seed)).collect();
    let absent: Vec<_> = (0..1 << 20).map(|seed| simulated.absent(seed)).collect();
    let ids_kb = 2 * (32 << 20) / 1024;
    assert!(present.iter().all(|id| view.has(id)) && !absent.iter().any(|id| view.has(id)));
    println!(
        "{} objects in {} segments: {:.2} bytes each, opened in {opened:.1?}, {} kB of memory",
        simulated.objects(),
        simulated.segments(),
        folder_bytes(&place.join("segments")) as f64 / simulated.objects() as f64,
        anonymous_kb() - before - ids_kb,
    );

    let mut group = criterion.benchmark_group("index");
    for (name, ids) in [("present", &present), ("absent", &absent)] {
        let mut ids = ids.iter().cycle();
        group.bench_function(name, |bencher| bencher.iter(|| view.has(ids.next().unwrap())));
    }
    group.sample_size(20);
    group.bench_function("open the store", |bencher| {
        bencher.iter(|| Store::open(&place).unwrap().index_view().unwrap());
    });
    group.finish();
}

criterion_group!(benches, index);
criterion_main!(benches);
