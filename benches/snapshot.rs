#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a benchmark: a failure ends it"
)]
//! How fast one snapshot is: first import (`ingest`), import of the same again (`reingest`), `checkout`, `read` of a file,
//! `verify`. `cargo bench --bench snapshot -- checkout` runs one of them.
//!
//! On generated data by default; `LAYERSTONE_BENCH_TREE=DIR` measures on a tree of yours (see `corpora`).

mod given;

use std::io::Read as _;
use std::path::{Path, PathBuf};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use given::{small_files, tree};
use layerstone::{CheckoutOptions, ExportOptions, Image, ImportOptions, Project, Store, StoreOptions};

fn open(path: &Path) -> Store {
    StoreOptions::default().exclusive(true).open(path).unwrap()
}

/// A store that has the tree, and its image.
struct Given {
    scratch: tempfile::TempDir,
    tree: PathBuf,
    project: Project,
    image: Image,
    bytes: u64,
}

impl Given {
    fn new() -> Self {
        Self::with(StoreOptions::default().exclusive(true))
    }

    fn with(options: StoreOptions) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let tree = tree(scratch.path());
        let project = options.open(scratch.path().join("store")).unwrap().default_project().unwrap();
        let report = project.import_directory(&tree, &ImportOptions::default()).unwrap();
        let image = project.find(&report.image.into()).unwrap();
        Self { scratch, tree, project, image, bytes: report.bytes }
    }

    fn fresh(&self) -> tempfile::TempDir {
        tempfile::tempdir_in(self.scratch.path()).unwrap()
    }
}

/// A first import into an empty store.
fn ingest(criterion: &mut Criterion) {
    let given = Given::new();
    let mut group = criterion.benchmark_group("ingest");
    group.sample_size(10).throughput(Throughput::Bytes(given.bytes));
    group.bench_function("directory", |bencher| {
        let import = |folder: tempfile::TempDir| {
            let project = open(&folder.path().join("store")).default_project().unwrap();
            project.import_directory(&given.tree, &ImportOptions::default()).unwrap();
            folder
        };
        bencher.iter_batched(|| given.fresh(), import, BatchSize::PerIteration);
    });
    let mut tar = Vec::new();
    given.image.export(&mut tar, &ExportOptions::default()).unwrap();
    group.bench_function("tar", |bencher| {
        let import = |folder: tempfile::TempDir| {
            let project = open(&folder.path().join("store")).default_project().unwrap();
            project.import_tar(tar.as_slice(), &ImportOptions::default()).unwrap();
            folder
        };
        bencher.iter_batched(|| given.fresh(), import, BatchSize::PerIteration);
    });
    group.finish();
}

/// An import of what is there already: known by its stat, or read again.
fn reingest(criterion: &mut Criterion) {
    let given = Given::new();
    let mut group = criterion.benchmark_group("reingest");
    group.sample_size(20).throughput(Throughput::Bytes(given.bytes));
    // What was imported less than two seconds after it was written is not known by its stat.
    std::thread::sleep(std::time::Duration::from_secs(3));
    for (name, reread) in [("unchanged", false), ("reread", true)] {
        let options = ImportOptions { reread, ..ImportOptions::default() };
        let import = || given.project.import_directory(&given.tree, &options).unwrap();
        assert!(!import().is_new);
        group.bench_function(name, |bencher| bencher.iter(import));
    }
    group.finish();
}

fn checkout(criterion: &mut Criterion) {
    let given = Given::new();
    let mut group = criterion.benchmark_group("checkout");
    group.sample_size(10).throughput(Throughput::Bytes(given.bytes));
    group.bench_function("directory", |bencher| {
        let check_out = |folder: tempfile::TempDir| {
            given.image.check_out(folder.path().join("checkout"), CheckoutOptions::default()).unwrap();
            folder
        };
        bencher.iter_batched(|| given.fresh(), check_out, BatchSize::PerIteration);
    });
    group.finish();
}

/// A small file out of an image: the first that a process reads, one of many of which few are in the cache, and one of
/// which all are.
fn read(criterion: &mut Criterion) {
    let given = Given::with(StoreOptions::default());
    let small = small_files(&given.image);
    let open = |cache_bytes: u64| {
        let options = StoreOptions::default().cache_bytes(cache_bytes);
        let store = options.open(given.scratch.path().join("store")).unwrap();
        store.default_project().unwrap().find(&given.image.id().into()).unwrap()
    };
    let read_one = |image: &Image, number: usize| {
        // Far from the one before, so that it is in another frame.
        let path = &small[number * 7919 % small.len()];
        let mut bytes = Vec::new();
        image.read_file(path).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    };
    let mut group = criterion.benchmark_group("read");
    let mut next = 0;
    group.bench_function("a small file, first", |bencher| {
        let open = || {
            next += 1;
            (open(1 << 30), next)
        };
        bencher.iter_batched(
            open,
            |(image, number)| (read_one(&image, number), image),
            BatchSize::PerIteration,
        );
    });
    for (name, cache_bytes) in [("a small file, cold", 512 << 10), ("a small file, cached", 1 << 30)] {
        let image = open(cache_bytes);
        for number in 0..small.len() {
            read_one(&image, number);
        }
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                next += 1;
                read_one(&image, next)
            });
        });
    }
    group.finish();
}

fn verify(criterion: &mut Criterion) {
    let given = Given::new();
    let place = given.scratch.path().join("verified");
    let store = open(&place);
    let project = store.default_project().unwrap();
    project.import_directory(&given.tree, &ImportOptions::default()).unwrap();
    let mut group = criterion.benchmark_group("verify");
    group.sample_size(10).throughput(Throughput::Bytes(given.bytes));
    group.bench_function("store", |bencher| bencher.iter(|| assert!(store.verify().unwrap().is_sound())));
    group.finish();
}

criterion_group!(benches, ingest, reingest, checkout, read, verify);
criterion_main!(benches);
