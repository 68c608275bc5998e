#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark: a failure ends it")]
//! How fast one snapshot is: first import, import of the same again, commit of a few changes, checkout.
//!
//! On generated data by default; `LAYERSTONE_BENCH_TREE=DIR` measures on a tree of yours (see `corpora`).

use std::path::{Path, PathBuf};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use layerstone::{CheckoutOptions, CommitOptions, ImportOptions, Store, StoreOptions};

/// Files of the generated tree; sizes follow a real root file system's: many small, few large.
const FILES: usize = 2_000;

fn tree(scratch: &Path) -> PathBuf {
    if let Some(tree) = std::env::var_os("LAYERSTONE_BENCH_TREE") {
        return tree.into();
    }
    let root = scratch.join("tree");
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for file in 0..FILES {
        let folder = root.join(format!("d{}", file / 50));
        std::fs::create_dir_all(&folder).unwrap();
        let size = if file % 50 == 0 { 500_000 } else { 200 + (file * 37) % 8_000 };
        let bytes: Vec<u8> = (0..size)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                // Five random bits a byte: compresses about as well as programs do.
                (state >> 59) as u8 + b'0'
            })
            .collect();
        std::fs::write(folder.join(format!("f{file}")), bytes).unwrap();
    }
    root
}

fn open(path: &Path) -> Store {
    StoreOptions::default().exclusive(true).open(path).unwrap()
}

fn snapshot(criterion: &mut Criterion) {
    let scratch = tempfile::tempdir().unwrap();
    let tree = tree(scratch.path());
    let place = |name: &str| scratch.path().join(name);
    let fresh = || tempfile::tempdir_in(scratch.path()).unwrap();

    let store = open(&place("store"));
    let project = store.default_project().unwrap();
    let report = project.import_directory(&tree, &ImportOptions::default()).unwrap();
    let image = project.find(&report.image.into()).unwrap();

    let mut group = criterion.benchmark_group("snapshot");
    group.sample_size(10).throughput(Throughput::Bytes(report.bytes));
    group.bench_function("import", |bencher| {
        bencher.iter_batched(
            fresh,
            |folder| {
                let project = open(&folder.path().join("store")).default_project().unwrap();
                project.import_directory(&tree, &ImportOptions::default()).unwrap();
                folder
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function("import again", |bencher| {
        bencher.iter(|| project.import_directory(&tree, &ImportOptions::default()).unwrap());
    });
    group.bench_function("checkout", |bencher| {
        bencher.iter_batched(
            fresh,
            |folder| {
                image.check_out(folder.path().join("checkout"), CheckoutOptions::default()).unwrap();
                folder
            },
            BatchSize::PerIteration,
        );
    });
    group.throughput(Throughput::Elements(1));
    let checkout = place("checkout");
    image.check_out(&checkout, CheckoutOptions::default()).unwrap();
    let mut turn = 0_u64;
    group.bench_function("commit 25 changed files", |bencher| {
        bencher.iter(|| {
            turn += 1;
            for file in 0..25 {
                std::fs::write(checkout.join(format!("changed-{file}")), format!("{turn} {file}")).unwrap();
            }
            project.commit(&checkout, &CommitOptions::default()).unwrap()
        });
    });
    group.finish();
}

criterion_group!(benches, snapshot);
criterion_main!(benches);
