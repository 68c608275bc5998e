#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "a benchmark: a failure ends it")]
//! How fast a commit is, where the change comes from: an overlay's upper directory, a checkout, or code. Of each it says
//! first what one costs in bytes and syncs.
//!
//! On generated data by default; `LAYERSTONE_BENCH_TREE=DIR` measures on a tree of yours (see `corpora`).

mod given;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use given::{small_files, tree};
use layerstone::testing::{DiskLog, DiskOperation};
use layerstone::{
    CheckoutOptions, CommitOptions, Image, ImportOptions, OverlayMarks, Project, Store, StoreOptions,
    TreePath, Workspace, WorkspaceOptions, WriteReport,
};

/// An image, a checkout of it, and what it costs to write to the store.
struct Given {
    scratch: tempfile::TempDir,
    project: Project,
    image: Image,
    checkout: PathBuf,
    /// Small files, apart from each other.
    files: Vec<TreePath>,
    log: DiskLog,
}

/// Lets the disk take what was written to make the change: or the commit's first sync would wait for it.
fn settle() {
    assert!(Command::new("sync").status().unwrap().success());
}

fn host(root: &Path, path: &TreePath) -> PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    root.join(std::ffi::OsStr::from_bytes(&path.to_relative()))
}

impl Given {
    fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let log = DiskLog::default();
        let place = scratch.path().join("store");
        let project = Store::open_recorded(&place, StoreOptions::default(), &log).unwrap();
        let project = project.default_project().unwrap();
        let report = project.import_directory(tree(scratch.path()), &ImportOptions::default()).unwrap();
        let image = project.find(&report.image.into()).unwrap();
        let checkout = scratch.path().join("checkout");
        image.check_out(&checkout, CheckoutOptions::default()).unwrap();
        let mut files = small_files(&image);
        files.sort();
        Self { scratch, project, image, checkout, files, log }
    }

    /// So many of the files.
    fn some(&self, count: usize) -> Vec<&TreePath> {
        self.files.iter().step_by((self.files.len() / count).max(1)).take(count).collect()
    }

    /// An upper directory in which these files are changed, as an overlay would have it.
    fn write_upper(&self, files: &[&TreePath], text: &str) -> PathBuf {
        let upper = self.scratch.path().join("upper");
        let _ = fs::remove_dir_all(&upper);
        let mut directories = BTreeSet::new();
        self.copy_directory(&upper, &TreePath::root());
        for path in files {
            let mut above: Vec<_> = std::iter::successors(path.parent(), TreePath::parent).collect();
            above.reverse();
            for directory in above {
                self.copy_directory(&upper, &directory);
                directories.insert(directory);
            }
            fs::write(host(&upper, path), format!("{text} {path}")).unwrap();
        }
        // A directory that is copied up keeps its time.
        for directory in directories {
            let time = fs::metadata(host(&self.checkout, &directory)).unwrap().modified().unwrap();
            fs::File::open(host(&upper, &directory)).unwrap().set_modified(time).unwrap();
        }
        settle();
        upper
    }

    fn copy_directory(&self, upper: &Path, path: &TreePath) {
        let (from, to) = (host(&self.checkout, path), host(upper, path));
        if fs::create_dir(&to).is_ok() {
            fs::set_permissions(&to, fs::metadata(&from).unwrap().permissions()).unwrap();
        }
    }

    /// Says what a commit cost.
    fn tell(&self, name: &str, commit: impl FnOnce() -> WriteReport) {
        let _ = self.log.take();
        let report = commit();
        let operations = self.log.take();
        let count =
            |is: fn(&DiskOperation) -> bool| operations.iter().filter(|operation| is(operation)).count();
        let written = operations.iter().map(|operation| match operation {
            DiskOperation::Write { bytes, .. } => *bytes,
            _ => 0,
        });
        println!(
            "commit/{name}: {} bytes stored, {} written in all, {} syncs",
            report.stored_bytes,
            written.sum::<u64>(),
            count(|operation| matches!(
                operation,
                DiskOperation::Sync { .. } | DiskOperation::SyncDir { .. }
            )),
        );
    }
}

fn commit(criterion: &mut Criterion) {
    let given = Given::new();
    let options = CommitOptions::default();
    let base = given.image.id().into();
    let mut group = criterion.benchmark_group("commit");
    group.sample_size(30);
    let mut turn = 0_u64;
    let untouched = given.scratch.path().join("untouched");
    given.copy_directory(&untouched, &TreePath::root());
    let time = fs::metadata(&given.checkout).unwrap().modified().unwrap();
    fs::File::open(&untouched).unwrap().set_modified(time).unwrap();
    let nothing = || given.project.commit_upper(&untouched, &base, OverlayMarks::Trusted, &options).unwrap();
    given.tell("from upper, nothing", nothing);
    group.bench_function("from upper, nothing", |bencher| {
        bencher.iter(|| assert!(!nothing().is_new));
    });
    for count in [1, 25, 1_000] {
        let files = given.some(count);
        let mut text = || {
            turn += 1;
            format!("changed {turn}")
        };
        let name = format!("from upper, {count}");
        let from_upper = |upper: PathBuf| {
            given.project.commit_upper(upper, &base, OverlayMarks::Trusted, &options).unwrap()
        };
        let upper = given.write_upper(&files, &text());
        given.tell(&name, || from_upper(upper));
        group.bench_function(&name, |bencher| {
            bencher.iter_batched(|| given.write_upper(&files, &text()), from_upper, BatchSize::PerIteration);
        });

        let name = format!("from code, {count}");
        let from_code = |text: String| {
            let edit = given.image.edit();
            let edit = files
                .iter()
                .fold(edit, |edit, path| edit.write(path.to_relative(), format!("{text} {path}")));
            edit.commit(&options).unwrap()
        };
        given.tell(&name, || from_code(text()));
        group.bench_function(&name, |bencher| {
            bencher.iter_batched(&mut text, from_code, BatchSize::PerIteration);
        });

        let name = format!("from checkout, {count}");
        let write = |text: String| {
            for path in &files {
                fs::write(host(&given.checkout, path), format!("{text} {path}")).unwrap();
            }
            settle();
        };
        let from_checkout = || given.project.commit(&given.checkout, &options).unwrap();
        write(text());
        given.tell(&name, from_checkout);
        group.bench_function(&name, |bencher| {
            bencher.iter_batched(|| write(text()), |()| from_checkout(), BatchSize::PerIteration);
        });
    }
    group.finish();
}

/// What a sandbox costs: a workspace on an image, and the next on what it was committed as. Needs to mount.
fn workspace(criterion: &mut Criterion) {
    let given = Given::new();
    let create = |image: &Image| image.create_workspace(&WorkspaceOptions::default()).unwrap();
    let first = create(&given.image);
    if let Some(why) = first.why_copy() {
        println!("workspace: not measured: {why}");
        return;
    }
    let (files, options) = (given.some(25), CommitOptions::default());
    let change = |workspace: &Workspace, turn: u64| {
        let root = workspace.path().unwrap();
        for path in &files {
            fs::write(host(&root, path), format!("changed {turn} {path}")).unwrap();
        }
    };
    let mut group = criterion.benchmark_group("workspace");
    group.sample_size(30);
    first.discard().unwrap();
    // One at a time: to end one, the list of all mounts is read.
    let last = std::cell::RefCell::new(create(&given.image));
    group.bench_function("create", |bencher| {
        let discard = || last.borrow().discard().unwrap();
        bencher.iter_batched(
            discard,
            |()| *last.borrow_mut() = create(&given.image),
            BatchSize::PerIteration,
        );
    });
    last.into_inner().discard().unwrap();
    let mut turn = 0_u64;
    let mut changed = || {
        turn += 1;
        let workspace = create(&given.image);
        change(&workspace, turn);
        settle();
        workspace
    };
    let end = |workspace: Workspace| workspace.commit_and_end(&options).unwrap();
    let workspace = changed();
    given.tell("workspace, 25", || end(workspace));
    group.bench_function("commit and end, 25", |bencher| {
        bencher.iter_batched(&mut changed, end, BatchSize::PerIteration);
    });
    let mut image = given.image.clone();
    group.bench_function("create, change 25, commit and end, again and again", |bencher| {
        bencher.iter(|| {
            turn += 1;
            let workspace = create(&image);
            change(&workspace, turn);
            image = given.project.find(&end(workspace).image.into()).unwrap();
        });
    });
    group.finish();
}

criterion_group!(benches, commit, workspace);
criterion_main!(benches);
