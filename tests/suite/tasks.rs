//! Tasks: every call can be cancelled wherever it is counted, and leaves nothing then; and it says how far it is.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use layerstone::{
    CheckoutOptions, CommitOptions, Error, ErrorKind, ExportOptions, GcOptions, Image, ImportOptions,
    ListOptions, OverlayMarks, Phase, Project, RepairOptions, SharedFiles, Sharing, Store, StoreOptions,
    Task, WorkspaceKind, WorkspaceOptions,
};

use crate::given::{Place, cancelled_after, parse, reference, tags};
use crate::roundtrip::noise;
use crate::system;

/// An import takes a pack of its own.
fn options() -> StoreOptions {
    StoreOptions::default().held_bytes(1_000)
}

/// A tree with a directory, a large file, links and ten small files.
fn source(place: &Place, name: &str, seed: u64) -> std::path::PathBuf {
    let root = place.directory(name, &[("d/one", b"one"), ("d/two", b"two")]);
    for number in 0..8_u64 {
        fs::write(root.join(format!("file{number}")), noise(20_000, seed + number)).unwrap();
    }
    fs::write(root.join("large"), noise(3_000_000, seed + 100)).unwrap();
    fs::hard_link(root.join("d/one"), root.join("linked")).unwrap();
    std::os::unix::fs::symlink("d", root.join("link")).unwrap();
    root
}

/// The files below a directory and their sizes.
fn listed(root: &Path) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let size = if metadata.is_dir() { 0 } else { metadata.len() };
            found.insert(path.strip_prefix(root).unwrap().display().to_string(), size);
            if metadata.is_dir() {
                pending.push(path);
            }
        }
    }
    found
}

/// What a call that was cancelled must not have changed.
fn state(place: &Place, project: &Project) -> (BTreeMap<String, u64>, BTreeMap<String, u64>, usize, usize) {
    let images = project.images(&ListOptions::default()).unwrap().images.len();
    let workspaces = project.workspaces().unwrap().len();
    let mut work = listed(&place.path("work"));
    work.retain(|name, _| !name.starts_with("cache/"));
    (listed(&place.path("store/packs")), work, images, workspaces)
}

/// Cancels a call at each point at which it is counted, until it gets through.
fn cancel_everywhere<T>(
    what: &str,
    (place, project): (&Place, &Project),
    call: impl Fn(&Task) -> Result<T, Error>,
) -> T {
    let before = state(place, project);
    for counts in 0.. {
        let task = cancelled_after(counts);
        let outcome = call(&task);
        assert_eq!(task.progress().phase, Phase::Idle, "{what}");
        match outcome {
            Ok(value) => {
                assert!(counts > 0, "{what}: counted {counts} times");
                return value;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Cancelled, "{what}: {error}"),
        }
        assert_eq!(state(place, project), before, "{what}, cancelled after {counts}");
    }
    unreachable!()
}

fn commit(names: &[&str]) -> CommitOptions {
    CommitOptions { tags: tags(names), ..CommitOptions::default() }
}

/// A store with an image `base`, a place, and a directory that holds what calls write.
struct Given {
    place: Place,
    store: Store,
    project: Project,
    source: PathBuf,
}

impl Given {
    fn new() -> Self {
        let place = Place::new();
        let store = options().open(place.path("store")).unwrap();
        let project = store.default_project().unwrap();
        fs::create_dir(place.path("work")).unwrap();
        let source = source(&place, "source", 1);
        let import = ImportOptions { tags: tags(&["base"]), ..ImportOptions::default() };
        project.import_directory(&source, &import).unwrap();
        Self { place, store, project, source }
    }

    fn work(&self, name: &str) -> PathBuf {
        self.place.path("work").join(name)
    }

    fn base(&self, task: &Task) -> Image {
        self.project.with_task(task).find(&reference("base")).unwrap()
    }

    fn cancel<T>(&self, what: &str, call: impl Fn(&Task) -> Result<T, Error>) -> T {
        cancel_everywhere(what, (&self.place, &self.project), call)
    }
}

#[test]
fn an_import_that_is_cancelled_anywhere_leaves_nothing() {
    let given = Given::new();
    let project = &given.project;
    let other = source(&given.place, "other", 1000);
    given
        .cancel("import", |task| project.with_task(task).import_directory(&other, &ImportOptions::default()));
    fs::copy(given.source.join("large"), other.join("large")).unwrap();
    given.cancel("import again", |task| {
        project.with_task(task).import_directory(&other, &ImportOptions::default())
    });
    let mut tar = Vec::new();
    given.base(&Task::new()).export(&mut tar, &ExportOptions::default()).unwrap();
    given.cancel("export", |task| given.base(task).export(Vec::new(), &ExportOptions::default()));
    given.cancel("import a tar", |task| {
        project.with_task(task).import_tar(&tar[..], &ImportOptions::default())
    });
    given.cancel("commit a layer", |task| {
        let edit = given.base(task).edit().apply_tar(&tar[..]).write("new", noise(100_000, 3));
        edit.commit(&commit(&["layer"]))
    });
    assert!(given.store.verify().unwrap().is_sound());
}

#[test]
fn a_checkout_or_commit_that_is_cancelled_anywhere_leaves_nothing() {
    let given = Given::new();
    let project = &given.project;
    given.cancel("checkout", |task| {
        given.base(task).check_out(given.work("copy"), CheckoutOptions::default())
    });
    let shared = SharedFiles { directory: given.work("cache"), sharing: Sharing::HardLink };
    fs::create_dir(given.work("cache")).unwrap();
    let cached = CheckoutOptions { shared: Some(shared), ..CheckoutOptions::default() };
    given.cancel("checkout with a cache", |task| {
        given.base(task).check_out(given.work("cached"), cached.clone())
    });
    let other = source(&given.place, "other", 1000);
    fs::copy(other.join("large"), given.work("copy/large")).unwrap();
    fs::copy(other.join("file1"), given.work("copy/file1")).unwrap();
    given.cancel("commit", |task| project.with_task(task).commit(given.work("copy"), &commit(&["copy"])));
    given.cancel("commit an upper directory", |task| {
        let base = reference("base");
        project.with_task(task).commit_upper(&other, &base, OverlayMarks::Trusted, &commit(&["upper"]))
    });
    let copy = WorkspaceOptions { full_copy: true, name: Some(parse("full")), ..WorkspaceOptions::default() };
    let workspace = given.cancel("make a workspace", |task| given.base(task).create_workspace(&copy));
    fs::copy(other.join("large"), workspace.path().unwrap().join("large")).unwrap();
    given.cancel("commit a workspace", |task| {
        project.with_task(task).workspace(&parse("full"))?.commit_and_end(&commit(&["full"]))
    });
    assert!(given.store.verify().unwrap().is_sound());
}

#[test]
fn an_overlay_workspace_whose_commit_is_cancelled_anywhere_goes_on() {
    if !system::is_on() {
        return;
    }
    let given = Given::new();
    let named = WorkspaceOptions { name: Some(parse("w")), ..WorkspaceOptions::default() };
    let workspace = given.cancel("make a workspace", |task| given.base(task).create_workspace(&named));
    assert_eq!(workspace.info().unwrap().kind, WorkspaceKind::Overlay);
    let path = workspace.path().unwrap();
    for number in 0..5_u64 {
        fs::write(path.join(format!("new{number}")), noise(30_000, number)).unwrap();
    }
    given.cancel("commit a workspace", |task| {
        let committed = workspace.with_task(task).commit_and_end(&commit(&["w"]));
        if committed.is_err() {
            assert!(path.join("new4").exists(), "it is mounted");
        }
        committed
    });
    assert!(given.store.verify().unwrap().is_sound());
}

#[test]
fn a_verification_or_repair_that_is_cancelled_anywhere_leaves_the_store_as_it_is() {
    let given = Given::new();
    given.store.wait_for_upkeep();
    given.cancel("verify", |task| given.store.with_task(task).verify());
    given.cancel("verify quickly", |task| given.store.with_task(task).verify_quick());
    let Given { place, store, project, .. } = given;
    drop((project, store));
    let before = listed(&place.path("store"));
    for counts in 0.. {
        let task = cancelled_after(counts);
        match options().task(&task).repair(place.path("store"), RepairOptions::default()) {
            Ok(report) => {
                assert!(counts > 0 && !report.has_losses());
                break;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Cancelled),
        }
        assert_eq!(listed(&place.path("store")), before, "cancelled after {counts}");
    }
    assert!(Store::open(place.path("store")).unwrap().verify().unwrap().is_sound());
}

#[test]
fn a_call_that_waits_for_the_store_says_for_whom_and_can_be_cancelled() {
    let given = Given::new();
    drop((given.project, given.store));
    let path = given.place.path("store");
    let held = StoreOptions::default().exclusive(true).open(&path).unwrap();
    let task = Task::new();
    let waiting =
        StoreOptions::default().lock_timeout(Duration::from_secs(3600)).task(&task).open(&path).unwrap();
    std::thread::scope(|scope| {
        let call = scope.spawn(|| waiting.projects());
        while task.progress().phase != Phase::Waiting {
            std::thread::yield_now();
        }
        assert_eq!(task.progress().holder, Some(std::process::id()));
        task.cancel();
        assert_eq!(call.join().unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
    });
    assert_eq!(task.progress().phase, Phase::Idle);
    drop(held);
    assert_eq!(waiting.with_task(&Task::new()).projects().unwrap().len(), 1, "another task goes on");
}

#[test]
fn progress_counts_all_paths_and_bytes() {
    let given = Given::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let task = Task::watched({
        let seen = Arc::clone(&seen);
        move |task| seen.lock().unwrap().push(task.progress())
    });
    let last = |phase| {
        let seen = seen.lock().unwrap();
        let of_phase = seen.iter().filter(|progress| progress.phase == phase);
        of_phase.max_by_key(|progress| (progress.done, progress.bytes)).copied().unwrap()
    };
    let report = given.base(&task).check_out(given.work("copy"), CheckoutOptions::default()).unwrap();
    let written = last(Phase::Writing);
    assert_eq!((written.done, written.total), (report.entries, Some(report.entries)));
    assert_eq!(written.bytes, report.bytes);
    given.base(&task).export(Vec::new(), &ExportOptions::default()).unwrap();
    assert_eq!(last(Phase::Exporting).done, report.entries);
    let project = given.project.with_task(&task);
    let reread = ImportOptions { reread: true, ..ImportOptions::default() };
    project.import_directory(&given.source, &reread).unwrap();
    let read = last(Phase::Reading);
    assert_eq!((read.done, read.bytes), (report.entries, report.bytes));
}

/// Takes everything, and cancels the task at a write.
struct CancellingAt {
    task: Task,
    writes: Arc<Mutex<u64>>,
    at: u64,
}

impl std::io::Write for CancellingAt {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut writes = self.writes.lock().unwrap();
        *writes += 1;
        if *writes == self.at {
            self.task.cancel();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_export_ends_in_the_middle_of_a_hole() {
    let (place, task) = (Place::new(), Task::new());
    let root = place.directory("source", &[("file", b"data")]);
    fs::File::options().write(true).open(root.join("file")).unwrap().set_len(1 << 40).unwrap();
    let project = crate::given::project(&Store::open(place.path("store")).unwrap(), "p");
    let made = project.import_directory(&root, &ImportOptions::default()).unwrap();
    let store = Store::open(place.path("store")).unwrap().with_task(&task);
    let image = store.project(&parse("p")).unwrap().find(&made.image.into()).unwrap();
    let writes = Arc::new(Mutex::new(0));
    let out = CancellingAt { task, writes: Arc::clone(&writes), at: 100 };
    let options = ExportOptions { fill_holes: true, name: "given".into() };
    let error = image.export(out, &options).unwrap_err();
    assert_eq!((error.kind(), *writes.lock().unwrap()), (ErrorKind::Cancelled, 100), "{error}");
}

#[test]
fn a_collection_counts_and_frees_the_packs_that_a_cancelled_import_filled() {
    let place = Place::new();
    let options = StoreOptions::default().pack_bytes(100_000).held_bytes(0).threads(1);
    let store = options.open(place.path("store")).unwrap();
    let project = store.default_project().unwrap();
    place.import(&project, "kept", &["kept"]);
    let source = place.directory("source", &[]);
    for number in 0..40 {
        fs::write(source.join(number.to_string()), noise(50_000, number)).unwrap();
    }
    let bytes = || listed(&place.path("store/packs")).values().sum::<u64>();
    let before = bytes();
    // So far into it that some packs are full, which nobody can take back at once.
    let is_filled = |counts: &u64| {
        let task = cancelled_after(*counts);
        let error =
            project.with_task(&task).import_directory(&source, &ImportOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
        bytes() > before + 200_000
    };
    (1..).step_by(5).find(is_filled).unwrap();
    store.wait_for_upkeep();
    let (left, needed) = (bytes(), before);
    let planned = store.collect_garbage(&GcOptions { dry_run: true, ..GcOptions::default() }).unwrap();
    assert!(planned.freed_packs >= 2 && planned.freed_bytes > 190_000, "{planned:?}");
    assert_eq!((planned.bytes_before, bytes()), (left, left), "{planned:?}");
    let collected = store.collect_garbage(&GcOptions::default()).unwrap();
    assert_eq!((collected.freed_packs, collected.freed_bytes), (planned.freed_packs, planned.freed_bytes));
    assert!(bytes() <= needed + 1_000, "{} bytes are left, of {left}", bytes());
    assert!(store.verify().unwrap().is_sound());
}

/// Zeros without an end, whose task is cancelled after some of them.
struct Zeros {
    task: Task,
    reads: u32,
}

impl std::io::Read for Zeros {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.reads += 1;
        assert!(self.reads < 1_000, "nobody looks at the task");
        if self.reads == 100 {
            self.task.cancel();
        }
        buf.fill(0);
        Ok(buf.len())
    }
}

#[test]
fn an_import_is_cancelled_among_the_zeros_behind_an_archive() {
    let task = Task::new();
    let store = Store::in_memory().unwrap().with_task(&task);
    let project = store.create_project(&"p".parse().unwrap()).unwrap();
    let error = project.import_tar(Zeros { task, reads: 0 }, &ImportOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
}
